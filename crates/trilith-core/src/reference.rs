//! Image references, by the rules of Docker's short names.
//!
//! Grammar: `distribution/reference`. What the grammar leaves to the reader is
//! settled as Docker does: the first component is a registry when it holds a `.`
//! or a `:`, is `localhost`, or has an upper-case letter; else the registry is
//! `docker.io`, and a repository of one component there lives under `library/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
use crate::tag::{Tag, TagError};

/// The registry that short names belong to.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of a reference that names neither a tag nor a digest.
pub const DEFAULT_TAG: &str = "latest";
/// The most characters the registry and repository may have together.
const MAX_NAME_LEN: usize = 255;

/// A repository on a registry: where tags and blobs live.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// Returns the registry as `host[:port]`, `docker.io` for short names.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path on the registry, `library/debian` for instance.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the reference of `tag` in this repository.
    #[must_use]
    pub fn with_tag(&self, tag: Tag) -> Reference {
        Reference {
            repository: self.clone(),
            tag: Some(tag),
            digest: None,
        }
    }

    /// Returns the reference of `digest` in this repository.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference {
            repository: self.clone(),
            tag: None,
            digest: Some(digest),
        }
    }
}

/// Where an image is: a repository with a tag, a digest or both.
///
/// Always full: parsing adds the default registry, `library/` and `latest`.
/// With a digest the tag is a comment, as in Docker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the registry as `host[:port]`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.repository.registry
    }

    /// Returns the tag. `None` only where a digest is given without one.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the same reference pinned to `digest`.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns what a registry is asked for: the digest where there is one, else the tag.
    #[must_use]
    pub fn identifier(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag.as_str(),
            (None, None) => DEFAULT_TAG,
        }
    }
}

/// Why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("an image reference cannot be empty")]
    Empty,
    /// The text starts with a URL scheme.
    #[error("`{0}` is a URL; write the reference without `{1}`")]
    Url(String, &'static str),
    /// The registry is not `host[:port]`.
    #[error("`{text}` names `{registry}` as its registry, which is not `host` or `host:port`")]
    Registry {
        /// The text as given.
        text: String,
        /// The part taken for the registry.
        registry: String,
    },
    /// The repository breaks the grammar.
    #[error(
        "`{text}`: repository component `{component}` must be lower-case letters and digits, with single `.`, `_`, `__` or `-` between them"
    )]
    Component {
        /// The text as given.
        text: String,
        /// The component that breaks the grammar.
        component: String,
    },
    /// The repository is 64 hexadecimal digits and would be read as an image ID.
    #[error("`{0}` looks like an image ID, which names no repository")]
    ImageId(String),
    /// Registry and repository are too long together.
    #[error("`{0}` is longer than {MAX_NAME_LEN} characters before its tag")]
    TooLong(String),
    /// The part after the last `:` is not a tag.
    #[error("`{text}` has an invalid tag")]
    Tag {
        /// The text as given.
        text: String,
        /// What is wrong with the tag.
        source: TagError,
    },
    /// The part after `@` is not a digest.
    #[error("`{text}` has an invalid digest")]
    Digest {
        /// The text as given.
        text: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
    /// A repository was expected and the text has a tag or a digest too.
    #[error("`{0}` must name a repository, without a tag or digest")]
    NotARepository(String),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest {
                    text: text.to_owned(),
                    source,
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to the registry's port or address.
            Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => {
                let tag = tag.parse().map_err(|source| ReferenceError::Tag {
                    text: text.to_owned(),
                    source,
                })?;
                (name, Some(tag))
            }
            _ => (rest, None),
        };
        let repository = parse_name(text, name)?;
        let tag = match (&digest, tag) {
            (None, None) => DEFAULT_TAG.parse().ok(),
            (_, tag) => tag,
        };
        Ok(Self {
            repository,
            tag,
            digest,
        })
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let last = text.rsplit('/').next().unwrap_or(text);
        // `localhost:5000` alone has no repository either way, so a colon is a tag here.
        if text.contains('@') || last.contains(':') {
            return Err(ReferenceError::NotARepository(text.to_owned()));
        }
        parse_name(text, text)
    }
}

