//! The pure part of Trilith: references, hashes of inputs, tag schemes and plans.
//!
//! Nothing here knows a registry, an engine, a clock or the environment, and nothing
//! is asynchronous. The disk is read in the functions named `load_*` and `walk*` only.

mod digest;
mod level;
mod platform;
mod reference;
mod tag;

pub use digest::{Algorithm, Digest, DigestError, Digester, hex};
pub use level::Level;
pub use platform::{Platform, PlatformError};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference, ReferenceError, Repository};
pub use tag::{MAX_TAG_LEN, Tag, TagError};
