//! The hash that Python's `dirhash` 0.5.0 gives a directory with MD5, bit for bit.
//!
//! A file is worth the MD5 of its content. A directory is worth the MD5 of its descriptor: one
//! entry per file (`data:<md5>`) and non-empty directory (`dirhash:<md5>`) in it, then a NUL
//! and `name:<name>`; the entries are sorted and joined by two NULs. Links are followed, ignore
//! patterns apply to files only, and what else there is (sockets, dangling links) is passed over.
//! Modes, owners and times do not count. This is not a good hash (names can be told apart
//! from contents by luck only); it is here because existing tags are made of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};
use rayon::prelude::*;
use rustix::fs::FileType;

use crate::content::{Content, ContentHash as _, Links, Md5Sum, Unread, hash_files};
use crate::digest::{hex, push_hex};
use crate::hash_error::HashError;
use crate::listing::{Entry, NameId, Names, map_entries};
use crate::pattern::Patterns;
use crate::stat_cache::{Stamp, StatCache};
use crate::walk::{FEW, Node, Places, Walked, walk};

/// The hash of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirHash {
    /// The MD5 digest, 32 lower-case hexadecimal digits.
    pub digest: String,
    /// How many files went into it.
    pub files: usize,
}

impl DirHash {
    /// Returns the hash of a directory that holds nothing but the directories of `parts`, each
    /// under its name: what [`load_dirhash`] would answer if they were put into one. `None` where
    /// there are none.
    #[must_use]
    pub fn joined(parts: &[(&str, &Self)]) -> Option<Self> {
        let entry = |(name, hash): &(&str, &Self)| format!("dirhash:{}\0name:{name}", hash.digest);
        let mut entries: Vec<String> = parts.iter().map(entry).collect();
        entries.sort_unstable();
        (!entries.is_empty()).then(|| Self {
            digest: hex(&Md5::digest(entries.join("\0\0"))),
            files: parts.iter().map(|(_, hash)| hash.files).sum(),
        })
    }
}

/// Loads the hash of the directory `root`, as `dirhash(root, "md5", ignore=ignore)` gives it.
///
/// Patterns in `ignore` are in the `gitwildmatch` dialect. They are turned round and joined to a
/// list that starts with `*`, so a `!` of their own is part of a name.
///
/// # Errors
/// Where the reference fails: a pattern is refused, `root` is no directory or a symbolic link,
/// links form a cycle, a name that counts is not UTF-8, something cannot be read, or no file
/// is left to hash.
pub fn load_dirhash<P: AsRef<str>>(
    root: &Path,
    ignore: &[P],
    cache: &StatCache,
) -> Result<DirHash, HashError> {
    walk_files(root, &Filter::new(ignore)?, cache, |mut tree| {
        hash_files(unread(&mut tree.nodes), Links::Follow, cache)?;
        let digest = fold(&tree)?.ok_or_else(|| HashError::NothingToHash {
            path: root.to_owned(),
        })?;
        let files = tree.nodes.iter().map(|node| node.contents.files.len());
        Ok(DirHash {
            digest: hex(&digest.0),
            files: files.sum(),
        })
    })
}

/// Walks the directory `root` and returns the relative paths of the files that
/// [`load_dirhash`] hashes, sorted. Reads none of them.
///
/// # Errors
/// As [`load_dirhash`], but names need not be UTF-8, and there may be no file.
pub fn walk_dirhash<P: AsRef<str>>(root: &Path, ignore: &[P]) -> Result<Vec<PathBuf>, HashError> {
    let filter = Filter::new(ignore)?;
    walk_files(root, &filter, &StatCache::disabled(), |tree| {
        let mut paths = Vec::new();
        for node in &tree.nodes {
            for (name, _) in &node.contents.files {
                let name = node.contents.names.get(*name);
                paths.push([&node.place.prefix[..], name].concat());
            }
        }
        paths.sort_unstable();
        let paths = paths.into_iter().map(OsString::from_vec);
        Ok(paths.map(PathBuf::from).collect())
    })
}

