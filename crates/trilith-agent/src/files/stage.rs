//! Files that are being uploaded: written beside their place and put there when they are complete,
//! so that what was there stays as it was until then.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, fchmod, fchown, flock, fstat, openat,
    renameat, statat, unlinkat,
};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use super::root::{Entry, Root, failure};
use crate::failure::{Failure, Outcome};
use crate::id::Id;

/// How the names of files that are not complete begin and end.
const PREFIX: &str = ".trilith-upload-";
const PART: &str = ".part";

/// A file that is not complete.
#[derive(Debug)]
pub(super) struct Stage {
    target: Entry,
    name: OsString,
    /// Whether it stays when it is not published.
    is_kept: bool,
    is_published: bool,
}

impl Stage {
    /// Creates a file that is gone unless it is published, and the directory it is in.
    pub(super) fn create(root: &Root, path: &Path) -> Outcome<(Self, File)> {
        let target = root.entry(path, true)?;
        let random = Id::random().map_err(Failure::internal)?;
        let stage = Self::new(target, format!("{PREFIX}{random}").into(), false);
        let file = stage.open(path, OFlags::CREATE | OFlags::EXCL)?;
        Ok((stage, file))
    }

    /// Opens or creates a file that stays, to be written to in parts; nobody else may write to it.
    pub(super) fn resume(root: &Root, path: &Path) -> Outcome<(Self, File, u64)> {
        let stage = Self::part(root.entry(path, true)?);
        let file = stage.open(path, OFlags::CREATE | OFlags::APPEND)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(Failure::conflict("another upload is under way")),
            Err(error) => return Err(failure("lock the upload of", path, error)),
        }
        let size = fstat(&file).map_err(|error| failure("read the size of", path, error))?;
        let size = u64::try_from(size.st_size).unwrap_or(0);
        Ok((stage, file, size))
    }

    /// Returns how much there is of a file that is uploaded in parts.
    pub(super) fn received(root: &Root, path: &Path) -> Outcome<u64> {
        let stage = Self::part(root.entry(path, false)?);
        match statat(&stage.target.dir, &stage.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(Errno::NOENT) => Ok(0),
            Err(error) => Err(failure("read the size of", path, error)),
        }
    }

    /// Removes what there is of a file that is uploaded in parts.
    pub(super) fn discard(root: &Root, path: &Path) -> Outcome<()> {
        let stage = Self::part(root.entry(path, false)?);
        match unlinkat(&stage.target.dir, &stage.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failure("remove the upload of", path, error)),
        }
    }

    fn part(target: Entry) -> Self {
        let mut name = OsString::from(PREFIX);
        name.push(&target.name);
        name.push(PART);
        Self::new(target, name, true)
    }

    fn new(target: Entry, name: OsString, is_kept: bool) -> Self {
        Self {
            target,
            name,
            is_kept,
            is_published: false,
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> Outcome<File> {
        let flags = flags | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.target.dir, &self.name, flags, Mode::from(0o666));
        file.map(File::from)
            .map_err(|error| failure("write", path, error))
    }

    /// Puts the file where it belongs, with the mode and owner of the one that is there.
    pub(super) fn publish(mut self, path: &Path, file: &File) -> Outcome<()> {
        let fail = |error| failure("write", path, error);
        let Entry { dir, name } = &self.target;
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(old) => match FileType::from_raw_mode(old.st_mode) {
                FileType::RegularFile => {
                    fchmod(file, Mode::from_raw_mode(old.st_mode)).map_err(fail)?;
                    // Who may not give files away owns them.
                    let owner = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
                    let _ = fchown(file, Some(owner.0), Some(owner.1));
                }
                FileType::Directory => return Err(Failure::bad("Path is a directory")),
                _ => return Err(Failure::bad("Path is not a file")),
            },
            Err(Errno::NOENT) => {}
            Err(error) => return Err(fail(error)),
        }
        renameat(dir, &self.name, dir, name).map_err(fail)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_published && !self.is_kept {
            let _ = unlinkat(&self.target.dir, &self.name, AtFlags::empty());
        }
    }
}

/// Returns whether this is the name of a file that is not complete.
pub(super) fn is_stage(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}
