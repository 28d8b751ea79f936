//! What this machine remembers of workspaces: the key that opens each, and where it answers.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, SessionKey};

/// A workspace that was started from this machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The full id of its container.
    pub id: String,
    /// The name of its container.
    pub name: String,
    /// The engine, `docker` or `podman`.
    pub engine: String,
    /// Where its agent answers, as in `http://127.0.0.1:32768`.
    pub url: String,
    /// What opens it.
    pub key: SessionKey,
}

/// A directory of records, each in a file that nobody else can read.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Returns the records in `directory`, which is made when there is one to keep.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Keeps `record`.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&self.directory)?;
            let mut file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(&self.directory)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.persist(self.path(&record.id))?;
            Ok(())
        };
        write().map_err(|error| {
            Error::system(format!("write below `{}`", self.directory.display()), error)
        })
    }

    /// Returns the record of the workspace with this id, unique beginning of an id, or name.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Ambiguous`].
    pub fn find(&self, name: &str) -> Result<Record, Error> {
        let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id && let Some(record) = self.load(name) {
            return Ok(record);
        }
        let all = self.all();
        if let Some(record) = all.iter().find(|record| record.name == name) {
            return Ok(record.clone());
        }
        let mut found = all
            .into_iter()
            .filter(|record| !name.is_empty() && record.id.starts_with(name));
        match (found.next(), found.next()) {
            (Some(record), None) => Ok(record),
            (None, _) => Err(Error::Missing(name.to_owned())),
            (Some(_), Some(_)) => Err(Error::Ambiguous(name.to_owned())),
        }
    }

    /// Forgets the workspace with this id.
    pub fn forget(&self, id: &str) {
        // One that stays tells of a workspace that is gone, and is found to be so.
        let _gone = fs::remove_file(self.path(id));
    }

    /// Returns all records that can be read.
    fn all(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| self.load(entry.file_name().to_str()?.strip_suffix(".json")?))
            .collect()
    }

    fn load(&self, id: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path(id)).ok()?).ok()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn records_are_found_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().join("a/b"));
        let record = |id: &str, name: &str| Record {
            id: id.repeat(32),
            name: name.to_owned(),
            engine: "docker".to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            key: SessionKey::random().unwrap(),
        };
        let (one, two) = (record("a1", "one"), record("a2", "two"));
        for record in [&one, &two] {
            records.save(record).unwrap();
        }
        let mode = fs::metadata(records.path(&one.id)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        for (name, expected) in [(one.id.as_str(), &one), ("two", &two), ("a1a", &one)] {
            assert_eq!(&records.find(name).unwrap(), expected, "{name}");
        }
        assert!(matches!(records.find("a"), Err(Error::Ambiguous(_))));
        for name in ["", "b", "../a"] {
            assert!(
                matches!(records.find(name), Err(Error::Missing(_))),
                "{name}"
            );
        }
        records.forget(&one.id);
        assert!(matches!(records.find("one"), Err(Error::Missing(_))));
        assert!(!format!("{two:?}").contains(two.key.expose()));
    }
}
