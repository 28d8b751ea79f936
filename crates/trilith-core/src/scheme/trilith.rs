//! The tags of the `trilith` scheme: names for people, keys for the machine.
//!
//! What the keys cover is settled in [`crate::Inputs`]; here they only meet the names.

use crate::inputs::{Base, BaseName};
use crate::level::Level;
use crate::tags::{Keys, Tags};

use super::compose::{SchemeError, TagPart, TagSubject, compose};
use super::openhands::{last_chars, slug_v1};

/// The most characters of a slug; the last ones are kept.
const SLUG_LEN: usize = 64;

/// Returns how a base is named in the versioned tag: as people write it (`debian:bookworm`,
/// not `docker.io/library/debian:bookworm`) and without a digest, which the key covers; `/` as
/// `_s_`, `:` as `_tag_`, lower case, what a tag cannot hold as `_`, the last 64 characters.
///
/// A base that is no reference is named by its kind, so that no path ever stands in a tag.
fn slug(base: &Base) -> String {
    let name = match base {
        Base::Scratch => "scratch".to_owned(),
        Base::Image { name, .. } => match name {
            BaseName::Reference(reference) => {
                let name = reference.repository().to_string();
                let short = match name.strip_prefix("docker.io/") {
                    Some(path) => path.strip_prefix("library/").unwrap_or(path),
                    None => &name,
                };
                match reference.tag() {
                    Some(tag) => format!("{short}:{tag}"),
                    None => short.to_owned(),
                }
            }
            BaseName::Kind(kind) => kind.as_str().to_owned(),
        },
    };
    let slug: String = slug_v1(&name)
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' | '_' | '.' | '-' => c,
            _ => '_',
        })
        .collect();
    last_chars(&slug, SLUG_LEN).to_owned()
}

/// Returns the tags of an image with these keys: `v{version}_{slug}_{versioned key}`,
/// `v{version}_{lock key}` and `v{version}_{lock key}_{source key}`, keys shortened, each with
/// `suffix` behind it.
///
/// # Errors
/// [`SchemeError`] when a tag would break the grammar of tags.
pub(crate) fn tags(
    version: &str,
    base: &Base,
    keys: &Keys,
    suffix: &str,
) -> Result<Tags, SchemeError> {
    let slug = slug(base);
    let [versioned, lock, source] = Level::ALL.map(|level| keys.get(level).short());
    let tag = |level, middle: &[(TagPart, &str)]| {
        let mut parts = vec![
            (TagPart::Fixed, "v"),
            (TagPart::Version, version),
            (TagPart::Fixed, "_"),
        ];
        parts.extend_from_slice(middle);
        parts.push((TagPart::Suffix, suffix));
        compose(TagSubject::Level(level), &parts)
    };
    let join = (TagPart::Fixed, "_");
    let lock = (TagPart::Fixed, lock.as_str());
    Ok(Tags {
        versioned: tag(
            Level::Versioned,
            &[
                (TagPart::BaseImage, &slug),
                join,
                (TagPart::Fixed, &versioned),
            ],
        )?,
        lock: tag(Level::Lock, &[lock])?,
        source: tag(Level::Source, &[lock, join, (TagPart::Fixed, &source)])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::input_hash::FieldHasher;
    use crate::inputs::BaseKind;

    fn image(name: BaseName) -> Base {
        Base::Image {
            name,
            digest: Digest::of(b"base"),
        }
    }

    fn reference(text: &str) -> Base {
        image(BaseName::Reference(text.parse().unwrap()))
    }

    #[test]
    fn slugs() {
        let digest = Digest::of(b"");
        for (text, expected) in [
            ("debian:bookworm", "debian_tag_bookworm"),
            ("docker.io/library/debian:bookworm", "debian_tag_bookworm"),
            ("debian", "debian_tag_latest"),
            ("acme/app:V1", "acme_s_app_tag_v1"),
            ("GHCR.io/acme/app:1", "ghcr.io_s_acme_s_app_tag_1"),
            ("localhost:5000/a/b:t", "localhost_tag_5000_s_a_s_b_tag_t"),
            ("[::1]:5000/x:y", "__tag__tag_1__tag_5000_s_x_tag_y"),
            (&format!("debian@{digest}"), "debian"),
            (&format!("debian:12@{digest}"), "debian_tag_12"),
            (
                &format!("ghcr.io/{}:1", "a".repeat(90)),
                &format!("{}_tag_1", "a".repeat(58)),
            ),
        ] {
            assert_eq!(slug(&reference(text)), expected);
        }
        assert_eq!(slug(&Base::Scratch), "scratch");
        assert_eq!(
            slug(&image(BaseName::Kind(BaseKind::OciArchive))),
            "oci-archive"
        );
    }

    #[test]
    fn the_longest_slug_leaves_room_for_a_version() {
        let key = FieldHasher::new("k").finish();
        let keys = Keys {
            versioned: key,
            lock: key,
            source: key,
        };
        let base = reference(&format!("ghcr.io/{}:1", "a".repeat(90)));
        for (length, fits) in [(45, true), (46, false)] {
            let tags = tags(&"1".repeat(length), &base, &keys, "");
            assert_eq!(tags.is_ok(), fits, "{length}");
        }
        let error = tags("1.0+local", &base, &keys, "-dev").unwrap_err();
        assert_eq!(error.hint().unwrap(), "write the version as `1.0-local`");
    }
}
