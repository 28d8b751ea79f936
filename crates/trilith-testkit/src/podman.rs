//! A private Podman (4.3 or 5.4): images, containers and settings of its own.
//!
//! There is no daemon to start; what is guarded are its containers, mounts and directories.
//! The settings suit a machine without systemd and without the right to raise limits, which
//! Podman by default tries. Containers have no network unless asked for. It needs root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{assert_success, run, stdout_of};
use crate::disk;
use crate::guard::{Guard, new_dir};
use crate::trixie;

/// A private Podman; its containers are ended and everything removed when dropped or when the test's process ends.
#[derive(Debug)]
pub struct Podman {
    guard: Guard,
}

impl Podman {
    /// Sets up an empty Podman, this machine's (4.3 on Debian bookworm).
    ///
    /// # Panics
    /// When `podman` is not installed or can use neither of its storage drivers.
    #[must_use]
    pub fn new() -> Self {
        Self::of_bookworm(new_dir("podman"))
    }

    /// Sets up as [`Self::new`] does one that keeps everything on a disk of `size`, as in `64m`.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn on_disk(size: &str) -> Self {
        let dir = new_dir("podman");
        disk::mount(&dir.join("root"), size);
        Self::of_bookworm(dir)
    }

    fn of_bookworm(dir: PathBuf) -> Self {
        std::os::unix::fs::symlink("/usr/bin/podman", dir.join("podman"))
            .expect("cannot link to `podman`");
        Self::set_up(dir)
    }

    /// Sets up an empty Podman of Debian trixie (5.4), in [`crate::trixie_engines`].
    ///
    /// # Panics
    /// When trixie cannot be fetched, or its Podman can use neither of its storage drivers.
    #[must_use]
    pub fn trixie() -> Self {
        let dir = new_dir("podman5");
        // By its path: the directory of the script may come first in `PATH`, in there too.
        trixie::write_script(&dir.join("podman"), "/usr/bin/podman");
        Self::set_up(dir)
    }

    fn set_up(dir: PathBuf) -> Self {
        write_settings(&dir);
        fs::write(
            dir.join("cleanup"),
            format!(
                "{0} rm --all --force --time 0; {0} system reset --force",
                dir.join("podman").display()
            ),
        )
        .expect("cannot write the cleanup script");
        // On some file systems overlayfs cannot be used; copying works everywhere.
        let works = ["overlay", "vfs"].iter().any(|driver| {
            write_storage(&dir, driver);
            run(podman(&dir).arg("info")).status.success()
        });
        assert!(works, "podman works neither with overlay nor with vfs");
        let environment = podman(&dir);
        let guard = Guard::without_service(dir, &environment);
        Self { guard }
    }

    /// Makes the disk that everything is kept on as large as `size`.
    ///
    /// # Panics
    /// When it has none of its own.
    pub fn enlarge_disk(&self, size: &str) {
        disk::enlarge(&self.guard.dir().join("root"), size);
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
    command
        .env("CONTAINERS_CONF", dir.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", dir.join("storage.conf"))
        .env("CONTAINERS_REGISTRIES_CONF", dir.join("registries.conf"))
        .env("REGISTRY_AUTH_FILE", dir.join("auth.json"))
        .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
        .env_remove("CONTAINER_HOST");
    command
}

/// Writes the settings but those of the storage.
fn write_settings(dir: &Path) {
    let at = dir.display();
    let containers = format!(
        r#"[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
# The default, shared memory, is one for all Podmans of the machine.
lock_type = "file"
runtime = "runc"
# Where what cleans up behind a container looks for it.
static_dir = "{at}/root/libpod"
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
}

/// Writes the settings of the storage.
fn write_storage(dir: &Path, driver: &str) {
    let at = dir.display();
    let storage = format!(
        "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{at}/root\"\nrunroot = \"{at}/run\"\n"
    );
    fs::write(dir.join("storage.conf"), storage).expect("cannot write `storage.conf`");
}
