//! The list of what is in a build context.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use trilith_core::{
    Digest, Digester, DockerIgnore, EntryKind, FieldHasher, HashError, InputHash, Owner, Patterns,
    StatCache, Tree, TreeEntry, load_context, load_tree,
};
use trilith_oci::layer::{self, LayerContent, LayerEntry};

use super::error::BuildContextError;
use super::ignore_file::{self, IgnoreRules, line_for};

/// What a Dockerfile is called unless somebody says otherwise.
const DEFAULT_DOCKERFILE: &str = "Dockerfile";
/// Bytes that are read at once.
const PIECE: usize = 128 * 1024;

/// The Dockerfile of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dockerfile {
    /// A file, inside the context or elsewhere. Symbolic links are followed.
    File(PathBuf),
    /// Text that is in no file, such as a rendered template.
    Text(String),
}

/// A build context, listed and hashed.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// Sorted by path, the root itself apart.
    entries: Vec<ContextEntry>,
    /// What an archive holds besides or in place of entries with the same path.
    build_files: BTreeMap<Vec<u8>, ContextEntry>,
    dockerfile: Vec<u8>,
}

/// A file, directory or symbolic link in a build context.
#[derive(Clone, Debug)]
pub struct ContextEntry {
    /// What it is. The path is relative to the context, separated by slashes and never empty.
    pub entry: TreeEntry,
    content: Content,
}

/// Where the content of an entry is.
#[derive(Clone, Debug)]
enum Content {
    /// Below `root`, at the entry's path without its first `skip` bytes.
    Below { root: Arc<Path>, skip: usize },
    /// Made here.
    Bytes(Bytes),
}

impl Dockerfile {
    /// Returns the Dockerfile as an entry without a path, and the path of the file if it is one.
    fn load(
        &self,
        cache: &StatCache,
    ) -> Result<(Option<PathBuf>, ContextEntry), BuildContextError> {
        match self {
            Self::File(path) => {
                let (path, file) = load_file("Dockerfile", path, cache)?;
                Ok((Some(path), file))
            }
            Self::Text(text) => Ok((None, ContextEntry::made("", text.clone()))),
        }
    }
}

impl BuildContext {
    /// Lists and hashes the context in `directory`.
    ///
    /// # Errors
    /// The directory or Dockerfile is missing or something else, the ignore file is refused, or
    /// something that is not left out cannot be read, vanishes or is a named pipe or a device.
    /// Sockets are passed over, as Docker does.
    pub fn load(
        directory: &Path,
        dockerfile: &Dockerfile,
        ignore: &IgnoreRules,
        cache: &StatCache,
    ) -> Result<Self, BuildContextError> {
        let root = resolve_directory(directory)?;
        let rules = ignore.load(&root, dockerfile)?;
        let tree = load_context(&root, &rules, cache)?;
        let mut context = Self::empty();
        context.add_tree(b"", &root, &tree);
        context.sort();
        context.add_dockerfile(&root, dockerfile, cache)?;
        Ok(context)
    }

    /// Returns what instructions can copy, sorted by the bytes of the paths. A directory's
    /// entry comes before what is in it; the context itself has none.
    #[must_use]
    pub fn entries(&self) -> &[ContextEntry] {
        &self.entries
    }

    /// Returns where the Dockerfile is in an archive of the context.
    #[must_use]
    pub fn dockerfile(&self) -> &[u8] {
        &self.dockerfile
    }

    /// Returns what an archive holds, sorted: [`Self::entries`], the Dockerfile, and a
    /// `.dockerignore` that hides it where instructions must not see it.
    pub fn archive_entries(&self) -> impl Iterator<Item = &ContextEntry> {
        let mut entries = self.entries.iter().peekable();
        let mut build_files = self.build_files.values().peekable();
        std::iter::from_fn(move || {
            let Some(next) = build_files.peek() else {
                return entries.next();
            };
            match entries.peek() {
                Some(entry) if entry.entry.path < next.entry.path => entries.next(),
                Some(entry) => {
                    if entry.entry.path == next.entry.path {
                        entries.next();
                    }
                    build_files.next()
                }
                None => build_files.next(),
            }
        })
    }

