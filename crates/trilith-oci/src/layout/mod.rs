//! OCI layouts: images in a directory, one or many, for one process or several.
//!
//! Everything is written beside its place and renamed into it once it is whole and on disk, so
//! that a crash at any point leaves the layout as it was, plus a temporary file that the next
//! process to open it removes. Changes of `index.json` are made under a lock. Blobs are deleted by
//! [`Layout::sweep`] and by nothing else.

mod blob;
mod choose;
mod file;
mod index_file;
mod repository;
mod sweep;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use trilith_core::{Algorithm, Digest, Tag};

pub use blob::BlobWriter;
pub(crate) use choose::{choose, tagged};
pub use repository::{LayoutRepository, Naming};
pub use sweep::{GRACE, StoredImage, Sweep, Swept};

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::layer::{Compression, Layer, LayerEntry, write_layer};
use file::{LockKind, TempFile};
pub(crate) use index_file::{Entry, IndexFile};

/// The file that makes a directory a layout (OCI image specification 1.1, `image-layout.md`).
///
/// It is never replaced once it is there, so it is also what processes lock.
const MARKER: &str = "oci-layout";
const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs";
/// The most bytes of `index.json` that are read.
const MAX_INDEX_SIZE: u64 = 64 * 1024 * 1024;

/// An OCI layout on disk. Cheap to clone; all its operations block.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    /// The directory of the blobs, locked so that a sweep knows of this process. Nothing where the
    /// file system has no such locks.
    in_use: Option<Arc<File>>,
}

impl Layout {
    /// Returns the layout in `root`, made there if there is none.
    ///
    /// # Errors
    /// As [`Self::open`], and where the directory cannot be made.
    pub fn open_or_create(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let mut layout = Self::unlocked(root.into());
        if !layout.marker().exists()
            && let Err(error) = layout.create()
            // Another process was faster, and took what this one had begun for stale.
            && !layout.marker().exists()
        {
            return Err(error);
        }
        layout.check()?;
        layout.use_it();
        layout.remove_stale();
        Ok(layout)
    }

