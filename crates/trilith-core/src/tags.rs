//! The three tags of an image and the three keys behind them, one for each level.
//!
//! Nothing here computes them: see [`crate::Inputs`] and [`crate::OpenHandsInputs`].

use serde::{Deserialize, Serialize};

use crate::input_hash::InputHash;
use crate::level::Level;
use crate::tag::Tag;

/// One tag for each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Moves with the version and the base.
    pub versioned: Tag,
    /// Moves with the dependency inputs too.
    pub lock: Tag,
    /// Moves with everything.
    pub source: Tag,
}

impl Tags {
    /// Returns the tag of `level`.
    #[must_use]
    pub fn get(&self, level: Level) -> &Tag {
        match level {
            Level::Versioned => &self.versioned,
            Level::Lock => &self.lock,
            Level::Source => &self.source,
        }
    }

    /// Returns each level with its tag, least specific first: the order of tagging.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Level, &Tag)> {
        Level::ALL.into_iter().map(|level| (level, self.get(level)))
    }
}

/// One input hash for each level. Chained: each covers the one below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keys {
    /// Covers the inputs of level versioned.
    pub versioned: InputHash,
    /// Covers `versioned` and the inputs of level lock.
    pub lock: InputHash,
    /// Covers `lock` and the inputs of level source.
    pub source: InputHash,
}

impl Keys {
    /// Returns the key of `level`.
    #[must_use]
    pub fn get(&self, level: Level) -> InputHash {
        match level {
            Level::Versioned => self.versioned,
            Level::Lock => self.lock,
            Level::Source => self.source,
        }
    }

    /// Returns each level with its key, least specific first.
    #[must_use]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Level, InputHash)> {
        let keys = *self;
        Level::ALL
            .into_iter()
            .map(move |level| (level, keys.get(level)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_least_specific_first() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let tags = Tags {
            versioned: tag("v"),
            lock: tag("l"),
            source: tag("s"),
        };
        let seen: Vec<(Level, &str)> = tags
            .iter()
            .map(|(level, tag)| (level, tag.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (Level::Versioned, "v"),
                (Level::Lock, "l"),
                (Level::Source, "s")
            ]
        );
    }
}