    /// Returns the hash of everything that is sent.
    ///
    /// It is that of a [`FieldHasher`] under the domain `trilith/build-context/v1`, given for
    /// each of [`Self::archive_entries`] the fields `path` and `entry`, the latter being the 32
    /// bytes of [`TreeEntry::hash`], and then the field `dockerfile`, the path of the Dockerfile.
    #[must_use]
    pub fn hash(&self) -> InputHash {
        let mut hasher = FieldHasher::new("trilith/build-context/v1");
        for ContextEntry { entry, .. } in self.archive_entries() {
            hasher.field("path", &entry.path);
            hasher.field("entry", entry.hash().as_bytes());
        }
        hasher.field("dockerfile", &self.dockerfile);
        hasher.finish()
    }

    /// Returns the context with `dockerfile` as its Dockerfile, and without the files and links
    /// that `sees` is not true of. Directories stay where anything in them does.
    ///
    /// # Errors
    /// A `.dockerignore` that stays cannot be read any more.
    pub fn narrowed(
        &self,
        dockerfile: &str,
        sees: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, BuildContextError> {
        let mut narrowed = Self::empty();
        let mut parents: BTreeSet<&[u8]> = BTreeSet::new();
        // From the end, as a directory comes before what is in it.
        for entry in self.entries.iter().rev() {
            let path = &entry.entry.path[..];
            if parents.contains(path) || sees(path) {
                narrowed.entries.push(entry.clone());
                let parent = path.iter().rposition(|byte| *byte == b'/');
                parents.extend(parent.map(|end| &path[..end]));
            }
        }
        narrowed.entries.reverse();
        let text = ContextEntry::made("", dockerfile.to_owned());
        let same = |own: &&ContextEntry| match (&own.entry.kind, &text.entry.kind) {
            (EntryKind::File { digest: a, .. }, EntryKind::File { digest: b, .. }) => a == b,
            _ => false,
        };
        let own = self
            .find(&self.dockerfile)
            .or(self.build_files.get(&self.dockerfile));
        match own.filter(same) {
            Some(own) => {
                narrowed.dockerfile.clone_from(&self.dockerfile);
                if narrowed.find(&self.dockerfile).is_none() {
                    narrowed.hide(own.clone())?;
                }
            }
            None => narrowed.add_made_dockerfile(text)?,
        }
        Ok(narrowed)
    }

    /// Returns a context that holds nothing but a Dockerfile, which instructions do not see.
    pub(crate) fn of_dockerfile(text: &str) -> Self {
        let file = ContextEntry::made(DEFAULT_DOCKERFILE, text.to_owned());
        let path = file.entry.path.clone();
        Self {
            dockerfile: path.clone(),
            build_files: BTreeMap::from([(path, file)]),
            ..Self::empty()
        }
    }

    /// Reads the Dockerfile.
    ///
    /// # Errors
    /// It is not what it was when it was listed, or cannot be read.
    pub(crate) fn read_dockerfile(&self) -> Result<Vec<u8>, BuildContextError> {
        let path = &self.dockerfile;
        let mut entries = self.archive_entries();
        let entry = entries.find(|entry| entry.entry.path == *path);
        entry.map_or_else(|| Ok(Vec::new()), ContextEntry::read)
    }

    /// Returns the directory that its first file is from.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.entries.iter().find_map(|entry| match &entry.content {
            Content::Below { root, .. } => Some(&**root),
            Content::Bytes(_) => None,
        })
    }

    pub(super) fn empty() -> Self {
        Self {
            entries: Vec::new(),
            build_files: BTreeMap::new(),
            dockerfile: Vec::new(),
        }
    }

    /// Adds the tree that was loaded from `root` at the path `at`, which is empty for the context
    /// itself.
    pub(super) fn add_tree(&mut self, at: &[u8], root: &Path, tree: &Tree) {
        let root: Arc<Path> = root.into();
        for TreeEntry { path, kind } in tree.entries() {
            let separator = if at.is_empty() || path.is_empty() {
                ""
            } else {
                "/"
            };
            let path = [at, separator.as_bytes(), path].concat();
            if path.is_empty() {
                continue;
            }
            let skip = at.len() + separator.len();
            self.entries.push(ContextEntry {
                entry: TreeEntry {
                    path,
                    kind: kind.clone(),
                },
                content: Content::Below {
                    root: Arc::clone(&root),
                    skip,
                },
            });
        }
    }

    /// Adds a file at the path `at`.
    pub(super) fn add_file(&mut self, at: &[u8], mut file: ContextEntry) {
        at.clone_into(&mut file.entry.path);
        self.entries.push(file);
    }

    /// Adds the Dockerfile at the path `at`, for instructions to see, and sorts the entries.
    pub(super) fn add_visible_dockerfile(
        &mut self,
        at: &[u8],
        dockerfile: &Dockerfile,
        cache: &StatCache,
    ) -> Result<(), BuildContextError> {
        let (_, file) = dockerfile.load(cache)?;
        self.add_file(at, file);
        at.clone_into(&mut self.dockerfile);
        self.sort();
        Ok(())
    }

    /// Adds an empty directory at the path `at`.
    pub(super) fn add_directory(&mut self, at: &[u8]) {
        self.entries.push(ContextEntry {
            entry: TreeEntry {
                path: at.to_vec(),
                kind: EntryKind::Directory { mode: 0o755 },
            },
            content: Content::Bytes(Bytes::new()),
        });
    }

    /// Sorts the entries, and adds the Dockerfile for the engine alone to see.
    pub(super) fn add_hidden_dockerfile(
        &mut self,
        root: &Path,
        dockerfile: &Dockerfile,
        cache: &StatCache,
    ) -> Result<(), BuildContextError> {
        self.sort();
        self.add_dockerfile(root, dockerfile, cache)
    }

    fn sort(&mut self) {
        self.entries.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    }

    /// Notes where the Dockerfile is, and adds it to the archive where it is not among the
    /// entries.
    fn add_dockerfile(
        &mut self,
        root: &Path,
        dockerfile: &Dockerfile,
        cache: &StatCache,
    ) -> Result<(), BuildContextError> {
        let (path, mut file) = dockerfile.load(cache)?;
        let inside = path
            .as_deref()
            .and_then(|path| path.strip_prefix(root).ok());
        let path = inside.map(|path| path.as_os_str().as_bytes().to_vec());
        self.dockerfile = path.unwrap_or_else(|| name_for(&file.entry.kind));
        if self.find(&self.dockerfile).is_some() {
            return Ok(());
        }
        file.entry.path.clone_from(&self.dockerfile);
        self.hide(file)
    }

    /// Adds a Dockerfile that is no file, for the engine alone to see.
    fn add_made_dockerfile(&mut self, mut text: ContextEntry) -> Result<(), BuildContextError> {
        self.dockerfile = name_for(&text.entry.kind);
        text.entry.path.clone_from(&self.dockerfile);
        self.hide(text)
    }

    /// Adds a file to the archive, and sees to it that the engine hides it from instructions.
    fn hide(&mut self, hidden: ContextEntry) -> Result<(), BuildContextError> {
        let own = match self.find(ignore_file::NAME.as_bytes()) {
            Some(visible) => visible.read()?,
            // It is not for instructions to see either.
            None => ignore_file::NAME.into(),
        };
        let path = &hidden.entry.path;
        let hides = DockerIgnore::parse(&own).is_ok_and(|rules| rules.matches(path));
        if !hides {
            let rules = [&own[..], b"\n", &line_for(path), b"\n"].concat();
            let rules = ContextEntry::made(ignore_file::NAME, rules);
            self.build_files.insert(rules.entry.path.clone(), rules);
        }
        self.build_files.insert(hidden.entry.path.clone(), hidden);
        Ok(())
    }

    fn find(&self, path: &[u8]) -> Option<&ContextEntry> {
        let position = self
            .entries
            .binary_search_by(|entry| entry.entry.path[..].cmp(path));
        position.ok().map(|position| &self.entries[position])
    }
}

