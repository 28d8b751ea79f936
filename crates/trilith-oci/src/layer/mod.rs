//! Layers: a payload as a compressed tar, the same bytes on every machine.
//!
//! Entries sorted by path, times 0, owners as numbers, modes as given, no entry for a directory
//! that the payload does not hold. Reads each file once and streams, so memory does not grow with
//! the payload. Unpacks nothing.

mod compress;
mod entry;
pub(crate) mod tar;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use trilith_core::{Algorithm, Digest, Digester};

pub use compress::Compression;
pub use entry::{EntryKind, LayerContent, LayerEntry, layer_entries};

use crate::descriptor::Descriptor;
use crate::diff_id::DiffId;
use crate::error::Error;
use compress::Encoder;

/// Raised by every change after which a payload becomes other bytes.
pub const FORMAT_VERSION: u32 = 3;

/// Bytes of a file that are read at once.
const READ_SIZE: usize = 128 * 1024;

/// A layer that was written somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The compressed layer, with OCI's media type.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
}

/// An archive that was written somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Digest of what was written.
    pub digest: Digest,
    /// Length of what was written, in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub tar_digest: Digest,
}

/// Writes the layer that holds `entries`, in any order, to `output`.
///
/// # Errors
/// [`Error::LayerEntry`] where an entry has no place in a layer, [`Error::FileChanged`] where a
/// file's content is not what its digest and size say, [`Error::Io`], and [`Error::LayerOutput`]
/// where `output` fails. What was written to `output` by then is not a layer.
pub fn write_layer(
    entries: Vec<LayerEntry>,
    compression: Compression,
    output: impl Write,
) -> Result<Layer, Error> {
    entry::refuse_whiteouts(&entries)?;
    write_entries(entries, compression, output)
}

/// Writes the archive that holds `entries`, in any order, to `output`. The bytes are those of
/// [`write_layer`]; but names that stand for deletions in a layer are names here.
///
/// # Errors
/// As [`write_layer`]. What was written to `output` by then is not an archive.
pub fn write_archive(
    entries: Vec<LayerEntry>,
    compression: Compression,
    output: impl Write,
) -> Result<Archive, Error> {
    let Layer {
        descriptor,
        diff_id,
    } = write_entries(entries, compression, output)?;
    Ok(Archive {
        digest: descriptor.digest,
        size: descriptor.size,
        tar_digest: diff_id.as_digest().clone(),
    })
}

fn write_entries(
    entries: Vec<LayerEntry>,
    compression: Compression,
    output: impl Write,
) -> Result<Layer, Error> {
    let entries = entry::sorted(entries)?;
    let mut tar = LayerStream::new(compression, output)?;
    let mut buffer = vec![0; READ_SIZE];
    for entry in &entries {
        append(&mut tar, entry, &mut buffer)?;
    }
    tar.write_all(&tar::END).map_err(written)?;
    tar.finish()
}

/// A layer while it is written: takes the bytes of a tar, compresses and hashes them.
pub(crate) struct LayerStream<W: Write> {
    tar: Hashing<Encoder<Hashing<W>>>,
    compression: Compression,
}

impl<W: Write> LayerStream<W> {
    /// Returns the layer that is written to `output`.
    pub(crate) fn new(compression: Compression, output: W) -> Result<Self, Error> {
        compression.check()?;
        let encoder = Encoder::new(compression, Hashing::new(output));
        Ok(Self {
            tar: Hashing::new(encoder),
            compression,
        })
    }

    /// Writes what is left, and returns what the layer is. The tar has its end by then.
    pub(crate) fn finish(self) -> Result<Layer, Error> {
        let diff_id = DiffId::from(self.tar.digester.finish());
        let mut compressed = self.tar.inner.finish().map_err(written)?;
        compressed.flush().map_err(written)?;
        let media_type = self.compression.media_type();
        let digest = compressed.digester.finish();
        Ok(Layer {
            descriptor: Descriptor::new(media_type, digest, compressed.size),
            diff_id,
        })
    }
}

impl<W: Write> Write for LayerStream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tar.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tar.flush()
    }
}

fn append(tar: &mut impl Write, entry: &LayerEntry, buffer: &mut [u8]) -> Result<(), Error> {
    let mut header = tar::Header {
        path: &entry.path,
        kind: tar::Kind::File,
        mode: 0o777,
        owner: entry.owner,
        ..tar::Header::default()
    };
    match &entry.kind {
        EntryKind::Directory { mode } => {
            header.kind = tar::Kind::Directory;
            header.mode = *mode;
        }
        EntryKind::Symlink { target } => {
            header.kind = tar::Kind::Symlink;
            header.target = target;
        }
        EntryKind::File { mode, size, .. } => {
            header.mode = *mode;
            header.size = *size;
        }
    }
    tar.write_all(&header.encode()).map_err(written)?;
    if let EntryKind::File {
        size,
        digest,
        content,
        ..
    } = &entry.kind
    {
        let (mut reader, path) = open(content, &entry.path)?;
        copy(&mut reader, &path, (*size, digest), tar, buffer)?;
        let padding = (*size).next_multiple_of(tar::BLOCK as u64) - size;
        let zeros = &[0; tar::BLOCK][..usize::try_from(padding).unwrap_or_default()];
        tar.write_all(zeros).map_err(written)?;
    }
    Ok(())
}

