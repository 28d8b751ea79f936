//! Temporary files that tell whether their process lives, and locks.
//!
//! Every temporary file is locked by its process while it is written. A process that ends, in
//! whatever way, loses its locks, so a file that can be locked is nobody's and may go.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::Error;

/// What names of temporary files start with.
const PREFIX: &str = ".trilith-";

/// How a lock is shared.
#[derive(Clone, Copy, Debug)]
pub(super) enum LockKind {
    Shared,
    Exclusive,
}

/// Waits for the lock on the file at `path`, which is held until the returned file is dropped.
pub(super) fn lock(path: &Path, kind: LockKind) -> Result<File, Error> {
    // Network file systems lock for writing only what is open for writing.
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(Error::io("open", path))?;
    match kind {
        LockKind::Shared => file.lock_shared(),
        LockKind::Exclusive => file.lock(),
    }
    .map_err(Error::io("lock", path))?;
    Ok(file)
}

/// Returns the exclusive lock on the file at `path`, `None` where it cannot be had at once.
pub(super) fn try_lock(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Removes the temporary files in `directory` whose process is gone, and returns how many there are.
///
/// The caller holds the lock that keeps new ones from being made, for a moment passes between
/// the making of a file and its lock.
pub(super) fn remove_stale(directory: &Path, dry_run: bool) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let stale = entries.flatten().filter(|entry| {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // One that cannot be removed is left for next time.
        is_ours
            && try_lock(&entry.path()).is_some()
            && (dry_run || fs::remove_file(entry.path()).is_ok())
    });
    stale.count()
}

/// A file that becomes another one when it is whole, or goes when it is dropped.
#[derive(Debug)]
pub(super) struct TempFile(NamedTempFile);

impl TempFile {
    /// Makes a file in `directory`. The lock on the layout must be held, of either kind.
    pub(super) fn create_in(directory: &Path) -> Result<Self, Error> {
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            // As the umask has it, like any other file: several users may share a layout.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(Error::io("create a temporary file in", directory))?;
        match file.as_file().try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::io("lock", file.path())(
                io::ErrorKind::WouldBlock.into(),
            )),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", file.path())(error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes the file the one at `path`, replacing what is there, once it is on disk.
    pub(super) fn persist(self, path: &Path) -> Result<(), Error> {
        self.sync()?;
        let persisted = self.0.persist(path);
        persisted.map_err(|error| Error::io("create", path)(error.error))?;
        sync_parent(path)
    }

    /// Likewise, where there is nothing yet; what is there stays.
    pub(super) fn persist_if_absent(self, path: &Path) -> Result<(), Error> {
        self.sync()?;
        match self.0.persist_noclobber(path) {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(Error::io("create", path)(error.error)),
            Ok(_) => sync_parent(path),
        }
    }

    fn sync(&self) -> Result<(), Error> {
        self.0
            .as_file()
            .sync_all()
            .map_err(Error::io("write", self.0.path()))
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Brings the name at `path` to disk, not only the content.
fn sync_parent(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("write", parent))
}
