//! A private Docker daemon (Debian's `docker.io`, 20.10), with a private containerd.
//!
//! It shares nothing with a daemon of the machine: directories, socket and client configuration are its own,
//! it touches no firewall rule and makes no bridge, so containers have no network of their own
//! (`--network none` or `host`). Registries on loopback are spoken to over plain HTTP.
//! It needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::guard::{Guard, new_dir};

/// A running daemon; stopped, with its containers, and removed when dropped or when the test's process ends.
#[derive(Debug)]
pub struct Dockerd {
    guard: Guard,
}

impl Dockerd {
    /// Starts a daemon and waits until it answers.
    ///
    /// # Panics
    /// When `dockerd` is not installed, the test is not run by root, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        let dir = new_dir("docker");
        // The daemon of the machine may be configured in /etc; this one is not.
        let config = dir.join("daemon.json");
        fs::write(&config, "{}").expect("cannot write the daemon's configuration");
        let mut service = Command::new("dockerd");
        for (option, file) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "docker.pid"),
        ] {
            service.arg(option).arg(dir.join(file));
        }
        service
            .arg("--host")
            .arg(host(&dir))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--log-level", "warn", "--shutdown-timeout", "5"]);
        let guard = Guard::start(dir, &service);
        let dockerd = Self { guard };
        dockerd.guard.wait_until("dockerd", || {
            let output = run(dockerd.docker().arg("version"));
            output.status.success().then_some(())
        });
        dockerd
    }

    /// Returns `docker` as a client of this daemon, with a configuration of its own.
    #[must_use]
    pub fn docker(&self) -> Command {
        let mut command = Command::new(client());
        command
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.config_dir())
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY");
        command
    }

    /// Returns the daemon's address, as in `unix:///tmp/trilith-docker-x/docker.sock`.
    #[must_use]
    pub fn host(&self) -> String {
        host(self.guard.dir())
    }

    /// Returns the directory for the client's `config.json`; it does not exist at first.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.guard.dir().join("client")
    }
}

/// Returns the address of the socket in `dir`.
fn host(dir: &Path) -> String {
    format!("unix://{}/docker.sock", dir.display())
}

/// Returns the client that came with the daemon; another one may come first in `PATH`.
fn client() -> &'static str {
    const DEBIAN: &str = "/usr/bin/docker";
    if Path::new(DEBIAN).exists() {
        DEBIAN
    } else {
        "docker"
    }
}
