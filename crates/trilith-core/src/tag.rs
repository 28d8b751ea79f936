//! Tags: the short, movable names of images in a repository.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most characters a tag may have (OCI distribution specification 1.1, "Pulling manifests").
pub const MAX_TAG_LEN: usize = 128;

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// Returns the tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// The text is empty.
    #[error("a tag cannot be empty")]
    Empty,
    /// The text is longer than [`MAX_TAG_LEN`].
    #[error("tag `{tag}` has {} characters, at most {MAX_TAG_LEN} are allowed", tag.chars().count())]
    TooLong {
        /// The text as given.
        tag: String,
    },
    /// The text holds a character that is not allowed where it stands.
    #[error("tag `{tag}` holds `{}` at position {position}; allowed are a-z, A-Z, 0-9, `_`, and after the first character `.` and `-`", character.escape_default())]
    Character {
        /// The text as given.
        tag: String,
        /// The first offending character.
        character: char,
        /// Its position, in characters, from 0.
        position: usize,
    },
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        if text.is_empty() {
            return Err(TagError::Empty);
        }
        let allowed = |position: usize, c: char| {
            c.is_ascii_alphanumeric() || c == '_' || (position > 0 && matches!(c, '.' | '-'))
        };
        if let Some((position, character)) = text
            .chars()
            .enumerate()
            .find(|&(position, c)| !allowed(position, c))
        {
            return Err(TagError::Character {
                tag: text.to_owned(),
                character,
                position,
            });
        }
        if text.len() > MAX_TAG_LEN {
            return Err(TagError::TooLong {
                tag: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Tag {
    type Error = TagError;

    fn try_from(text: String) -> Result<Self, TagError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        for good in [
            "a",
            "_",
            "1.0",
            "v1.0.0_debian_tag_bookworm",
            &"a".repeat(128),
        ] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".a",
            "-a",
            "a/b",
            "a:b",
            "a@b",
            "é",
            "a b",
            &"a".repeat(129),
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_name_the_cause() {
        let error = "x@sha256".parse::<Tag>().unwrap_err();
        assert!(
            error.to_string().contains("holds `@` at position 1"),
            "{error}"
        );
        let error = "a".repeat(130).parse::<Tag>().unwrap_err();
        assert!(error.to_string().contains("has 130 characters"), "{error}");
    }
}
