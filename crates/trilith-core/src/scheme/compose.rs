//! Putting a tag together from its parts, so that a refused one can name the part at fault.
//!
//! Nothing is repaired here: a scheme's tag is what the scheme says, or an error.

use std::fmt;

use crate::level::Level;
use crate::reference::ReferenceError;
use crate::tag::{MAX_TAG_LEN, Tag, TagError};

/// Which tag is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagSubject {
    /// The tag of a level.
    Level(Level),
    /// The tag that V0 gives to the runtime image of a base.
    RuntimeImage,
}

impl fmt::Display for TagSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "{level} tag"),
            Self::RuntimeImage => f.write_str("runtime image tag"),
        }
    }
}

/// A part of a tag, by where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagPart {
    /// What the scheme itself writes: separators and hashes.
    Fixed,
    /// The version.
    Version,
    /// The name of the base image.
    BaseImage,
    /// The suffix.
    Suffix,
}

impl fmt::Display for TagPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed part",
            Self::Version => "version",
            Self::BaseImage => "base image slug",
            Self::Suffix => "suffix",
        })
    }
}

/// Why inputs have no tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemeError {
    /// A part holds a character that a tag cannot hold there.
    #[error("the {subject} cannot hold `{}`, which its {part} `{text}` has", character.escape_default())]
    Character {
        /// Which tag.
        subject: TagSubject,
        /// The part at fault.
        part: TagPart,
        /// The part's text, as it would stand in the tag.
        text: String,
        /// The first offending character.
        character: char,
    },
    /// The tag is longer than [`MAX_TAG_LEN`].
    #[error(
        "the {subject} `{tag}` has {length} characters, at most {MAX_TAG_LEN} are allowed; its {part} alone has {part_length}"
    )]
    TooLong {
        /// Which tag.
        subject: TagSubject,
        /// The whole tag.
        tag: String,
        /// Its length in characters.
        length: usize,
        /// The longest part that the user can change.
        part: TagPart,
        /// The length of that part in characters.
        part_length: usize,
    },
    /// The digest of the source tree is not an MD5 digest.
    #[error("`{0}` is not an MD5 digest of 32 hex digits")]
    SourceDigest(String),
    /// The base image has to be taken apart and is not a reference.
    #[error("cannot name the runtime image of base image `{text}`")]
    BaseImage {
        /// The base image as given.
        text: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
}

impl SchemeError {
    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Character {
                part,
                text,
                character,
                ..
            } => character_hint(*part, text, *character),
            Self::TooLong { length, part, .. } => Some(format!(
                "shorten the {part} by {}",
                length.saturating_sub(MAX_TAG_LEN)
            )),
            Self::SourceDigest(_) | Self::BaseImage { .. } => None,
        }
    }
}

fn character_hint(part: TagPart, text: &str, character: char) -> Option<String> {
    match (part, character) {
        (TagPart::Version, '+') => Some(format!(
            "write the version as `{}`",
            text.replace('+', "-")
        )),
        (TagPart::BaseImage, '@') => Some(
            "name the base image by its tag, or use the scheme `trilith`, which covers the digest by its key"
                .to_owned(),
        ),
        (TagPart::Version | TagPart::BaseImage | TagPart::Suffix, _) => Some(format!(
            "a {part} may have a-z, A-Z, 0-9, `_`, `.` and `-`"
        )),
        (TagPart::Fixed, _) => None,
    }
}

/// Returns the tag of `parts` in order.
pub(super) fn compose(subject: TagSubject, parts: &[(TagPart, &str)]) -> Result<Tag, SchemeError> {
    let whole: String = parts.iter().map(|(_, text)| *text).collect();
    let position = match whole.parse() {
        Ok(tag) => return Ok(tag),
        Err(TagError::Character { position, .. }) => position,
        Err(TagError::Empty | TagError::TooLong { .. }) => {
            return Err(too_long(subject, parts, whole));
        }
    };
    let mut start = 0;
    for &(part, text) in parts {
        if let Some(character) = text.chars().nth(position - start) {
            return Err(SchemeError::Character {
                subject,
                part,
                text: text.to_owned(),
                character,
            });
        }
        start += text.chars().count();
    }
    Err(too_long(subject, parts, whole))
}

fn too_long(subject: TagSubject, parts: &[(TagPart, &str)], tag: String) -> SchemeError {
    let (part, part_length) = parts
        .iter()
        .filter(|(part, _)| *part != TagPart::Fixed)
        .map(|&(part, text)| (part, text.chars().count()))
        .max_by_key(|&(_, length)| length)
        .unwrap_or((TagPart::Fixed, 0));
    SchemeError::TooLong {
        subject,
        length: tag.chars().count(),
        tag,
        part,
        part_length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: TagSubject = TagSubject::Level(Level::Source);

    #[test]
    fn errors_name_the_part() {
        let parts = |version, slug, suffix| {
            compose(
                SUBJECT,
                &[
                    (TagPart::Fixed, "v"),
                    (TagPart::Version, version),
                    (TagPart::Fixed, "_"),
                    (TagPart::BaseImage, slug),
                    (TagPart::Suffix, suffix),
                ],
            )
        };
        assert_eq!(
            parts("1", "debian", "-dev").unwrap().as_str(),
            "v1_debian-dev"
        );
        for (version, slug, suffix, message, hint) in [
            (
                "1+é",
                "x",
                "",
                "the source tag cannot hold `+`, which its version `1+é` has",
                "write the version as `1-é`",
            ),
            (
                "é",
                "x@y",
                "",
                "the source tag cannot hold `\\u{e9}`, which its version `é` has",
                "a version may have",
            ),
            (
                "1",
                "x@y",
                "/",
                "the source tag cannot hold `@`, which its base image slug `x@y` has",
                "name the base image by its tag",
            ),
            (
                "1",
                "x",
                "-a\n",
                "the source tag cannot hold `\\n`, which its suffix `-a\n` has",
                "a suffix may have",
            ),
        ] {
            let error = parts(version, slug, suffix).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().unwrap().contains(hint), "{error:?}");
        }
    }

    #[test]
    fn length_is_blamed_on_the_longest_part() {
        let long = "9".repeat(130);
        let error = compose(
            SUBJECT,
            &[
                (TagPart::Fixed, "v"),
                (TagPart::Version, &long),
                (TagPart::Suffix, "-dev"),
            ],
        )
        .unwrap_err();
        assert!(error.to_string().contains("has 135 characters"), "{error}");
        assert!(
            error.to_string().contains("its version alone has 130"),
            "{error}"
        );
        assert_eq!(error.hint().unwrap(), "shorten the version by 7");
    }
}
