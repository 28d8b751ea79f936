//! Recipes: what to put on a base image, as plain values.
//!
//! Parsing a recipe from `trilith.toml` and reading the files it names is done elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::level::Level;
use crate::reference::Reference;

/// One `[[layer]]`: a file or a tree, and where it goes in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecipe {
    /// The level whose image the layer first appears in.
    pub level: Level,
    /// What is copied: a path relative to the project, or absolute in the image `from`.
    pub copy: String,
    /// The image whose subtree is copied; the project where there is none.
    pub from: Option<Reference>,
    /// Where it goes, in normal form (see [`Destination`]).
    pub to: Destination,
    /// Who owns every entry of the layer.
    pub owner: Owner,
}

/// A numeric owner, `uid:gid`. Names would need the base's passwd file.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

/// The text is not `uid` or `uid:gid`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a numeric owner; write `uid:gid`, as in `10001:10001`")]
pub struct OwnerError(String);

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(text: &str) -> Result<Self, OwnerError> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self { uid, gid }),
            _ => Err(OwnerError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = OwnerError;

    fn try_from(text: String) -> Result<Self, OwnerError> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// An absolute path in an image, without `.`, `..`, doubled or trailing slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination(String);

impl Destination {
    /// Returns the path with its leading slash; the root is `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path as layers write it, without the leading slash; the root is empty.
    #[must_use]
    pub fn relative(&self) -> &str {
        self.0.trim_start_matches('/')
    }
}

/// Why a text is not a [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// The path does not start with a slash.
    #[error("`{0}` must be an absolute path in the image")]
    Relative(String),
    /// The path holds a `..` component.
    #[error("`{0}` must not hold `..`")]
    Parent(String),
    /// The path holds a NUL byte.
    #[error("`{}` holds a NUL byte", .0.escape_default())]
    Nul(String),
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if !text.starts_with('/') {
            return Err(DestinationError::Relative(text.to_owned()));
        }
        if text.contains('\0') {
            return Err(DestinationError::Nul(text.to_owned()));
        }
        let components: Vec<&str> = text
            .split('/')
            .filter(|component| !matches!(*component, "" | "."))
            .collect();
        if components.contains(&"..") {
            return Err(DestinationError::Parent(text.to_owned()));
        }
        Ok(Self(format!("/{}", components.join("/"))))
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.0
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[config]`: what the source image says on top of its base. `None` keeps what the base says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigRecipe {
    /// Replaces the entrypoint, and with it drops the base's command.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the command.
    pub cmd: Option<Vec<String>>,
    /// Sets environment variables, each by name.
    pub env: BTreeMap<String, String>,
    /// Sets labels, each by name.
    pub labels: BTreeMap<String, String>,
    /// Replaces the user, `uid[:gid]` or a name the base knows.
    pub user: Option<String>,
    /// Replaces the working directory.
    pub workdir: Option<Destination>,
    /// Adds exposed ports, `8000` or `8000/udp`.
    pub expose: Vec<String>,
    /// Replaces the signal that asks the container to stop.
    pub stop_signal: Option<String>,
}

/// `[user]`: a user that the image knows by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecipe {
    /// Login name, and name of the group where one is made.
    pub name: String,
    /// User and group ID.
    pub owner: Owner,
    /// Home directory.
    pub home: Destination,
    /// Login shell. Whether the image has it is not looked at.
    pub shell: Destination,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (text, expected) in [
            ("/", "/"),
            ("/opt/app/", "/opt/app"),
            ("//a/./b", "/a/b"),
            ("/a b", "/a b"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().as_str(), expected);
        }
        for bad in ["", "opt", "/a/../b", "/..", "/a\0b"] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }

    #[test]
    fn owners() {
        assert_eq!("1:2".parse::<Owner>().unwrap(), Owner { uid: 1, gid: 2 });
        assert_eq!("7".parse::<Owner>().unwrap().to_string(), "7:7");
        for bad in ["", "root", "1:", ":1", "-1:0", "1:2:3"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
    }
}
