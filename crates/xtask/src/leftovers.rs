//! A temporary directory for one run of the tests, after which nothing may use it any more.
//!
//! The tests get it as `TMPDIR`, so whatever they start carries its path: on the command line,
//! in the environment, or in the table of mounts. Nothing is found by its name, so
//! tests that run elsewhere on the machine at the same time are of no concern.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::run::Outcome;

/// How long a service may take to end after its test.
const PATIENCE: Duration = Duration::from_secs(30);

/// The temporary directory.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates the directory. Its name is short, as sockets in it may have 108 bytes at most.
    pub(crate) fn create() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("trilith-{}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| format!("cannot create `{}`: {error}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory; what still uses it after half a minute is an error.
    pub(crate) fn finish(self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let users = self.users();
            if users.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(format!("the tests left behind:\n  {}", users.join("\n  ")));
            }
            thread::sleep(Duration::from_millis(100));
        }
        // Files may stay, of tests that kill what they test.
        fs::remove_dir_all(&self.path)
            .map_err(|error| format!("cannot remove `{}`: {error}", self.path.display()))
    }

    /// Returns the mounts and processes that use the directory, a line for each.
    fn users(&self) -> Vec<String> {
        let needle = format!("{}/", self.path.display());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts = mounts.lines().filter(|line| line.contains(&needle));
        let mut users: Vec<String> = mounts.map(|line| format!("mount: {line}")).collect();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        users.extend(entries.filter_map(|entry| self.describe_user(&entry.path())));
        users
    }

    /// Returns a line about the process with the directory `proc` if it uses this directory.
    fn describe_user(&self, proc: &Path) -> Option<String> {
        let pid: u32 = proc.file_name()?.to_str()?.parse().ok()?;
        let line = fs::read(proc.join("cmdline")).ok()?;
        let environment = fs::read(proc.join("environ")).unwrap_or_default();
        let needle = self.path.to_string_lossy();
        let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&*needle);
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (has(line.as_bytes()) || has(&environment)).then(|| format!("process {pid}: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_are_found_by_environment_and_command_line() {
        let scratch = Scratch::create().unwrap();
        assert_eq!(scratch.users(), Vec::<String>::new());
        let mut quiet = Command::new("sleep");
        let mut quiet = quiet
            .arg("1000")
            .env("TMPDIR", scratch.path())
            .spawn()
            .unwrap();
        let mut open = Command::new("sh");
        let mut open = open
            .args(["-c", "read line", "sh"])
            .arg(scratch.path().join("x"))
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The child has its own command line only once it runs the program.
        while scratch.users().len() < 2 {
            thread::sleep(Duration::from_millis(10));
        }
        let users = scratch.users().join("\n");
        for pid in [quiet.id(), open.id()] {
            assert!(users.contains(&format!("process {pid}: ")), "{users}");
        }
        for child in [&mut quiet, &mut open] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let path = scratch.path().to_owned();
        scratch.finish().unwrap();
        assert!(!path.exists());
    }
}
