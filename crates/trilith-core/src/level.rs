//! The three levels a runtime image is built in.

use std::fmt;
use std::str::FromStr;

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

/// The text names no [`Level`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a level; there are `versioned`, `lock` and `source`")]
pub struct LevelError(String);

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| LevelError(text.to_owned()))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_round_trip() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse::<Level>().unwrap(), level);
        }
        assert!("Lock".parse::<Level>().is_err());
    }
}
