//! Engines and registries, started once for all tests that leave them as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use trilith_build::engine::{BuiltImage, DockerEngine, EngineAddress};
use trilith_core::Reference;
use trilith_testkit::{
    Dockerd, Format, ImageOptions, Registry, RegistryOptions, busybox_image, debian_image,
    stdout_of,
};

use crate::build::registry_client;

/// An engine and a registry.
pub(crate) struct Parts {
    pub(crate) docker: Dockerd,
    pub(crate) registry: Registry,
    /// A reference of an image with busybox.
    pub(crate) base: String,
}

/// Returns those that all tests share.
pub(crate) fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| Parts::start(Dockerd::start))
}

impl Parts {
    pub(crate) fn start(docker: impl FnOnce() -> Dockerd) -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        Self {
            docker: docker(),
            registry,
            base: base.reference,
        }
    }

    pub(crate) fn engine(&self) -> DockerEngine {
        self.engine_with(&[])
    }

    /// Returns the engine, with credentials from `files`.
    pub(crate) fn engine_with(&self, files: &[&Path]) -> DockerEngine {
        docker_at(&self.docker.host(), files)
    }

    /// Returns what `script` prints in a container of `image`.
    pub(crate) fn sh(&self, image: &BuiltImage, script: &str) -> String {
        let mut docker = self.docker.docker();
        docker.args(["run", "--rm", "--network=none", image.id.as_str()]);
        stdout_of(docker.args(["sh", "-c", script]))
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        stdout_of(self.docker.docker().args(arguments))
    }

    pub(crate) fn labels(&self, image: &BuiltImage) -> BTreeMap<String, String> {
        let format = "{{json .Config.Labels}}";
        let json = self.docker(&["image", "inspect", "--format", format, image.id.as_str()]);
        serde_json::from_str::<Option<_>>(&json)
            .unwrap()
            .unwrap_or_default()
    }

    /// Returns a reference on the registry.
    pub(crate) fn reference(&self, name: &str) -> Reference {
        self.registry.reference(name).parse().unwrap()
    }

    /// Returns an image with Python.
    pub(crate) fn python(&self) -> String {
        debian_image(&self.registry, "python:1", Format::Oci, true).reference
    }

    /// Returns the process of the engine.
    pub(crate) fn pid(&self) -> String {
        let host = self.docker.host();
        let socket = PathBuf::from(host.strip_prefix("unix://").unwrap());
        fs::read_to_string(socket.with_file_name("docker.pid")).unwrap()
    }
}

/// Returns the engine at `address`, with credentials from `files`.
pub(crate) fn docker_at(address: &str, files: &[&Path]) -> DockerEngine {
    let address = EngineAddress::parse(address, None).unwrap();
    DockerEngine::try_new(address, registry_client(files)).unwrap()
}

/// Returns the processes that have `text` in their command lines.
pub(crate) fn running(text: &str) -> Vec<String> {
    let has = |pid: &String| {
        // It may have ended meanwhile.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let processes = names.filter(|name| name.as_bytes()[0].is_ascii_digit());
    processes.filter(has).collect()
}

pub(crate) fn is_running(text: &str) -> bool {
    !running(text).is_empty()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not after a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Kills a process that the test has started.
pub(crate) fn kill(pid: &str) {
    let status = Command::new("sh")
        .args(["-c", "kill -s KILL \"$0\"", pid.trim()])
        .status();
    assert!(status.unwrap().success());
    thread::yield_now();
}