    /// Returns the layout in `root`.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none, [`Error::Malformed`] where it is of a version this
    /// program does not know.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let mut layout = Self::unlocked(root.into());
        layout.check()?;
        layout.use_it();
        layout.remove_stale();
        Ok(layout)
    }

    /// Returns the directory of the layout.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where the blob `digest` is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let algorithms = self.root.join(BLOBS);
        algorithms
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// Returns whether `blob` is there with its size. Its content is checked when it is read.
    #[must_use]
    pub fn has_blob(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&blob.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    /// Returns whether `blob` is there with its size, and marks it as used now.
    #[must_use]
    pub fn find_blob(&self, blob: &Descriptor) -> bool {
        let is_there = self.has_blob(blob);
        if is_there {
            let path = self.blob_path(&blob.digest);
            // Whoever may not mark it does not own the layout, and prunes nothing from it either.
            let _marked = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        is_there
    }

    /// Returns a writer for a new blob with a SHA-256 digest.
    pub fn blob_writer(&self) -> Result<BlobWriter, Error> {
        self.blob_writer_of(Algorithm::Sha256)
    }

    fn blob_writer_of(&self, algorithm: Algorithm) -> Result<BlobWriter, Error> {
        Ok(BlobWriter::new(self.clone(), self.temp_file()?, algorithm))
    }

    /// Writes `content` as a blob and returns what it is.
    pub fn write_blob(&self, media_type: &str, content: &[u8]) -> Result<Descriptor, Error> {
        let mut writer = self.blob_writer()?;
        writer.append(content)?;
        writer.finish(media_type)
    }

    /// Writes the layer that holds `entries`, in any order, as a blob.
    ///
    /// # Errors
    /// As [`write_layer`]; then nothing is kept.
    pub fn write_layer(
        &self,
        entries: Vec<LayerEntry>,
        compression: Compression,
    ) -> Result<Layer, Error> {
        let mut temp = self.temp_file()?;
        let layer = write_layer(entries, compression, &mut temp)?;
        blob::keep(self, temp, &layer.descriptor.digest)?;
        Ok(layer)
    }

    /// Returns the repository that gives its tags names by `naming`.
    #[must_use]
    pub fn repository(&self, naming: Naming) -> LayoutRepository {
        LayoutRepository::new(self.clone(), naming)
    }

    /// Returns the names in `index.json` and what they point to, in its order.
    ///
    /// Names are what `org.opencontainers.image.ref.name` says: a tag or a full reference.
    pub fn names(&self) -> Result<Vec<(String, Descriptor)>, Error> {
        let index = self.read_index()?;
        Ok(index
            .entries()
            .filter_map(|entry| Some((entry.name?, entry.descriptor)))
            .collect())
    }

    /// Returns what `tag` names, or the only image where none is given.
    ///
    /// A name that is a full reference is meant by the tag in it, where no name is the tag itself.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such image, [`Error::Ambiguous`] where there are several
    /// and no tag says which.
    pub fn image(&self, tag: Option<&Tag>) -> Result<Descriptor, Error> {
        let entries: Vec<Entry> = self.read_index()?.entries().collect();
        let place = format!("oci:{}", self.root.display());
        choose(&entries, tag, &place).cloned()
    }

    /// Returns `index.json` as it is now.
    fn read_index(&self) -> Result<IndexFile, Error> {
        let path = self.root.join(INDEX);
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        file.take(MAX_INDEX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", &path))?;
        let parsed = if bytes.len() as u64 > MAX_INDEX_SIZE {
            Err(format!("it is larger than {} MiB", MAX_INDEX_SIZE >> 20))
        } else {
            IndexFile::parse(&bytes)
        };
        parsed.map_err(|reason| Error::Malformed {
            object: format!("`{}`", path.display()),
            reason,
        })
    }

    /// Changes `index.json` while no other process does. Written only if `change` says so.
    fn change_index(&self, change: impl FnOnce(&mut IndexFile) -> bool) -> Result<bool, Error> {
        let _held = self.lock(LockKind::Exclusive)?;
        let mut index = self.read_index()?;
        if !change(&mut index) {
            return Ok(false);
        }
        self.write_index(&index)?;
        Ok(true)
    }

    /// Writes `index.json`. The exclusive lock must be held.
    fn write_index(&self, index: &IndexFile) -> Result<(), Error> {
        // Made under the exclusive lock, it cannot be taken for stale before it is locked itself.
        let mut temp = TempFile::create_in(&self.root)?;
        temp.write_all(&index.print())
            .map_err(Error::io("write", temp.path()))?;
        temp.persist(&self.root.join(INDEX))
    }

    fn unlocked(root: PathBuf) -> Self {
        Self { root, in_use: None }
    }

    /// Tells sweeps that this process counts on the blobs, after any that is going on.
    fn use_it(&mut self) {
        let blobs = File::open(self.root.join(BLOBS)).ok();
        self.in_use = blobs
            .filter(|blobs| blobs.lock_shared().is_ok())
            .map(Arc::new);
    }

    /// Keeps others from opening the layout; returns whether nobody else has it open.
    fn begin_alone(&self) -> bool {
        let blobs = self.in_use.as_ref();
        blobs.is_some_and(|blobs| blobs.try_lock().is_ok())
    }

    fn end_alone(&self) {
        if let Some(blobs) = &self.in_use {
            // Without it this process is as one whose file system has no locks.
            let _locked = blobs.lock_shared();
        }
    }

    fn marker(&self) -> PathBuf {
        self.root.join(MARKER)
    }

    /// Makes an empty layout. Several processes may do so at once; the marker comes last.
    fn create(&self) -> Result<(), Error> {
        let blobs = self.root.join(BLOBS).join(Algorithm::Sha256.as_str());
        fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
        let empty = IndexFile::default().print();
        for (name, content) in [(INDEX, empty.as_slice()), (MARKER, MARKER_CONTENT)] {
            let mut temp = TempFile::create_in(&self.root)?;
            temp.write_all(content)
                .map_err(Error::io("write", temp.path()))?;
            temp.persist_if_absent(&self.root.join(name))?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let path = self.marker();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotFound {
                    object: format!("OCI layout `{}`", self.root.display()),
                });
            }
            other => other.map_err(Error::io("read", &path))?,
        };
        let version = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|marker| Some(marker.get("imageLayoutVersion")?.as_str()?.to_owned()));
        let reason = match version.as_deref() {
            Some(version) if version.starts_with("1.") => return Ok(()),
            Some(version) => format!("version `{version}` of the layout is not known"),
            None => "`imageLayoutVersion` is missing".to_owned(),
        };
        Err(Error::Malformed {
            object: format!("`{}`", path.display()),
            reason,
        })
    }

    fn lock(&self, kind: LockKind) -> Result<File, Error> {
        file::lock(&self.marker(), kind)
    }

    /// Returns a new temporary file, which no other process will take for stale.
    fn temp_file(&self) -> Result<TempFile, Error> {
        let _held = self.lock(LockKind::Shared)?;
        TempFile::create_in(&self.root)
    }

    /// Removes temporary files whose processes are gone. One that cannot be removed is left.
    fn remove_stale(&self) {
        if let Some(_held) = file::try_lock(&self.marker()) {
            let _count = file::remove_stale(&self.root, false);
        }
    }
}
