//! Projects to build images from: small invented ones, and real ones from the Python Package Index.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::cache::cached;
use crate::command::assert_success;

/// A directory that a test may change as it likes; removed when dropped.
#[derive(Debug)]
pub struct Project {
    dir: TempDir,
}

impl Project {
    /// Returns an empty project.
    #[must_use]
    pub fn empty() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("trilith-project-")
            .tempdir()
            .expect("cannot create a temporary directory");
        Self { dir }
    }

    /// Returns a Python project: `pyproject.toml` (version 1.2.3), `uv.lock`, a package `app` and
    /// an executable `app/run` that prints `hello from app` with `sh` alone.
    #[must_use]
    pub fn python() -> Self {
        let project = Self::empty();
        for (path, content) in [
            (
                "pyproject.toml",
                "[project]\nname = \"sample\"\nversion = \"1.2.3\"\nrequires-python = \">=3.9\"\ndependencies = []\n",
            ),
            (
                "uv.lock",
                "version = 1\nrequires-python = \">=3.9\"\n\n[[package]]\nname = \"sample\"\nversion = \"1.2.3\"\nsource = { virtual = \".\" }\n",
            ),
            ("README.md", "# Sample\n"),
            ("app/__init__.py", ""),
            ("app/main.py", "print(\"hello from app\")\n"),
            ("app/run", "#!/bin/sh\necho hello from app\n"),
            ("app/data/settings.json", "{\"answer\": 42}\n"),
        ] {
            project.write(path, content);
        }
        project.set_mode("app/run", 0o755);
        project
    }

    /// Returns a copy of the directory `from`, with its modes, times and symlinks.
    #[must_use]
    pub fn copy_of(from: &Path) -> Self {
        let project = Self::empty();
        assert_success(
            Command::new("cp")
                .args(["--archive", "--no-target-directory"])
                .args([from, project.path()]),
        );
        project
    }

    /// Returns the project's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, creating the directories above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("cannot create a directory of the project");
        }
        fs::write(path, content).expect("cannot write a file of the project");
    }

    /// Returns the content of a file.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).expect("cannot read a file of the project")
    }

    /// Sets the permission bits of a file.
    pub fn set_mode(&self, path: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path().join(path), fs::Permissions::from_mode(mode))
            .expect("cannot set the mode of a file of the project");
    }

    /// Removes a file or a directory with all that is in it.
    pub fn remove(&self, path: &str) {
        let path = self.path().join(path);
        let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let removed = if is_dir {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.expect("cannot remove a part of the project");
    }
}

/// Returns the unpacked source distribution of a project on the Python Package Index.
///
/// Fetched by pip once per target directory; do not change it but work on [`Project::copy_of`].
/// pip runs the project's build backend to learn its metadata, so small backends are quicker.
/// `flask` 3.1.2, for instance, comes with `pyproject.toml`, `uv.lock`, sources and tests: 220 files.
#[must_use]
pub fn pypi_sdist(name: &str, version: &str) -> PathBuf {
    cached(&format!("pypi-{name}-{version}"), |path| {
        let download = Project::empty();
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
        ])
        .args([
            "--disable-pip-version-check",
            "--no-binary",
            ":all:",
            "--dest",
        ])
        .arg(download.path());
        assert_success(pip.arg(format!("{name}=={version}")));
        let archive = fs::read_dir(download.path())
            .expect("cannot list what pip downloaded")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().ends_with(".tar.gz"))
            .expect("pip downloaded no source distribution");
        fs::create_dir(path).expect("cannot create a directory");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--strip-components=1", "--no-same-owner"]);
        assert_success(tar.arg("--directory").arg(path).arg("--file").arg(archive));
    })
}