/// Splits `name` into registry and repository and checks both; `text` is for messages.
fn parse_name(text: &str, name: &str) -> Result<Repository, ReferenceError> {
    if name.is_empty() {
        return Err(ReferenceError::Empty);
    }
    for scheme in ["https://", "http://", "docker://"] {
        if name.starts_with(scheme) {
            return Err(ReferenceError::Url(text.to_owned(), scheme));
        }
    }
    if name.len() > MAX_NAME_LEN {
        return Err(ReferenceError::TooLong(text.to_owned()));
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if names_a_registry(first) => (first, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    if !is_host_and_port(registry) {
        return Err(ReferenceError::Registry {
            text: text.to_owned(),
            registry: registry.to_owned(),
        });
    }
    if let Some(component) = path.split('/').find(|component| !is_component(component)) {
        return Err(ReferenceError::Component {
            text: text.to_owned(),
            component: component.to_owned(),
        });
    }
    let is_hub = matches!(registry, "docker.io" | "index.docker.io");
    if is_hub && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ReferenceError::ImageId(text.to_owned()));
    }
    let registry = if is_hub { DEFAULT_REGISTRY } else { registry };
    let path = if is_hub && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    Ok(Repository {
        registry: registry.to_owned(),
        path,
    })
}

fn names_a_registry(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host_and_port(registry: &str) -> bool {
    let (host, port) = match registry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (
                None,
                rest.strip_prefix(':')
                    .or(if rest.is_empty() { Some("0") } else { None }),
            )
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), Some("0")),
        },
    };
    let host_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(host_label))
        && port.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|&b| alphanumeric(b));
    ends(bytes.first())
        && ends(bytes.last())
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| {
                matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
            })
}

macro_rules! string_conversions {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = ReferenceError;

            fn try_from(text: String) -> Result<Self, ReferenceError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

string_conversions!(Reference);
string_conversions!(Repository);

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn full_names() {
        for (text, expected) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:bookworm", "docker.io/library/debian:bookworm"),
            ("acme/app", "docker.io/acme/app:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/debian:1", "docker.io/library/debian:1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("[::1]/x", "[::1]/x:latest"),
            ("GHCR.io/org/repo:V1", "GHCR.io/org/repo:V1"),
            ("ghcr.io/a__b/c--d.e_f:1", "ghcr.io/a__b/c--d.e_f:1"),
            ("debian:5000", "docker.io/library/debian:5000"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), expected);
            assert_eq!(expected.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn digests() {
        let plain: Reference = format!("debian@{SHA}").parse().unwrap();
        assert_eq!(plain.to_string(), format!("docker.io/library/debian@{SHA}"));
        assert_eq!(plain.tag(), None);
        let both: Reference = format!("localhost:5000/a:1@{SHA}").parse().unwrap();
        assert_eq!(both.identifier(), SHA);
        assert_eq!(both.tag().unwrap().as_str(), "1");
    }

    #[test]
    fn refusals_name_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            (":tag", "empty"),
            ("https://ghcr.io/a", "without `https://`"),
            ("Debian", "component `Debian`"),
            ("ghcr.io/Org/app", "component `Org`"),
            ("ghcr.io/a//b", "component ``"),
            ("ghcr.io/a/", "component ``"),
            ("ghcr.io/a..b", "component `a..b`"),
            ("ghcr.io/-a", "component `-a`"),
            ("local host:5000/a", "registry"),
            ("localhost:99999/a", "registry"),
            ("localhost:/a", "registry"),
            ("[::g]:5000/x", "registry"),
            ("debian:", "invalid tag"),
            ("debian:a b", "invalid tag"),
            ("debian@sha256:12", "invalid digest"),
            (&SHA[7..], "image ID"),
            (&format!("ghcr.io/{}", "a".repeat(260)), "longer than 255"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn repositories() {
        let repository: Repository = "localhost:5000/a/b".parse().unwrap();
        assert_eq!(
            (repository.registry(), repository.path()),
            ("localhost:5000", "a/b")
        );
        assert!("localhost:5000/a:1".parse::<Repository>().is_err());
        assert!(format!("a@{SHA}").parse::<Repository>().is_err());
    }
}
