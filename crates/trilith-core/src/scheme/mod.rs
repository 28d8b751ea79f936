//! Schemes: the ways in which inputs become tags.
//!
//! A scheme is a pure function. What it hashes and by which rules lives in
//! `openhands.rs` and in [`crate::inputs`](crate::Inputs); reading files is the caller's part.

mod compose;
mod openhands;
mod runtime_image;
mod trilith;

use std::fmt;
use std::str::FromStr;

pub use compose::{SchemeError, TagPart, TagSubject};
pub use openhands::{OpenHandsInputs, slug_v0, slug_v1};
pub use runtime_image::{RuntimeImage, runtime_image_repo_and_tag_v0};
pub(crate) use trilith::tags as trilith_tags;

/// What the `trilith` scheme calls itself in labels and documents. Part of every key by way
/// of their domain, [`crate::KEY_DOMAIN`].
pub const TRILITH_SCHEME: &str = "trilith/v1";

/// A way in which inputs become tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// The tags of `OpenHands`' V0 runtime images, bit for bit.
    OpenHandsV0,
    /// The tags of `OpenHands`' V1 agent server images, bit for bit.
    OpenHandsV1,
    /// Everything that can change the image is covered, and nothing else.
    #[default]
    Trilith,
}

impl Scheme {
    /// All schemes.
    pub const ALL: [Self; 3] = [Self::OpenHandsV0, Self::OpenHandsV1, Self::Trilith];

    /// Returns the name used on the command line and in `trilith.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenHandsV0 => "openhands-v0",
            Self::OpenHandsV1 => "openhands-v1",
            Self::Trilith => "trilith",
        }
    }

    /// Returns the gitignore-style patterns of what a source hash leaves out where the user
    /// names none.
    ///
    /// The `trilith` scheme leaves out little, as what it leaves out is missing from the
    /// layers too: a hidden directory such as `node_modules/.bin` belongs to the program.
    #[must_use]
    pub fn default_ignore(self) -> &'static [&'static str] {
        match self {
            Self::OpenHandsV0 => &[".*/", "__pycache__/", "*.pyc"],
            Self::OpenHandsV1 => &[".*/", "__pycache__/", "*.pyc", "*.md"],
            Self::Trilith => &[".git/", "__pycache__/", "*.pyc"],
        }
    }

    /// Returns the names of the lock files, relative to the project and in the order they are
    /// hashed, where the user names none. Those that do not exist are left out.
    #[must_use]
    pub fn default_lock_files(self) -> &'static [&'static str] {
        match self {
            Self::OpenHandsV0 => &["pyproject.toml", "poetry.lock"],
            Self::OpenHandsV1 | Self::Trilith => &["pyproject.toml", "uv.lock"],
        }
    }
}

/// The text names no [`Scheme`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scheme; there are `openhands-v0`, `openhands-v1` and `trilith`")]
pub struct SchemeNameError(String);

impl FromStr for Scheme {
    type Err = SchemeNameError;

    fn from_str(text: &str) -> Result<Self, SchemeNameError> {
        Self::ALL
            .into_iter()
            .find(|scheme| scheme.as_str() == text)
            .ok_or_else(|| SchemeNameError(text.to_owned()))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for scheme in Scheme::ALL {
            assert_eq!(scheme.to_string().parse::<Scheme>().unwrap(), scheme);
        }
        assert_eq!(Scheme::default(), Scheme::Trilith);
        let error = "openhands".parse::<Scheme>().unwrap_err();
        assert!(error.to_string().contains("`openhands` is not a scheme"));
    }
}
