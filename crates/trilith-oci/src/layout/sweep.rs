//! What a layout holds and who uses it, and the removal of what nobody does.
//!
//! Safe while other processes write: a tag is only ever set on what is whole at that moment, and
//! what is removed is looked for under the same lock. While another process has the layout open, what
//! it may have written or found lately stays, tag or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use trilith_core::{Digest, Tag};

use super::{BLOBS, Entry, IndexFile, Layout, LockKind, file};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::{ImageConfig, media_type_of};
use crate::links::Links;
use crate::media_type;
use crate::store::{MAX_MANIFEST_SIZE, RawManifest};

/// How long a blob that no tag uses is left to a process that may be about to tag it.
pub const GRACE: Duration = Duration::from_secs(60 * 60);

/// A name in a layout, and what is behind it.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// The name: a tag or a full reference.
    pub name: String,
    /// What it points to.
    pub descriptor: Descriptor,
    /// When the image was last written or found by a build.
    pub last_used: SystemTime,
    /// Everything it needs, with the lists of its inputs: digests and sizes in bytes.
    pub blobs: BTreeMap<Digest, u64>,
    /// The configurations of its images.
    pub configs: Vec<ImageConfig>,
}

/// What goes.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Names, each with the digest that it pointed to when that was decided. One that points to
    /// something else by now stays.
    pub names: Vec<(String, Digest)>,
    /// Blobs that stay though no name uses them.
    pub keep: BTreeSet<Digest>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The names that went.
    pub names: Vec<String>,
    /// How many blobs went.
    pub blobs: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// How many blobs stay for a process that may be about to use them.
    pub spared: usize,
    /// The size in bytes of the blobs that are left.
    pub left: u64,
    /// How many temporary files of processes that are gone went.
    pub temporary: usize,
    /// Whether no other process had the layout open.
    pub was_alone: bool,
}

/// A blob on disk.
struct OnDisk {
    path: PathBuf,
    size: u64,
    modified: SystemTime,
}

impl Layout {
    /// Returns every name with what is behind it. A name whose manifest is gone is left out.
    ///
    /// # Errors
    /// `index.json` or a manifest cannot be read.
    pub fn images(&self) -> Result<Vec<StoredImage>, Error> {
        let index = self.read_index()?;
        let about = self.about(&index)?;
        let mut images = Vec::new();
        for Entry { name, descriptor } in index.entries() {
            let Some(name) = name else { continue };
            let Some(on_disk) = self.on_disk(&descriptor.digest)? else {
                continue;
            };
            let mut blobs = BTreeMap::new();
            let mut configs = Vec::new();
            self.reach(&descriptor, &about, &mut blobs, &mut configs)?;
            images.push(StoredImage {
                name,
                last_used: on_disk.modified,
                descriptor,
                blobs,
                configs,
            });
        }
        Ok(images)
    }

    /// Returns when the blob `digest` was last written or found, and its size, `None` where there
    /// is none.
    pub fn last_used(&self, digest: &Digest) -> Result<Option<(SystemTime, u64)>, Error> {
        let on_disk = self.on_disk(digest)?;
        Ok(on_disk.map(|on_disk| (on_disk.modified, on_disk.size)))
    }

    /// Removes `sweep.names`, and all that no other name uses.
    ///
    /// # Errors
    /// Something cannot be read or removed. What is left is whole all the same.
    pub fn sweep(&self, sweep: &Sweep) -> Result<Swept, Error> {
        // Else whoever has the layout open may count on what it has seen.
        let in_use = !self.begin_alone();
        let swept = self.sweep_locked(sweep, in_use);
        self.end_alone();
        swept
    }

    fn sweep_locked(&self, sweep: &Sweep, in_use: bool) -> Result<Swept, Error> {
        let _held = self.lock(LockKind::Exclusive)?;
        let mut index = self.read_index()?;
        let mut swept = Swept {
            was_alone: !in_use,
            temporary: file::remove_stale(&self.root, sweep.dry_run),
            ..Swept::default()
        };
        for (name, digest) in &sweep.names {
            let is_same = index
                .find(name)
                .is_some_and(|found| found.digest == *digest);
            if is_same && index.remove(name) {
                swept.names.push(name.clone());
            }
        }
        let mut kept = self.kept(&mut index, in_use)?;
        if !sweep.dry_run {
            self.write_index(&index)?;
        }
        let blobs = self.blobs()?;
        let used: BTreeSet<Digest> = kept.keys().cloned().collect();
        if in_use {
            self.spare(&blobs, &mut kept)?;
        }
        for (digest, blob) in blobs {
            if kept.contains_key(&digest) || sweep.keep.contains(&digest) {
                let is_used = used.contains(&digest) || sweep.keep.contains(&digest);
                swept.spared += usize::from(!is_used);
                swept.left += blob.size;
                continue;
            }
            if !sweep.dry_run {
                fs::remove_file(&blob.path).map_err(Error::io("remove", &blob.path))?;
            }
            swept.blobs += 1;
            swept.bytes += blob.size;
        }
        Ok(swept)
    }

    /// Adds to `kept` what was written or found lately, and all that manifests among it need.
    fn spare(
        &self,
        blobs: &[(Digest, OnDisk)],
        kept: &mut BTreeMap<Digest, u64>,
    ) -> Result<(), Error> {
        let now = SystemTime::now();
        for (digest, blob) in blobs {
            let age = now.duration_since(blob.modified).unwrap_or_default();
            if age >= GRACE || kept.contains_key(digest) {
                continue;
            }
            let manifest = if blob.size > MAX_MANIFEST_SIZE {
                None
            } else {
                let bytes = fs::read(&blob.path).map_err(Error::io("read", &blob.path))?;
                media_type_of(&bytes)
            };
            match manifest {
                Some(media_type) => {
                    let descriptor = Descriptor::new(&media_type, digest.clone(), blob.size);
                    self.reach(&descriptor, &BTreeMap::new(), kept, &mut Vec::new())?;
                }
                None => {
                    kept.insert(digest.clone(), blob.size);
                }
            }
        }
        Ok(())
    }

