//! Places: the names of where an image is read from or written to.
//!
//! Parses and prints; opens nothing. The prefixes are those of skopeo, so that a name
//! means the same in both:
//!
//! | text | place |
//! | --- | --- |
//! | `debian:12`, `docker://debian:12` | a registry |
//! | `oci:PATH[:TAG]` | an OCI layout, a directory |
//! | `oci-archive:PATH[:TAG]` | an OCI layout in a tar |
//! | `docker-archive:PATH[:REF]` | what `docker save` writes |
//! | `docker-daemon:REF`, `docker-daemon:sha256:ID` | the images of a Docker engine |
//! | `dir:PATH` | a root file system (skopeo means something else by it) |
//! | `scratch` | the image without layers |
//!
//! A prefix always wins: `oci:5000/a` is the layout `5000/a`, never a registry host called
//! `oci`, and `scratch` is never Docker Hub's reserved name. Whoever means the registry
//! writes `docker://oci:5000/a`. A path of the first three kinds ends at its first `:`, as in
//! skopeo, so a path with a `:` in it cannot be written; in `dir:PATH` it can.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use trilith_core::{Digest, Reference, ReferenceError, Tag, TagError};

/// Where an image is or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A repository on a registry, with a tag or digest.
    Registry(Reference),
    /// An OCI layout on disk.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The image in it; the only one where there is none.
        tag: Option<Tag>,
    },
    /// An OCI layout in a tar.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The image in it; the only one where there is none.
        tag: Option<Tag>,
    },
    /// A file as `docker save` writes it.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// The image in it; the only one where there is none.
        reference: Option<Reference>,
    },
    /// The images of a Docker engine.
    DockerDaemon(DaemonImage),
    /// A root file system in a directory.
    RootFs(PathBuf),
    /// The image without layers.
    Scratch,
}

/// How an image of an engine is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonImage {
    /// By a reference.
    Reference(Reference),
    /// By its image ID, the digest of its config.
    Id(Digest),
}

impl Place {
    /// Returns the file or directory of a place on disk.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout { path, .. }
            | Self::OciArchive { path, .. }
            | Self::DockerArchive { path, .. }
            | Self::RootFs(path) => Some(path),
            Self::Registry(_) | Self::DockerDaemon(_) | Self::Scratch => None,
        }
    }
}

/// Why a text is not a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The text ends after its prefix.
    #[error("`{text}` has no {missing} after `{prefix}`")]
    Missing {
        /// The text as given.
        text: String,
        /// The prefix with its colon.
        prefix: &'static str,
        /// What should follow.
        missing: &'static str,
    },
    /// The part after the path is not a tag.
    #[error(
        "`{text}` is not a place: what follows the path must be a tag, and a path cannot hold `:`"
    )]
    Tag {
        /// The text as given.
        text: String,
        /// What is wrong with the tag.
        source: TagError,
    },
    /// The reference is not one.
    #[error("`{text}` is not a place")]
    Reference {
        /// The text as given.
        text: String,
        /// What is wrong with the reference.
        source: ReferenceError,
    },
    /// An archive or engine names an image by digest, which they do not keep.
    #[error(
        "`{text}` names its image by the digest of a manifest, which is not kept there; write a tag"
    )]
    ManifestDigest {
        /// The text as given.
        text: String,
    },
    /// A place of other tools that is not known here.
    #[error("`{text}`: `{prefix}` is not supported; save the image to an `oci-archive:` first")]
    Unsupported {
        /// The text as given.
        text: String,
        /// The prefix with its colon.
        prefix: &'static str,
    },
}

/// What a registry's host and port are taken for when `docker://` does not stand before them.
const PREFIXES: [&str; 8] = [
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "docker-daemon:",
    "dir:",
    UNSUPPORTED[0],
    UNSUPPORTED[1],
    UNSUPPORTED[2],
];

