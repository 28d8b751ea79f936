//! The pure part of Trilith: references, hashes of inputs, tag schemes and plans.
//!
//! Nothing here knows a registry, an engine, a clock or the environment, and nothing
//! is asynchronous. The disk is read in the functions named `load_*` and `walk*` only.

mod digest;
mod input_hash;
mod level;
mod platform;
mod recipe;
mod reference;
mod short;
mod tag;

pub use digest::{Algorithm, Digest, DigestError, Digester, hex};
pub use input_hash::{FieldHasher, InputHash, InputHashError};
pub use level::Level;
pub use platform::{Platform, PlatformError};
pub use recipe::{ConfigRecipe, Destination, DestinationError, LayerRecipe, Owner, OwnerError};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference, ReferenceError, Repository};
pub use short::{SHORT_LEN, shorten};
pub use tag::{MAX_TAG_LEN, Tag, TagError};
