//! The list of inputs, and the keys over it.
//!
//! Keys depend on the list alone, so whoever holds a list can check its keys.

use crate::digest::Digest;
use crate::input_hash::{FieldHasher, InputHash};
use crate::level::Level;
use crate::tags::Keys;

/// The domain that every key is hashed under; its version is the scheme's.
pub const KEY_DOMAIN: &str = "trilith/inputs/v1";

/// One fact that an image depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The lowest level that depends on it.
    pub level: Level,
    /// What it is, unique at its level (see [`crate::Inputs`]).
    pub name: String,
    /// Digest of its value.
    pub digest: Digest,
    /// Size of its content in bytes; 0 for facts that are no files. Not covered by keys.
    pub size: u64,
}

/// Inputs in order of level and name, each name once at its level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputList(Vec<Input>);

impl InputList {
    /// Returns the list of `inputs`, sorted.
    ///
    /// # Errors
    /// [`InputsError::Duplicate`] when a level has two inputs of the same name.
    pub fn new(mut inputs: Vec<Input>) -> Result<Self, InputsError> {
        inputs.sort_by(|a, b| (a.level, &a.name).cmp(&(b.level, &b.name)));
        let duplicate = inputs
            .windows(2)
            .find(|pair| (pair[0].level, &pair[0].name) == (pair[1].level, &pair[1].name));
        match duplicate {
            Some(pair) => Err(InputsError::Duplicate {
                level: pair[0].level,
                name: pair[0].name.clone(),
            }),
            None => Ok(Self(inputs)),
        }
    }

    /// Returns all inputs, by level and name.
    #[must_use]
    pub fn as_slice(&self) -> &[Input] {
        &self.0
    }

    /// Returns the inputs of `level`, by name.
    #[must_use]
    pub fn at(&self, level: Level) -> &[Input] {
        let start = self.0.partition_point(|input| input.level < level);
        let end = self.0.partition_point(|input| input.level <= level);
        &self.0[start..end]
    }

    /// Returns the inputs that the image of `level` depends on.
    #[must_use]
    pub fn up_to(&self, level: Level) -> Self {
        let end = self.0.partition_point(|input| input.level <= level);
        Self(self.0[..end].to_vec())
    }

    /// Returns the bytes of content that the layers of `level` hold, as far as their payload is
    /// listed: a subtree of another image counts as nothing.
    #[must_use]
    pub fn payload_size(&self, level: Level) -> u64 {
        self.at(level)
            .iter()
            .filter(|input| input.name.starts_with("file/"))
            .map(|input| input.size)
            .sum()
    }

    /// Returns the keys of the three levels, in the format that [`crate::Inputs`] specifies.
    #[must_use]
    pub fn keys(&self) -> Keys {
        let versioned = self.key(Level::Versioned, None);
        let lock = self.key(Level::Lock, Some(versioned));
        Keys {
            versioned,
            lock,
            source: self.key(Level::Source, Some(lock)),
        }
    }

    fn key(&self, level: Level, parent: Option<InputHash>) -> InputHash {
        let mut hasher = FieldHasher::new(KEY_DOMAIN);
        hasher.field("level", level.as_str());
        hasher.field(
            "parent",
            parent.as_ref().map_or(&[][..], |key| key.as_bytes()),
        );
        for input in self.at(level) {
            hasher.field(&input.name, input.digest.as_str());
        }
        hasher.finish()
    }
}

/// Why inputs cannot be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputsError {
    /// A level has two inputs of one name.
    #[error("input `{name}` is listed twice at level {level}")]
    Duplicate {
        /// The level.
        level: Level,
        /// The name, as it stands in the list.
        name: String,
    },
    /// The name of a lock file or source tree is not a relative path in normal form.
    #[error("{what} `{}` must be named by a relative path without empty components", name.escape_debug())]
    Name {
        /// `lock file` or `source tree`.
        what: &'static str,
        /// The name as given.
        name: String,
    },
}

impl InputsError {
    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Duplicate { .. } => Some("name each file and directory once".to_owned()),
            Self::Name { .. } => Some(
                "an absolute path says where a project lies on one machine, so keys cannot hold it"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(level: Level, name: &str) -> Input {
        Input {
            level,
            name: name.to_owned(),
            digest: Digest::of(name.as_bytes()),
            size: 3,
        }
    }

    #[test]
    fn sorted_and_sliced_by_level() {
        let list = InputList::new(vec![
            input(Level::Source, "file/b//x"),
            input(Level::Versioned, "version"),
            input(Level::Source, "config/user"),
            input(Level::Versioned, "base"),
        ])
        .unwrap();
        let names: Vec<&str> = list.as_slice().iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["base", "version", "config/user", "file/b//x"]);
        assert_eq!(list.at(Level::Versioned).len(), 2);
        assert!(list.at(Level::Lock).is_empty());
        assert_eq!(
            list.up_to(Level::Lock).as_slice(),
            list.at(Level::Versioned)
        );
        assert_eq!(list.payload_size(Level::Source), 3);
    }

    #[test]
    fn a_name_stands_once_at_a_level() {
        let twice = vec![input(Level::Lock, "x"), input(Level::Lock, "x")];
        let error = InputList::new(twice).unwrap_err();
        assert_eq!(error.to_string(), "input `x` is listed twice at level lock");
        assert!(InputList::new(vec![input(Level::Lock, "x"), input(Level::Source, "x")]).is_ok());
    }
}
