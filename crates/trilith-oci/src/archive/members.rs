//! The members of an archive, found once and read in place.
//!
//! Nothing is extracted, so no name can lead anywhere; names that try to, devices and
//! duplicates are refused all the same, for whoever made them meant no good. Links are
//! followed from name to name inside the archive. A compressed archive is first
//! decompressed into a temporary file, the only thing written here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::decompress::{MAGIC_LEN, Packing, unpacked};
use crate::error::Error;
use crate::reading::{off_thread, read_failure};
use crate::store::{BlobStream, MAX_MANIFEST_SIZE};
use crate::tar_reader::{Member, MemberKind, TarReader, show};

/// How many bytes of a part are read at a time.
const PIECE: usize = 256 * 1024;
/// How many members an archive may have; their names are held in memory.
const MAX_MEMBERS: usize = 100_000;
/// The longest name of a member, in bytes.
const MAX_NAME: usize = 1024;
/// How many links may lead to one member.
const MAX_LINKS: usize = 16;

/// A part of an open file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Part {
    /// Returns all of `file`, which has `size` bytes.
    pub(crate) fn whole(file: Arc<File>, size: u64) -> Self {
        let offset = 0;
        Self { file, offset, size }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads at most `length` bytes from `position` in the part.
    pub(super) fn read_at(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let left = self.size.saturating_sub(position);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, self.offset + position)?;
        Ok(bytes)
    }

    /// Returns the bytes of the part in pieces; messages call it `object`.
    pub(super) fn stream(self, object: String) -> BlobStream {
        let pieces = futures_util::stream::try_unfold(0, move |position| {
            let (part, object) = (self.clone(), object.clone());
            let read = move || {
                let read = part.read_at(position, PIECE);
                read.map_err(|error| read_failure(&object, error))
            };
            async move {
                let piece = Bytes::from(off_thread(read).await?);
                let next = position + piece.len() as u64;
                Ok((!piece.is_empty()).then_some((piece, next)))
            }
        });
        Box::pin(pieces)
    }

    /// Returns a reader of the part.
    pub(super) fn reader(&self) -> PartReader {
        PartReader {
            part: self.clone(),
            position: 0,
        }
    }

    /// Returns how the part is compressed.
    pub(super) fn packing(&self) -> io::Result<Packing> {
        Ok(Packing::of(&self.read_at(0, MAGIC_LEN)?))
    }
}

/// Reads a [`Part`] from start to end.
pub(super) struct PartReader {
    part: Part,
    position: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.part.size - self.position;
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self
            .part
            .file
            .read_at(&mut buffer[..most], self.part.offset + self.position)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += read as u64;
        Ok(read)
    }
}

enum Slot {
    File {
        offset: u64,
        size: u64,
    },
    /// The name of another member.
    Link(Vec<u8>),
    Directory,
}

/// An archive whose members are known.
pub(super) struct Archive {
    /// The archive in words, for messages.
    pub name: String,
    file: Arc<File>,
    slots: BTreeMap<Vec<u8>, Slot>,
}

impl Archive {
    /// Finds the members of the archive at `path`, which messages call `name`.
    ///
    /// A compressed one is decompressed into a file in `temp_dir` that has no name, and
    /// goes when the archive is dropped.
    pub(super) fn open(path: &Path, name: String, temp_dir: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let is_file = file.metadata().map_err(Error::io("read", path))?.is_file();
        if !is_file {
            return Err(Error::Unsupported {
                object: format!("`{name}`"),
                reason: "it is not a file".to_owned(),
                advice: "name the archive; a layout that is a directory is `oci:PATH`",
            });
        }
        Self::of_file(file, name, temp_dir)
    }

    /// Finds the members of the archive in `file`, from its start.
    pub(super) fn of_file(file: File, name: String, temp_dir: &Path) -> Result<Self, Error> {
        let object = format!("`{name}`");
        let mut magic = [0; MAGIC_LEN];
        let file = match file.read_exact_at(&mut magic, 0) {
            Ok(()) if Packing::of(&magic) != Packing::Plain => decompress(file, &object, temp_dir)?,
            Ok(()) => file,
            Err(error) => return Err(read_failure(&object, error)),
        };
        let mut copy = file.try_clone().map_err(|e| read_failure(&object, e))?;
        copy.rewind().map_err(|e| read_failure(&object, e))?;
        let slots = find(TarReader::of_file(copy, object.clone()), &object)?;
        Ok(Self {
            name,
            file: Arc::new(file),
            slots,
        })
    }