/// Opens the content of a file, and returns it with the path to call it by.
fn open<'a>(
    content: &'a LayerContent,
    path: &[u8],
) -> Result<(Box<dyn Read + 'a>, std::path::PathBuf), Error> {
    match content {
        LayerContent::Path(path) => Ok((Box::new(open_file(path)?), path.clone())),
        LayerContent::Bytes(bytes) => {
            let path = path.escape_ascii().to_string();
            Ok((Box::new(bytes.as_ref()), path.into()))
        }
    }
}

/// Opens a regular file, refusing what somebody put in its place: a link that would lead out of
/// the payload, a pipe that would never end.
fn open_file(path: &Path) -> Result<File, Error> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let changed = || Error::FileChanged {
        path: path.to_owned(),
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(changed());
        }
        other => other.map_err(Error::io("open", path))?,
    };
    let metadata = file.metadata().map_err(Error::io("examine", path))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(changed())
    }
}

/// Copies content, and checks that it is what `expected` says.
fn copy(
    reader: &mut dyn Read,
    path: &Path,
    (size, digest): (u64, &Digest),
    output: &mut impl Write,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let mut digester = Digester::new(digest.algorithm());
    let mut left = size;
    loop {
        let count = match reader.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        if count == 0 {
            break;
        }
        // A file that grew must not run over the size its header says.
        left = left
            .checked_sub(count as u64)
            .ok_or_else(|| Error::FileChanged {
                path: path.to_owned(),
            })?;
        digester.update(&buffer[..count]);
        output.write_all(&buffer[..count]).map_err(written)?;
    }
    if left == 0 && digester.finish() == *digest {
        Ok(())
    } else {
        Err(Error::FileChanged {
            path: path.to_owned(),
        })
    }
}

fn written(source: io::Error) -> Error {
    Error::LayerOutput { source }
}

/// Hashes and counts what passes through it.
struct Hashing<W> {
    inner: W,
    digester: Digester,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            digester: Digester::new(Algorithm::Sha256),
            size: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.digester.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use trilith_core::Owner;

    use super::*;

    fn file(path: &str, content: &str) -> LayerEntry {
        let content = bytes::Bytes::copy_from_slice(content.as_bytes());
        LayerEntry {
            path: path.into(),
            kind: EntryKind::File {
                mode: 0o644,
                size: content.len() as u64,
                digest: Digest::of(&content),
                content: LayerContent::Bytes(content),
            },
            owner: Owner::default(),
        }
    }

    fn on_disk(path: PathBuf, size: u64, content: &[u8]) -> LayerEntry {
        let mut entry = file("f", "");
        entry.kind = EntryKind::File {
            mode: 0o644,
            size,
            digest: Digest::of(content),
            content: LayerContent::Path(path),
        };
        entry
    }

    fn other(path: &str, kind: EntryKind) -> LayerEntry {
        LayerEntry {
            path: path.into(),
            kind,
            owner: Owner {
                uid: 10001,
                gid: 10002,
            },
        }
    }

    fn directory(path: &str) -> LayerEntry {
        other(path, EntryKind::Directory { mode: 0o1755 })
    }

    fn symlink(path: &str, target: &str) -> LayerEntry {
        other(
            path,
            EntryKind::Symlink {
                target: target.into(),
            },
        )
    }

    fn small() -> Vec<LayerEntry> {
        vec![
            directory("opt/app"),
            file("opt/app/run", "#!/bin/sh\necho hello\n"),
            file("opt/app/empty", ""),
            file("opt/app/na\u{ef}ve", "x"),
            file(&format!("opt/app/{}", "deep/".repeat(30) + "file"), "y"),
            symlink("opt/app/link", "/opt/app/run"),
        ]
    }

    fn write(entries: Vec<LayerEntry>, compression: Compression) -> Result<Layer, Error> {
        write_layer(entries, compression, io::sink())
    }

