//! A user without rights, who may run a rootless Podman.
//!
//! The user exists for the programs that are started as them, and for nobody else: the files
//! that tell of users, and the device that their containers' networks need, are replaced in a mount
//! namespace of their own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::assert_success;
use crate::guard::{Guard, new_dir};

/// The user, and their group.
const ID: u32 = 64_242;

/// A user with a home of their own and 65,536 subordinate ids; what they started is ended and
/// their files are removed when dropped or when the test's process ends.
#[derive(Debug)]
pub struct Rootless {
    guard: Guard,
}

impl Rootless {
    /// Makes up a user.
    ///
    /// # Panics
    /// When the test is not run by root.
    #[must_use]
    pub fn new() -> Self {
        let dir = new_dir("rootless");
        // The user has to get to their home.
        fs::set_permissions(&dir, Permissions::from_mode(0o711)).expect("cannot set a mode");
        for name in ["home", "run", "tmp"] {
            let path = dir.join(name);
            fs::create_dir(&path).expect("cannot create a directory");
            fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("cannot set a mode");
            chown(&path, Some(ID), Some(ID)).expect("cannot give a directory away");
        }
        let home = dir.join("home").display().to_string();
        write_users(
            &dir,
            "passwd",
            &format!("agent:x:{ID}:{ID}::{home}:/bin/sh\n"),
        );
        write_users(&dir, "group", &format!("agent:x:{ID}:\n"));
        let ids = "agent:1000000:65536\n";
        for name in ["subuid", "subgid"] {
            fs::write(dir.join(name), ids).expect("cannot write a file");
            // Nothing can be mounted where there is no file.
            let _there = fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(Path::new("/etc").join(name));
        }
        // Everybody may open it, as udev has it; a machine without udev leaves it to root.
        let tun = dir.join("tun");
        let mut mknod = Command::new("mknod");
        mknod.arg("--mode=0666").arg(&tun).args(["c", "10", "200"]);
        assert_success(&mut mknod);
        write_script(&dir);
        // The process that keeps the user's namespaces.
        let cleanup = format!("{} podman system migrate", dir.join("as").display());
        fs::write(dir.join("cleanup"), cleanup).expect("cannot write the cleanup script");
        let guard = Guard::without_service(dir, &Command::new("sh"));
        Self { guard }
    }

    /// Returns `program`, run as the user with an environment of their own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(self.guard.dir().join("as"));
        command.arg(program);
        command
    }

    /// Runs the test `name` of the present test program as the user, with these variables set, and
    /// returns what it writes to stdout.
    ///
    /// # Panics
    /// When the test fails.
    #[must_use]
    pub fn run_test(&self, name: &str, variables: &[(&str, &str)]) -> String {
        // The user may not get to where the tests are.
        let test = self.temporary().join("test");
        let program = std::env::current_exe().expect("a test knows its program");
        fs::copy(program, &test).expect("cannot copy the tests");
        let mut command = self.command("env");
        for (name, value) in variables {
            command.arg(format!("{name}={value}"));
        }
        command.arg(test).args(["--exact", name, "--nocapture"]);
        let output = assert_success(&mut command);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns a directory that only the user can write to.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.guard.dir().join("tmp")
    }
}

impl Default for Rootless {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes what this machine's file `name` says and `line`.
fn write_users(dir: &Path, name: &str, line: &str) {
    let known = fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
    fs::write(dir.join(name), known + line).expect("cannot write a file");
}

/// Writes the script `as`, which runs what it is called with as the user.
fn write_script(dir: &Path) {
    let at = dir.display();
    let text = format!(
        r#"#!/bin/sh
exec unshare --mount --propagation shared sh -euc '
mount --make-rprivate /
for name in passwd group subuid subgid; do
    mount --bind "{at}/$name" "/etc/$name"
done
if test -e /dev/net/tun; then mount --bind "{at}/tun" /dev/net/tun; fi
mount --make-rshared /
cd "{at}/home"
exec setpriv --reuid {ID} --regid {ID} --init-groups --reset-env \
    env HOME="{at}/home" XDG_RUNTIME_DIR="{at}/run" TMPDIR="{at}/tmp" \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
' sh "$@"
"#
    );
    let script = dir.join("as");
    fs::write(&script, text).expect("cannot write a script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("cannot set a mode");
}
