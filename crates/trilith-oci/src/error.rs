//! The one error type of this crate, and what a caller may do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trilith_core::Digest;

use crate::registry::Failure;

/// A failure on an image, a store or a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on a file failed.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// What was tried, as in `read` or `create`.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Content does not have the digest it was asked for by.
    #[error("{object} has digest `{actual}`, not `{expected}`")]
    DigestMismatch {
        /// What was read, as in ``blob of `localhost:5000/a` ``.
        object: String,
        /// The digest it was asked for by.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("{object} has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// What was read.
        object: String,
        /// The size its descriptor says, in bytes.
        expected: u64,
        /// How many bytes came, where more came the count at which reading stopped.
        actual: u64,
    },
    /// A manifest is larger than [`crate::MAX_MANIFEST_SIZE`].
    #[error("manifest `{object}` is larger than {} MiB", crate::MAX_MANIFEST_SIZE >> 20)]
    ManifestTooLarge {
        /// The manifest's name and place.
        object: String,
    },
    /// A document is not what its media type or the specification says.
    #[error("{object} is malformed: {reason}")]
    Malformed {
        /// Which document.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tag, manifest or blob that was needed is not there.
    #[error("{object} does not exist")]
    NotFound {
        /// What is missing, and where it was looked for.
        object: String,
    },
    /// An index holds no image for the platform asked for.
    #[error("`{image}` has no image for {wanted}")]
    NoSuchPlatform {
        /// The image.
        image: String,
        /// The platform asked for.
        wanted: trilith_core::Platform,
        /// The platforms the image has.
        available: Vec<trilith_core::Platform>,
    },
    /// A payload holds what cannot be in a layer.
    #[error("cannot put `{path}` in a layer: {reason}")]
    LayerEntry {
        /// Path in the image.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A file is not what it was when it was hashed.
    #[error("`{}` changed while it was read", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// The place a layer is written to failed.
    #[error("cannot write the layer")]
    LayerOutput {
        /// What the place said.
        source: io::Error,
    },
    /// Something is valid, but nothing Trilith can work with.
    #[error("{object} is not supported: {reason}")]
    Unsupported {
        /// What was given.
        object: String,
        /// Why it does not do.
        reason: String,
        /// What to do next.
        advice: &'static str,
    },
    /// A registry refused a request, did not answer, or answered nonsense. Shared, because
    /// one failure to get a token ends all requests that waited for it.
    #[error(transparent)]
    Registry(Arc<Failure>),
    /// A container engine could not be reached, or did not do what it was asked.
    #[error("cannot {task} at the engine `{host}`: {reason}")]
    Engine {
        /// The engine's address.
        host: String,
        /// What it was asked to do, as in ``load image `a` ``.
        task: String,
        /// What it said, or what the system said.
        reason: String,
        /// What kind of failure it is.
        kind: Kind,
    },
    /// A place holds several images and was not told which one is meant.
    #[error("`{place}` holds several images")]
    Ambiguous {
        /// The place.
        place: String,
        /// The names of its images.
        choices: Vec<String>,
    },
    /// Something that is no file of its own, such as a layer in an archive, could not be read.
    #[error("cannot read {object}")]
    Read {
        /// What was read.
        object: String,
        /// What the system said.
        source: io::Error,
    },
    /// A blob could not be brought from one place to another.
    #[error("cannot bring blob `{digest}` from `{from}` to `{to}`")]
    Transfer {
        /// The blob.
        digest: Digest,
        /// Where it was to come from.
        from: String,
        /// Where it was to go.
        to: String,
        /// What failed.
        source: Box<Error>,
    },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Registry(Arc::new(failure))
    }
}

impl From<Arc<Failure>> for Error {
    fn from(failure: Arc<Failure>) -> Self {
        Self::Registry(failure)
    }
}

/// What kind of failure it is, from which callers pick an exit code or decide to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller asked for something that cannot be.
    Usage,
    /// Something that was needed is not there.
    NotFound,
    /// Credentials are missing or were refused.
    Denied,
    /// A place did not answer, or not sensibly.
    Unavailable,
    /// Data is not what it claims to be.
    Corrupt,
    /// The local system failed.
    System,
}

impl Error {
    /// Returns a function that wraps an I/O error with what was tried on which path.
    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. }
            | Self::Read { .. }
            | Self::FileChanged { .. }
            | Self::LayerOutput { .. } => Kind::System,
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::ManifestTooLarge { .. }
            | Self::Malformed { .. } => Kind::Corrupt,
            Self::NotFound { .. } | Self::NoSuchPlatform { .. } => Kind::NotFound,
            Self::Registry(failure) => failure.kind(),
            Self::LayerEntry { .. } | Self::Unsupported { .. } | Self::Ambiguous { .. } => {
                Kind::Usage
            }
            Self::Engine { kind, .. } => *kind,
            Self::Transfer { source, .. } => source.kind(),
        }
    }

    /// Returns whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Registry(failure) => failure.is_retryable(),
            Self::Transfer { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchPlatform { available, .. } => {
                let names: Vec<String> = available.iter().map(ToString::to_string).collect();
                Some(format!("it has: {}", names.join(", ")))
            }
            Self::Registry(failure) => failure.hint(),
            Self::FileChanged { .. } => {
                Some("run it again when nothing writes to the file".to_owned())
            }
            Self::Engine {
                kind: Kind::Unavailable,
                ..
            } => Some("see that the engine runs, or name the address of another".to_owned()),
            Self::Engine {
                kind: Kind::Denied, ..
            } => Some("become a user who may use the engine's socket".to_owned()),
            Self::Ambiguous { choices, .. } if choices.is_empty() => {
                Some("none of them has a name, so none can be chosen".to_owned())
            }
            Self::Ambiguous { choices, .. } => Some(format!("name one of: {}", choices.join(", "))),
            Self::Unsupported { advice, .. } => Some((*advice).to_owned()),
            Self::Transfer { source, .. } => source.hint(),
            _ => None,
        }
    }
}
