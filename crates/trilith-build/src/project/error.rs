//! Why a project's files cannot be used, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use trilith_oci::Kind;

use super::file::PROJECT_FILE;
use super::problem::Problem;

/// The most bytes of a project file or manifest that are read.
pub(super) const MAX_FILE_SIZE: u64 = 4 * 1024 * 1024;
/// The most mistakes of one file that a message lists.
pub(super) const MAX_PROBLEMS: usize = 20;

/// A failure to read, understand or write a project's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
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
    /// The path is a directory, a pipe or a device.
    #[error("`{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The project is not a directory.
    #[error("project `{}` is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// The file is larger than any such file is.
    #[error("`{}` is larger than {} MiB", .0.display(), MAX_FILE_SIZE >> 20)]
    TooLarge(PathBuf),
    /// The file is not UTF-8.
    #[error("`{}` is not UTF-8: line {line} holds the byte 0x{byte:02x}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first bad byte, from 1.
        line: usize,
        /// The first bad byte.
        byte: u8,
    },
    /// The file's text has mistakes.
    #[error("{}", Listing { path, problems, omitted: *omitted })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The mistakes, in the order of the file, at least one.
        problems: Vec<Problem>,
        /// How many more there are that `problems` leaves out.
        omitted: usize,
    },
    /// A manifest holds a value of a wrong type.
    #[error("`{key}` in `{}` must be {expected}", path.display())]
    ManifestValue {
        /// The manifest.
        path: PathBuf,
        /// The key, dotted.
        key: &'static str,
        /// What it should be, as in `a string`.
        expected: &'static str,
    },
    /// A manifest's version is computed when the project is packaged.
    #[error("`{}` has no fixed version: {reason}", path.display())]
    DynamicVersion {
        /// The manifest.
        path: PathBuf,
        /// What says so, as in ``it lists `version` under `dynamic` ``.
        reason: &'static str,
    },
    /// A manifest takes its version from a workspace that has none.
    #[error("`{}` takes its version from its workspace, and {missing}", path.display())]
    WorkspaceVersion {
        /// The manifest.
        path: PathBuf,
        /// What is missing, as in ``no `Cargo.toml` above it has a `[workspace]` ``.
        missing: String,
    },
    /// No manifest of the project has a version.
    #[error("no version is given, and none is found in `{}`", directory.display())]
    NoVersion {
        /// The project.
        directory: PathBuf,
    },
    /// The file to be written is there already.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
}

impl ProjectError {
    /// Returns a function that wraps an I/O error with what was tried on which path.
    pub(super) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Io { .. } => Kind::System,
            Self::NoVersion { .. }
            | Self::NotAFile(_)
            | Self::NotADirectory(_)
            | Self::TooLarge(_)
            | Self::NotUtf8 { .. }
            | Self::Invalid { .. }
            | Self::ManifestValue { .. }
            | Self::DynamicVersion { .. }
            | Self::WorkspaceVersion { .. }
            | Self::Exists(_) => Kind::Usage,
        }
    }

    /// Returns whether the same call may succeed when made again. Files do not mend themselves.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoVersion { .. }
            | Self::DynamicVersion { .. }
            | Self::WorkspaceVersion { .. } => Some(format!(
                "set `version` under `[image]` in `{PROJECT_FILE}`, or pass `--version`"
            )),
            Self::Exists(_) => Some("pass `--force` to replace it".to_owned()),
            _ => None,
        }
    }

    /// Returns the mistakes of an invalid file, none for other failures.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

/// The message of [`ProjectError::Invalid`].
struct Listing<'a> {
    path: &'a Path,
    problems: &'a [Problem],
    omitted: usize,
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let count = self.problems.len() + self.omitted;
        if count > 1 {
            write!(f, "`{path}` has {count} mistakes\n\n")?;
        }
        for (index, problem) in self.problems.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => write!(f, "\n\nand {omitted} more"),
        }
    }
}