impl ContextEntry {
    fn made(path: &str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self {
            entry: TreeEntry {
                path: path.into(),
                kind: EntryKind::File {
                    mode: 0o644,
                    size: content.len() as u64,
                    digest: Digest::of(&content),
                },
            },
            content: Content::Bytes(content),
        }
    }

    /// Returns where the content of a file is, to be opened by whoever sends it by itself and
    /// compared with its digest.
    #[must_use]
    pub fn content(&self) -> LayerContent {
        match &self.content {
            Content::Below { root, skip } => {
                let path =
                    OsStr::from_bytes(&self.entry.path[(*skip).min(self.entry.path.len())..]);
                LayerContent::Path(if path.is_empty() {
                    root.to_path_buf()
                } else {
                    root.join(path)
                })
            }
            Content::Bytes(bytes) => LayerContent::Bytes(bytes.clone()),
        }
    }

    /// Reads the content of a file, and checks that it is what was hashed. What is no file has
    /// none.
    fn read(&self) -> Result<Vec<u8>, BuildContextError> {
        let mut content = Vec::new();
        let Ok(()) = self.read_pieces(|piece| {
            content.extend(piece);
            Ok::<_, Infallible>(())
        })?;
        Ok(content)
    }

    /// Gives the content of a file to `take` in pieces of at most 128 KiB, and checks in the end
    /// that it was what was hashed. What is no file has none. Where `take` fails, its failure is
    /// returned and nothing more read.
    ///
    /// # Errors
    /// The file is not what it was when it was listed, or cannot be read.
    pub(crate) fn read_pieces<E>(
        &self,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<Result<(), E>, BuildContextError> {
        let EntryKind::File { size, digest, .. } = &self.entry.kind else {
            return Ok(Ok(()));
        };
        let path = match self.content() {
            LayerContent::Path(path) => path,
            LayerContent::Bytes(bytes) => {
                let taken = bytes
                    .chunks(PIECE)
                    .try_for_each(|piece| take(piece.to_vec()));
                return Ok(taken);
            }
        };
        let mut file = open(&path)?.take(size + 1);
        let mut digester = Digester::new(digest.algorithm());
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            (&mut file)
                .take(PIECE as u64)
                .read_to_end(&mut piece)
                .map_err(BuildContextError::io("read", &path))?;
            if piece.is_empty() {
                break;
            }
            digester.update(&piece);
            if let Err(error) = take(piece) {
                return Ok(Err(error));
            }
        }
        if digester.finish() == *digest {
            Ok(Ok(()))
        } else {
            Err(BuildContextError::Changed { path })
        }
    }

