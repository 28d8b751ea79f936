//! Why a template cannot be read or rendered.

use std::io;
use std::path::{Path, PathBuf};

use trilith_oci::Kind;

use super::engine::MAX_TEMPLATE_SIZE;

/// A failure to read or render a template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// An operation on a file failed.
    #[error("cannot {verb} template `{}`", path.display())]
    Io {
        /// What was tried, as in `read`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The template, or one it includes, is larger than any Dockerfile is.
    #[error("template `{}` is larger than {} MiB", .0.display(), MAX_TEMPLATE_SIZE >> 20)]
    TooLarge(PathBuf),
    /// The template, or one it includes, is no text.
    #[error("template `{}` is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// The template, or one it includes, is a directory, a pipe or a device.
    #[error("template `{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A template includes a file that is not in its directory.
    #[error("template `{name}` is not below `{}`", directory.display())]
    Outside {
        /// The file as the template names it.
        name: String,
        /// The directory of the template.
        directory: PathBuf,
    },
    /// The template is wrong or fails with these variables.
    #[error("cannot render template `{}`", path.display())]
    Render {
        /// The template that was to be rendered.
        path: PathBuf,
        /// What is wrong, and in which line of which file.
        source: minijinja::Error,
    },
    /// The template takes more work than any Dockerfile does.
    #[error("template `{}` does not come to an end", .0.display())]
    Endless(PathBuf),
}

impl TemplateError {
    /// Returns a function that wraps an I/O error with what was tried on which file.
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
            _ => Kind::Usage,
        }
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Outside { directory, .. } => Some(format!(
                "templates include files of their own directory only: copy it to `{}`",
                directory.display()
            )),
            Self::Endless(_) => Some("look for loops over large ranges".to_owned()),
            _ => None,
        }
    }
}
