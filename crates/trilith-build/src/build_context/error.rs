//! The one error type of build contexts.

use std::io;
use std::path::{Path, PathBuf};

use trilith_core::{DockerIgnoreError, HashError};
use trilith_oci::Kind;

/// Why a build context cannot be listed or sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildContextError {
    /// A file or directory cannot be listed or hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A pattern in an ignore file is refused.
    #[error("cannot use ignore file `{}`", path.display())]
    Ignore {
        /// The ignore file.
        path: PathBuf,
        /// Which pattern, and why.
        source: DockerIgnoreError,
    },
    /// An ignore file is larger than anybody writes one.
    #[error("ignore file `{}` is larger than {} MiB", path.display(), super::ignore_file::MAX_SIZE >> 20)]
    IgnoreTooLarge {
        /// The ignore file.
        path: PathBuf,
    },
    /// A file that has to be one is something else.
    #[error("{what} `{}` is not a file", path.display())]
    NotAFile {
        /// What it should be, as in `Dockerfile`.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// The context holds something that cannot be in an archive.
    #[error("cannot put `{path}` in the build context: {reason}")]
    Entry {
        /// Its path in the context.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A file is not what it was when the context was listed.
    #[error("`{}` changed while the build context was sent", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The place the archive is written to failed.
    #[error("cannot write the build context")]
    Output {
        /// What the place said.
        source: io::Error,
    },
    /// The system refused an operation on a file.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// What was tried, as in `read` or `create`.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive cannot be written for another reason.
    #[error(transparent)]
    Archive(trilith_oci::Error),
}

impl BuildContextError {
    /// Returns a function that wraps an I/O error with what was tried on which path.
    pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hash(HashError::Missing { .. }) => Kind::NotFound,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Hash(_) | Self::Changed { .. } | Self::Output { .. } | Self::Io { .. } => {
                Kind::System
            }
            Self::Ignore { .. }
            | Self::IgnoreTooLarge { .. }
            | Self::NotAFile { .. }
            | Self::Entry { .. } => Kind::Usage,
            Self::Archive(error) => error.kind(),
        }
    }

    /// Returns whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Hash(error) => error.is_retryable(),
            Self::Changed { .. } => true,
            _ => false,
        }
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hash(HashError::SpecialFile { .. }) => {
                Some("add it to `.dockerignore`".to_owned())
            }
            Self::Hash(HashError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("make it readable, or add it at the end of `.dockerignore`".to_owned())
            }
            Self::Hash(error) => error.hint(),
            Self::Ignore { source, .. } => Some(source.hint().to_owned()),
            Self::IgnoreTooLarge { .. } => Some("check that it is meant to be one".to_owned()),
            Self::Entry { .. } => Some("rename it, or add it to `.dockerignore`".to_owned()),
            Self::Changed { .. } => {
                Some("something else writes there; run again when it is done".to_owned())
            }
            Self::Archive(error) => error.hint(),
            Self::NotAFile { .. } | Self::Output { .. } | Self::Io { .. } => None,
        }
    }
}

impl From<trilith_oci::Error> for BuildContextError {
    fn from(error: trilith_oci::Error) -> Self {
        match error {
            trilith_oci::Error::LayerEntry { path, reason } => Self::Entry { path, reason },
            trilith_oci::Error::FileChanged { path } => Self::Changed { path },
            trilith_oci::Error::LayerOutput { source } => Self::Output { source },
            // Listed, and gone: that is a change like any other.
            trilith_oci::Error::Io { path, source, .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Self::Changed { path }
            }
            trilith_oci::Error::Io { verb, path, source } => Self::Io { verb, path, source },
            other => Self::Archive(other),
        }
    }
}
