//! Engines, a project, and what tests ask about both again and again.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;
use trilith_testkit::{
    Dockerd, DockerdOptions, Podman, Project, Registry, Release, assert_success, run,
};

use super::relay;
use crate::support::{Trilith, path};

/// A project whose steps leave a stamp that no two runs have in common.
pub(super) const DOCKERFILE: &str = "\
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS base
RUN mkdir /stamps && cat /proc/sys/kernel/random/uuid > /stamps/base

FROM base AS deps
COPY requirements.lock /opt/deps/
RUN cat /proc/sys/kernel/random/uuid > /stamps/deps

FROM deps AS runtime
COPY app /opt/app
RUN cat /proc/sys/kernel/random/uuid > /stamps/runtime
CMD [\"/opt/app/run\"]
";

/// Runs an engine's own client, with these arguments.
pub(super) type Client = Box<dyn Fn(&[&str]) -> Output>;

/// An engine with nothing in its cache.
pub(super) struct Engine {
    /// As `--builder` has it.
    pub(super) name: &'static str,
    pub(super) environment: Vec<(String, String)>,
    pub(super) client: Client,
}

impl Engine {
    fn docker(options: DockerdOptions) -> Self {
        let dockerd = Dockerd::start_with(options);
        Self {
            name: "docker",
            environment: vec![("DOCKER_HOST".to_owned(), dockerd.host())],
            client: Box::new(move |arguments| run(dockerd.docker().args(arguments))),
        }
    }

    pub(super) fn docker_20() -> Self {
        Self::docker(DockerdOptions::default())
    }

    pub(super) fn docker_26() -> Self {
        Self::docker(DockerdOptions {
            release: Release::Trixie,
            containerd_store: false,
        })
    }

    pub(super) fn docker_with_containerd() -> Self {
        Self::docker(DockerdOptions {
            release: Release::Trixie,
            containerd_store: true,
        })
    }

    pub(super) fn buildkit() -> Self {
        // With images in containerd, its BuildKit has all exporters.
        let dockerd = Dockerd::start_with(DockerdOptions {
            release: Release::Trixie,
            containerd_store: true,
        });
        let socket = relay::buildkitd(&dockerd.host());
        let host = format!("unix://{}", socket.display());
        Self {
            name: "buildkit",
            environment: vec![("BUILDKIT_HOST".to_owned(), host)],
            client: Box::new(move |arguments| run(dockerd.docker().args(arguments))),
        }
    }

    fn podman(podman: Podman) -> Self {
        let set = podman.environment().into_iter();
        let mut environment: Vec<(String, String)> = set
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let directory = podman.program().parent().unwrap().display().to_string();
        let path = format!("{directory}:/usr/sbin:/usr/bin:/sbin:/bin");
        environment.push(("PATH".to_owned(), path));
        // Contexts have to be where the newer one, in a root of its own, sees them.
        let temporary = std::env::temp_dir().display().to_string();
        environment.push(("TMPDIR".to_owned(), temporary));
        Self {
            name: "podman",
            environment,
            client: Box::new(move |arguments| run(podman.podman().args(arguments))),
        }
    }

    pub(super) fn podman_4() -> Self {
        Self::podman(Podman::new())
    }

    pub(super) fn podman_5() -> Self {
        Self::podman(Podman::trixie())
    }

    /// Returns the names of the images that builds have left, of levels or for the time being.
    pub(super) fn images(&self) -> Vec<String> {
        let format = "{{.Repository}}:{{.Tag}}";
        let output = (self.client)(&["images", "--format", format]);
        let text = String::from_utf8(output.stdout).unwrap();
        let built = |name: &&str| {
            (name.contains("acme/") || name.contains("trilith-build")) && !name.contains("<none>")
        };
        let mut images: Vec<String> = text.lines().filter(built).map(str::to_owned).collect();
        images.sort();
        images
    }
}

/// Starts an engine.
pub(super) type Start = fn() -> Engine;

pub(super) fn build(
    trilith: &Trilith,
    engine: &Engine,
    project: &Project,
    flags: &[&str],
) -> Command {
    let mut command = trilith.command();
    command
        .args(["build", "--builder", engine.name, "--network", "none"])
        .args(["--project", path(project)])
        .args(flags)
        .envs(engine.environment.iter().cloned());
    command
}

pub(super) fn pushed(trilith: &Trilith, engine: &Engine, project: &Project) -> Value {
    let mut command = build(trilith, engine, project, &["--push", "--format", "json"]);
    let output = assert_success(&mut command);
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(super) fn project(registry: &Registry, base: &str) -> Project {
    let project = Project::empty();
    project.write("Dockerfile", DOCKERFILE);
    project.write("requirements.lock", "one==1\n");
    project.write("app/run", "#!/bin/sh\ncat /stamps/*\n");
    project.write("notes.txt", "nothing copies this\n");
    project.write("trilith.toml", recipe(registry, base));
    project
}

pub(super) fn recipe(registry: &Registry, base: &str) -> String {
    format!(
        r#"
[image]
repository = "{}"
version = "1.0.0"
base = "{base}"
platforms = ["linux/amd64"]

[inputs]
lock = ["requirements.lock"]

[dockerfile]
path = "Dockerfile"
levels = {{ versioned = "base", lock = "deps", source = "runtime" }}
"#,
        registry.reference("acme/app")
    )
}

/// Returns the stamps in an image, by stage.
pub(super) fn stamps(trilith: &Trilith, reference: &Value) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let rootfs = directory.path().join("rootfs");
    let place = format!("dir:{}", rootfs.display());
    trilith.json(&["copy", reference.as_str().unwrap(), &place]);
    let stamps = std::fs::read_dir(rootfs.join("stamps")).unwrap();
    let stamp = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read_to_string(entry.path()).unwrap())
    };
    stamps.map(stamp).collect()
}

/// Returns how many images of levels have a tag; lists of inputs have others.
pub(super) fn level_tags(registry: &Registry) -> usize {
    let tags = registry.tags("acme/app");
    tags.iter().filter(|tag| tag.starts_with("v1")).count()
}

pub(super) fn tags(built: &Value) -> usize {
    built["tags"].as_array().unwrap().len()
}

/// Returns what a failing build prints.
pub(super) fn refused(
    trilith: &Trilith,
    engine: &Engine,
    project: &Project,
    flags: &[&str],
) -> String {
    let output = run(&mut build(trilith, engine, project, flags));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{stderr}"
    );
    stderr
}

pub(super) fn built(
    trilith: &Trilith,
    engine: &Engine,
    project: &Project,
    flags: &[&str],
) -> Value {
    let mut command = build(trilith, engine, project, flags);
    let output = assert_success(command.args(["--format", "json"]));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks that a build has left no temporary file in the store.
pub(super) fn assert_tidy(trilith: &Trilith) {
    let Ok(entries) = std::fs::read_dir(trilith.store()) else {
        return;
    };
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("engine-"), "{name} stayed behind");
    }
}