    /// Returns the names of all files and links, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        let is_file = |(_, slot): &(&Vec<u8>, &Slot)| !matches!(slot, Slot::Directory);
        self.slots
            .iter()
            .filter(is_file)
            .map(|(name, _)| name.as_slice())
    }

    /// Returns the file called `name`, through links; `None` where there is no such member.
    pub(super) fn part(&self, name: &[u8]) -> Result<Option<Part>, Error> {
        let mut wanted = name;
        for _ in 0..=MAX_LINKS {
            match self.slots.get(wanted) {
                None if wanted == name => return Ok(None),
                None => {
                    let reason = format!(
                        "member `{}` is a link to `{}`, which is not in it",
                        show(name),
                        show(wanted)
                    );
                    return Err(self.malformed(reason));
                }
                Some(Slot::Link(target)) => wanted = target,
                Some(Slot::Directory) => {
                    let reason = format!("member `{}` is no file", show(name));
                    return Err(self.malformed(reason));
                }
                Some(&Slot::File { offset, size }) => {
                    let file = Arc::clone(&self.file);
                    return Ok(Some(Part { file, offset, size }));
                }
            }
        }
        let reason = format!("member `{}` is a link that leads in a circle", show(name));
        Err(self.malformed(reason))
    }

    /// Reads the file called `name`, a JSON document, into memory.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is not there, or larger than manifests may be.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let Some(part) = self.part(name.as_bytes())? else {
            return Err(self.malformed(format!("it holds no `{name}`")));
        };
        self.read_document(&part, name)
    }

    /// Reads `part`, which is called `name` and a JSON document, into memory.
    pub(super) fn read_document(&self, part: &Part, name: &str) -> Result<Vec<u8>, Error> {
        if part.size > MAX_MANIFEST_SIZE {
            let reason = format!("`{name}` is larger than {} MiB", MAX_MANIFEST_SIZE >> 20);
            return Err(self.malformed(reason));
        }
        let mut bytes = Vec::new();
        let read = part.reader().read_to_end(&mut bytes);
        read.map_err(|error| read_failure(&format!("`{}`", self.name), error))?;
        Ok(bytes)
    }

    /// Returns the error of an archive with something wrong in it.
    pub(super) fn malformed(&self, reason: String) -> Error {
        Error::Malformed {
            object: format!("`{}`", self.name),
            reason,
        }
    }
}

fn decompress(file: File, object: &str, temp_dir: &Path) -> Result<File, Error> {
    let mut plain = tempfile::tempfile_in(temp_dir)
        .map_err(Error::io("create a temporary file in", temp_dir))?;
    let (mut reader, _) = unpacked(file).map_err(|error| read_failure(object, error))?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => return Ok(plain),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_failure(object, error)),
        };
        io::Write::write_all(&mut plain, &buffer[..read])
            .map_err(Error::io("write a temporary file in", temp_dir))?;
    }
}

fn find(
    mut tar: TarReader<io::BufReader<File>>,
    object: &str,
) -> Result<BTreeMap<Vec<u8>, Slot>, Error> {
    let mut slots = BTreeMap::new();
    while let Some(member) = tar.next_member()? {
        let malformed = |reason: &str| Error::Malformed {
            object: object.to_owned(),
            reason: format!("member `{}` {reason}", show(&member.path)),
        };
        let name = safe_name(&member.path).map_err(malformed)?;
        let slot = slot_of(&member, &name).map_err(malformed)?;
        if name.len() > MAX_NAME || slots.len() >= MAX_MEMBERS {
            return Err(malformed("is one too many, or its name is too long"));
        }
        let is_directory = matches!(slot, Slot::Directory);
        let replaced = slots.insert(name, slot);
        if replaced.is_some_and(|old| !is_directory || !matches!(old, Slot::Directory)) {
            return Err(malformed("is in it twice"));
        }
    }
    Ok(slots)
}

fn slot_of(member: &Member, name: &[u8]) -> Result<Slot, &'static str> {
    match member.kind {
        MemberKind::File => Ok(Slot::File {
            offset: member.offset,
            size: member.size,
        }),
        MemberKind::Directory => Ok(Slot::Directory),
        MemberKind::HardLink => safe_name(&member.link).map(Slot::Link),
        MemberKind::Symlink => {
            let above = name.iter().rposition(|&byte| byte == b'/');
            let directory = &name[..above.unwrap_or(0)];
            resolve(directory, &member.link).map(Slot::Link)
        }
        MemberKind::CharDevice | MemberKind::BlockDevice | MemberKind::Fifo => {
            Err("is a device or fifo, which no image archive holds")
        }
    }
}

/// Returns a member's name in normal form.
fn safe_name(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.starts_with(b"/") {
        return Err("has an absolute name");
    }
    let parts = path.split(|&byte| byte == b'/');
    let parts: Vec<&[u8]> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("leads out of the archive");
    }
    Ok(parts.join(&b'/'))
}

/// Returns the name a symbolic link in `directory` stands for.
fn resolve(directory: &[u8], link: &[u8]) -> Result<Vec<u8>, &'static str> {
    if link.starts_with(b"/") {
        return Err("is a link out of the archive");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in directory
        .split(|&byte| byte == b'/')
        .chain(link.split(|&byte| byte == b'/'))
    {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or("is a link out of the archive")?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links() {
        for (directory, link, expected) in [
            ("a", "../b/layer.tar", Ok("b/layer.tar")),
            ("", "b", Ok("b")),
            ("a/b", "./c/../d", Ok("a/b/d")),
            ("a", "../../b", Err("is a link out of the archive")),
            ("a", "/etc/passwd", Err("is a link out of the archive")),
        ] {
            let name = resolve(directory.as_bytes(), link.as_bytes());
            let name = name.map(|name| String::from_utf8(name).unwrap());
            assert_eq!(name.as_deref().map_err(|e| *e), expected, "{link}");
        }
    }

    #[test]
    fn names_of_members() {
        for (path, expected) in [
            ("./index.json", Ok("index.json")),
            ("blobs//sha256/", Ok("blobs/sha256")),
            ("/index.json", Err("has an absolute name")),
            ("a/../index.json", Err("leads out of the archive")),
        ] {
            let name = safe_name(path.as_bytes());
            let name = name.map(|name| String::from_utf8(name).unwrap());
            assert_eq!(name.as_deref().map_err(|e| *e), expected, "{path}");
        }
    }
}
