//! The schemes `openhands-v0` and `openhands-v1`, bit for bit what the reference answers.
//!
//! Both forget much that can change an image (file modes, the resolved base, build
//! arguments); that is their definition, and nothing is added here. `tests/golden` holds what
//! the reference answers.

use md5::{Digest as _, Md5};

use crate::digest::hex;
use crate::level::Level;
use crate::short::shorten;
use crate::tags::Tags;

use super::compose::{SchemeError, TagPart, TagSubject, compose};

/// The most characters of a slug; the last ones are kept.
const SLUG_LEN: usize = 96;

/// What the openhands schemes hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHandsInputs<'a> {
    /// The version, without `v`.
    pub version: &'a str,
    /// The base image as the user wrote it: `debian` and `docker.io/library/debian` differ.
    pub base_image: &'a str,
    /// Whether the image has browser support. Only its absence is hashed.
    pub browser: bool,
    /// The contents of the lock files in order, without those that do not exist.
    pub lock_files: Vec<&'a [u8]>,
    /// The MD5 digest of the source tree as `dirhash` 0.5.0 computes it, 32 hex digits.
    pub source_digest: &'a str,
    /// Appended to every tag; V1 has `-dev` when its target is `source`.
    pub suffix: &'a str,
}

impl OpenHandsInputs<'_> {
    /// Returns the lock hash: MD5 over the base image, `False` without browser support, and
    /// the lock files, as 32 hexadecimal digits.
    ///
    /// Nothing separates the parts: bytes that move from one lock file to the next, or from
    /// the base image into the first, are not noticed.
    #[must_use]
    pub fn lock_hash(&self) -> String {
        let mut md5 = Md5::new();
        md5.update(self.base_image);
        if !self.browser {
            md5.update("False");
        }
        for content in &self.lock_files {
            md5.update(content);
        }
        hex(&md5.finalize())
    }

    /// Returns the tags of scheme `openhands-v0`.
    ///
    /// # Errors
    /// [`SchemeError`] when a tag would break the grammar of tags, or the source digest is
    /// not one.
    pub fn tags_v0(&self) -> Result<Tags, SchemeError> {
        self.tags("oh_v", &slug_v0(self.base_image))
    }

    /// Returns the tags of scheme `openhands-v1`.
    ///
    /// # Errors
    /// As [`OpenHandsInputs::tags_v0`].
    pub fn tags_v1(&self) -> Result<Tags, SchemeError> {
        self.tags("v", &slug_v1(self.base_image))
    }

    fn tags(&self, prefix: &str, slug: &str) -> Result<Tags, SchemeError> {
        let lock = shorten(&self.lock_hash());
        let source = self.short_source()?;
        let tag = |level, middle: &[(TagPart, &str)]| {
            let mut parts = vec![
                (TagPart::Fixed, prefix),
                (TagPart::Version, self.version),
                (TagPart::Fixed, "_"),
            ];
            parts.extend_from_slice(middle);
            parts.push((TagPart::Suffix, self.suffix));
            compose(TagSubject::Level(level), &parts)
        };
        Ok(Tags {
            versioned: tag(Level::Versioned, &[(TagPart::BaseImage, slug)])?,
            lock: tag(Level::Lock, &[(TagPart::Fixed, &lock)])?,
            source: tag(
                Level::Source,
                &[
                    (TagPart::Fixed, &lock),
                    (TagPart::Fixed, "_"),
                    (TagPart::Fixed, &source),
                ],
            )?,
        })
    }

    fn short_source(&self) -> Result<String, SchemeError> {
        let digest = self.source_digest;
        if digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(shorten(digest))
        } else {
            Err(SchemeError::SourceDigest(digest.to_owned()))
        }
    }
}

/// Returns V0's slug of a base image: `/` as `_s_`, `:` as `_t_`, lower case, the last 96
/// characters.
#[must_use]
pub fn slug_v0(base_image: &str) -> String {
    slug(base_image, "_t_")
}

/// Returns V1's slug of a base image: `/` as `_s_`, `:` as `_tag_`, lower case, the last 96
/// characters.
#[must_use]
pub fn slug_v1(base_image: &str) -> String {
    slug(base_image, "_tag_")
}

