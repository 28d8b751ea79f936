//! The inputs of the `trilith` scheme, and the format of its keys.
//!
//! Nothing here reads a file or asks a registry: contents come in as digests. Timestamps,
//! absolute paths, the git commit, users and the environment have no place in these types.

mod diff;
mod document;
mod facts;
mod list;
mod name;

use std::collections::{BTreeMap, BTreeSet};

pub use diff::{Change, ChangeKind, diff};
pub use document::{InputsDocument, InputsDocumentError};
pub use list::{Input, InputList, InputsError, KEY_DOMAIN};

use crate::digest::Digest;
use crate::input_hash::InputHash;
use crate::level::Level;
use crate::platform::Platform;
use crate::recipe::{ConfigRecipe, LayerRecipe, UserRecipe};
use crate::reference::Reference;
use crate::scheme::SchemeError;
use crate::tags::{Keys, Tags};

/// Everything that can change the image, and nothing else.
///
/// # Format
///
/// [`Inputs::list`] takes the inputs apart into facts: one [`Input`] for everything that can
/// change by itself, with a name that is unique at its level, the digest of its value, and its
/// size. [`InputList::keys`] hashes the facts, one key for each level, and each key covers
/// the one below it, so a change moves its own level's key and all above. All digests and keys
/// are SHA-256 (a base or an image named by a SHA-512 digest keeps it).
///
/// `frame(domain, fields)` is what [`crate::FieldHasher`] hashes: the domain, then name and
/// value of each field, each behind its length as 8 bytes, least significant first. A key is
///
/// ```text
/// frame("trilith/inputs/v1", [
///     ("level", "versioned" | "lock" | "source"),
///     ("parent", the 32 bytes of the key below; empty for versioned),
///     then, for each fact of the level in the order of the bytes of its name:
///     (name, digest as text, "sha256:…"),
/// ])
/// ```
///
/// | level | name | digest of |
/// | --- | --- | --- |
/// | versioned | `version` | the version |
/// | versioned | `base` | the manifest or index that the base resolved to, its own digest; the word `scratch` where there is none |
/// | versioned | `platform/linux/amd64` | the platform, one fact for each |
/// | versioned | `dockerfile` | a Dockerfile without levels, or what its template makes, its own digest |
/// | versioned | `dockerfile/arg/NAME` | the value of a build argument of one |
/// | versioned | `dockerfile/target` | the stage that is built of one |
/// | its own | `dockerfile/…` | of a Dockerfile whose stages are levels: what whoever reads Dockerfiles says, see [`DockerfileText::Stages`] |
/// | its own | `dockerfile/base/ID`, `dockerfile/image/REFERENCE` | an image that is built on or copied from, its own digest |
/// | lock | `dockerfile/extra-deps` | the extra dependencies |
/// | its own | `context//PATH` | the entry at `PATH` of the build context: [`EntryInput::hash`] |
/// | lock | `lock/NAME` | the lock file's content, its own digest |
/// | versioned | `user` | `frame("trilith/input/v1", [("name", …), ("owner", "uid:gid"), ("home", path), ("shell", path)])` |
/// | its own | `layer/TO` | `frame("trilith/input/v1", [("payload", "tree" or "image"), ("from", digest of the image or empty), ("copy", path), ("to", path), ("owner", "uid:gid")])` |
/// | its own | `layer-order` | `frame("trilith/input/v1", [("layer", TO), …])`, in the order of the layers; left out where a level has fewer than two |
/// | its own | `file/TO//PATH` | the entry at `PATH` of the layer's payload: [`EntryInput::hash`] |
/// | source | `source/NAME` | the word `tree` |
/// | source | `source/NAME//PATH` | the entry at `PATH` of the source tree |
/// | source | `config/entrypoint`, `config/cmd` | `frame("trilith/input/v1", [("word", …), …])` |
/// | source | `config/env/NAME`, `config/label/NAME` | the value |
/// | source | `config/user`, `config/workdir`, `config/stop-signal` | the value |
/// | source | `config/expose/8000/tcp` | the port, one fact for each |
///
/// `TO` is the destination without its leading slash. The second layer of a level with the
/// same destination is `TO#2`, and so on; a `#` in a destination is written `\x23`. In names,
/// `\` is written `\\`; control characters and bytes that are not UTF-8 are written `\xNN`.
///
/// What is not covered, on purpose: the names of the base and of the images that layers come
/// from (their digests are), the order of platforms, lock files, source trees, files, ports and
/// maps, and an absolute `copy` path of a payload on this machine. A change to any of this is a
/// new version of the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The version, without `v`.
    pub version: String,
    /// What the image stands on.
    pub base: Base,
    /// What the image is built for.
    pub platforms: BTreeSet<Platform>,
    /// What an engine builds, where one does.
    pub dockerfile: Option<DockerfileInput>,
    /// The user that is put on the base, below the layers. What the base has of users is covered
    /// by its digest.
    pub user: Option<UserRecipe>,
    /// What is put on the base. Order counts within a level.
    pub layers: Vec<LayerInput>,
    /// The lock files that exist.
    pub lock_files: Vec<LockFile>,
    /// Source trees that are inputs whether or not a layer holds them.
    pub sources: Vec<SourceTree>,
    /// What the source image says on top of its base.
    pub config: ConfigRecipe,
}

