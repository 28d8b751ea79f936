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
use crate::dockerignore::DockerIgnore;
use crate::hash_error::HashError;
use crate::ignore::{Ignore, Inside as _};
use crate::input_hash::{FieldHasher, InputHash};
use crate::listing::{Entry, NameId, Names, map_entries};
use crate::pattern::Patterns;
use crate::stat_cache::{Stamp, StatCache};
use crate::walk::{FEW, Node, Places, Walked, walk};

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
    /// Returns the tree that is one file with these bytes. Of `mode` counts what
    /// [`canonical_mode`] leaves.
    #[must_use]
    pub fn of_file(mode: u32, content: &[u8]) -> Self {
        let kind = EntryKind::File {
            mode: canonical_mode(mode),
            size: content.len() as u64,
            digest: Digest::of(content),
        };
        let path = Vec::new();
        Self {
            entries: vec![TreeEntry { path, kind }],
        }
    }

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
        let entries: Vec<InputHash> = if self.entries.len() <= FEW {
            self.entries.iter().map(TreeEntry::hash).collect()
        } else {
            self.entries.par_iter().map(TreeEntry::hash).collect()
        };
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
    load(root, ignore, cache)
}

/// Loads the build context at `root` as Docker sends it: as [`load_tree`] does, but sockets are
/// passed over, and a directory that is not left out itself counts even if everything in it is.
///
/// # Errors
/// As [`load_tree`]. Docker passes over directories that it may not read and that are left out but
/// for what a `!` pattern may take back; here they are an error, since what is taken back must
/// not depend on who looks.
pub fn load_context(
    root: &Path,
    ignore: &DockerIgnore,
    cache: &StatCache,
) -> Result<Tree, HashError> {
    load(root, ignore, cache)
}

