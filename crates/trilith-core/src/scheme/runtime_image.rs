//! How V0 names the runtime image of a base image.
//!
//! The reference splits the base image at `:` and so breaks on registry ports and on
//! digests. Wherever its answer is a tag, this answers the same; where it is none, the base
//! image is taken apart as a [`Reference`] and the same rules go on from there.

use std::fmt;

use crate::digest::Digest;
use crate::reference::{DEFAULT_TAG, Reference, ReferenceError};
use crate::tag::{MAX_TAG_LEN, Tag};

use super::compose::{SchemeError, TagPart, TagSubject, compose};
use super::openhands::{md5_hex, split_before_last_chars};

/// The most characters of a base image's repository that stand in the tag unhashed.
const REPOSITORY_LEN: usize = 32;
/// How many characters of a longer one are kept at its end.
const REPOSITORY_TAIL_LEN: usize = 24;

/// A runtime image, as V0 names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The repository, as the caller wrote it.
    pub repository: String,
    /// The tag. `None` only for a base that is a runtime image already and pinned by digest.
    pub tag: Option<Tag>,
    /// The digest, where the base is a runtime image already and pinned.
    pub digest: Option<Digest>,
}

impl fmt::Display for RuntimeImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Returns what V0's `get_runtime_image_repo_and_tag` answers for `base_image`.
///
/// * A base whose text holds `runtime_repo` is a runtime image already and used as it is.
/// * Else the repository is `runtime_repo` and the tag `oh_v{version}_image_{name}_tag_{tag}`,
///   where a name over 32 characters becomes `{first 8 digits of the MD5 of all but its last
///   24 characters}_{its last 24}`, and then `/` becomes `_s_`.
/// * A tag over 128 characters becomes `oh_v{version}_image_{its MD5}`.
/// * A base without tag has `latest`.
///
/// Beyond the reference: the `:` of a port becomes `_t_`, and the tag of a base pinned by
/// digest is `sha256_{hex}`.
///
/// # Errors
/// [`SchemeError`] when the base image is no reference or the tag would break the grammar.
///
/// ```
/// # fn main() -> Result<(), trilith_core::SchemeError> {
/// let image = trilith_core::runtime_image_repo_and_tag_v0(
///     "localhost:5000/team/app", "ghcr.io/openhands/runtime", "0.59.0")?;
/// assert_eq!(
///     image.to_string(),
///     "ghcr.io/openhands/runtime:oh_v0.59.0_image_localhost_t_5000_s_team_s_app_tag_latest"
/// );
/// # Ok(())
/// # }
/// ```
pub fn runtime_image_repo_and_tag_v0(
    base_image: &str,
    runtime_repo: &str,
    version: &str,
) -> Result<RuntimeImage, SchemeError> {
    if base_image.contains(runtime_repo) {
        return used_as_it_is(base_image);
    }
    let runtime_image = |tag| RuntimeImage {
        repository: runtime_repo.to_owned(),
        tag: Some(tag),
        digest: None,
    };
    let split = split_at_colon(base_image);
    let refusal = match split.map(|(name, tag)| runtime_tag(name, tag, version)) {
        Some(Ok(tag)) => return Ok(runtime_image(tag)),
        Some(Err(error)) => Some(error),
        None => None,
    };
    // What `split(':')` takes apart well needs no second try: its refusal is the answer.
    if let (Some(refusal), false) = (refusal, breaks_split(base_image)) {
        return Err(refusal);
    }
    let Written { name, tag, digest } = take_apart(base_image)?;
    let tag = match (digest, tag) {
        (Some(digest), _) => digest.as_str().replace(':', "_"),
        (None, tag) => tag.map_or_else(|| DEFAULT_TAG.to_owned(), |tag| tag.to_string()),
    };
    runtime_tag(&name, &tag, version).map(runtime_image)
}

fn used_as_it_is(base_image: &str) -> Result<RuntimeImage, SchemeError> {
    if let (Some((name, tag)), false) = (split_at_colon(base_image), breaks_split(base_image)) {
        let tag = tag.parse().map_err(|source| SchemeError::BaseImage {
            text: base_image.to_owned(),
            source: ReferenceError::Tag {
                text: base_image.to_owned(),
                source,
            },
        })?;
        return Ok(RuntimeImage {
            repository: name.to_owned(),
            tag: Some(tag),
            digest: None,
        });
    }
    let Written { name, tag, digest } = take_apart(base_image)?;
    Ok(RuntimeImage {
        repository: name,
        tag,
        digest,
    })
}