impl Inputs {
    /// Returns the inputs of an image that only names its version and its base.
    #[must_use]
    pub fn new(version: impl Into<String>, base: Base) -> Self {
        Self {
            version: version.into(),
            base,
            platforms: BTreeSet::new(),
            dockerfile: None,
            user: None,
            layers: Vec::new(),
            lock_files: Vec::new(),
            sources: Vec::new(),
            config: ConfigRecipe::default(),
        }
    }

    /// Returns the inputs taken apart, one for every fact.
    ///
    /// # Errors
    /// [`InputsError`] when a name is absolute or not in normal form, or two inputs have the
    /// same name.
    pub fn list(&self) -> Result<InputList, InputsError> {
        facts::list(self)
    }

    /// Returns the tags of the image whose keys are `keys`, with `suffix` behind each.
    ///
    /// # Errors
    /// [`SchemeError`] when a tag would break the grammar of tags.
    pub fn tags(&self, keys: &Keys, suffix: &str) -> Result<Tags, SchemeError> {
        crate::scheme::trilith_tags(&self.version, &self.base, keys, suffix)
    }
}

impl Input {
    /// Returns `user` as an input, which is the same in every image.
    #[must_use]
    pub fn of_user(user: &UserRecipe) -> Self {
        facts::user(user)
    }
}

/// What an image stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image.
    Image {
        /// How the versioned tag names it. Not covered by any key.
        name: BaseName,
        /// What the name resolved to.
        digest: Digest,
    },
}

/// How a base is named for people. Has no room for a path, so that none gets into a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseName {
    /// An image on a registry or in an engine.
    Reference(Reference),
    /// An image or a root file system that is named by a path or an ID.
    Kind(BaseKind),
}

/// The kinds of bases that have no name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseKind {
    /// An OCI layout.
    Oci,
    /// A tar of an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// An image in an engine that has an ID alone.
    DockerDaemon,
    /// A root file system.
    Directory,
}

impl BaseKind {
    /// Returns the word that stands in tags, that of the place: `dir` for `dir:PATH`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::DockerDaemon => "docker-daemon",
            Self::Directory => "dir",
        }
    }
}

/// What an engine is given to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileInput {
    /// The instructions, and what they are told.
    pub text: DockerfileText,
    /// Extra dependencies, as they are told to the template or the instructions.
    pub extra_deps: Option<String>,
    /// The images that instructions name, but the base.
    pub images: Vec<ImageInput>,
    /// What instructions can copy.
    pub context: Vec<ContextInput>,
}

/// The instructions of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileText {
    /// A Dockerfile that knows no levels: all of it is at level versioned.
    Whole {
        /// Digest of the text, or of what the template makes whatever a build starts from.
        content: Digest,
        /// Build arguments, each by name.
        args: BTreeMap<String, String>,
        /// The stage that is built.
        target: Option<String>,
    },
    /// A Dockerfile whose stages are levels: facts about its text and its arguments, whose
    /// names begin with `dockerfile/`.
    Stages(Vec<Input>),
}

/// An image that a Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInput {
    /// The lowest level that depends on it.
    pub level: Level,
    /// The name of the fact, beginning with `dockerfile/`.
    pub name: String,
    /// What the image's name resolved to.
    pub digest: Digest,
}

/// An entry of a build context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextInput {
    /// The lowest level that sees it.
    pub level: Level,
    /// The entry; its path is never empty.
    pub entry: EntryInput,
}

/// One layer: its recipe and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInput {
    /// Level, destination, owner and origin.
    pub recipe: LayerRecipe,
    /// The content.
    pub payload: Payload,
}

/// What a layer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A file or a tree on disk, entry by entry.
    Tree(Vec<EntryInput>),
    /// The subtree `copy` of the image with this digest.
    Image(Digest),
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryInput {
    /// Path relative to the tree, `/` between components; empty for a payload that is one file.
    pub path: Vec<u8>,
    /// Covers kind, mode and content.
    pub hash: InputHash,
    /// Size of the content in bytes, 0 for directories. Shown, not covered.
    pub size: u64,
}

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    /// Path relative to the project.
    pub name: String,
    /// Digest of the content.
    pub content: Digest,
    /// Size of the content in bytes. Shown, not covered.
    pub size: u64,
}

impl LockFile {
    /// Returns the lock file `name` with these bytes.
    #[must_use]
    pub fn of(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            name: name.into(),
            content: Digest::of(bytes),
            size: bytes.len() as u64,
        }
    }
}

/// A source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTree {
    /// Path relative to the project; for a tree elsewhere a name that says nothing of this
    /// machine.
    pub name: String,
    /// Every entry of the tree.
    pub entries: Vec<EntryInput>,
}

#[cfg(test)]
mod tests;
