//! The engines of a newer Debian: a root file system of trixie, to be entered by chroot.
//!
//! Made once per target directory and shared, so nothing may be written into it: whoever enters
//! it mounts something over it to write to, in a mount namespace of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::cached;
use crate::command::assert_success;

/// What is installed besides the essential packages.
const PACKAGES: &str = "busybox-static,ca-certificates,crun,docker-buildx,docker-cli,docker.io,\
    fuse-overlayfs,iptables,netavark,podman,runc,uidmap";

/// Returns the root file system of a Debian trixie with Docker 26.1, docker-buildx 0.13 and
/// Podman 5.4.
///
/// Made by mmdebstrap once per target directory, in one to two minutes.
#[must_use]
pub fn trixie_engines() -> PathBuf {
    cached("trixie-engines", |path| {
        assert_success(
            Command::new("mmdebstrap")
                .args(["--quiet", "--format=directory", "--variant=minbase"])
                .arg(format!("--include={PACKAGES}"))
                .arg("trixie")
                .arg(path),
        );
    })
}

/// Writes a script to `script` that runs `program` in [`trixie_engines`], with this machine's
/// processes, devices, temporary files and what it was called with.
///
/// Its mounts are its own and end with the program.
pub(crate) fn write_script(script: &Path, program: &str) {
    let root = trixie_engines();
    let temp = std::env::temp_dir();
    // What is written besides goes into memory, over the root file system that all share.
    let text = format!(
        r#"#!/bin/sh
exec unshare --mount --propagation private sh -euc '
lower=$1
shift
mkdir -p "$0.root"
mount -t tmpfs none "$0.root"
cd "$0.root"
mkdir upper work root
mount -t overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" none root
for dir in /proc /sys /dev "{temp}"; do
    mkdir -p "root$dir"
    mount --rbind "$dir" "root$dir"
done
mount -t tmpfs none root/run
exec chroot root "$@"
' "$0" '{root}' {program} "$@"
"#,
        temp = temp.display(),
        root = root.display(),
    );
    fs::write(script, text).expect("cannot write a script");
    fs::set_permissions(script, Permissions::from_mode(0o755)).expect("cannot set a mode");
}
