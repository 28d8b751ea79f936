//! The pure part of Trilith: references, hashes of inputs, tag schemes and plans.
//!
//! Nothing here knows a registry, an engine, a clock or the environment, and nothing
//! is asynchronous. The disk is read in the functions named `load_*` and `walk*` only.
//!
//! # Tags alone
//!
//! Whoever wants to know what an image would be called needs this crate and nothing else.
//! In the `trilith` scheme, from what the image stands on and what goes into it:
//!
//! ```
//! use trilith_core::{Base, BaseName, Digest, Inputs, LockFile};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let base = Base::Image {
//!     name: BaseName::Reference("debian:bookworm".parse()?),
//!     digest: Digest::of(b"the manifest that the reference resolved to"),
//! };
//! let mut inputs = Inputs::new("1.0.0", base);
//! inputs.lock_files.push(LockFile::of("uv.lock", b"version = 1\n"));
//!
//! let keys = inputs.list()?.keys();
//! let tags = inputs.tags(&keys, "")?;
//! assert!(tags.versioned.as_str().starts_with("v1.0.0_debian_tag_bookworm_"));
//! assert_eq!(tags.lock.as_str(), format!("v1.0.0_{}", keys.lock.short()));
//! # Ok(())
//! # }
//! ```
//!
//! And in the schemes of `OpenHands`, whose source digest is Python's `dirhash`:
//!
//! ```
//! use trilith_core::OpenHandsInputs;
//!
//! # fn main() -> Result<(), trilith_core::SchemeError> {
//! let inputs = OpenHandsInputs {
//!     version: "1.0.0",
//!     base_image: "ubuntu:22.04",
//!     browser: true,
//!     lock_files: vec![b"[project]\nname='x'\n", b"version = 1\n"],
//!     source_digest: "9f78954704acc0be322d1ed3e8c07a33",
//!     suffix: "-dev",
//! };
//! let tags = inputs.tags_v1()?;
//! assert_eq!(tags.versioned.as_str(), "v1.0.0_ubuntu_tag_22.04-dev");
//! assert_eq!(tags.source.as_str(), "v1.0.0_ayo96luyqh37tqnf_j02w4lbg2inwc3z6-dev");
//! # Ok(())
//! # }
//! ```
//!
//! What to build, given what exists, is a [`Planner`]'s to say.

mod content;
mod digest;
mod dirhash;
mod dockerignore;
mod hash_error;
mod ignore;
mod input_hash;
mod inputs;
mod level;
mod listing;
mod md5_lanes;
mod pattern;
mod plan;
mod platform;
mod recipe;
mod reference;
mod scheme;
mod short;
mod stat_cache;
mod tag;
mod tags;
mod tree;
mod walk;

pub use digest::{Algorithm, Digest, DigestError, Digester, hex};
pub use dirhash::{DirHash, load_dirhash, walk_dirhash};
pub use dockerignore::{DockerIgnore, DockerIgnoreError};
pub use hash_error::HashError;
pub use input_hash::{FieldHasher, InputHash, InputHashError};
pub use inputs::{
    Base, BaseKind, BaseName, Change, ChangeKind, ContextInput, DockerfileInput, DockerfileText,
    EntryInput, ImageInput, Input, InputList, Inputs, InputsDocument, InputsDocumentError,
    InputsError, KEY_DOMAIN, LayerInput, LockFile, Payload, SourceTree, diff,
};
pub use level::{Level, LevelError};
pub use pattern::{PatternError, Patterns};
pub use plan::{
    Action, BuildFrom, Existence, Plan, PlanError, PlanOptions, Planner, Step, Strategy,
    StrategyError,
};
pub use platform::{Platform, PlatformError};
pub use recipe::{
    ConfigRecipe, Destination, DestinationError, LayerRecipe, Owner, OwnerError, UserRecipe,
};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference, ReferenceError, Repository};
pub use scheme::{
    OpenHandsInputs, RuntimeImage, Scheme, SchemeError, SchemeNameError, TRILITH_SCHEME, TagPart,
    TagSubject, runtime_image_repo_and_tag_v0, slug_v0, slug_v1,
};
pub use short::{SHORT_LEN, shorten};
pub use stat_cache::{Saved, StatCache};
pub use tag::{MAX_TAG_LEN, Tag, TagError};
pub use tags::{Keys, Tags};
pub use tree::{EntryKind, Tree, TreeEntry, canonical_mode, load_context, load_tree};
