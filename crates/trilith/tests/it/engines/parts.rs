//! Engines, a project, and what tests ask about both again and again.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use serde_json::Value;
use trilith_testkit::{
    Dockerd, DockerdOptions, Podman, Project, Registry, Release, assert_success, run,
};

use super::relay::Relay;
use crate::support::{Trilith, path, podman_environment};

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

pub(super) const TRIXIE: DockerdOptions = DockerdOptions {
    release: Release::Trixie,
    containerd_store: false,
    disk: None,
    bridge: false,
};

/// With images in containerd, its BuildKit has all exporters.
pub(super) const CONTAINERD: DockerdOptions = DockerdOptions {
    containerd_store: true,
    ..TRIXIE
};

/// An engine with nothing in its cache.
pub(super) struct Engine {
    /// As `--builder` has it.
    pub(super) name: &'static str,
    pub(super) environment: Vec<(String, String)>,
    pub(super) service: Service,
}

/// What runs.
pub(super) enum Service {
    Docker(Dockerd),
    /// What is behind a relay.
    Buildkit(Dockerd, Relay),
    Podman(Podman),
    Nothing,
}

/// How an engine is taken away from a build.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It is killed with this signal: the daemon, or the Podman that builds.
    Signal(&'static str),
    /// The connections to it are closed.
    Hangup,
}

impl Engine {
    pub(super) fn docker(options: DockerdOptions) -> Self {
        let dockerd = Dockerd::start_with(options);
        Self {
            name: "docker",
            environment: vec![("DOCKER_HOST".to_owned(), dockerd.host())],
            service: Service::Docker(dockerd),
        }
    }

    pub(super) fn docker_20() -> Self {
        Self::docker(DockerdOptions::default())
    }

    pub(super) fn docker_26() -> Self {
        Self::docker(TRIXIE)
    }

    pub(super) fn docker_with_containerd() -> Self {
        Self::docker(CONTAINERD)
    }

    pub(super) fn buildkit() -> Self {
        Self::buildkit_of(CONTAINERD)
    }

    pub(super) fn buildkit_of(options: DockerdOptions) -> Self {
        let dockerd = Dockerd::start_with(options);
        let relay = Relay::start(&dockerd.host());
        let host = format!("unix://{}", relay.socket().display());
        Self {
            name: "buildkit",
            environment: vec![("BUILDKIT_HOST".to_owned(), host)],
            service: Service::Buildkit(dockerd, relay),
        }
    }

    pub(super) fn podman(podman: Podman) -> Self {
        Self {
            name: "podman",
            environment: podman_environment(&podman),
            service: Service::Podman(podman),
        }
    }

    pub(super) fn podman_4() -> Self {
        Self::podman(Podman::new())
    }

    pub(super) fn podman_5() -> Self {
        Self::podman(Podman::trixie())
    }

    /// Returns an engine that does not answer.
    pub(super) fn nowhere() -> Self {
        Self {
            name: "docker",
            environment: vec![("DOCKER_HOST".to_owned(), "unix:///nowhere.sock".to_owned())],
            service: Service::Nothing,
        }
    }

    /// Makes an engine's small disk as large as `size`.
    pub(super) fn enlarge_disk(&self, size: &str) {
        match &self.service {
            Service::Docker(dockerd) | Service::Buildkit(dockerd, _) => dockerd.enlarge_disk(size),
            Service::Podman(podman) => podman.enlarge_disk(size),
            Service::Nothing => unreachable!("there is no engine"),
        }
    }

    /// Runs the engine's own client.
    pub(super) fn client(&self, arguments: &[&str]) -> Output {
        run(&mut self.client_command(arguments))
    }

