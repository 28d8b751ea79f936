//! The one error type of everything that hashes files and trees on disk.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::pattern::PatternError;

/// Why a file or tree could not be hashed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The list of ignore patterns is refused.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// What should be hashed is not there.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory should be hashed, and the path is something else.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// No file is left in a directory, which the `OpenHands` schemes refuse.
    #[error("`{}` holds nothing to hash", path.display())]
    NothingToHash {
        /// The directory.
        path: PathBuf,
    },
    /// A symbolic link leads to a directory that it lies in itself, and links are followed.
    #[error("symbolic link `{}` leads back to `{}`", link.display(), target.display())]
    Cycle {
        /// The link.
        link: PathBuf,
        /// The directory it leads to.
        target: PathBuf,
    },
    /// A name that must be hashed as text is not UTF-8.
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// The file or directory.
        path: PathBuf,
    },
    /// There is a socket, a named pipe or a device where files were expected.
    #[error("`{}` is a {what}, which has no content to hash", path.display())]
    SpecialFile {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file or directory was listed, and gone when it should be read.
    #[error("`{}` vanished while its tree was being hashed", path.display())]
    Vanished {
        /// Where it was.
        path: PathBuf,
    },
    /// The system refused an operation.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// What was tried, as in `read` or `list`.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HashError {
    /// Wraps what the system said about something inside a tree.
    pub(crate) fn inside(verb: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Vanished { path };
        }
        Self::Io { verb, path, source }
    }

    /// Wraps what the system said about the root of a tree.
    pub(crate) fn root(path: &Path, source: io::Error) -> Self {
        match Self::inside("read", path, source) {
            Self::Vanished { path } => Self::Missing { path },
            other => other,
        }
    }

    /// Refuses what is neither file, directory nor symbolic link.
    pub(crate) fn special(path: &Path, kind: FileType) -> Self {
        let what = match kind {
            FileType::Socket => "socket",
            FileType::Fifo => "named pipe",
            FileType::Directory => "directory",
            _ => "device",
        };
        let path = path.to_owned();
        Self::SpecialFile { path, what }
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pattern(error) => Some(error.hint()),
            Self::NothingToHash { .. } => Some("check the path and the ignore patterns".to_owned()),
            Self::Cycle { target, .. } => Some(format!(
                "remove the link, or hash `{}` by its own path",
                target.display()
            )),
            Self::NotUtf8 { .. } => {
                Some("rename it, ignore it, or use the scheme `trilith`".to_owned())
            }
            Self::SpecialFile { .. } => Some("add it to the ignore patterns".to_owned()),
            Self::Vanished { .. } => {
                Some("something else writes there; run again when it is done".to_owned())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("make it readable, or add it to the ignore patterns".to_owned())
            }
            Self::Missing { .. } | Self::NotADirectory { .. } | Self::Io { .. } => None,
        }
    }

    /// Returns whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Vanished { .. })
    }
}
