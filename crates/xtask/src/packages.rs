//! The Debian packages that the checks need, installed where that is possible.
//!
//! Only root on a system with `apt-get` gets anything installed; everybody else is told what
//! is missing. Services that packages bring are not started: the tests start their own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::run::{Outcome, command, run};

/// A Debian package, and a shell command that succeeds when what is needed of it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    name: &'static str,
    probe: &'static str,
}

const fn package(name: &'static str, probe: &'static str) -> Package {
    Package { name, probe }
}

/// pip, for tools and sample projects from the Python package index.
pub(crate) const PIP: Package = package("python3-pip", "python3 -m pip --version");

/// What the tests talk to or make their images with.
pub(crate) const FOR_TESTS: &[Package] = &[
    // Images can be made of a static busybox only.
    package(
        "busybox-static",
        "test -x /bin/busybox && ! ldd /bin/busybox",
    ),
    package("docker-registry", "docker-registry --version"),
    package("docker.io", "dockerd --version && docker --version"),
    package("groff-base", "groff --version"),
    package("mmdebstrap", "mmdebstrap --version"),
    package("openssh-client", "command -v ssh-agent ssh-add ssh-keygen"),
    package("openssl", "openssl version"),
    PIP,
    package("podman", "podman --version"),
    package("skopeo", "skopeo --version"),
    // The network of Podman 4.3 in workspaces.
    package("slirp4netns", "slirp4netns --version"),
    // Podman without root.
    package("uidmap", "command -v newuidmap newgidmap"),
    package("umoci", "umoci --version"),
    package("zstd", "zstd --version"),
];

/// Installs those of `packages` that are missing.
pub(crate) fn ensure(packages: &[Package]) -> Outcome {
    let absent = missing(packages);
    if absent.is_empty() {
        return Ok(());
    }
    let names = absent.join(" ");
    if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!(
            "programs are missing; on Debian, run `apt-get install {names}` as root"
        ));
    }
    println!("installing: {names}");
    let policy = StartPolicy::deny();
    let installed = run(apt().arg("update")).and_then(|()| {
        run(apt()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&absent))
    });
    drop(policy);
    // What counts is what works: a package's script may fail where nothing is to be started.
    let absent = missing(packages);
    match installed {
        _ if absent.is_empty() => Ok(()),
        Ok(()) => Err(format!(
            "installed, but does not work: {}",
            absent.join(" ")
        )),
        Err(reason) => Err(format!("{reason}; still missing: {}", absent.join(" "))),
    }
}

/// Returns the names of the packages whose probe fails.
fn missing(packages: &[Package]) -> Vec<&'static str> {
    let works = |package: &&Package| {
        let mut probe = command("sh");
        probe.args(["-c", package.probe]);
        let status = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let absent = packages.iter().filter(|package| !works(package));
    absent.map(|package| package.name).collect()
}

fn apt() -> std::process::Command {
    let mut apt = command("apt-get");
    apt.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn is_root() -> bool {
    let output = command("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}

/// Keeps packages from starting services while it lives (`/usr/sbin/policy-rc.d`, Debian policy 9.3.3).
#[derive(Debug)]
struct StartPolicy {
    /// The file, if it was written here; a policy that the machine has already stays.
    path: Option<&'static Path>,
}

impl StartPolicy {
    fn deny() -> Self {
        let path = Path::new("/usr/sbin/policy-rc.d");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o755);
        let written = options
            .open(path)
            .and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Self {
            path: written.is_ok().then_some(path),
        }
    }
}

impl Drop for StartPolicy {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_what_is_missing() {
        let packages = [
            package("there", "echo 1.0"),
            package("gone", "no-such-program --version"),
            package("broken", "exit 3"),
        ];
        assert_eq!(missing(&packages), ["gone", "broken"]);
    }
}
