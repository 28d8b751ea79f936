//! What the `trilith` scheme sees of a file or directory: names, kinds, modes, link targets and
//! contents. Never owners, times or where the tree lies, and never what a link leads to.
//!
//! Loading a tree is hashing it; nothing here builds archives out of one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::content::{Content, Links, Sha256Sum, Unread, hash_files};
use crate::digest::Digest;
use crate::hash_error::HashError;
use crate::input_hash::{FieldHasher, InputHash};
use crate::listing::{Entry, NameId, Names, map_entries};
use crate::pattern::Patterns;
use crate::stat_cache::{Stamp, StatCache};
use crate::walk::{Node, Walked, walk};

/// A file, a symbolic link, or a directory and all that counts in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<TreeEntry>,
}

/// One file, directory or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Where it is, relative to the root and separated by slashes; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is, with everything about it that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory {
        /// See [`canonical_mode`].
        mode: u32,
    },
    /// A file.
    File {
        /// See [`canonical_mode`].
        mode: u32,
        /// How many bytes it holds.
        size: u64,
        /// The digest of its content.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads, as it is written.
        target: Vec<u8>,
    },
}

/// Returns the permission bits that count, so that no umask leaks into hashes and layers: the
/// owner's and the set-user-ID, set-group-ID and sticky bits as they are; for group and others
/// the owner's `r` and `x`, and never `w`. So 0664 and 0600 are both 0644.
#[must_use]
pub fn canonical_mode(mode: u32) -> u32 {
    let owner = mode & 0o500;
    (mode & 0o7700) | (owner >> 3) | (owner >> 6)
}

impl Tree {
    /// Returns the entries, sorted by the bytes of their paths. The first is the root.
    #[must_use]
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// Returns the hash of all entries.
    ///
    /// It is that of a [`FieldHasher`] under the domain `trilith/tree/v1`, given for each entry in
    /// order the fields `path` and `entry`, the latter being the 32 bytes of
    /// [`TreeEntry::hash`].
    #[must_use]
    pub fn hash(&self) -> InputHash {
        let entries: Vec<InputHash> = self.entries.par_iter().map(TreeEntry::hash).collect();
        let mut hasher = FieldHasher::new("trilith/tree/v1");
        for (entry, hash) in self.entries.iter().zip(entries) {
            hasher.field("path", &entry.path);
            hasher.field("entry", hash.as_bytes());
        }
        hasher.finish()
    }
}

impl TreeEntry {
    /// Returns the hash of what the entry is, wherever it is.
    ///
    /// It is that of a [`FieldHasher`] under the domain `trilith/tree-entry/v1`, given the field
    /// `kind` and then, for a `directory`, `mode`; for a `file`, `mode`, `size` and `digest`; for a
    /// `symlink`, `target`. Modes and sizes are 4 and 8 bytes, least significant first; the
    /// digest is text.
    #[must_use]
    pub fn hash(&self) -> InputHash {
        let mut hasher = FieldHasher::new("trilith/tree-entry/v1");
        match &self.kind {
            EntryKind::Directory { mode } => {
                hasher.field("kind", "directory");
                hasher.field("mode", mode.to_le_bytes());
            }
            EntryKind::File { mode, size, digest } => {
                hasher.field("kind", "file");
                hasher.field("mode", mode.to_le_bytes());
                hasher.field("size", size.to_le_bytes());
                hasher.field("digest", digest.as_str());
            }
            EntryKind::Symlink { target } => {
                hasher.field("kind", "symlink");
                hasher.field("target", target);
            }
        }
        hasher.finish()
    }
}

/// Loads the tree at `root`, which can be a file or a symbolic link too.
///
/// What `ignore` matches is left out: files and links by their path, directories with everything
/// below them, unless a `!` pattern takes something below back. Directories that hold nothing
/// but what is left out are left out as well; empty ones count. The root always counts, and
/// patterns do not apply to it.
///
/// # Errors
/// Something is not there, cannot be read, vanishes meanwhile, or is a socket, named pipe or
/// device that is not ignored.
pub fn load_tree(root: &Path, ignore: &Patterns, cache: &StatCache) -> Result<Tree, HashError> {
    let failed = |error: Errno| HashError::root(root, error.into());
    let stat = rustix::fs::lstat(root).map_err(failed)?;
    let mut leaf = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            // Once inside the pool there is no waking it for every step.
            return rayon::scope(|_| load_directory(root, &stat, ignore, cache));
        }
        FileType::RegularFile => Leaf::file(&stat, cache),
        FileType::Symlink => Leaf::Symlink {
            target: rustix::fs::readlink(root, Vec::new())
                .map_err(failed)?
                .into_bytes(),
        },
        kind => return Err(HashError::special(root, kind)),
    };
    let unread = leaf.unread(|| root.to_owned()).into_iter().collect();
    hash_files(unread, Links::Refuse, cache)?;
    Ok(Tree {
        entries: vec![TreeEntry {
            path: Vec::new(),
            kind: leaf.into_kind(),
        }],
    })
}

