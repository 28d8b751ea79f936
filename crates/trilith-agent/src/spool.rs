//! Where the output of commands is kept: in files without a name, so that memory stays small
//! however much is printed and nothing is left behind.
//!
//! A spool is a row of segments. What refers to a segment keeps it; the space of one that nothing
//! refers to is free again. Where no directory can be written to, segments are in memory, and
//! there are fewer and smaller ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat, unlink};

use crate::id::Id;

/// How much is kept in total, and how it is cut.
#[derive(Clone, Copy, Debug)]
struct Shape {
    segment: u64,
    segments: usize,
}

const ON_DISK: Shape = Shape {
    segment: 16 << 20,
    segments: 64,
};
const IN_MEMORY: Shape = Shape {
    segment: 2 << 20,
    segments: 6,
};

/// A store of bytes that are written once.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: Option<PathBuf>,
    shape: Shape,
    alive: Arc<AtomicUsize>,
    current: Mutex<Option<(Arc<Segment>, u64)>>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    alive: Arc<AtomicUsize>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes in a spool, kept as long as this lives.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    segment: Arc<Segment>,
    offset: u64,
}

/// Why something was not kept.
#[derive(Debug)]
pub(crate) enum SpoolFailure {
    /// As much is kept as may be.
    Full,
    /// The system refused.
    Io(io::Error),
}

impl Spool {
    /// Returns an empty spool in the first of `dirs` that can be written to, else in memory.
    pub(crate) fn new(dirs: &[PathBuf]) -> Self {
        let dir = dirs.iter().find(|dir| create_in(dir).is_ok()).cloned();
        let shape = if dir.is_some() { ON_DISK } else { IN_MEMORY };
        Self {
            dir,
            shape,
            alive: Arc::default(),
            current: Mutex::default(),
        }
    }

    /// Keeps `bytes`, at most a segment of them. Blocks on the disk.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Stored, SpoolFailure> {
        let stored = self.reserve(bytes.len() as u64)?;
        let written = stored.segment.file.write_all_at(bytes, stored.offset);
        written.map(|()| stored).map_err(SpoolFailure::Io)
    }

    fn reserve(&self, length: u64) -> Result<Stored, SpoolFailure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((segment, end)) = current.as_mut()
            && *end + length <= self.shape.segment
        {
            let offset = *end;
            *end += length;
            return Ok(Stored {
                segment: Arc::clone(segment),
                offset,
            });
        }
        *current = None;
        if self.alive.load(Ordering::Relaxed) >= self.shape.segments {
            return Err(SpoolFailure::Full);
        }
        let file = match &self.dir {
            Some(dir) => create_in(dir),
            None => memfd_create("trilith-agent", MemfdFlags::CLOEXEC).map(File::from),
        };
        let file = file.map_err(|error| SpoolFailure::Io(error.into()))?;
        self.alive.fetch_add(1, Ordering::Relaxed);
        let segment = Arc::new(Segment {
            file,
            alive: Arc::clone(&self.alive),
        });
        *current = Some((Arc::clone(&segment), length));
        Ok(Stored { segment, offset: 0 })
    }
}

impl Stored {
    /// Reads `length` bytes from `skip` bytes after the beginning. Blocks on the disk.
    pub(crate) fn read(&self, skip: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.segment
            .file
            .read_exact_at(&mut bytes, self.offset + skip)?;
        Ok(bytes)
    }
}

/// Creates a file without a name in `dir`.
fn create_in(dir: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    if let Ok(file) = openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        return Ok(file.into());
    }
    // Not every file system can do that.
    let random = Id::random().map_err(|_| rustix::io::Errno::AGAIN)?;
    let path = dir.join(format!(".trilith-agent-{random}"));
    let file = openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
    unlink(&path)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(&["/proc/nowhere".into(), dir.path().to_owned()]);
        let first = spool.write(b"hello").unwrap();
        let second = spool.write(b"world").unwrap();
        assert_eq!(first.read(1, 3).unwrap(), b"ell");
        assert_eq!(second.read(0, 5).unwrap(), b"world");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn space_is_bounded_and_free_again_when_nothing_refers_to_it() {
        let spool = Spool::new(&[]);
        let megabyte = vec![7; 1 << 20];
        let mut kept = Vec::new();
        let full = loop {
            match spool.write(&megabyte) {
                Ok(stored) => kept.push(stored),
                Err(failure) => break failure,
            }
        };
        assert!(matches!(full, SpoolFailure::Full));
        assert_eq!(kept.len(), 12);
        kept.drain(..2);
        assert!(spool.write(&megabyte).is_ok());
    }
}