/// Splits as the reference does, which knows neither ports nor digests. `None` where it fails.
fn split_at_colon(base_image: &str) -> Option<(&str, &str)> {
    match base_image.split_once(':') {
        None => Some((base_image, DEFAULT_TAG)),
        Some((name, tag)) if !tag.contains(':') => Some((name, tag)),
        Some(_) => None,
    }
}

/// Returns whether the part behind the colon is something else than a tag.
fn breaks_split(base_image: &str) -> bool {
    base_image.contains('@')
        || base_image
            .split_once(':')
            .is_some_and(|(_, tag)| tag.contains(['/', ':']))
}

/// A base image taken apart.
struct Written {
    /// Registry and repository as they were written.
    name: String,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

fn take_apart(base_image: &str) -> Result<Written, SchemeError> {
    let reference: Reference = base_image
        .parse()
        .map_err(|source| SchemeError::BaseImage {
            text: base_image.to_owned(),
            source,
        })?;
    let written = base_image.split('@').next().unwrap_or(base_image);
    let name = reference
        .tag()
        .and_then(|tag| written.strip_suffix(tag.as_str())?.strip_suffix(':'))
        .unwrap_or(written);
    Ok(Written {
        name: name.to_owned(),
        tag: reference.tag().cloned(),
        digest: reference.digest().cloned(),
    })
}

fn runtime_tag(name: &str, tag: &str, version: &str) -> Result<Tag, SchemeError> {
    let name = if name.chars().count() > REPOSITORY_LEN {
        let (head, tail) = split_before_last_chars(name, REPOSITORY_TAIL_LEN);
        format!("{}_{tail}", &md5_hex(head)[..8])
    } else {
        name.to_owned()
    };
    let name = name.replace('/', "_s_").replace(':', "_t_");
    let full = format!("oh_v{version}_image_{name}_tag_{tag}");
    let prefix = [
        (TagPart::Fixed, "oh_v"),
        (TagPart::Version, version),
        (TagPart::Fixed, "_image_"),
    ];
    let hashed;
    let rest: &[(TagPart, &str)] = if full.chars().count() > MAX_TAG_LEN {
        hashed = md5_hex(&full);
        &[(TagPart::Fixed, &hashed)]
    } else {
        &[
            (TagPart::BaseImage, &name),
            (TagPart::Fixed, "_tag_"),
            (TagPart::BaseImage, tag),
        ]
    };
    compose(TagSubject::RuntimeImage, &[&prefix, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNTIME: &str = "ghcr.io/openhands/runtime";
    const HEX: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn name(base_image: &str) -> Result<String, SchemeError> {
        runtime_image_repo_and_tag_v0(base_image, RUNTIME, "0.59.0").map(|image| image.to_string())
    }

    /// Answers of the reference.
    #[test]
    fn as_the_reference() {
        for (base_image, tag) in [
            ("debian", "debian_tag_latest"),
            ("debian:12", "debian_tag_12"),
            (
                "nikolaik/python-nodejs:python3.12-nodejs22",
                "nikolaik_s_python-nodejs_tag_python3.12-nodejs22",
            ),
            ("GHCR.io/Org/Repo:V1", "GHCR.io_s_Org_s_Repo_tag_V1"),
            // 32 characters stand as they are, 33 are hashed.
            (
                &format!("a/{}", "b".repeat(30)),
                &format!("a_s_{}_tag_latest", "b".repeat(30)),
            ),
            (
                &format!("a/{}", "b".repeat(31)),
                &format!("1d8ecf2f_{}_tag_latest", "b".repeat(24)),
            ),
            (
                "docker.io/xingyaoww/sweb.eval.x86_64.django_s_django-11333:v1",
                "e4893223_64.django_s_django-11333_tag_v1",
            ),
            // The tail is cut before its slashes grow.
            (
                "aaaaaaaaaaaaaaaaaaaaaaaa/a/a/a/a/a/a/a/a/a/a/a/a/a:1",
                "02bb3802__s_a_s_a_s_a_s_a_s_a_s_a_s_a_s_a_s_a_s_a_s_a_s_a_tag_1",
            ),
            (
                &format!("x:{}", "t".repeat(105)),
                &format!("x_tag_{}", "t".repeat(105)),
            ),
            (
                &format!("x:{}", "t".repeat(128)),
                "6fc90fe4b49a37b0ed8c7f7cc59be239",
            ),
            // Taken apart wrongly, but hashed as a whole, which makes a tag all the same.
            (
                &format!("localhost:5000/{}", "p".repeat(120)),
                "6c1667a07454e3af17ce76a0d83e4eb5",
            ),
            (
                &format!("registry.example.com/a/b/c/d/e/f/g/h/i/j@sha256:{HEX}"),
                "345b4802c57b7df8ead8455bf0dec72a",
            ),
            ("", "_tag_latest"),
            ("debian:", "debian_tag_"),
        ] {
            let expected = format!("{RUNTIME}:oh_v0.59.0_image_{tag}");
            assert_eq!(name(base_image).unwrap(), expected, "{base_image}");
        }
    }

    #[test]
    fn a_runtime_image_is_used_as_it_is() {
        for (base_image, expected) in [
            (RUNTIME, "ghcr.io/openhands/runtime:latest"),
            (
                "ghcr.io/openhands/runtime:oh_v0.1_x",
                "ghcr.io/openhands/runtime:oh_v0.1_x",
            ),
            (
                "mirror.example/ghcr.io/openhands/runtime-custom:1",
                "mirror.example/ghcr.io/openhands/runtime-custom:1",
            ),
            // Beyond the reference.
            (
                "localhost:5000/ghcr.io/openhands/runtime",
                "localhost:5000/ghcr.io/openhands/runtime:latest",
            ),
            (
                &format!("ghcr.io/openhands/runtime:a@sha256:{HEX}"),
                &format!("ghcr.io/openhands/runtime:a@sha256:{HEX}"),
            ),
        ] {
            assert_eq!(name(base_image).unwrap(), expected, "{base_image}");
        }
        let pinned =
            runtime_image_repo_and_tag_v0(&format!("{RUNTIME}@sha256:{HEX}"), RUNTIME, "1")
                .unwrap();
        assert_eq!((pinned.repository.as_str(), pinned.tag), (RUNTIME, None));
        assert_eq!(pinned.digest.unwrap().hex(), HEX);
    }

    #[test]
    fn ports_and_digests() {
        for (base_image, tag) in [
            ("localhost:5000/a/b", "localhost_t_5000_s_a_s_b_tag_latest"),
            ("localhost:5000/a/b:t", "localhost_t_5000_s_a_s_b_tag_t"),
            (
                &format!("debian@sha256:{HEX}"),
                &format!("debian_tag_sha256_{HEX}"),
            ),
            (
                &format!("debian:12@sha256:{HEX}"),
                &format!("debian_tag_sha256_{HEX}"),
            ),
        ] {
            let expected = format!("{RUNTIME}:oh_v0.59.0_image_{tag}");
            assert_eq!(name(base_image).unwrap(), expected);
        }
    }

    #[test]
    fn refusals() {
        let message = |base_image: &str, version: &str| {
            runtime_image_repo_and_tag_v0(base_image, RUNTIME, version)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message("debian", "1+x"),
            "the runtime image tag cannot hold `+`, which its version `1+x` has"
        );
        assert_eq!(
            message("debian:a b", "1"),
            "the runtime image tag cannot hold ` `, which its base image slug `a b` has"
        );
        assert_eq!(
            message("[::1]:5000/a:t", "1"),
            "the runtime image tag cannot hold `[`, which its base image slug `[_t__t_1]_t_5000_s_a` has"
        );
        assert!(message("debian", &"1".repeat(120)).contains("its version alone has 120"));
        for bad in ["a:b:c", "debian@sha256", "debian@sha256:12"] {
            assert_eq!(
                message(bad, "1"),
                format!("cannot name the runtime image of base image `{bad}`")
            );
        }
        assert!(name("ghcr.io/openhands/runtime:a b").is_err());
    }
}