/// Places of skopeo and podman that are refused instead of being read as a short name.
const UNSUPPORTED: [&str; 3] = ["containers-storage:", "ostree:", "sif:"];

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if text == "scratch" {
            return Ok(Self::Scratch);
        }
        if let Some(prefix) = UNSUPPORTED.into_iter().find(|p| text.starts_with(p)) {
            let text = text.to_owned();
            return Err(PlaceError::Unsupported { text, prefix });
        }
        if let Some((path, tag)) = path_and_rest(text, "oci:")? {
            let tag = tag.map(|tag| parse_tag(text, tag)).transpose()?;
            return Ok(Self::Layout { path, tag });
        }
        if let Some((path, tag)) = path_and_rest(text, "oci-archive:")? {
            let tag = tag.map(|tag| parse_tag(text, tag)).transpose()?;
            return Ok(Self::OciArchive { path, tag });
        }
        if let Some((path, reference)) = path_and_rest(text, "docker-archive:")? {
            let reference = reference
                .map(|reference| parse_tagged(text, reference))
                .transpose()?;
            return Ok(Self::DockerArchive { path, reference });
        }
        if let Some(name) = rest(text, "docker-daemon:", "reference")? {
            return Ok(Self::DockerDaemon(parse_daemon_image(text, name)?));
        }
        if let Some(path) = rest(text, "dir:", "path")? {
            return Ok(Self::RootFs(PathBuf::from(path)));
        }
        let reference = rest(text, "docker://", "reference")?.unwrap_or(text);
        parse_reference(text, reference).map(Self::Registry)
    }
}

/// Returns what follows `prefix`, `None` where `text` does not start with it.
fn rest<'a>(
    text: &'a str,
    prefix: &'static str,
    missing: &'static str,
) -> Result<Option<&'a str>, PlaceError> {
    match text.strip_prefix(prefix) {
        Some("") => Err(PlaceError::Missing {
            text: text.to_owned(),
            prefix,
            missing,
        }),
        rest => Ok(rest),
    }
}

/// Splits `PREFIX:PATH[:REST]` at the first colon after the prefix.
fn path_and_rest<'a>(
    text: &'a str,
    prefix: &'static str,
) -> Result<Option<(PathBuf, Option<&'a str>)>, PlaceError> {
    let Some(rest) = rest(text, prefix, "path")? else {
        return Ok(None);
    };
    let (path, rest) = match rest.split_once(':') {
        Some((path, rest)) => (path, Some(rest)),
        None => (rest, None),
    };
    if path.is_empty() {
        return Err(PlaceError::Missing {
            text: text.to_owned(),
            prefix,
            missing: "path",
        });
    }
    Ok(Some((PathBuf::from(path), rest)))
}

fn parse_tag(text: &str, tag: &str) -> Result<Tag, PlaceError> {
    tag.parse().map_err(|source| PlaceError::Tag {
        text: text.to_owned(),
        source,
    })
}

fn parse_reference(text: &str, reference: &str) -> Result<Reference, PlaceError> {
    reference.parse().map_err(|source| PlaceError::Reference {
        text: text.to_owned(),
        source,
    })
}

fn parse_tagged(text: &str, reference: &str) -> Result<Reference, PlaceError> {
    let reference = parse_reference(text, reference)?;
    match reference.digest() {
        Some(_) => Err(PlaceError::ManifestDigest {
            text: text.to_owned(),
        }),
        None => Ok(reference),
    }
}

fn parse_daemon_image(text: &str, name: &str) -> Result<DaemonImage, PlaceError> {
    // `sha256:<hex>` would also be the repository `library/sha256`; an ID is what is meant.
    match name.parse::<Digest>() {
        Ok(id) => Ok(DaemonImage::Id(id)),
        Err(_) => parse_tagged(text, name).map(DaemonImage::Reference),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => {
                let text = reference.to_string();
                let prefixed = PREFIXES.iter().any(|prefix| text.starts_with(prefix));
                f.write_str(if prefixed { "docker://" } else { "" })?;
                f.write_str(&text)
            }
            Self::Layout { path, tag } => write_path(f, "oci:", path, tag.as_ref()),
            Self::OciArchive { path, tag } => write_path(f, "oci-archive:", path, tag.as_ref()),
            Self::DockerArchive { path, reference } => {
                write_path(f, "docker-archive:", path, reference.as_ref())
            }
            Self::DockerDaemon(DaemonImage::Reference(reference)) => {
                write!(f, "docker-daemon:{reference}")
            }
            Self::DockerDaemon(DaemonImage::Id(id)) => write!(f, "docker-daemon:{id}"),
            Self::RootFs(path) => write!(f, "dir:{}", path.display()),
            Self::Scratch => f.write_str("scratch"),
        }
    }
}

