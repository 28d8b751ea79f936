//! A root file system made into an image of one layer.
//!
//! The layer has what the directory has: modes, owners and capabilities as on disk, hard
//! links as hard links, devices and fifos. It has not: times (all are 0), other extended
//! attributes, sockets, and an entry for the directory itself, whose mode and owner are
//! those of whoever made the copy. Same directory, same digest, wherever and whenever.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use trilith_core::{Owner, Platform};

use super::scan::{Found, What, scan};
use crate::archive::{Content, Part, ReadOnlyStore};
use crate::error::Error;
use crate::graft::{Graft, GraftLayer, graft};
use crate::image::Image;
use crate::layer::tar::{BLOCK, END, Header, Kind};
use crate::layer::{Compression, Layer, LayerStream};
use crate::layout::Entry;
use crate::reading::off_thread;
use crate::store::{ImageStore, Name};

/// What marks a name as hiding another (OCI image specification 1.1, `layer.md#whiteouts`).
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// How a directory is made into an image.
#[derive(Clone, Debug)]
pub struct RootFsSource {
    /// What the image is said to run on.
    pub platform: Platform,
    /// How its layer is compressed.
    pub compression: Compression,
    /// Where the layer is written to for as long as it is needed.
    pub temp_dir: std::path::PathBuf,
}

/// Makes the root file system in the directory `root` into an image.
///
/// # Errors
/// [`Error::Io`] where something cannot be read; [`Error::FileChanged`] where a file changes
/// meanwhile; [`Error::LayerEntry`] for a name that an engine would take for a deletion.
pub async fn open_rootfs(
    root: &Path,
    options: &RootFsSource,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let (root, options) = (root.to_owned(), options.clone());
    off_thread(move || {
        let temp_dir = &options.temp_dir;
        let file = tempfile::tempfile_in(temp_dir)
            .map_err(Error::io("create a temporary file in", temp_dir))?;
        let layer = write_layer_of(&root, options.compression, BufWriter::new(&file))?;
        let part = Part::whole(Arc::new(file), layer.descriptor.size);
        let name = format!("dir:{}", root.display());
        image_of(&options.platform, Some((layer, part)), name)
    })
    .await
}

/// Returns the image without layers for `platform`.
pub fn open_scratch(platform: &Platform) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    image_of(platform, None, "scratch".to_owned())
}

/// Returns a store that messages call `name`, with the image of `layer` and nothing else.
fn image_of(
    platform: &Platform,
    layer: Option<(Layer, Part)>,
    name: String,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let mut contents = BTreeMap::new();
    let mut layers = Vec::new();
    if let Some((layer, part)) = layer {
        contents.insert(layer.descriptor.digest.clone(), Content::File(part));
        layers.push(GraftLayer {
            layer,
            created_by: "trilith: a root file system".to_owned(),
            comment: None,
        });
    }
    let made = Graft {
        layers: &layers,
        config: None,
        labels: &BTreeMap::new(),
        base: None,
    };
    let image = graft(&Image::scratch(platform), &made)?;
    let config = image.config();
    contents.insert(config.digest(), Content::Memory(config.to_bytes()));
    let raw = image.manifest().to_raw();
    let digest = raw.descriptor.digest.clone();
    contents.insert(digest.clone(), Content::Memory(raw.bytes));
    let entry = Entry {
        name: None,
        descriptor: raw.descriptor,
    };
    let store = ReadOnlyStore::new(name, contents, vec![entry]);
    Ok((Arc::new(store), Name::Digest(digest)))
}

/// Writes the layer of what is in `root` to `output`.
fn write_layer_of(
    root: &Path,
    compression: Compression,
    output: impl Write,
) -> Result<Layer, Error> {
    let mut stream = LayerStream::new(compression, output)?;
    for found in scan(root)? {
        check_name(&found)?;
        put(&mut stream, &header(&found).encode())?;
        if let What::File { size, identity, .. } = found.what {
            let path = root.join(OsStr::from_bytes(&found.path));
            let file = open_again(&path, size, identity)?;
            copy(file, size, &path, &mut stream)?;
        }
    }
    put(&mut stream, &END)?;
    stream.finish()
}

/// Refuses names that would hide something in an image.
fn check_name(found: &Found) -> Result<(), Error> {
    let name = found.path.rsplit(|&byte| byte == b'/').next();
    if !name.is_some_and(|name| name.starts_with(WHITEOUT)) {
        return Ok(());
    }
    Err(Error::LayerEntry {
        path: found.path.escape_ascii().to_string(),
        reason: "a name that starts with `.wh.` stands for a deletion".to_owned(),
    })
}

fn header(found: &Found) -> Header<'_> {
    let mut header = Header {
        path: &found.path,
        mode: found.mode,
        owner: Owner {
            uid: found.uid,
            gid: found.gid,
        },
        capability: found.capability.as_deref(),
        ..Header::default()
    };
    match &found.what {
        What::Directory => header.kind = Kind::Directory,
        What::File { size, .. } => header.size = *size,
        What::HardLink(target) => (header.kind, header.target) = (Kind::HardLink, target),
        What::Symlink(target) => (header.kind, header.target) = (Kind::Symlink, target),
        What::Fifo => header.kind = Kind::Fifo,
        What::CharDevice(device) => (header.kind, header.device) = (Kind::CharDevice, *device),
        What::BlockDevice(device) => (header.kind, header.device) = (Kind::BlockDevice, *device),
    }
    header
}

/// Opens a file that was seen before, if it is still the same.
fn open_again(path: &Path, size: u64, identity: (u64, u64)) -> Result<File, Error> {
    let changed = || Error::FileChanged {
        path: path.to_owned(),
    };
    // No link in its place is followed, and no fifo in its place waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path);
    let file = opened.map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("examine", path))?;
    let is_same = (metadata.dev(), metadata.ino()) == identity && metadata.len() == size;
    if is_same { Ok(file) } else { Err(changed()) }
}

/// Copies the `size` bytes of `file` with the zeros that fill their last block.
fn copy(file: File, size: u64, path: &Path, output: &mut impl Write) -> Result<(), Error> {
    let mut buffer = vec![0; 128 * 1024];
    let mut left = size;
    // One byte more than expected is enough to know.
    let mut file = file.take(size.saturating_add(1));
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        left = left.checked_sub(read as u64).ok_or(Error::FileChanged {
            path: path.to_owned(),
        })?;
        put(output, &buffer[..read])?;
    }
    if left > 0 {
        return Err(Error::FileChanged {
            path: path.to_owned(),
        });
    }
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    put(output, &[0; BLOCK][..(BLOCK - over) % BLOCK])
}

fn put(output: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    output
        .write_all(bytes)
        .map_err(|source| Error::LayerOutput { source })
}