    /// Returns the entry as the archive writer takes it.
    pub(super) fn to_layer_entry(&self) -> LayerEntry {
        let kind = match &self.entry.kind {
            EntryKind::Directory { mode } => layer::EntryKind::Directory { mode: *mode },
            EntryKind::Symlink { target } => layer::EntryKind::Symlink {
                target: target.clone(),
            },
            EntryKind::File { mode, size, digest } => layer::EntryKind::File {
                mode: *mode,
                size: *size,
                digest: digest.clone(),
                content: self.content(),
            },
        };
        LayerEntry {
            path: self.entry.path.clone(),
            kind,
            owner: Owner::default(),
        }
    }
}

/// Opens a file that was one when it was listed.
fn open(path: &Path) -> Result<File, BuildContextError> {
    // If it is a link or a named pipe by now, neither is followed nor waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let changed = |error: &io::Error| {
        let link = rustix::io::Errno::LOOP.raw_os_error();
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(link)
    };
    match opened {
        Err(error) if changed(&error) => Err(BuildContextError::Changed {
            path: path.to_owned(),
        }),
        opened => opened.map_err(BuildContextError::io("read", path)),
    }
}

/// Returns the directory of a context with all symbolic links in its path followed.
pub(super) fn resolve_directory(directory: &Path) -> Result<PathBuf, BuildContextError> {
    let path = directory.to_owned();
    let resolved = fs::canonicalize(directory).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => HashError::Missing { path: path.clone() },
        _ => HashError::Io {
            verb: "find",
            path: path.clone(),
            source,
        },
    })?;
    if resolved.is_dir() {
        Ok(resolved)
    } else {
        Err(HashError::NotADirectory { path }.into())
    }
}

/// Lists and hashes one file, which a symbolic link may lead to. Its path is empty.
pub(super) fn load_file(
    what: &'static str,
    path: &Path,
    cache: &StatCache,
) -> Result<(PathBuf, ContextEntry), BuildContextError> {
    let resolved = fs::canonicalize(path).map_err(BuildContextError::io("find", path))?;
    let tree = load_tree(&resolved, &Patterns::default(), cache)?;
    match tree.entries() {
        [entry] if matches!(entry.kind, EntryKind::File { .. }) => {
            let content = Content::Below {
                root: resolved.as_path().into(),
                skip: usize::MAX,
            };
            let entry = entry.clone();
            Ok((resolved, ContextEntry { entry, content }))
        }
        _ => {
            let path = path.to_owned();
            Err(BuildContextError::NotAFile { what, path })
        }
    }
}

/// Returns a name for a Dockerfile that lies outside the context.
fn name_for(content: &EntryKind) -> Vec<u8> {
    let digest = match content {
        EntryKind::File { digest, .. } => &digest.hex()[..20],
        EntryKind::Directory { .. } | EntryKind::Symlink { .. } => "",
    };
    format!(".dockerfile.{digest}").into_bytes()
}
