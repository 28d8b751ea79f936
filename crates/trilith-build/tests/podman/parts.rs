//! Engines and registries that tests share, or have of their own.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use trilith_build::engine::{Podman, PodmanOptions};
use trilith_oci::registry::{CredentialSource, RegistryClient, RegistryConfig};
use trilith_testkit::{ImageOptions, Registry, RegistryOptions, busybox_image, stdout_of};

/// A Podman with a registry that holds a base image.
pub(crate) struct Parts {
    pub(crate) podman: trilith_testkit::Podman,
    pub(crate) registry: Registry,
    pub(crate) base: String,
    /// Where contexts are unpacked.
    pub(crate) temporary: TempDir,
}

impl Parts {
    pub(crate) fn new() -> Self {
        Self::with(trilith_testkit::Podman::new())
    }

    pub(crate) fn trixie() -> Self {
        Self::with(trilith_testkit::Podman::trixie())
    }

    fn with(podman: trilith_testkit::Podman) -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        Self {
            podman,
            registry,
            base: base.reference,
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn engine(&self) -> Podman {
        Podman::new(self.options(), registry_client(Vec::new()))
    }

    pub(crate) fn options(&self) -> PodmanOptions {
        PodmanOptions {
            program: self.podman.program(),
            environment: self.podman.environment(),
            temporary: self.temporary.path().to_owned(),
        }
    }

    /// Runs `script` in a new container of `image`.
    pub(crate) fn sh(&self, image: &str, script: &str) -> String {
        self.podman.run(image, &["sh", "-c", script])
    }

    /// Returns what `podman` prints.
    pub(crate) fn say(&self, arguments: &[&str]) -> String {
        stdout_of(self.podman.podman().args(arguments))
    }

    /// Checks that no build left anything.
    pub(crate) fn assert_clean(&self) {
        let containers = self.say(&["ps", "--all", "--external", "--quiet"]);
        assert_eq!(containers, "", "containers are left");
        assert_eq!(files(self.temporary.path()), Vec::<PathBuf>::new());
    }
}

pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Returns a client of registries, with the credentials in `files`.
pub(crate) fn registry_client(files: Vec<PathBuf>) -> RegistryClient {
    RegistryClient::try_new(RegistryConfig {
        credentials: CredentialSource::Files(files),
        ..RegistryConfig::default()
    })
    .unwrap()
}
