//! A directory that paths cannot lead out of.
//!
//! Paths are resolved component by component with `O_NOFOLLOW`, links read and followed
//! here, as if the directory were `/`: an absolute link and any number of `..` end inside.
//! Unlike `openat2` this works on every kernel and under every system call filter.
//! Knows nothing of layers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

/// How many symbolic links one path may lead over, as in the kernel.
const MAX_LINKS: usize = 40;
/// How deep directories may lie; each open one costs a descriptor while a tree is removed.
const MAX_DEPTH: usize = 512;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens what is missing: the directory it would be in, that one's path, and its name.
type OpenMissing<'a> = dyn FnMut(&OwnedFd, &[u8], &[u8]) -> io::Result<OwnedFd> + 'a;

/// The directory.
pub(super) struct Root(OwnedFd);

/// An open directory inside the root.
pub(super) struct Inside {
    /// The directory.
    pub fd: OwnedFd,
    /// Its path from the root without any link in it; empty for the root itself.
    pub path: Vec<u8>,
}

impl Inside {
    /// Returns the path of the entry `name`.
    pub(super) fn join(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }
}

/// Returns `name` in the directory `path`, which is empty for the root.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

impl Root {
    /// Opens the directory at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        let fd = openat(rustix::fs::CWD, path, flags, Mode::empty())?;
        Ok(Self(fd))
    }

    /// Opens the directory `path` leads to; a part that is missing is an error.
    pub(super) fn directory(&self, path: &[u8]) -> io::Result<Inside> {
        self.resolve(path, &mut |_, _, _| Err(Errno::NOENT.into()))
    }

    /// Opens the directory `path` leads to and makes what is missing, links' targets
    /// included; `made` is told the path of each directory made.
    pub(super) fn ensure_directory(
        &self,
        path: &[u8],
        made: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Inside> {
        self.resolve(path, &mut |parent, parent_path, name| {
            mkdirat(parent, name, Mode::RWXU)?;
            made(&join(parent_path, name));
            Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
        })
    }

    fn resolve(&self, path: &[u8], missing: &mut OpenMissing<'_>) -> io::Result<Inside> {
        let mut todo: VecDeque<Vec<u8>> = components(path);
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut current = self.0.try_clone()?;
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                names.pop();
                current = self.reopen(&names)?;
                continue;
            }
            if names.len() >= MAX_DEPTH {
                let reason = format!("it is more than {MAX_DEPTH} directories deep");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            match openat(&current, name.as_slice(), DIRECTORY, Mode::empty()) {
                Ok(next) => {
                    current = next;
                    names.push(name);
                }
                Err(Errno::NOENT) => {
                    current = missing(&current, &names.join(&b'/'), &name)?;
                    names.push(name);
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let target = read_link(&current, &name)?;
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        names.clear();
                        current = self.0.try_clone()?;
                    }
                    for part in components(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let path = names.join(&b'/');
        Ok(Inside { fd: current, path })
    }

    /// Opens a directory whose path has no link in it.
    fn reopen(&self, names: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let mut current = self.0.try_clone()?;
        for name in names {
            current = openat(&current, name.as_slice(), DIRECTORY, Mode::empty())?;
        }
        Ok(current)
    }
}

/// Returns what the link `name` in `directory` says.
fn read_link(directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    match readlinkat(directory, name, Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        // No link, and whoever asks has seen that it is no directory.
        Err(Errno::INVAL) => Err(Errno::NOTDIR.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// Splits a path; empty parts and `.` mean nothing.
fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// Returns what `name` in `directory` is, `None` where it is not there. Follows no link.
pub(super) fn kind_of(directory: &OwnedFd, name: &[u8]) -> io::Result<Option<FileType>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns the names in `directory`.
pub(super) fn names_in(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Removes `name` in `directory`, with what is below it.
pub(super) fn remove(directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let inner = open_directory(directory, name)?;
    for child in names_in(&inner)? {
        remove(&inner, &child)?;
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

/// Opens the directory `name` in `directory`; a link is an error.
pub(super) fn open_directory(directory: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(directory, name, DIRECTORY, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn show(path: io::Result<Inside>) -> String {
        match path {
            Ok(inside) => String::from_utf8(inside.path).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn links_and_dots_end_inside() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("root");
        fs::create_dir_all(path.join("usr/bin")).unwrap();
        fs::create_dir_all(path.join("etc/deep")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        symlink("usr/bin", path.join("bin")).unwrap();
        symlink("/usr", path.join("etc/abs")).unwrap();
        symlink("../../../../..", path.join("etc/up")).unwrap();
        symlink(outside.path(), path.join("out")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        let root = Root::open(&path).unwrap();
        for (text, expected) in [
            ("", ""),
            ("bin", "usr/bin"),
            ("./bin//.", "usr/bin"),
            ("/etc/abs/bin", "usr/bin"),
            ("etc/up/usr", "usr"),
            ("etc/deep/../../../../usr", "usr"),
            ("bin/../bin", "usr/bin"),
            ("out", "No such file or directory (os error 2)"),
            ("loop", "Too many levels of symbolic links (os error 40)"),
            ("file/x", "Not a directory (os error 20)"),
            ("a\0b", "Invalid argument (os error 22)"),
        ] {
            assert_eq!(show(root.directory(text.as_bytes())), expected, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_made_inside() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("root");
        fs::create_dir(&path).unwrap();
        symlink("/run/x", path.join("link")).unwrap();
        let root = Root::open(&path).unwrap();
        let mut made = Vec::new();
        let mut note = |p: &[u8]| made.push(String::from_utf8(p.to_vec()).unwrap());
        assert_eq!(show(root.ensure_directory(b"link/y", &mut note)), "run/x/y");
        assert_eq!(made, ["run", "run/x", "run/x/y"]);
        let deep = "d/".repeat(MAX_DEPTH + 1);
        let error = root
            .ensure_directory(deep.as_bytes(), &mut |_| {})
            .err()
            .unwrap();
        assert!(error.to_string().contains("more than 512"), "{error}");
    }

    #[test]
    fn a_tree_is_removed_and_links_in_it_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let path = outside.path().join("root");
        fs::create_dir_all(path.join("tree/a/b")).unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        symlink(outside.path(), path.join("tree/a/out")).unwrap();
        let root = Root::open(&path).unwrap();
        remove(&root.0, b"tree").unwrap();
        assert!(names_in(&root.0).unwrap().is_empty());
        assert!(outside.path().join("precious").exists());
    }
}
