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
use crate::layer::tar::{BLOCK, END, Header, Kind};
use crate::reading::write_failure;

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
    /// Adds the directory `name`.
    pub(super) fn directory(&mut self, name: &str) -> Result<(), Error> {
        let header = Header {
            path: name.as_bytes(),
            kind: Kind::Directory,
            mode: 0o755,
            ..Header::default()
        };
        self.write(&header.encode())
    }

    /// Adds the file `name` with the `size` bytes that `content` gives.
    pub(super) fn file(
        &mut self,
        name: &str,
        size: u64,
        mut content: impl Read,
    ) -> Result<(), Error> {
        self.write(&header(name, size).encode())?;
        let copied = io::copy(&mut content, &mut self.file);
        let copied = copied.map_err(|error| write_failure(&self.path, error))?;
        debug_assert_eq!(copied, size, "a blob's length is checked while it is read");
        self.pad(copied)
    }

    /// Adds the file `name` with all that `content` gives, and returns how many bytes that was.
    ///
    /// The size is written into the header afterwards, so `name` has to fit into one.
    pub(super) fn file_of_any_size(
        &mut self,
        name: &str,
        content: &mut impl Read,
    ) -> Result<u64, Error> {
        let start = self.position()?;
        self.write(&header(name, 0).encode())?;
        let copied = io::copy(content, &mut self.file);
        let size = copied.map_err(|error| write_failure(&self.path, error))?;
        self.pad(size)?;
        let end = self.position()?;
        self.seek(start)?;
        // Of a size beyond octal, base 256 in the last block says enough; there is no room for
        // a PAX header before it.
        let blocks = header(name, size).encode();
        self.write(&blocks[blocks.len() - BLOCK..])?;
        self.seek(end)?;
        Ok(size)
    }

    /// Ends the archive and puts it in its place.
    pub(super) fn publish(mut self) -> Result<(), Error> {
        self.write(&END)?;
        let failed = || Error::io("write", &self.path);
        let file = self
            .file
            .into_inner()
            .map_err(|e| failed()(e.into_error()))?;
        file.as_file().sync_all().map_err(failed())?;
        file.persist(&self.path).map_err(|e| failed()(e.error))?;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.write(&[0; BLOCK][..(BLOCK - over) % BLOCK])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| write_failure(&self.path, error))
    }

    fn position(&mut self) -> Result<u64, Error> {
        let position = self.file.stream_position();
        position.map_err(|error| write_failure(&self.path, error))
    }

    fn seek(&mut self, position: u64) -> Result<(), Error> {
        let sought = self.file.seek(SeekFrom::Start(position));
        sought
            .map_err(|error| write_failure(&self.path, error))
            .map(drop)
    }
}

fn header(name: &str, size: u64) -> Header<'_> {
    Header {
        path: name.as_bytes(),
        mode: 0o644,
        size,
        ..Header::default()
    }
}
