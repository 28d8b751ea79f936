//! The three levels a runtime image is built in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A level, from the least to the most specific.
///
/// Each level's image is the one below plus its own layers, and each level has one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The version and the base image.
    Versioned,
    /// The dependency inputs too.
    Lock,
    /// Everything.
    Source,
}

impl Level {
    /// All levels, least specific first: the order of building and of tagging.
    pub const ALL: [Self; 3] = [Self::Versioned, Self::Lock, Self::Source];

    /// Returns the name used in recipes, JSON and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Versioned => "versioned",
            Self::Lock => "lock",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
