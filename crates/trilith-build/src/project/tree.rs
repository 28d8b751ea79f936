//! The first two levels of a project's directory, as names.
//!
//! Follows no link to a directory and reads no file; names that a `trilith.toml` could not
//! hold are left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::ProjectError;
use super::values::parse_project_path;

/// What a directory holds, by name.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Directories.
    pub(super) dirs: BTreeSet<String>,
    /// Regular files, and links to them.
    pub(super) files: BTreeSet<String>,
}

impl Tree {
    /// Lists the directory `root`.
    pub(super) fn load(root: &Path) -> Result<Self, ProjectError> {
        let mut tree = Self {
            root: root.to_owned(),
            dirs: BTreeSet::new(),
            files: BTreeSet::new(),
        };
        for entry in fs::read_dir(root).map_err(ProjectError::io("list", root))? {
            let entry = entry.map_err(ProjectError::io("list", root))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if parse_project_path(&name).ok().as_ref() != Some(&name) {
                continue;
            }
            let path = entry.path();
            let kind = entry
                .file_type()
                .map_err(ProjectError::io("look at", &path))?;
            if kind.is_dir() {
                tree.dirs.insert(name);
            } else if path.is_file() {
                tree.files.insert(name);
            }
        }
        Ok(tree)
    }

    /// Lists the directory `name` in this one. One that cannot be listed counts as empty, as
    /// nothing can be drafted for it.
    pub(super) fn inside(&self, name: &str) -> Self {
        let root = self.root.join(name);
        Self::load(&root).unwrap_or(Self {
            root,
            dirs: BTreeSet::new(),
            files: BTreeSet::new(),
        })
    }

    /// Returns the path of `name` in this directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns whether there is a file `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    /// Returns whether a file ends in one of `extensions`, each without its dot.
    pub(super) fn has_extension(&self, extensions: &[&str]) -> bool {
        self.files.iter().any(|file| ends_in(file, extensions))
    }
}

/// Returns whether `file` ends in one of `extensions`, each without its dot.
pub(super) fn ends_in(file: &str, extensions: &[&str]) -> bool {
    file.rsplit_once('.')
        .is_some_and(|(stem, extension)| !stem.is_empty() && extensions.contains(&extension))
}
