//! A private Podman (4.3 or 5.4): images, containers and settings of its own.
//!
//! There is no daemon to start; what is guarded are its containers, mounts and directories.
//! The settings suit a machine without systemd and without the right to raise limits, which
//! Podman by default tries. Containers have no network unless asked for. It needs root.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{assert_success, run, stdout_of};
use crate::disk;
use crate::dockerd::Release;
use crate::guard::{Guard, new_dir};
use crate::network;
use crate::trixie::in_trixie;

/// A private Podman; its containers are ended and everything removed when dropped or when the test's process ends.
#[derive(Debug)]
pub struct Podman {
    guard: Guard,
}

/// Which Podman, and how it is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodmanOptions {
    /// The release of Debian that it is from: this machine's 4.3 of bookworm, or 5.4 of trixie, in
    /// [`crate::trixie_engines`].
    pub release: Release,
    /// The size of the disk that it keeps everything on, as in `64m`; this machine's without one.
    pub disk: Option<&'static str>,
    /// Whether trixie's is in a network namespace of its own, with a bridge for its containers. Nothing
    /// else is there but what [`Podman::inside_network`] puts there, so no registry of this machine.
    pub bridge: bool,
}

impl Podman {
    /// Sets up an empty Podman, this machine's.
    ///
    /// # Panics
    /// When `podman` is not installed or can use neither of its storage drivers.
    #[must_use]
    pub fn new() -> Self {
        Self::with(PodmanOptions::default())
    }

    /// Sets up an empty Podman of Debian trixie.
    ///
    /// # Panics
    /// As [`Self::with`].
    #[must_use]
    pub fn trixie() -> Self {
        Self::with(PodmanOptions {
            release: Release::Trixie,
            ..PodmanOptions::default()
        })
    }

    /// Sets up an empty Podman.
    ///
    /// # Panics
    /// As [`Self::new`], and when trixie cannot be fetched.
    #[must_use]
    pub fn with(options: PodmanOptions) -> Self {
        let dir = new_dir("podman");
        if let Some(size) = options.disk {
            disk::mount(&dir.join("storage"), size);
        }
        write_settings(&dir, if options.bridge { "bridge" } else { "none" });
        let guard = match options.release {
            Release::Bookworm => {
                std::os::unix::fs::symlink("/usr/bin/podman", dir.join("podman"))
                    .expect("cannot link to `podman`");
                let environment = podman(&dir);
                Guard::without_service(dir, &environment)
            }
            Release::Trixie => keep_trixie(dir, options.bridge),
        };
        let dir = guard.dir();
        // On some file systems overlayfs cannot be used; copying works everywhere.
        let works = ["overlay", "vfs"].iter().any(|driver| {
            write_storage(dir, driver);
            run(podman(dir).arg("info")).status.success()
        });
        assert!(works, "podman works neither with overlay nor with vfs");
        Self { guard }
    }

    /// Makes the disk that everything is kept on as large as `size`.
    ///
    /// # Panics
    /// When it has none of its own.
    pub fn enlarge_disk(&self, size: &str) {
        disk::enlarge(&self.guard.dir().join("storage"), size);
    }

    /// Returns `command` as it is run in the network namespace of trixie's Podman, where published
    /// ports are. Its environment is what `command` sets, and nothing else.
    ///
    /// # Panics
    /// When it is this machine's.
    #[must_use]
    pub fn inside_network(&self, command: &Command) -> Command {
        network::inside(self.guard.pid(), command)
    }

    /// Returns `podman` with the private settings.
    #[must_use]
    pub fn podman(&self) -> Command {
        podman(self.guard.dir())
    }