/// A directory to visit.
#[derive(Debug)]
struct Place {
    name: Box<[u8]>,
    path: PathBuf,
    /// The path relative to the root with a slash at its end; empty for the root.
    prefix: Vec<u8>,
    /// The path without any link in it.
    real: PathBuf,
    /// It is a symbolic link itself.
    linked: bool,
}

/// The files in a directory that count.
#[derive(Debug)]
struct Files {
    names: Names,
    files: Vec<(NameId, Content<Md5Sum>)>,
}

type FileTree = Walked<Place, Files>;

/// Which files count: all of them, or those that the list matches.
struct Filter(Option<Patterns>);

impl Filter {
    fn new<P: AsRef<str>>(ignore: &[P]) -> Result<Self, HashError> {
        if ignore.is_empty() {
            return Ok(Self(None));
        }
        let turned = ignore
            .iter()
            .map(|pattern| format!("!{}", pattern.as_ref()));
        let list = std::iter::once("*".to_owned()).chain(turned);
        Ok(Self(Some(Patterns::parse(list)?)))
    }
}

/// What an entry of a directory turned out to be.
enum Found {
    File(NameId, Content<Md5Sum>),
    Directory(Box<Place>),
    Nothing,
}

/// Walks the directory `root` and does `then` with the files that count.
fn walk_files<T: Send>(
    root: &Path,
    filter: &Filter,
    cache: &StatCache,
    then: impl FnOnce(FileTree) -> Result<T, HashError> + Send,
) -> Result<T, HashError> {
    let failed = |error| HashError::root(root, error);
    if !fs::metadata(root).map_err(failed)?.is_dir() {
        let path = root.to_owned();
        return Err(HashError::NotADirectory { path });
    }
    let real = fs::canonicalize(root).map_err(failed)?;
    if fs::symlink_metadata(root).map_err(failed)?.is_symlink() {
        // The reference takes a root that is a link for one that leads back to the root.
        return Err(HashError::Cycle {
            link: root.to_owned(),
            target: real,
        });
    }
    let root = Place {
        name: Box::default(),
        path: root.to_owned(),
        prefix: Vec::new(),
        real,
        linked: false,
    };
    let visit = |places: &Places<Place>, position| visit(places, position, filter, cache);
    walk(root, visit, then)
}

fn visit(
    places: &Places<Place>,
    position: usize,
    filter: &Filter,
    cache: &StatCache,
) -> Result<(Files, Vec<Place>), HashError> {
    let place = places.get(position);
    let rules = filter
        .0
        .as_ref()
        .map(|patterns| patterns.in_directory(&place.prefix));
    let (names, found) = map_entries(&place.path, Links::Follow, |entry| {
        let counts = |name: &[u8]| rules.as_ref().is_none_or(|rules| rules.matches(name));
        look(entry, place, counts, cache)
    })?;
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for found in found {
        match found {
            Found::File(name, content) => files.push((name, content)),
            Found::Directory(directory) => directories.push(*directory),
            Found::Nothing => {}
        }
    }
    for directory in directories.iter().filter(|directory| directory.linked) {
        let mut above = places.upwards(position);
        if above.any(|place| place.real == directory.real) {
            return Err(HashError::Cycle {
                link: directory.path.clone(),
                target: directory.real.clone(),
            });
        }
    }
    Ok((Files { names, files }, directories))
}

/// Looks at one entry of the directory `place`. `counts` tells by the name whether a file does.
fn look(
    entry: Entry<'_>,
    place: &Place,
    counts: impl Fn(&[u8]) -> bool,
    cache: &StatCache,
) -> Result<Found, HashError> {
    let linked = entry.kind() == FileType::Symlink;
    let target = if linked { entry.target_stat()? } else { None };
    let kind = match &target {
        Some(stat) => FileType::from_raw_mode(stat.st_mode),
        None => entry.kind(),
    };
    match kind {
        FileType::Directory => Ok(Found::Directory(Box::new(place.child(entry, linked)?))),
        FileType::RegularFile if counts(entry.name()) => {
            let stat = target.map_or_else(|| entry.stat(), Ok)?;
            let content = Content::look_up(Stamp::of(&stat), cache);
            Ok(Found::File(entry.id(), content))
        }
        // A dangling link stays a link.
        _ => Ok(Found::Nothing),
    }
}

