//! A newer Debian: root file systems of trixie with its engines, and with its Python and the SDK of
//! `OpenHands`, to be entered by chroot.
//!
//! Each is made once per target directory and shared, so nothing may be written into it: whoever enters
//! it mounts something over it to write to, in a mount namespace of its own.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::cached;
use crate::command::assert_success;

/// The version of the SDK of `OpenHands`.
const SDK: &str = "1.58.2";

/// What the engines are made of, besides the essential packages.
const ENGINES: &str = "aardvark-dns,busybox-static,ca-certificates,crun,docker-buildx,docker-cli,\
    docker.io,fuse-overlayfs,iptables,netavark,podman,runc,uidmap";

/// Returns the root file system of a Debian trixie with Docker 26.1, docker-buildx 0.13 and
/// Podman 5.4.
///
/// Made by mmdebstrap once per target directory, in one to two minutes.
#[must_use]
pub fn trixie_engines() -> PathBuf {
    // Of another list, another one.
    let mut hasher = DefaultHasher::new();
    ENGINES.hash(&mut hasher);
    cached(&format!("trixie-engines-{:x}", hasher.finish()), |path| {
        bootstrap(ENGINES, path);
    })
}

/// Returns the root file system of a Debian trixie with Python 3.13, git, and the packages
/// `openhands-sdk` and `openhands-workspace` of the Python Package Index in `/opt/client`.
///
/// Made by mmdebstrap and pip once per target directory, in two to three minutes.
#[must_use]
pub fn trixie_client() -> PathBuf {
    cached(&format!("trixie-client-{SDK}"), |path| {
        bootstrap("ca-certificates,git,python3", path);
        let wheels = tempfile::tempdir().expect("cannot create a temporary directory");
        // The machine's pip knows how to reach the index; the root file system does not.
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-cache-dir"])
            .args(["--disable-pip-version-check", "--only-binary", ":all:"])
            .args(["--python-version", "3.13", "--implementation", "cp"])
            .args(["--abi", "cp313", "--abi", "abi3", "--abi", "none"]);
        for platform in ["1", "2010", "2014", "_2_17", "_2_28", "_2_34"] {
            pip.args(["--platform", &format!("manylinux{platform}_x86_64")]);
        }
        pip.args(["--platform", "any", "--dest"]).arg(wheels.path());
        assert_success(
            pip.args(["openhands-sdk", "openhands-workspace"].map(|name| format!("{name}=={SDK}"))),
        );
        let unpack = "import glob, sys, zipfile\n\
            for wheel in glob.glob(sys.argv[1] + '/*.whl'):\n    \
            zipfile.ZipFile(wheel).extractall(sys.argv[2])";
        let mut python = Command::new("python3");
        python.args(["-c", unpack]).arg(wheels.path());
        assert_success(python.arg(path.join("opt/client")));
    })
}

fn bootstrap(packages: &str, path: &Path) {
    assert_success(
        Command::new("mmdebstrap")
            .args(["--quiet", "--format=directory", "--variant=minbase"])
            .arg(format!("--include={packages}"))
            .arg("trixie")
            .arg(path),
    );
}

/// Returns a command that runs what is added to it in the root file system `root`, with the
/// files of the directory `added` in `/added` and this machine's processes and devices.
///
/// What it writes is in memory, and gone with it, as are its mounts; `scratch` is an empty directory for them.
#[must_use]
pub fn inside(root: &Path, added: &Path, scratch: &Path) -> Command {
    let script = r#"
lower=$1
added=$2
shift 2
mount -t tmpfs none "$0"
cd "$0"
mkdir upper work root
mount -t overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" none root
mkdir -p root/proc root/dev root/added root/tmp
mount --rbind /proc root/proc
mount --rbind /dev root/dev
cp -R "$added/." root/added
exec chroot root "$@"
"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    command.arg(script).arg(scratch).arg(root).arg(added);
    command
}

/// Returns `program` in [`trixie_engines`], with a mount namespace of its own, where it sees this
/// machine's processes and devices, and `seen` with the small disks of tests and what is mounted at
/// `disk` at the same place. Its
/// mounts, for which it makes a directory in `dir`, end with it, and what it writes elsewhere.
///
/// In a mere `chroot`, `docker exec` would end up in the machine's own files: a process that enters
/// a mount namespace gets the root of that, and not what `runc` put in place of the changed one.
pub(crate) fn in_trixie(dir: &Path, seen: &Path, disk: &Path, program: &str) -> Command {
    // What is written besides goes into memory, over the root file system that all share.
    const SCRIPT: &str = r#"
        set -e
        lower=$0 at=$1 seen=$2 disk=$3
        shift 3
        mkdir -p "$at"
        mount -t tmpfs none "$at"
        cd "$at"
        mkdir upper work root
        mount -t overlay -o "lowerdir=$lower,upperdir=upper,workdir=work" none root
        for name in dev proc sys; do mount --rbind "/$name" "root/$name"; done
        for name in run tmp; do mount -t tmpfs none "root/$name"; done
        mkdir -p "root$seen"
        mount --bind "$seen" "root$seen"
        for disk in "$disk" "$seen"/trilith-disk-*/disk; do
            # That of another test may go meanwhile.
            if mountpoint -q "$disk"; then mount --bind "$disk" "root$disk" || true; fi
        done
        cd root
        pivot_root . mnt
        umount --lazy /mnt
        exec "$@"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT]);
    command.arg(trixie_engines()).arg(dir.join("trixie"));
    command.arg(seen).arg(disk).arg(program);
    command
}
