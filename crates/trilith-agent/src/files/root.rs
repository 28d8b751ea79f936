//! Paths to files, and the directory that they have to be in, if there is one.
//!
//! Where a root is set the system resolves paths below it (openat2(2)): no `..`, no symbolic link
//! and no race leads out. Links within are followed; absolute ones only where they are the last
//! part of a path that is written to, and then from the beginning.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::failure::{Failure, Outcome};

/// How many links may follow one another.
const LINKS: usize = 16;

/// Where files are looked for.
#[derive(Debug)]
pub(crate) struct Root(Option<(PathBuf, OwnedFd)>);

/// A name in a directory that is open.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) dir: OwnedFd,
    pub(super) name: OsString,
}

impl Root {
    /// Returns the whole file system.
    pub(crate) fn everything() -> Self {
        Self(None)
    }

    /// Returns the directory `path` and what is below it.
    pub(crate) fn below(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, &path, flags, Mode::empty())?;
        let root = Self(Some((path, dir)));
        // Better now than with the first request.
        root.open_raw(Path::new("."), flags)?;
        Ok(root)
    }

    /// Returns the directory that is the root, if one is set.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|(path, _)| path.as_path())
    }

    /// Opens `path`, which is not created.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Outcome<File> {
        let below = self.relative(path)?;
        let opened = self.open_raw(below, flags | OFlags::CLOEXEC);
        opened
            .map(File::from)
            .map_err(|error| failure("open", path, error))
    }

    /// Opens the directory that `path` is in, which is made if it is missing and `create` says so.
    pub(super) fn entry(&self, path: &Path, create: bool) -> Outcome<Entry> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let is_name = matches!(path.components().next_back(), Some(Component::Normal(_)));
            let (Some(name), Some(parent), true) = (path.file_name(), path.parent(), is_name)
            else {
                return Err(Failure::bad(format!("`{}` is a directory", path.display())));
            };
            let entry = Entry {
                dir: self.directory(parent, create)?,
                name: name.to_owned(),
            };
            match readlinkat(&entry.dir, &entry.name, Vec::new()) {
                Ok(target) => {
                    let target = OsString::from_vec(target.into_bytes());
                    path = parent.join(target);
                }
                Err(_) => return Ok(entry),
            }
        }
        Err(failure("open", &path, Errno::LOOP))
    }

    /// Opens the directory `path`, which is made if it is missing and `create` says so.
    pub(super) fn directory(&self, path: &Path, create: bool) -> Outcome<OwnedFd> {
        let below = self.relative(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match (
            self.open_raw(below, flags),
            below.file_name(),
            path.parent(),
        ) {
            (Err(Errno::NOENT), Some(name), Some(parent)) if create => {
                let parent = self.directory(parent, true)?;
                match mkdirat(&parent, name, Mode::from(0o777)) {
                    // Somebody else may have been quicker.
                    Ok(()) | Err(Errno::EXIST) => self.open_raw(below, flags),
                    Err(error) => Err(error),
                }
            }
            (opened, ..) => opened,
        }
        .map_err(|error| failure("open the directory", path, error))
    }

    fn open_raw(&self, below: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        match &self.0 {
            None => openat(CWD, below, flags, Mode::empty()),
            Some((_, dir)) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                openat2(dir.as_fd(), below, flags, Mode::empty(), resolve)
            }
        }
    }

    /// Returns `path` as it is to be opened.
    fn relative<'a>(&self, path: &'a Path) -> Outcome<&'a Path> {
        if !path.is_absolute() {
            return Err(Failure::bad("Path must be absolute"));
        }
        match &self.0 {
            None => Ok(path),
            Some((root, _)) => match path.strip_prefix(root) {
                Ok(below) if below.as_os_str().is_empty() => Ok(Path::new(".")),
                Ok(below) => Ok(below),
                Err(_) => Err(outside(path)),
            },
        }
    }
}

fn outside(path: &Path) -> Failure {
    let status = axum::http::StatusCode::FORBIDDEN;
    Failure::new(
        status,
        format!("`{}` is outside of the root", path.display()),
    )
}

/// Returns the failure of what was to be done with `path`.
pub(super) fn failure(what: &str, path: &Path, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    match Errno::from_io_error(&error) {
        Some(Errno::XDEV) => outside(path),
        // What is no directory has nothing in it.
        Some(Errno::NOTDIR) => Failure::bad(format!(
            "cannot {what} `{}`: a parent of the path is not a directory",
            path.display()
        )),
        _ => Failure::system(what, &path.display().to_string(), &error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use axum::response::IntoResponse as _;

    use super::*;

    fn status(result: Outcome<impl Sized>) -> u16 {
        result.map_or_else(|failure| failure.into_response().status().as_u16(), |_| 200)
    }

    #[test]
    fn nothing_leads_out_of_a_root() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let dir = base.join("root");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(base.join("secret"), "").unwrap();
        fs::write(dir.join("file"), "").unwrap();
        symlink("../secret", dir.join("out")).unwrap();
        symlink("sub", dir.join("in")).unwrap();
        symlink(base.join("secret"), dir.join("absolute")).unwrap();
        symlink(dir.join("file"), dir.join("around")).unwrap();
        symlink("..", dir.join("up")).unwrap();
        symlink("/proc/self/root", dir.join("magic")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let root = Root::below(&dir).unwrap();
        for (path, read, written) in [
            ("file", 200, 200),
            ("in/new", 404, 200),
            ("../root/file", 403, 403),
            ("../secret", 403, 403),
            ("out", 403, 403),
            ("up/secret", 403, 403),
            ("absolute", 403, 403),
            ("magic/etc/passwd", 403, 403),
            ("around", 403, 200),
            ("loop", 500, 500),
            ("file/new", 400, 400),
        ] {
            let path = dir.join(path);
            assert_eq!(
                status(root.open(&path, OFlags::RDONLY)),
                read,
                "{}",
                path.display()
            );
            assert_eq!(
                status(root.entry(&path, true)),
                written,
                "{}",
                path.display()
            );
        }
        assert_eq!(
            status(root.open(Path::new("/etc/passwd"), OFlags::RDONLY)),
            403
        );
        assert_eq!(status(root.open(Path::new("file"), OFlags::RDONLY)), 400);
        assert_eq!(status(root.entry(&dir, true)), 403);
        assert_eq!(status(root.entry(&dir.join("a/b/c"), false)), 404);
        assert_eq!(status(root.entry(&dir.join("a/b/c"), true)), 200);
        assert!(dir.join("a/b").is_dir());
        assert!(!base.join("secret").is_dir());
    }
}
