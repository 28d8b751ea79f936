//! What goes into a layer, and what must not.
//!
//! Checks names and their relation to each other; opens no file.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use bytes::Bytes;
use trilith_core::{Destination, Digest, Owner, Tree, TreeEntry};

use crate::error::Error;

/// The longest path that Linux takes, in bytes.
const MAX_PATH: usize = 4095;
/// The longest name of a path's component.
const MAX_NAME: usize = 255;
/// What a name starts with that stands for a deletion (OCI image specification 1.1, `layer.md#whiteouts`).
const WHITEOUT: &[u8] = b".wh.";

/// A file, directory or symbolic link, and where it goes in the image.
#[derive(Clone, Debug)]
pub struct LayerEntry {
    /// Path in the image, relative to its root: no leading slash, no `.`, no `..`. Any bytes else.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Who owns it.
    pub owner: Owner,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// A directory.
    Directory {
        /// Permission bits with setuid, setgid and sticky, at most `0o7777`.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permission bits with setuid, setgid and sticky, at most `0o7777`.
        mode: u32,
        /// Length in bytes.
        size: u64,
        /// What the content hashed to when it was looked at.
        digest: Digest,
        /// Where the content is.
        content: LayerContent,
    },
    /// A symbolic link, absolute, dangling or leading out of the tree as may be: it is text.
    Symlink {
        /// What it points to, any bytes.
        target: Vec<u8>,
    },
}

/// The content of a file.
#[derive(Clone, Debug)]
pub enum LayerContent {
    /// A file on disk, which must not be a symbolic link.
    Path(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
}

/// Returns the entries of `tree` at `to`, all owned by `owner`. `content` is where it was loaded
/// from, or the bytes of a tree that is one file.
///
/// A tree that is one file or link becomes `to`. One that is a directory gives `to` its mode and
/// owner too, but for `/`, which is always the base's; directories above `to` are not written.
#[must_use]
pub fn layer_entries(
    tree: &Tree,
    content: &LayerContent,
    to: &Destination,
    owner: Owner,
) -> Vec<LayerEntry> {
    let to = to.relative().as_bytes();
    let is_image_root = |entry: &&TreeEntry| {
        let is_directory = matches!(entry.kind, trilith_core::EntryKind::Directory { .. });
        is_directory && entry.path.is_empty() && to.is_empty()
    };
    let entries = tree.entries().iter();
    entries
        .filter(|entry| !is_image_root(entry))
        .map(|entry| LayerEntry {
            path: join(to, &entry.path),
            kind: kind(entry, content),
            owner,
        })
        .collect()
}

/// Returns what `entry` is, its content in the tree with this one.
fn kind(entry: &TreeEntry, content: &LayerContent) -> EntryKind {
    match entry.kind.clone() {
        trilith_core::EntryKind::Directory { mode } => EntryKind::Directory { mode },
        trilith_core::EntryKind::Symlink { target } => EntryKind::Symlink { target },
        trilith_core::EntryKind::File { mode, size, digest } => EntryKind::File {
            mode,
            size,
            digest,
            content: match content {
                LayerContent::Path(root) => {
                    let path = join(root.as_os_str().as_bytes(), &entry.path);
                    LayerContent::Path(OsString::from_vec(path).into())
                }
                LayerContent::Bytes(bytes) => LayerContent::Bytes(bytes.clone()),
            },
        },
    }
}

fn join(parent: &[u8], child: &[u8]) -> Vec<u8> {
    if parent.is_empty() || child.is_empty() {
        [parent, child].concat()
    } else {
        [parent, child].join(&b'/')
    }
}

/// Returns `entries` in the order of their paths' bytes.
///
/// # Errors
/// [`Error::LayerEntry`] for a path that leaves the root, is not in normal form or stands twice,
/// and for one under something that is no directory.
pub(super) fn sorted(mut entries: Vec<LayerEntry>) -> Result<Vec<LayerEntry>, Error> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut leaves: HashSet<&[u8]> = HashSet::new();
    let mut previous: Option<&LayerEntry> = None;
    for entry in &entries {
        check(entry, previous, &leaves).map_err(|reason| refused(entry, reason))?;
        if !matches!(entry.kind, EntryKind::Directory { .. }) {
            leaves.insert(&entry.path);
        }
        previous = Some(entry);
    }
    Ok(entries)
}

/// Refuses names that an engine would take for a deletion.
pub(super) fn refuse_whiteouts(entries: &[LayerEntry]) -> Result<(), Error> {
    let is_whiteout = |entry: &&LayerEntry| {
        let mut names = entry.path.split(|byte| *byte == b'/');
        names.any(|name| name.starts_with(WHITEOUT))
    };
    match entries.iter().find(is_whiteout) {
        Some(entry) => {
            let reason = "a name that starts with `.wh.` stands for a deletion";
            Err(refused(entry, reason.to_owned()))
        }
        None => Ok(()),
    }
}

fn refused(entry: &LayerEntry, reason: String) -> Error {
    let path = entry.path.escape_ascii().to_string();
    Error::LayerEntry { path, reason }
}

fn check(
    entry: &LayerEntry,
    previous: Option<&LayerEntry>,
    leaves: &HashSet<&[u8]>,
) -> Result<(), String> {
    let path = entry.path.as_slice();
    check_path(path)?;
    if previous.is_some_and(|previous| previous.path == path) {
        return Err("it stands twice".to_owned());
    }
    // Sorted by bytes, whatever lies above an entry comes before it.
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for (slash, _) in slashes {
        if leaves.contains(&path[..slash]) {
            let parent = path[..slash].escape_ascii();
            return Err(format!("`{parent}` above it is not a directory"));
        }
    }
    match &entry.kind {
        EntryKind::Symlink { target } if target.is_empty() => {
            Err("the target of the link is empty".to_owned())
        }
        EntryKind::Symlink { target } if target.contains(&0) => {
            Err("the target of the link holds a NUL byte".to_owned())
        }
        EntryKind::Symlink { target } if target.len() > MAX_PATH => Err(format!(
            "the target of the link is longer than {MAX_PATH} bytes"
        )),
        EntryKind::Directory { mode } | EntryKind::File { mode, .. } if *mode > 0o7777 => {
            Err(format!("its mode {mode:o} has other bits than permissions"))
        }
        _ => Ok(()),
    }
}

fn check_path(path: &[u8]) -> Result<(), String> {
    if path.is_empty() {
        return Err("its path is empty".to_owned());
    }
    if path.contains(&0) {
        return Err("its path holds a NUL byte".to_owned());
    }
    if path.starts_with(b"/") {
        return Err("its path is absolute".to_owned());
    }
    if path.len() > MAX_PATH {
        return Err(format!("its path is longer than {MAX_PATH} bytes"));
    }
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => return Err("its path is not in normal form".to_owned()),
            b".." => return Err("its path holds `..`".to_owned()),
            _ if name.len() > MAX_NAME => {
                return Err(format!("a name in it is longer than {MAX_NAME} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}