impl Place {
    fn child(&self, entry: Entry<'_>, linked: bool) -> Result<Self, HashError> {
        let name: Box<[u8]> = entry.name().into();
        let path = entry.path();
        let real = if linked {
            fs::canonicalize(&path).map_err(|error| HashError::inside("follow", &path, error))?
        } else {
            self.real.join(OsStr::from_bytes(&name))
        };
        Ok(Self {
            prefix: [&self.prefix[..], &name, b"/"].concat(),
            name,
            path,
            real,
            linked,
        })
    }
}

/// Returns the files that have to be read.
fn unread(nodes: &mut [Node<Place, Files>]) -> Vec<Unread<'_, Md5Sum>> {
    let mut unread = Vec::new();
    for node in nodes {
        for (name, content) in &mut node.contents.files {
            let name = OsStr::from_bytes(node.contents.names.get(*name));
            unread.extend(content.unread(|| node.place.path.join(name)));
        }
    }
    unread
}

/// Returns the hash of the root, `None` where no file is left in the tree.
fn fold(tree: &FileTree) -> Result<Option<Md5Sum>, HashError> {
    let mut hashes: Vec<Option<Md5Sum>> = vec![None; tree.nodes.len()];
    for level in tree.levels.iter().rev() {
        let positions: Vec<usize> = level.clone().collect();
        let fold = |group| fold_group(tree, group, &hashes);
        let folded: Vec<_> = if positions.len() <= FEW {
            let groups = positions.chunks(Md5Sum::GROUP);
            groups.map(fold).collect::<Result<_, _>>()?
        } else {
            let groups = positions.par_chunks(Md5Sum::GROUP);
            groups.map(fold).collect::<Result<_, _>>()?
        };
        for (&position, hash) in positions.iter().zip(folded.into_iter().flatten()) {
            hashes[position] = hash;
        }
    }
    Ok(hashes[0])
}

/// Returns the hashes of some directories, `None` for those with no file in them.
fn fold_group(
    tree: &FileTree,
    positions: &[usize],
    hashes: &[Option<Md5Sum>],
) -> Result<Vec<Option<Md5Sum>>, HashError> {
    let positions = positions.iter();
    let descriptors = positions.map(|&position| descriptor(tree, position, hashes));
    let descriptors: Vec<_> = descriptors.collect::<Result<_, _>>()?;
    let texts: Vec<&[u8]> = descriptors.iter().map(Vec::as_slice).collect();
    let folded = Md5Sum::of_group(&texts).into_iter().zip(texts);
    let folded = folded.map(|(hash, text)| (!text.is_empty()).then_some(hash));
    Ok(folded.collect())
}

/// Returns what the hash of a directory is the MD5 of, given the hashes of those in it.
fn descriptor(
    tree: &FileTree,
    position: usize,
    hashes: &[Option<Md5Sum>],
) -> Result<Vec<u8>, HashError> {
    let node = &tree.nodes[position];
    let (files, children) = (&node.contents.files, node.children.clone());
    // In the order of the entries as text: `data:` comes before `dirhash:`, and digests
    // compare as their hexadecimal digits do.
    let mut entries = Vec::with_capacity(files.len() + children.len());
    for (name, content) in files {
        let name = node.contents.names.get(*name);
        entries.push(("data:", content.known().1, name));
    }
    for child in children {
        let name = &tree.nodes[child].place.name[..];
        entries.extend(hashes[child].map(|hash| ("dirhash:", hash, name)));
    }
    entries.sort_unstable();
    let mut text = Vec::with_capacity(entries.len() * 80);
    for (kind, Md5Sum(hash), name) in entries {
        if std::str::from_utf8(name).is_err() {
            let path = node.place.path.join(OsStr::from_bytes(name));
            return Err(HashError::NotUtf8 { path });
        }
        if !text.is_empty() {
            text.extend_from_slice(b"\0\0");
        }
        text.extend_from_slice(kind.as_bytes());
        push_hex(&mut text, &hash);
        text.extend_from_slice(b"\0name:");
        text.extend_from_slice(name);
    }
    Ok(text)
}