fn load(root: &Path, ignore: &impl Ignore, cache: &StatCache) -> Result<Tree, HashError> {
    let failed = |error: Errno| HashError::root(root, error.into());
    let stat = rustix::fs::lstat(root).map_err(failed)?;
    let mut leaf = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            return load_directory(root, &stat, ignore, cache);
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
    ignore: &impl Ignore,
    cache: &StatCache,
) -> Result<Tree, HashError> {
    let root = Place {
        path: root.to_owned(),
        prefix: Vec::new(),
        mode: canonical_mode(stat.st_mode),
        ignored: false,
    };
    let visit = |places: &Places<Place>, position| visit(places.get(position), ignore, cache);
    walk(root, visit, |mut tree| {
        let mut unread = Vec::new();
        for node in &mut tree.nodes {
            for (name, leaf) in &mut node.contents.leaves {
                let name = OsStr::from_bytes(node.contents.names.get(*name));
                unread.extend(leaf.unread(|| node.place.path.join(name)));
            }
        }
        hash_files(unread, Links::Refuse, cache)?;
        Ok(Tree {
            entries: into_entries(tree),
        })
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
    /// The directory counts even if nothing in it does.
    alone: bool,
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

fn visit<I: Ignore>(
    place: &Place,
    ignore: &I,
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
        FileType::Socket if I::AS_DOCKER => Ok(Found::LeftOut),
        kind => Err(HashError::special(&entry.path(), kind)),
    })?;
    let mut contents = Contents {
        names,
        leaves: Vec::new(),
        alone: !place.ignored && (I::AS_DOCKER || found.is_empty()),
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
    fn child(&self, entry: Entry<'_>, ignore: &impl Ignore) -> Result<Found, HashError> {
        let prefix = [&self.prefix[..], entry.name(), b"/"].concat();
        let ignored = {
            let inside = ignore.in_directory(&prefix);
            if inside.verdict() && inside.is_decided() {
                return Ok(Found::LeftOut);
            }
            inside.verdict()
        };
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
    // From the bottom up: the directories in a directory stand behind it.
    for (position, node) in tree.nodes.iter().enumerate().rev() {
        counts[position] = position == 0
            || !node.contents.leaves.is_empty()
            || counts[node.children.clone()].contains(&true)
            || node.contents.alone;
    }
    let counting = |(node, counts): (_, bool)| counts.then(|| entries(node)).into_iter().flatten();
    let nodes = tree.nodes;
    let mut entries: Vec<TreeEntry> = if nodes.len() <= FEW {
        nodes.into_iter().zip(counts).flat_map(counting).collect()
    } else {
        let nodes = nodes.into_par_iter().zip(counts);
        nodes.flat_map_iter(counting).collect()
    };
    entries.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Returns a directory and what is in it, other directories apart.
fn entries(node: Node<Place, Contents>) -> impl Iterator<Item = TreeEntry> {
    let Place { prefix, mode, .. } = node.place;
    let Contents { names, leaves, .. } = node.contents;
    let directory = TreeEntry {
        path: prefix.strip_suffix(b"/").unwrap_or_default().to_vec(),
        kind: EntryKind::Directory { mode },
    };
    let leaves = leaves.into_iter().map(move |(name, leaf)| TreeEntry {
        path: [&prefix[..], names.get(name)].concat(),
        kind: leaf.into_kind(),
    });
    std::iter::once(directory).chain(leaves)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::stat_cache::Saved;

    /// Makes a tree of `path`, `path/` (a directory) and `path -> target`.
    fn make(entries: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for entry in entries {
            let (path, target) = entry.split_once(" -> ").unwrap_or((entry, ""));
            let path = root.path().join(path);
            if entry.ends_with('/') {
                fs::create_dir_all(path).unwrap();
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if target.is_empty() {
                fs::write(path, entry).unwrap();
            } else {
                symlink(target, path).unwrap();
            }
        }
        root
    }

    fn load(root: &Path, ignore: &[&str]) -> Result<Tree, HashError> {
        let ignore = Patterns::parse(ignore).unwrap();
        load_tree(root, &ignore, &StatCache::disabled())
    }

    fn paths(tree: &Tree) -> Vec<String> {
        let path = |entry: &TreeEntry| String::from_utf8(entry.path.clone()).unwrap();
        tree.entries().iter().map(path).collect()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn canonical_modes() {
        for (mode, expected) in [
            (0o664, 0o644),
            (0o640, 0o644),
            (0o600, 0o644),
            (0o777, 0o755),
            (0o700, 0o755),
            (0o444, 0o444),
            (0o4750, 0o4755),
            (0o1777, 0o1755),
            (0o100_644, 0o644),
            (0o077, 0),
            (0o200, 0o200),
        ] {
            assert_eq!(canonical_mode(mode), expected, "{mode:o}");
        }
    }

    /// The bytes the documentation of the hashes promises, written out.
    #[test]
    fn the_format_is_pinned() {
        let root = make(&["b", "a/x", "l -> a"]);
        fs::write(root.path().join("b"), "1").unwrap();
        fs::write(root.path().join("a/x"), "").unwrap();
        set_mode(&root.path().join("a/x"), 0o750);
        let tree = load(root.path(), &[]).unwrap();
        assert_eq!(paths(&tree), ["", "a", "a/x", "b", "l"]);
        let sha256 = |domain: &[u8], fields: &[(&str, &[u8])]| {
            let mut bytes = (domain.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(domain);
            for field in fields
                .iter()
                .flat_map(|(name, value)| [name.as_bytes(), value])
            {
                bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
                bytes.extend_from_slice(field);
            }
            Digest::of(&bytes).hex().to_owned()
        };
        let domain = b"trilith/tree-entry/v1";
        let expected = [
            sha256(domain, &[("kind", b"directory"), ("mode", b"\xed\x01\0\0")]),
            sha256(
                domain,
                &[
                    ("kind", b"file"),
                    ("mode", b"\xed\x01\0\0"),
                    ("size", &[0; 8]),
                    ("digest", Digest::of(b"").as_str().as_bytes()),
                ],
            ),
            sha256(
                domain,
                &[
                    ("kind", b"file"),
                    ("mode", b"\xa4\x01\0\0"),
                    ("size", b"\x01\0\0\0\0\0\0\0"),
                    ("digest", Digest::of(b"1").as_str().as_bytes()),
                ],
            ),
            sha256(domain, &[("kind", b"symlink"), ("target", b"a")]),
        ];
        let hashes: Vec<String> = tree.entries()[1..]
            .iter()
            .map(|e| e.hash().to_hex())
            .collect();
        assert_eq!(hashes, expected);
        assert_eq!(
            tree.hash().to_hex(),
            "818db28e6f831758f230509a59bd7710ca4fd3c77672d98a81e41720f3713891"
        );
    }

    #[test]
    fn what_is_left_out() {
        let tree = [
            "a.py",
            "a.pyc",
            "docs/x.md",
            "docs/y.md",
            "empty/",
            "build/keep/x",
            "build/y",
            "build/void/",
            "m/.cache/z",
            "m/.cache/void/",
            "l.pyc -> a.py",
        ];
        for (ignore, expected) in [
            (
                &[".*/", "*.pyc", "*.md", "build"][..],
                &["", "a.py", "empty"][..],
            ),
            (
                &["*.pyc", "docs", "m", "empty", "build/", "!build/keep/"],
                &["", "a.py", "build", "build/keep", "build/keep/x"],
            ),
            (&["*"], &[""]),
            (&["*", "!y.md"], &["", "docs", "docs/y.md"]),
            (&["*.*", "m", "build/*"], &["", "empty"]),
        ] {
            let root = make(&tree);
            let tree = load(root.path(), ignore).unwrap();
            assert_eq!(paths(&tree), expected, "{ignore:?}");
        }
    }

    #[test]
    fn a_bracket_that_matches_a_slash_takes_no_directory() {
        let root = make(&["test/x", "tests/y", "testy"]);
        let tree = load(root.path(), &["test[!s]"]).unwrap();
        assert_eq!(paths(&tree), ["", "test", "test/x", "tests", "tests/y"]);
    }

    #[test]
    fn links_are_never_followed() {
        let root = make(&[
            "d/f",
            "out -> /etc",
            "loop -> .",
            "gone -> nowhere",
            "self -> self",
        ]);
        let tree = load(root.path(), &[]).unwrap();
        let links = tree.entries().iter().filter_map(|entry| match &entry.kind {
            EntryKind::Symlink { target } => Some((entry.path.as_slice(), target.as_slice())),
            _ => None,
        });
        let expected: [(&[u8], &[u8]); 4] = [
            (b"gone", b"nowhere"),
            (b"loop", b"."),
            (b"out", b"/etc"),
            (b"self", b"self"),
        ];
        assert_eq!(links.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_root_can_be_a_file_or_a_link() {
        let root = make(&["f", "l -> f"]);
        let file = load(&root.path().join("f"), &["*"]).unwrap();
        let digest = Digest::of(b"f");
        let (mode, size) = (0o644, 1);
        set_mode(&root.path().join("f"), 0o600);
        assert_eq!(paths(&file), [""]);
        assert_eq!(
            file.entries()[0].kind,
            EntryKind::File { mode, size, digest }
        );
        let link = load(&root.path().join("l"), &[]).unwrap();
        let target = b"f".to_vec();
        assert_eq!(link.entries()[0].kind, EntryKind::Symlink { target });
    }

    #[test]
    fn where_when_and_under_which_umask_does_not_count() {
        let (one, two) = (make(&["a/b", "c", "a.b"]), make(&["a.b", "c", "a/b"]));
        fs::write(one.path().join("a/b"), "same").unwrap();
        fs::write(two.path().join("a/b"), "same").unwrap();
        for path in ["c", "a/b"] {
            set_mode(&two.path().join(path), 0o600);
        }
        set_mode(&two.path().join("a"), 0o700);
        let file = File::options()
            .write(true)
            .open(two.path().join("c"))
            .unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let (one, two) = (
            load(one.path(), &[]).unwrap(),
            load(two.path(), &[]).unwrap(),
        );
        assert_eq!(one, two);
        assert_eq!(one.hash(), two.hash());
        assert_eq!(paths(&one), ["", "a", "a.b", "a/b", "c"]);
    }

    #[test]
    fn names_need_not_be_text() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(OsStr::from_bytes(b"\xff\n\x01")), "").unwrap();
        let tree = load(root.path(), &[]).unwrap();
        assert_eq!(tree.entries()[1].path, b"\xff\n\x01");
        let answer = crate::load_dirhash::<&str>(root.path(), &[], &StatCache::disabled());
        assert!(matches!(answer, Err(HashError::NotUtf8 { .. })));
    }

    #[test]
    fn what_has_no_content_is_refused_unless_ignored() {
        let root = make(&["f"]);
        let _socket = UnixListener::bind(root.path().join("s")).unwrap();
        let error = load(root.path(), &[]).unwrap_err();
        let expected = format!(
            "`{}` is a socket, which has no content to hash",
            root.path().join("s").display()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.hint().unwrap(), "add it to the ignore patterns");
        assert_eq!(paths(&load(root.path(), &["s"]).unwrap()), ["", "f"]);
        let error = load(Path::new("/dev/null"), &[]).unwrap_err();
        assert!(matches!(
            error,
            HashError::SpecialFile { what: "device", .. }
        ));
    }

    #[test]
    fn errors_name_the_path() {
        let error = load(Path::new("/nonexistent/x"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "`/nonexistent/x` does not exist");
        // A file that can be opened and not read, whoever asks.
        let error = load(Path::new("/proc/self/mem"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/proc/self/mem`");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d/".repeat(800));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "").unwrap();
        assert_eq!(load(root.path(), &[]).unwrap().entries().len(), 802);
        let cache = StatCache::disabled();
        let hash = crate::load_dirhash::<&str>(root.path(), &[], &cache).unwrap();
        assert_eq!(hash.files, 1);
    }

    #[test]
    fn a_tree_that_changes_meanwhile_gives_an_answer_or_an_error() {
        let root = make(&["a/1", "a/2", "b/1"]);
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                for round in 0..100 {
                    let directory = root.path().join("busy");
                    fs::create_dir(&directory).unwrap();
                    for file in 0..5 {
                        fs::write(directory.join(file.to_string()), vec![0; round]).unwrap();
                    }
                    fs::remove_dir_all(&directory).unwrap();
                }
            });
            while !busy.is_finished() {
                match load(root.path(), &[]) {
                    Ok(tree) => assert!(tree.entries().len() >= 6),
                    Err(error) => {
                        assert!(matches!(error, HashError::Vanished { .. }), "{error}");
                        assert!(error.is_retryable());
                    }
                }
            }
        });
    }

    #[test]
    fn files_of_all_sizes() {
        let root = tempfile::tempdir().unwrap();
        let sizes = [0, 1, 131_071, 131_072, 131_073, 262_144, 1_000_000];
        for size in sizes {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            fs::write(root.path().join(size.to_string()), content).unwrap();
        }
        let sparse = File::create(root.path().join("sparse")).unwrap();
        sparse.set_len(50_000_000).unwrap();
        let cache_file = tempfile::tempdir().unwrap();
        let cache = StatCache::load(&cache_file.path().join("c"));
        let tree = load_tree(root.path(), &Patterns::default(), &cache).unwrap();
        for entry in &tree.entries()[1..] {
            let EntryKind::File { size, digest, .. } = &entry.kind else {
                panic!("{entry:?}");
            };
            let path = root.path().join(OsStr::from_bytes(&entry.path));
            let content = fs::read(path).unwrap();
            assert_eq!(*size, content.len() as u64);
            assert_eq!(*digest, Digest::of(&content));
        }
        assert!(matches!(cache.save(), Saved::Written));
        let cache = StatCache::load(&cache_file.path().join("c"));
        assert_eq!(
            load_tree(root.path(), &Patterns::default(), &cache).unwrap(),
            tree
        );
        assert_eq!(cache.files_read(), 0);
    }

    fn any_kind() -> impl Strategy<Value = EntryKind> {
        let content = || proptest::collection::vec(any::<u8>(), 0..3);
        prop_oneof![
            (0u32..4).prop_map(|mode| EntryKind::Directory { mode }),
            (0u32..4, content()).prop_map(|(mode, content)| EntryKind::File {
                mode,
                size: content.len() as u64,
                digest: Digest::of(&content),
            }),
            content().prop_map(|target| EntryKind::Symlink { target }),
        ]
    }

    fn any_tree() -> impl Strategy<Value = Tree> {
        let path = proptest::collection::vec(any::<u8>(), 0..3);
        proptest::collection::btree_map(path, any_kind(), 0..4).prop_map(|entries| {
            let entries = entries
                .into_iter()
                .map(|(path, kind)| TreeEntry { path, kind });
            Tree {
                entries: entries.collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn different_trees_have_different_hashes(one in any_tree(), two in any_tree()) {
            prop_assert_eq!(one == two, one.hash() == two.hash());
        }

        #[test]
        fn any_change_moves_the_hash(tree in any_tree(), at in 0usize..4, kind in any_kind()) {
            let mut other = tree.clone();
            if let Some(entry) = other.entries.get_mut(at) {
                entry.kind = kind;
            } else {
                other.entries.push(TreeEntry { path: vec![255; 4], kind });
            }
            prop_assert_eq!(tree == other, tree.hash() == other.hash());
        }
    }
}
