//! Disks that are soon full.
//!
//! They are file systems in memory. It needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::assert_success;
use crate::guard::{Guard, new_dir};

/// A small disk; gone when dropped or when the test's process ends.
#[derive(Debug)]
pub struct SmallDisk {
    guard: Guard,
}

impl SmallDisk {
    /// Makes an empty one of `size`, as in `4m`.
    ///
    /// # Panics
    /// When the test is not run by root.
    #[must_use]
    pub fn new(size: &str) -> Self {
        let dir = new_dir("disk");
        mount(&dir.join("disk"), size);
        let guard = Guard::without_service(dir, &Command::new("true"));
        Self { guard }
    }

    /// Returns where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.guard.dir().join("disk")
    }
}

/// Makes the directory `path` and mounts a disk of `size` there.
pub(crate) fn mount(path: &Path, size: &str) {
    fs::create_dir(path).expect("cannot create a directory");
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]);
    assert_success(command.arg(path));
}

/// Makes the disk at `path` as large as `size`.
pub(crate) fn enlarge(path: &Path, size: &str) {
    let mut command = Command::new("mount");
    command.args(["-o", &format!("remount,size={size}")]);
    assert_success(command.arg(path));
}
