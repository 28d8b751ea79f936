//! The files of one build: private, and gone with it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::EngineError;

/// A directory that only this user can look into.
#[derive(Debug)]
pub(super) struct Workspace(TempDir);

impl Workspace {
    /// Makes one in `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self, EngineError> {
        tempfile::Builder::new()
            .prefix("trilith-podman-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map(Self)
            .map_err(EngineError::io("create a directory in", parent))
    }

    /// Returns the directory itself. Its name is like no other.
    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file that only this user can read, and returns its path.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, EngineError> {
        let path = self.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(EngineError::io("write", &path))?;
        Ok(path)
    }

    /// Makes a directory, and returns its path.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, EngineError> {
        let path = self.join(name);
        fs::create_dir(&path).map_err(EngineError::io("create", &path))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // A context may hold directories that not even their owner can write to.
        unlock(self.0.path());
    }
}

/// Lets the owner remove what is below `directory`.
fn unlock(directory: &Path) {
    let _root = fs::set_permissions(directory, Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_goes_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(parent.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(workspace.path()), 0o700);
        let secret = workspace.write("secret", b"x").unwrap();
        assert_eq!(mode(&secret), 0o600);
        let context = workspace.directory("context").unwrap();
        fs::create_dir(context.join("locked")).unwrap();
        fs::write(context.join("locked/file"), "").unwrap();
        fs::set_permissions(context.join("locked"), Permissions::from_mode(0o000)).unwrap();
        drop(workspace);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