fn slug(base_image: &str, colon: &str) -> String {
    let slug = base_image
        .replace('/', "_s_")
        .replace(':', colon)
        .to_lowercase();
    last_chars(&slug, SLUG_LEN).to_owned()
}

/// Returns the last `count` characters of `text`, or all if it has fewer.
pub(super) fn last_chars(text: &str, count: usize) -> &str {
    split_before_last_chars(text, count).1
}

/// Splits `text` before its last `count` characters.
pub(super) fn split_before_last_chars(text: &str, count: usize) -> (&str, &str) {
    let start = text
        .char_indices()
        .rev()
        .take(count)
        .last()
        .map_or(text.len(), |(index, _)| index);
    text.split_at(start)
}

/// Returns the MD5 digest of `text` as 32 hexadecimal digits.
pub(super) fn md5_hex(text: &str) -> String {
    hex(&Md5::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn inputs(base_image: &str) -> OpenHandsInputs<'_> {
        OpenHandsInputs {
            version: "1.0.0",
            base_image,
            browser: true,
            lock_files: vec![b"[project]\nname='x'\n", b"version = 1\n"],
            source_digest: EMPTY_MD5,
            suffix: "",
        }
    }

    #[test]
    fn v0() {
        let tags = inputs("ubuntu:22.04").tags_v0().unwrap();
        assert_eq!(tags.versioned.as_str(), "oh_v1.0.0_ubuntu_t_22.04");
        assert_eq!(tags.lock.as_str(), "oh_v1.0.0_ayo96luyqh37tqnf");
        assert_eq!(
            tags.source.as_str(),
            "oh_v1.0.0_ayo96luyqh37tqnf_uc3mgirxygs0uf85"
        );
    }

    #[test]
    fn v1_with_suffix() {
        let tags = OpenHandsInputs {
            suffix: "-dev",
            ..inputs("ubuntu:22.04")
        }
        .tags_v1()
        .unwrap();
        assert_eq!(tags.versioned.as_str(), "v1.0.0_ubuntu_tag_22.04-dev");
        assert_eq!(tags.lock.as_str(), "v1.0.0_ayo96luyqh37tqnf-dev");
        assert_eq!(
            tags.source.as_str(),
            "v1.0.0_ayo96luyqh37tqnf_uc3mgirxygs0uf85-dev"
        );
    }

    #[test]
    fn a_digest_breaks_the_versioned_tag() {
        let error = inputs("x@sha256:ab").tags_v1().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the versioned tag cannot hold `@`, which its base image slug `x@sha256_tag_ab` has"
        );
    }

    #[test]
    fn length_counts_every_part() {
        // 96 characters of slug, `v` and `_` leave 30 for the version.
        let base = "a".repeat(200);
        for (version_length, fits) in [(30, true), (31, false)] {
            let version = "1".repeat(version_length);
            let tags = OpenHandsInputs {
                version: &version,
                ..inputs(&base)
            }
            .tags_v1();
            assert_eq!(tags.is_ok(), fits, "{version_length}");
        }
    }

    #[test]
    fn source_digest_is_checked() {
        for bad in ["", "d41d8cd9", &"g".repeat(32)] {
            let inputs = OpenHandsInputs {
                source_digest: bad,
                ..inputs("x")
            };
            assert_eq!(
                inputs.tags_v1(),
                Err(SchemeError::SourceDigest(bad.to_owned()))
            );
        }
    }

    #[test]
    fn slugs_count_characters_not_bytes() {
        // Answers of Python's `.lower()[-96:]`: the sigma at the end, and `İ` becomes two.
        assert_eq!(slug_v1(&"é".repeat(100)), "é".repeat(96));
        assert_eq!(slug_v1("ΑΣ"), "ας");
        assert_eq!(slug_v0(&"İ".repeat(50)).chars().count(), 96);
        assert_eq!(slug_v0("\u{212a}:1"), "k_t_1");
        assert_eq!(slug_v0(""), "");
    }
}