fn load_directory(
    root: &Path,
    stat: &Stat,
    ignore: &Patterns,
    cache: &StatCache,
) -> Result<Tree, HashError> {
    let root = Place {
        path: root.to_owned(),
        prefix: Vec::new(),
        mode: canonical_mode(stat.st_mode),
        ignored: false,
    };
    let mut tree = walk(root, |places, position| {
        visit(places.get(position), ignore, cache)
    })?;
    let mut unread = Vec::new();
    for Node {
        place, contents, ..
    } in &mut tree.nodes
    {
        for (name, leaf) in &mut contents.leaves {
            let name = OsStr::from_bytes(contents.names.get(*name));
            unread.extend(leaf.unread(|| place.path.join(name)));
        }
    }
    hash_files(unread, Links::Refuse, cache)?;
    Ok(Tree {
        entries: into_entries(tree),
    })
}

/// A directory to visit.
struct Place {
    path: PathBuf,
    /// The path relative to the root with a slash at its end; empty for the root.
    prefix: Vec<u8>,
    mode: u32,
    /// It counts only if something in it does.
    ignored: bool,
}

/// What there is in a directory, other directories apart.
struct Contents {
    names: Names,
    leaves: Vec<(NameId, Leaf)>,
    /// There is nothing in it, not even something that is left out.
    empty: bool,
}

/// What is no directory.
enum Leaf {
    File {
        mode: u32,
        content: Content<Sha256Sum>,
    },
    Symlink {
        target: Vec<u8>,
    },
}

/// What an entry of a directory turned out to be.
enum Found {
    Leaf(NameId, Leaf),
    Directory(Box<Place>),
    LeftOut,
}

fn visit(
    place: &Place,
    ignore: &Patterns,
    cache: &StatCache,
) -> Result<(Contents, Vec<Place>), HashError> {
    let rules = ignore.in_directory(&place.prefix);
    let (names, found) = map_entries(&place.path, Links::Refuse, |entry| match entry.kind() {
        FileType::Directory => place.child(entry, ignore),
        _ if rules.matches(entry.name()) => Ok(Found::LeftOut),
        FileType::Symlink => {
            let target = entry.read_link()?;
            Ok(Found::Leaf(entry.id(), Leaf::Symlink { target }))
        }
        FileType::RegularFile => {
            let file = Leaf::file(&entry.stat()?, cache);
            Ok(Found::Leaf(entry.id(), file))
        }
        kind => Err(HashError::special(&entry.path(), kind)),
    })?;
    let mut contents = Contents {
        names,
        leaves: Vec::new(),
        empty: found.is_empty(),
    };
    let mut directories = Vec::new();
    for found in found {
        match found {
            Found::Leaf(name, leaf) => contents.leaves.push((name, leaf)),
            Found::Directory(directory) => directories.push(*directory),
            Found::LeftOut => {}
        }
    }
    Ok((contents, directories))
}

impl Place {
    fn child(&self, entry: Entry<'_>, ignore: &Patterns) -> Result<Found, HashError> {
        let prefix = [&self.prefix[..], entry.name(), b"/"].concat();
        let inside = ignore.in_directory(&prefix);
        let ignored = inside.verdict();
        if ignored && inside.is_decided() {
            return Ok(Found::LeftOut);
        }
        Ok(Found::Directory(Box::new(Self {
            path: entry.path(),
            mode: canonical_mode(entry.stat()?.st_mode),
            prefix,
            ignored,
        })))
    }
}

impl Leaf {
    fn file(stat: &Stat, cache: &StatCache) -> Self {
        Self::File {
            mode: canonical_mode(stat.st_mode),
            content: Content::look_up(Stamp::of(stat), cache),
        }
    }

    /// Returns what there is to read, if anything.
    fn unread(&mut self, path: impl FnOnce() -> PathBuf) -> Option<Unread<'_, Sha256Sum>> {
        match self {
            Self::File { content, .. } => content.unread(path),
            Self::Symlink { .. } => None,
        }
    }

    fn into_kind(self) -> EntryKind {
        match self {
            Self::File { mode, content } => {
                let (size, Sha256Sum(sum)) = content.known();
                let digest = Digest::from_sha256(&sum);
                EntryKind::File { mode, size, digest }
            }
            Self::Symlink { target } => EntryKind::Symlink { target },
        }
    }
}

/// Returns what counts, sorted.
fn into_entries(tree: Walked<Place, Contents>) -> Vec<TreeEntry> {
    let mut counts = vec![false; tree.nodes.len()];
    // From the bottom up: directories in a directory stand behind it.
    for (position, node) in tree.nodes.iter().enumerate().rev() {
        let Node {
            place,
            contents,
            children,
        } = node;
        counts[position] = position == 0
            || !contents.leaves.is_empty()
            || counts[children.clone()].contains(&true)
            || (contents.empty && !place.ignored);
    }
    let nodes = tree.nodes.into_par_iter().zip(counts);
    let counted = nodes.filter(|(_, counts)| *counts);
    let mut entries: Vec<TreeEntry> = counted
        .flat_map_iter(
            |(
                Node {
                    place, contents, ..
                },
                _,
            )| {
                let prefix = place.prefix;
                let directory = TreeEntry {
                    path: prefix.strip_suffix(b"/").unwrap_or_default().to_vec(),
                    kind: EntryKind::Directory { mode: place.mode },
                };
                let Contents { names, leaves, .. } = contents;
                let leaves = leaves.into_iter().map(move |(name, leaf)| TreeEntry {
                    path: [&prefix[..], names.get(name)].concat(),
                    kind: leaf.into_kind(),
                });
                std::iter::once(directory).chain(leaves)
            },
        )
        .collect();
    entries.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries
}
