//! Files that are whole or not there.
//!
//! What is written goes to a file beside the target, which takes the target's place at the
//! end. Members of archives carry no time, no owner and fixed modes.

use std::fs::Permissions;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::Error;
use crate::reading::write_failure;

const BLOCK: usize = 512;
/// The longest name that fits into a header.
const MAX_NAME: usize = 100;
/// The name of a member that holds the next one's name.
const LONG_NAME: &str = "././@LongLink";

/// A file that appears at its path when it is complete.
pub(super) struct Output {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl Output {
    /// Starts the file that is to be at `path`.
    pub(super) fn beside(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Err(Error::Unsupported {
                object: format!("`{}` as an archive", path.display()),
                reason: "it is a directory".to_owned(),
                advice: "name a file; a layout that is a directory is `oci:PATH`",
            });
        }
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".trilith-archive-")
            // As for any file a program makes; the umask takes its part away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(parent)
            .map_err(Error::io("create a file in", parent))?;
        Ok(Self {
            file: BufWriter::with_capacity(256 * 1024, file),
            path: path.to_owned(),
        })
    }
}

impl Output {
    /// Adds the directory `name`, which ends in a slash.
    pub(super) fn directory(&mut self, name: &str) -> Result<(), Error> {
        self.header(tar::EntryType::Directory, name, 0, 0o755)
    }

    /// Adds the file `name` with the `size` bytes that `content` gives.
    pub(super) fn file(
        &mut self,
        name: &str,
        size: u64,
        mut content: impl Read,
    ) -> Result<(), Error> {
        self.header(tar::EntryType::Regular, name, size, 0o644)?;
        let copied = io::copy(&mut content, &mut self.file);
        let copied = copied.map_err(|error| write_failure(&self.path, error))?;
        debug_assert_eq!(copied, size, "a blob's length is checked while it is read");
        self.pad(copied)
    }

    /// Adds the file `name` with all that `content` gives, and returns how many bytes that was.
    ///
    /// The size is written into the header afterwards.
    pub(super) fn file_of_any_size(
        &mut self,
        name: &str,
        content: &mut impl Read,
    ) -> Result<u64, Error> {
        let failed = |error| write_failure(&self.path, error);
        let start = self.file.stream_position().map_err(failed)?;
        self.header(tar::EntryType::Regular, name, 0, 0o644)?;
        let copied = io::copy(content, &mut self.file);
        let size = copied.map_err(|error| write_failure(&self.path, error))?;
        self.pad(size)?;
        let failed = |error| write_failure(&self.path, error);
        let end = self.file.stream_position().map_err(failed)?;
        self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
        self.header(tar::EntryType::Regular, name, size, 0o644)?;
        let failed = |error| write_failure(&self.path, error);
        self.file.seek(SeekFrom::Start(end)).map_err(failed)?;
        Ok(size)
    }

    /// Ends the archive and puts it in its place.
    pub(super) fn publish(mut self) -> Result<(), Error> {
        self.write(&[0; 2 * BLOCK])?;
        let failed = || Error::io("write", &self.path);
        let file = self
            .file
            .into_inner()
            .map_err(|e| failed()(e.into_error()))?;
        file.as_file().sync_all().map_err(failed())?;
        file.persist(&self.path).map_err(|e| failed()(e.error))?;
        Ok(())
    }

    fn header(
        &mut self,
        kind: tar::EntryType,
        name: &str,
        size: u64,
        mode: u32,
    ) -> Result<(), Error> {
        if name.len() > MAX_NAME {
            // Names with SHA-512 are longer than a header has room for.
            let long = [name.as_bytes(), b"\0"].concat();
            let length = long.len() as u64;
            self.write(&header(
                tar::EntryType::GNULongName,
                LONG_NAME,
                length,
                0o644,
            ))?;
            self.write(&long)?;
            self.pad(length)?;
        }
        self.write(&header(kind, name, size, mode))
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.write(&[0; BLOCK][..(BLOCK - over) % BLOCK])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| write_failure(&self.path, error))
    }
}

fn header(kind: tar::EntryType, name: &str, size: u64, mode: u32) -> [u8; BLOCK] {
    let mut header = tar::Header::new_gnu();
    let name = &name.as_bytes()[..name.len().min(MAX_NAME)];
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    *header.as_bytes()
}