fn write_path(
    f: &mut fmt::Formatter<'_>,
    prefix: &str,
    path: &Path,
    rest: Option<&impl fmt::Display>,
) -> fmt::Result {
    write!(f, "{prefix}{}", path.display())?;
    match rest {
        Some(rest) => write!(f, ":{rest}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn places_and_how_they_print() {
        for (text, printed) in [
            ("debian:12", "docker.io/library/debian:12"),
            ("docker://debian", "docker.io/library/debian:latest"),
            ("docker://oci:5000/a", "docker://oci:5000/a:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:a/b:v1.0", "oci:a/b:v1.0"),
            ("oci:5000/a", "oci:5000/a"),
            ("oci-archive:x.tar", "oci-archive:x.tar"),
            ("oci-archive:x.tar:t", "oci-archive:x.tar:t"),
            ("docker-archive:x.tar", "docker-archive:x.tar"),
            (
                "docker-archive:x.tar:localhost:5000/a:t",
                "docker-archive:x.tar:localhost:5000/a:t",
            ),
            (
                "docker-archive:x.tar:a",
                "docker-archive:x.tar:docker.io/library/a:latest",
            ),
            ("docker-daemon:a:1", "docker-daemon:docker.io/library/a:1"),
            (
                &format!("docker-daemon:{SHA}"),
                &format!("docker-daemon:{SHA}"),
            ),
            ("dir:/rootfs", "dir:/rootfs"),
            ("dir:odd:name", "dir:odd:name"),
            ("scratch", "scratch"),
            ("docker.io/scratch", "docker.io/library/scratch:latest"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn prefixes_win() {
        let layout: Place = "oci:5000/a".parse().unwrap();
        assert_eq!(layout.path(), Some(Path::new("5000/a")));
        let registry: Place = "docker://oci:5000/a".parse().unwrap();
        assert_eq!(registry.path(), None);
    }

    #[test]
    fn refusals_name_the_reason() {
        for (text, reason) in [
            ("", "cannot be empty"),
            ("oci:", "no path after `oci:`"),
            ("oci::t", "no path after `oci:`"),
            ("oci:/a:", "cannot be empty"),
            ("oci:/a:b/c", "holds `/`"),
            ("oci-archive:", "no path after `oci-archive:`"),
            ("oci-archive:/a:b:c", "holds `:`"),
            ("docker-archive:x.tar:A", "component `A`"),
            ("docker-archive:", "no path"),
            (&format!("docker-archive:x.tar:a@{SHA}"), "write a tag"),
            ("docker-daemon:", "no reference after `docker-daemon:`"),
            (&format!("docker-daemon:a@{SHA}"), "write a tag"),
            ("docker-daemon:Up", "component `Up`"),
            ("dir:", "no path after `dir:`"),
            ("docker://", "no reference after `docker://`"),
            ("https://ghcr.io/a", "is a URL"),
            ("containers-storage:a", "`oci-archive:` first"),
        ] {
            let error = text.parse::<Place>().unwrap_err();
            let whole = match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            assert!(whole.contains(reason), "{text}: {whole}");
        }
    }

    fn places() -> impl Strategy<Value = String> {
        let path = "[a-zA-Z0-9./_ -]{1,20}";
        let tag = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}";
        let reference = "([a-z0-9]{1,8}(\\.[a-z]{2,3})?(:[1-9][0-9]{0,3})?/)?[a-z0-9]{1,8}(/[a-z0-9]{1,8})?(:[a-z0-9]{1,8})?";
        prop_oneof![
            reference.prop_filter("a place of others", |r| {
                !UNSUPPORTED.iter().any(|prefix| r.starts_with(prefix))
            }),
            reference.prop_map(|r| format!("docker://{r}")),
            reference.prop_map(|r| format!("docker-daemon:{r}")),
            (path, proptest::option::of(tag), any::<bool>()).prop_map(|(path, tag, archive)| {
                let prefix = if archive { "oci-archive" } else { "oci" };
                tag.map_or_else(
                    || format!("{prefix}:{path}"),
                    |tag| format!("{prefix}:{path}:{tag}"),
                )
            }),
            (path, proptest::option::of(reference)).prop_map(|(path, reference)| {
                reference.map_or_else(
                    || format!("docker-archive:{path}"),
                    |reference| format!("docker-archive:{path}:{reference}"),
                )
            }),
            "[^\0]{1,20}".prop_map(|path| format!("dir:{path}")),
            Just("scratch".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in places()) {
            let place: Place = text.parse().unwrap();
            prop_assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Place>();
        }
    }
}