    /// Returns the program; it needs [`Self::environment`].
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.guard.dir().join("podman")
    }

    /// Returns the variables that make it the private one, `None` for those to be removed.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, Option<String>)> {
        let text = |value: &OsStr| value.to_str().expect("a path is UTF-8").to_owned();
        let command = self.podman();
        let variables = command.get_envs();
        variables
            .map(|(name, value)| (text(name), value.map(text)))
            .collect()
    }

    /// Returns the directory of everything it keeps.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.guard.dir()
    }

    /// Pulls `reference` over plain HTTP.
    pub fn pull(&self, reference: &str) {
        assert_success(
            self.podman()
                .args(["pull", "--quiet", "--tls-verify=false", reference]),
        );
    }

    /// Runs `arguments` in a new container of `image`, without network, and returns its stdout.
    #[must_use]
    pub fn run(&self, image: &str, arguments: &[&str]) -> String {
        stdout_of(
            self.podman()
                .args(["run", "--rm", "--pull=never", image])
                .args(arguments),
        )
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns `podman` with the settings in `dir`.
fn podman(dir: &Path) -> Command {
    let mut command = Command::new(dir.join("podman"));
    set_environment(&mut command, dir);
    command
}

/// Sets the variables that name the settings in `dir`.
fn set_environment(command: &mut Command, dir: &Path) {
    command
        .env("CONTAINERS_CONF", dir.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", dir.join("storage.conf"))
        .env("CONTAINERS_REGISTRIES_CONF", dir.join("registries.conf"))
        .env("REGISTRY_AUTH_FILE", dir.join("auth.json"))
        .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
        .env_remove("CONTAINER_HOST");
}

/// Guards `dir` with a process that keeps the namespaces of trixie's Podman, so that what one call
/// starts and mounts is there for the next, and writes the script that enters them.
fn keep_trixie(dir: PathBuf, bridge: bool) -> Guard {
    let entered = dir.join("entered");
    let mut keeper = in_trixie(&dir, &std::env::temp_dir(), &dir.join("storage"), "sh");
    keeper.args(["-c", "touch \"$0\" && exec sleep infinity"]);
    keeper.arg(&entered);
    if bridge {
        keeper = network::in_new(&keeper);
    }
    set_environment(&mut keeper, &dir);
    let guard = Guard::start(dir, &keeper);
    guard.wait_until("trixie", || entered.exists().then_some(()));
    write_script(&guard.dir().join("podman"), guard.pid());
    guard
}

/// Writes a script to `script` that runs Podman in the namespaces of the process `keeper`, in the
/// present directory if that is there too.
fn write_script(script: &Path, keeper: u32) {
    // By its path: the directory of the script may come first in `PATH`, in there too.
    let text = format!(
        r#"#!/bin/sh
exec nsenter --target {keeper} --mount --net sh -c '
    cd "$0" 2>/dev/null
    exec /usr/bin/podman "$@"
' "$PWD" "$@"
"#
    );
    fs::write(script, text).expect("cannot write a script");
    fs::set_permissions(script, Permissions::from_mode(0o755)).expect("cannot set a mode");
}

/// Writes the settings but those of the storage, and how everything is ended. Containers are in
/// `network` unless told otherwise.
fn write_settings(dir: &Path, network: &str) {
    let at = dir.display();
    let containers = format!(
        r#"[containers]
netns = "{network}"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
# The default, shared memory, is one for all Podmans of the machine.
lock_type = "file"
runtime = "runc"
# Where what cleans up behind a container looks for it.
static_dir = "{at}/storage/libpod"
tmp_dir = "{at}/tmp"
volume_path = "{at}/volumes"
image_copy_tmp_dir = "{at}/copy"

[network]
network_config_dir = "{at}/networks"
# The newer one's default, nftables, is not in every kernel.
firewall_driver = "iptables"
"#
    );
    fs::create_dir(dir.join("copy")).expect("cannot create a directory for podman");
    fs::write(dir.join("containers.conf"), containers).expect("cannot write `containers.conf`");
    fs::write(dir.join("auth.json"), "{}").expect("cannot write `auth.json`");
    fs::write(dir.join("registries.conf"), "").expect("cannot write `registries.conf`");
    let cleanup =
        format!("{at}/podman rm --all --force --time 0; {at}/podman system reset --force");
    fs::write(dir.join("cleanup"), cleanup).expect("cannot write the cleanup script");
}

/// Writes the settings of the storage.
fn write_storage(dir: &Path, driver: &str) {
    let at = dir.display();
    let storage = format!(
        "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{at}/storage\"\nrunroot = \"{at}/run\"\n"
    );
    fs::write(dir.join("storage.conf"), storage).expect("cannot write `storage.conf`");
}
