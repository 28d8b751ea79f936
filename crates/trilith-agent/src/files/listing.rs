//! What there is: one file, or the files of a directory, a page at a time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, readlinkat, statat};
use serde::Serialize;

use super::root::{Root, failure};
use super::stage::is_stage;
use crate::failure::Outcome;

/// A file of any kind, not followed if it is a link. What is not UTF-8 in names is replaced.
#[derive(Debug, Serialize)]
pub(super) struct Item {
    name: String,
    path: String,
    kind: &'static str,
    /// In bytes.
    size: u64,
    /// Permissions, in octal.
    mode: String,
    uid: u32,
    gid: u32,
    /// Seconds since 1970.
    mtime: i64,
    /// What a link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Page {
    items: Vec<Item>,
    next_page_id: Option<String>,
}

/// Returns what is at `path`.
pub(super) fn stat(root: &Root, path: &Path) -> Outcome<Item> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let file = root.open(path, flags)?;
    let found = statat(&file, c"", AtFlags::EMPTY_PATH);
    let found = found.map_err(|error| failure("read", path, error))?;
    let target = readlinkat(&file, c"", Vec::new()).ok();
    let target = target.map(|target| String::from_utf8_lossy(target.to_bytes()).into_owned());
    Ok(item(path, &found, target))
}

/// Returns up to `limit` files of the directory `path` in the order of their names, from `first` on.
pub(super) fn list(root: &Root, path: &Path, first: &[u8], limit: usize) -> Outcome<Page> {
    let dir = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let fail = |error| failure("list", path, error);
    // Never more names than are wanted, however many there are.
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(&dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        let name = OsString::from_vec(name.to_owned());
        if name == "." || name == ".." || is_stage(&name) || name.as_bytes() < first {
            continue;
        }
        names.insert(name);
        if names.len() > limit + 1 {
            names.pop_last();
        }
    }
    let next = if names.len() > limit {
        names.pop_last()
    } else {
        None
    };
    let next_page_id = next.map(|name| name.to_string_lossy().into_owned());
    let found = names.into_iter().filter_map(|name| {
        // It may be gone by now.
        let found = statat(dir.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let target = readlinkat(dir.as_fd(), &name, Vec::new()).ok();
        let target = target.map(|target| String::from_utf8_lossy(target.to_bytes()).into_owned());
        Some(item(&path.join(&name), &found, target))
    });
    Ok(Page {
        items: found.collect(),
        next_page_id,
    })
}

fn item(path: &Path, stat: &Stat, target: Option<String>) -> Item {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        _ => "other",
    };
    Item {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        path: path.to_string_lossy().into_owned(),
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: format!("{:04o}", stat.st_mode & 0o7777),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        target: target.filter(|_| kind == "symlink"),
    }
}
