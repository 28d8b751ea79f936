//! A private Docker daemon (Debian's `docker.io`), with a private containerd: 20.10, which is
//! installed, or trixie's 26.1, from a root file system that is made for it.
//!
//! It shares nothing with a daemon of the machine: directories, socket and client configuration are its own,
//! it touches no firewall rule and makes no bridge, so containers have no network of their own
//! (`--network none` or `host`), unless the daemon has one: a network namespace, with a bridge in it.
//! Registries on loopback are spoken to over plain HTTP. It needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::disk;
use crate::guard::{Guard, new_dir};
use crate::network;
use crate::trixie::in_trixie;

/// What the daemons say that `host-gateway` stands for.
pub const HOST_GATEWAY: &str = "192.0.2.1";

/// A running daemon; stopped, with its containers, and removed when dropped or when the test's process ends.
#[derive(Debug)]
pub struct Dockerd {
    guard: Guard,
}

/// Which daemon, and how it is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DockerdOptions {
    /// The release of Debian that it is from.
    pub release: Release,
    /// Whether images are kept by containerd; trixie's can do that.
    pub containerd_store: bool,
    /// The size of the disk that it keeps everything on, as in `64m`; this machine's without one.
    pub disk: Option<&'static str>,
    /// Whether it is in a network namespace of its own, with a bridge for its containers. Nothing else
    /// is there but what [`Dockerd::inside_network`] puts there, so no registry of this machine.
    pub bridge: bool,
}

/// A release of Debian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// Debian 12, the daemon is installed: 20.10.
    #[default]
    Bookworm,
    /// Debian 13, the daemon runs in a root file system of its own: 26.1.
    Trixie,
}

impl Dockerd {
    /// Starts the daemon that is installed and waits until it answers.
    ///
    /// # Panics
    /// When `dockerd` is not installed, the test is not run by root, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(DockerdOptions::default())
    }

    /// Starts a daemon and waits until it answers.
    ///
    /// The first start of trixie's makes its root file system, in about half a minute.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(options: DockerdOptions) -> Self {
        let dir = new_dir("docker");
        // The daemon of the machine may be configured in /etc; this one is not.
        let config = dir.join("daemon.json");
        let features = serde_json::json!({ "containerd-snapshotter": options.containerd_store });
        let settings = match options.release {
            Release::Bookworm => serde_json::json!({}),
            Release::Trixie => serde_json::json!({ "features": features }),
        };
        if let Some(size) = options.disk {
            disk::mount(&dir.join("data"), size);
        }
        fs::write(&config, settings.to_string()).expect("cannot write the daemon's configuration");
        let mut service = match options.release {
            Release::Bookworm => Command::new("dockerd"),
            Release::Trixie => in_trixie(&dir, &dir, &dir.join("data"), "dockerd"),
        };
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
            .args(["--iptables=false", "--ip6tables=false"])
            .arg(format!("--host-gateway-ip={HOST_GATEWAY}"))
            .args(["--log-level", "warn", "--shutdown-timeout", "5"]);
        if options.bridge {
            service = network::in_new(&service);
        } else {
            service.arg("--bridge=none");
        }
        let guard = Guard::start(dir, &service);
        let dockerd = Self { guard };
        dockerd.wait();
        dockerd
    }

    fn wait(&self) {
        self.guard.wait_until("dockerd", || {
            let output = run(self.docker().arg("version"));
            output.status.success().then_some(())
        });
    }

    /// Sends the daemon a signal, as in `TERM`, and waits for its end.
    ///
    /// # Panics
    /// When it is still there after a minute.
    pub fn stop(&self, signal: &str) {
        self.guard.stop(signal);
        let containerd = self.guard.dir().join("exec/containerd");
        Guard::wait_for_end_of(&containerd.join("containerd.toml"));
        // It may be a zombie for a while, which a new daemon would take for its own that runs.
        let _none_with_signals_that_let_it_tidy_up =
            fs::remove_file(containerd.join("containerd.pid"));
    }

    /// Starts the daemon again, which has ended, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.guard.restart();
        self.wait();
    }

    /// Makes the disk that it was started on as large as `size`.
    ///
    /// # Panics
    /// When it has none of its own.
    pub fn enlarge_disk(&self, size: &str) {
        disk::enlarge(&self.guard.dir().join("data"), size);
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

    /// Returns `command` as it is run in the daemon's network namespace, where published ports are.
    /// Its environment is what `command` sets, and nothing else.
    ///
    /// # Panics
    /// When the daemon has ended.
    #[must_use]
    pub fn inside_network(&self, command: &Command) -> Command {
        network::inside(self.guard.pid(), command)
    }

    /// Returns the daemon's address, as in `unix:///tmp/trilith-docker-x/docker.sock`.
    #[must_use]
    pub fn host(&self) -> String {
        host(self.guard.dir())
    }

    /// Returns the directory of everything it keeps, which it has at the same place.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.guard.dir()
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