    /// Returns what the entries of `index` need, and takes those off it that are about images that
    /// are gone.
    fn kept(&self, index: &mut IndexFile, in_use: bool) -> Result<BTreeMap<Digest, u64>, Error> {
        let about = self.about(index)?;
        let now = SystemTime::now();
        let mut kept = BTreeMap::new();
        for entry in index.entries() {
            let digest = &entry.descriptor.digest;
            let is_about = about.values().flatten().any(|one| one.digest == *digest);
            // It may be written before what it is about.
            let may_be_early = in_use
                && self.on_disk(digest)?.is_some_and(|on_disk| {
                    now.duration_since(on_disk.modified).unwrap_or_default() < GRACE
                });
            if entry.name.is_some() || !is_about || may_be_early {
                self.reach(&entry.descriptor, &about, &mut kept, &mut Vec::new())?;
            }
        }
        index.retain_unnamed(|descriptor| kept.contains_key(&descriptor.digest));
        Ok(kept)
    }

    /// Returns the entries that are about other manifests, by what they are about.
    fn about(&self, index: &IndexFile) -> Result<BTreeMap<Digest, Vec<Descriptor>>, Error> {
        let mut about: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        for Entry { name, descriptor } in index.entries() {
            if name.is_some() || !media_type::is_manifest(&descriptor.media_type) {
                continue;
            }
            if let Some(subject) = self.links(&descriptor)?.and_then(|links| links.subject) {
                about.entry(subject.digest).or_default().push(descriptor);
            }
        }
        Ok(about)
    }

    /// Collects all that `descriptor` needs, and what is about it.
    fn reach(
        &self,
        descriptor: &Descriptor,
        about: &BTreeMap<Digest, Vec<Descriptor>>,
        blobs: &mut BTreeMap<Digest, u64>,
        configs: &mut Vec<ImageConfig>,
    ) -> Result<(), Error> {
        let mut waiting = vec![descriptor.clone()];
        while let Some(descriptor) = waiting.pop() {
            let size = descriptor.size;
            if blobs.insert(descriptor.digest.clone(), size).is_some() {
                continue;
            }
            waiting.extend(about.get(&descriptor.digest).into_iter().flatten().cloned());
            let Some(links) = self.links(&descriptor)? else {
                continue;
            };
            waiting.extend(links.manifests.iter().cloned());
            for blob in links.blobs() {
                blobs.insert(blob.digest.clone(), blob.size);
            }
            if let (Some(config), None) = (&links.config, &links.subject)
                && let Ok(bytes) = fs::read(self.blob_path(&config.digest))
                && let Ok(config) = ImageConfig::parse(bytes)
            {
                configs.push(config);
            }
        }
        Ok(())
    }

    /// Returns what the manifest `descriptor` points to; `None` where it is gone or none.
    fn links(&self, descriptor: &Descriptor) -> Result<Option<Links>, Error> {
        let is_manifest = media_type::is_manifest(&descriptor.media_type)
            || media_type::is_index(&descriptor.media_type);
        if !is_manifest || descriptor.size > MAX_MANIFEST_SIZE {
            return Ok(None);
        }
        let path = self.blob_path(&descriptor.digest);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", &path))?,
        };
        let raw = RawManifest {
            descriptor: descriptor.clone(),
            bytes: bytes.into(),
        };
        Links::parse(&raw).map(Some)
    }

    fn on_disk(&self, digest: &Digest) -> Result<Option<OnDisk>, Error> {
        let path = self.blob_path(digest);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("examine", &path))?,
        };
        let modified = metadata.modified().map_err(Error::io("examine", &path))?;
        Ok(Some(OnDisk {
            size: metadata.len(),
            modified,
            path,
        }))
    }

    /// Returns every blob there is.
    fn blobs(&self) -> Result<Vec<(Digest, OnDisk)>, Error> {
        let root = self.root.join(BLOBS);
        let mut blobs = Vec::new();
        for algorithm in fs::read_dir(&root).map_err(Error::io("list", &root))? {
            let directory = algorithm.map_err(Error::io("list", &root))?.path();
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries {
                let name = entry.map_err(Error::io("list", &directory))?.file_name();
                let algorithm = directory.file_name().unwrap_or_default();
                let text = format!("{}:{}", algorithm.display(), name.display());
                if let Ok(digest) = text.parse::<Digest>()
                    && let Some(on_disk) = self.on_disk(&digest)?
                {
                    blobs.push((digest, on_disk));
                }
            }
        }
        Ok(blobs)
    }

    /// Checks that `descriptor` is here with all that it needs.
    pub(super) fn check_whole(&self, tag: &Tag, descriptor: &Descriptor) -> Result<(), Error> {
        let mut blobs = BTreeMap::new();
        self.reach(descriptor, &BTreeMap::new(), &mut blobs, &mut Vec::new())?;
        let missing = |(digest, _): &(&Digest, &u64)| !self.blob_path(digest).exists();
        match blobs.iter().find(missing) {
            None => Ok(()),
            Some((digest, _)) => Err(Error::NotFound {
                object: format!(
                    "`{digest}`, which the image for tag `{tag}` needs, in `{}`",
                    self.root.display()
                ),
            }),
        }
    }
}
