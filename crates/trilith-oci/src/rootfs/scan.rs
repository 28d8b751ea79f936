//! What a directory holds, in the order of a layer, opened nowhere yet.
//!
//! Follows no link. Names in place of content: files are read when the layer is written.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;

use crate::error::Error;

/// The attribute that gives a program capabilities.
pub(super) const CAPABILITY: &str = "security.capability";

/// Something in a directory.
pub(super) struct Found {
    /// Path from the directory, without a slash at either end.
    pub path: Vec<u8>,
    pub what: What,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The value of [`CAPABILITY`].
    pub capability: Option<Vec<u8>>,
}

/// What it is.
pub(super) enum What {
    Directory,
    File {
        size: u64,
        /// Device and inode, to know it again when it is opened.
        identity: (u64, u64),
        /// Whether it has other names, in the directory or elsewhere.
        is_shared: bool,
    },
    /// Another name of the file at a path that comes earlier.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    /// Major and minor number.
    CharDevice((u32, u32)),
    /// Major and minor number.
    BlockDevice((u32, u32)),
}

/// Returns what is in the directory `root`, sorted by path, but for sockets, which no layer
/// can hold and which mean nothing without the program behind them.
pub(super) fn scan(root: &Path) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        let path = root.join(OsStr::from_bytes(&directory));
        for entry in fs::read_dir(&path).map_err(Error::io("list", &path))? {
            let name = entry.map_err(Error::io("list", &path))?.file_name();
            let name = super::root::join(&directory, &name.into_vec());
            if let Some(entry) = examine(root, name)? {
                if matches!(entry.what, What::Directory) {
                    pending.push(entry.path.clone());
                }
                found.push(entry);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    link(&mut found);
    Ok(found)
}

/// Looks at what is at `path` in `root`; a socket is nothing.
fn examine(root: &Path, path: Vec<u8>) -> Result<Option<Found>, Error> {
    let full = root.join(OsStr::from_bytes(&path));
    let metadata = fs::symlink_metadata(&full).map_err(Error::io("examine", &full))?;
    let kind = metadata.file_type();
    let device = || {
        let device = metadata.rdev();
        (rustix::fs::major(device), rustix::fs::minor(device))
    };
    let what = if kind.is_dir() {
        What::Directory
    } else if kind.is_file() {
        What::File {
            size: metadata.len(),
            identity: (metadata.dev(), metadata.ino()),
            is_shared: metadata.nlink() > 1,
        }
    } else if kind.is_symlink() {
        let target = fs::read_link(&full).map_err(Error::io("read", &full))?;
        What::Symlink(target.into_os_string().into_vec())
    } else if kind.is_fifo() {
        What::Fifo
    } else if kind.is_char_device() {
        What::CharDevice(device())
    } else if kind.is_block_device() {
        What::BlockDevice(device())
    } else {
        return Ok(None);
    };
    let capability = match what {
        What::File { .. } => capability(&full)?,
        _ => None,
    };
    Ok(Some(Found {
        path,
        what,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        capability,
    }))
}

fn capability(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    // The kernel's own structure has 24 bytes at most.
    let mut value = [0; 64];
    match rustix::fs::lgetxattr(path, CAPABILITY, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(Error::io("examine", path)(errno.into())),
    }
}

/// Turns all but the first name of a file into links to the first.
fn link(found: &mut [Found]) {
    let mut first: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    for entry in found {
        if let What::File {
            identity,
            is_shared: true,
            ..
        } = entry.what
        {
            match first.get(&identity) {
                Some(path) => entry.what = What::HardLink(path.clone()),
                None => drop(first.insert(identity, entry.path.clone())),
            }
        }
    }
}