    /// Other bytes here are other digests everywhere: a new version of the format.
    #[test]
    fn golden() {
        let layer = |compression| {
            let layer = write(small(), compression).unwrap();
            assert_eq!(layer.descriptor.media_type, compression.media_type());
            (
                layer.descriptor.digest.hex()[..16].to_owned(),
                layer.descriptor.size,
            )
        };
        let diff_id = write(small(), Compression::None).unwrap().diff_id;
        let layers = [
            Compression::None,
            Compression::Gzip(5),
            Compression::Zstd(3),
        ]
        .map(layer);
        let expected = [
            ("852c7438d90eb1f9", 7680),
            ("193650ef5899fd55", 318),
            ("bd2f6811408d9359", 318),
        ];
        assert_eq!(layers, expected.map(|(hex, size)| (hex.to_owned(), size)));
        assert_eq!(diff_id.as_digest().hex()[..16], layers[0].0);
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        let mut entries = small();
        let expected = write(entries.clone(), Compression::Gzip(5)).unwrap();
        for _ in 0..entries.len() {
            entries.rotate_left(1);
            assert_eq!(
                write(entries.clone(), Compression::Gzip(5)).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn an_empty_layer_is_an_empty_archive() {
        let layer = write(Vec::new(), Compression::None).unwrap();
        assert_eq!(layer.descriptor.digest, Digest::of(&[0; 1024]));
        assert_eq!(layer.descriptor.size, 1024);
        assert_eq!(
            write(Vec::new(), Compression::Gzip(5)).unwrap().diff_id,
            layer.diff_id
        );
    }

    #[test]
    fn refused_entries() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(2100) + "a";
        for (entries, reason) in [
            (vec![file("", "")], "its path is empty"),
            (vec![file("/etc/passwd", "")], "its path is absolute"),
            (vec![file("../x", "")], "holds `..`"),
            (vec![file("a/../../x", "")], "holds `..`"),
            (vec![file("a/..", "")], "holds `..`"),
            (vec![file("./a", "")], "not in normal form"),
            (vec![file("a//b", "")], "not in normal form"),
            (vec![directory("a/")], "not in normal form"),
            (
                vec![file("a\0b", "")],
                "`a\\x00b` in a layer: its path holds a NUL byte",
            ),
            (vec![file("a/.wh.b", "")], "stands for a deletion"),
            (vec![directory(".wh..wh..opq")], "stands for a deletion"),
            (vec![file(&long, "")], "longer than 255 bytes"),
            (vec![file(&deep, "")], "longer than 4095 bytes"),
            (
                vec![file("a", ""), file("b", ""), file("a", "1")],
                "`a` in a layer: it stands twice",
            ),
            (vec![directory("a"), file("a", "")], "it stands twice"),
            (
                vec![symlink("a", "/etc"), file("a/passwd", "")],
                "`a` above it is not a directory",
            ),
            (
                vec![file("a/b/c", ""), file("a-b", ""), file("a", "")],
                "`a` above it is not a directory",
            ),
            (vec![symlink("a", "")], "target of the link is empty"),
            (vec![symlink("a", "b\0")], "holds a NUL byte"),
            (
                vec![other("a", EntryKind::Directory { mode: 0o40755 })],
                "other bits",
            ),
        ] {
            let error = write(entries, Compression::None).unwrap_err();
            assert!(matches!(error, Error::LayerEntry { .. }), "{reason}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn files_that_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "content").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();

        assert!(
            write(
                vec![on_disk(path.clone(), 7, b"content")],
                Compression::None
            )
            .is_ok()
        );
        for (path, size, content) in [
            (&path, 7, b"CONTENT"),
            (&path, 6, b"content"),
            (&path, 8, b"content"),
            (&path, 0, b"content"),
            (&link, 7, b"content"),
            (&pipe, 7, b"content"),
            (&directory.path().to_owned(), 7, b"content"),
        ] {
            let entry = on_disk(path.clone(), size, content);
            let error = write(vec![entry], Compression::Gzip(1)).unwrap_err();
            assert!(
                matches!(error, Error::FileChanged { .. }),
                "{}: {error}",
                path.display()
            );
            assert!(error.to_string().contains("changed while it was read"));
        }
        let gone = on_disk(directory.path().join("gone"), 1, b"x");
        let error = write(vec![gone], Compression::None).unwrap_err();
        assert!(error.to_string().starts_with("cannot open `"), "{error}");
    }

    #[test]
    fn trees() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("a"), "content").unwrap();
        fs::write(root.join("b/c"), "").unwrap();
        std::os::unix::fs::symlink("../..", root.join("b/link")).unwrap();
        let owner = Owner { uid: 1, gid: 2 };
        let load = |root: &Path| {
            let patterns = trilith_core::Patterns::default();
            trilith_core::load_tree(root, &patterns, &trilith_core::StatCache::disabled()).unwrap()
        };
        for (root, to, expected) in [
            (root.to_owned(), "/", vec!["a", "b", "b/c", "b/link"]),
            (
                root.to_owned(),
                "/o/p",
                vec!["o/p", "o/p/a", "o/p/b", "o/p/b/c", "o/p/b/link"],
            ),
            (root.join("a"), "/opt/run", vec!["opt/run"]),
            (root.join("b/link"), "/opt/link", vec!["opt/link"]),
        ] {
            let content = LayerContent::Path(root.clone());
            let entries = layer_entries(&load(&root), &content, &to.parse().unwrap(), owner);
            let paths: Vec<_> = entries
                .iter()
                .map(|entry| String::from_utf8_lossy(&entry.path))
                .collect();
            assert_eq!(paths, expected);
            assert!(entries.iter().all(|entry| entry.owner == owner));
            write(entries, Compression::None).unwrap();
        }
        // A file cannot become the root.
        let content = LayerContent::Path(root.join("a"));
        let file = load(&root.join("a"));
        let entries = layer_entries(&file, &content, &"/".parse().unwrap(), owner);
        assert!(write(entries, Compression::None).is_err());
    }
}