    /// Returns the engine's own client.
    pub(super) fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.service {
            Service::Docker(dockerd) | Service::Buildkit(dockerd, _) => dockerd.docker(),
            Service::Podman(podman) => podman.podman(),
            Service::Nothing => unreachable!("there is no engine"),
        };
        command.args(arguments);
        command
    }

    /// Takes the engine away from the build that the process `trilith` is at.
    pub(super) fn end(&mut self, end: End, trilith: u32) {
        match (end, &mut self.service) {
            (End::Signal(signal), Service::Docker(dockerd)) => dockerd.stop(signal),
            (End::Signal(signal), Service::Podman(_)) => {
                let builds = |process: &Process| {
                    process.parent == trilith && process.line.contains(" build ")
                };
                let podman = Process::all().find(builds).unwrap();
                podman.signal(signal);
            }
            (End::Hangup, Service::Buildkit(_, relay)) => relay.close(),
            (end, _) => panic!("no {end:?} for {}", self.name),
        }
    }

    /// Brings back what was taken away.
    pub(super) fn restart(&mut self) {
        match &mut self.service {
            Service::Docker(dockerd) => dockerd.restart(),
            Service::Buildkit(dockerd, relay) => *relay = Relay::start(&dockerd.host()),
            Service::Podman(_) | Service::Nothing => {}
        }
    }

    /// Returns the names of the images that builds have left, of levels or for the time being.
    pub(super) fn images(&self) -> Vec<String> {
        let format = "{{.Repository}}:{{.Tag}}";
        let output = self.client(&["images", "--format", format]);
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

/// Returns the plan of a dry run, and the directory of what would be sent, which is to be removed.
pub(super) fn dry_run(trilith: &Trilith, engine: &Engine, project: &Project) -> (Value, PathBuf) {
    let folder = project.path().with_extension("sent");
    let flags = [
        "--push",
        "--dry-run",
        "--build-folder",
        folder.to_str().unwrap(),
    ];
    (built(trilith, engine, project, &flags), folder)
}

/// Checks that a build has left no temporary file, in the store or for Podman.
pub(super) fn assert_tidy(trilith: &Trilith, engine: &Engine) {
    let contexts = engine.environment.iter().find(|(name, _)| name == "TMPDIR");
    let contexts = contexts.map(|(_, path)| std::path::PathBuf::from(path));
    for directory in contexts.into_iter().chain([trilith.store()]) {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let left = name.starts_with("engine-") || name.starts_with("trilith-");
            assert!(!left, "{name} stayed behind");
        }
    }
}

/// A build that has come to a step that says `waiting`.
pub(super) struct Waiting {
    running: Child,
    events: Lines<BufReader<ChildStderr>>,
}

impl Waiting {
    /// Runs `command`, with events, until a step says so.
    pub(super) fn start(mut command: Command) -> Self {
        command.args(["--progress", "json"]).stderr(Stdio::piped());
        let mut running = command.spawn().unwrap();
        let mut events = BufReader::new(running.stderr.take().unwrap()).lines();
        let waits = |line: &str| line.contains("\"log\"") && line.contains("waiting");
        assert!(events.any(|line| waits(&line.unwrap())));
        Self { running, events }
    }

    pub(super) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Waits for the end of a build that was killed.
    pub(super) fn killed(mut self) {
        assert_eq!(self.running.wait().unwrap().code(), None);
    }

    /// Waits for the end, which has to be a failure, and returns what the build said.
    pub(super) fn failure(mut self) -> String {
        let rest: Vec<String> = self.events.map(Result::unwrap).collect();
        let status = self.running.wait().unwrap();
        let said = rest.join("\n");
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }
}

/// A process of this machine.
pub(super) struct Process {
    pub(super) id: u32,
    parent: u32,
    /// Its command line, with blanks between the words.
    pub(super) line: String,
}

impl Process {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let entries = std::fs::read_dir("/proc").unwrap();
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter_map(|id: u32| {
            let read = |file: &str| std::fs::read(format!("/proc/{id}/{file}"));
            let line = String::from_utf8_lossy(&read("cmdline").ok()?).replace('\0', " ");
            // `123 (name) S 1 …`; the name may hold anything.
            let stat = String::from_utf8_lossy(&read("stat").ok()?).into_owned();
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some(Self { id, parent, line })
        })
    }

    pub(super) fn signal(&self, signal: &str) {
        let script = "kill -s \"$0\" \"$1\"";
        // It may have ended by itself.
        run(Command::new("sh").args(["-c", script, signal, &self.id.to_string()]));
    }
}
