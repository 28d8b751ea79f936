//! Dockerfiles on real engines: three levels, what is built from what, and what is left behind.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;
use trilith_testkit::{
    Dockerd, ImageOptions, Project, Registry, RegistryOptions, assert_success, busybox_image, run,
};

use crate::support::{Trilith, path};

/// A project whose steps leave a stamp that no two runs have in common.
const DOCKERFILE: &str = "\
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

/// An engine with nothing in its cache.
struct Engine {
    /// As `--builder` has it.
    name: &'static str,
    environment: Vec<(&'static str, String)>,
    /// Runs the engine's own client, with these arguments.
    client: Box<dyn Fn(&[&str]) -> Output>,
}

impl Engine {
    fn docker() -> Self {
        let dockerd = Dockerd::start();
        Self {
            name: "docker",
            environment: vec![("DOCKER_HOST", dockerd.host())],
            client: Box::new(move |arguments| run(dockerd.docker().args(arguments))),
        }
    }

    /// Returns the names of the images it keeps, and the IDs of those without one.
    fn images(&self) -> Vec<String> {
        let format = "{{.Repository}}:{{.Tag}}";
        let output = (self.client)(&["images", "--format", format]);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut images: Vec<String> = text.lines().map(str::to_owned).collect();
        images.sort();
        images
    }
}

/// Every engine there is.
const ENGINES: [fn() -> Engine; 1] = [Engine::docker];

fn build(trilith: &Trilith, engine: &Engine, project: &Project, flags: &[&str]) -> Command {
    let mut command = trilith.command();
    command
        .args(["build", "--builder", engine.name, "--network", "none"])
        .args(["--project", path(project)])
        .args(flags)
        .envs(engine.environment.iter().cloned());
    command
}

fn pushed(trilith: &Trilith, engine: &Engine, project: &Project) -> Value {
    let mut command = build(trilith, engine, project, &["--push", "--format", "json"]);
    let output = assert_success(&mut command);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn project(registry: &Registry, base: &str) -> Project {
    let project = Project::empty();
    project.write("Dockerfile", DOCKERFILE);
    project.write("requirements.lock", "one==1\n");
    project.write("app/run", "#!/bin/sh\ncat /stamps/*\n");
    project.write("notes.txt", "nothing copies this\n");
    project.write("trilith.toml", recipe(registry, base));
    project
}

fn recipe(registry: &Registry, base: &str) -> String {
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
fn stamps(trilith: &Trilith, reference: &Value) -> BTreeMap<String, String> {
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

fn tags(built: &Value) -> usize {
    built["tags"].as_array().unwrap().len()
}

#[test]
fn three_levels() {
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let project = project(&registry, &base.reference);
        let (first_engine, trilith) = (engine(), Trilith::new());

        let first = pushed(&trilith, &first_engine, &project);
        assert_eq!((&first["action"], tags(&first)), (&"build".into(), 3));
        let before = stamps(&trilith, &first["reference"]);
        assert_eq!(before.len(), 3);
        assert_eq!(first["telemetry"]["cache_misses"], 5, "{first}");
        assert_eq!(first_engine.images(), Vec::<String>::new());

        // Nothing changed: the engine is not asked for anything, not even whether it is there.
        drop(first_engine);
        let nowhere = Engine {
            name: "auto",
            environment: vec![("DOCKER_HOST", "unix:///nowhere.sock".to_owned())],
            client: Box::new(|_| unreachable!()),
        };
        let same = pushed(&trilith, &nowhere, &project);
        assert_eq!(same["action"], "reuse");
        assert_eq!(same["digest"], first["digest"]);
        // What no stage copies is no input.
        project.write("notes.txt", "still nothing\n");
        assert_eq!(pushed(&trilith, &nowhere, &project)["action"], "reuse");

        // The source changed: an engine with a cold cache builds on the lock image.
        let cold = engine();
        project.write("app/run", "#!/bin/sh\necho changed\n");
        let changed = pushed(&trilith, &cold, &project);
        assert_eq!(tags(&changed), 1, "{changed}");
        let after = stamps(&trilith, &changed["reference"]);
        assert_eq!(after["deps"], before["deps"]);
        assert_eq!(after["base"], before["base"]);
        assert_ne!(after["runtime"], before["runtime"]);
        assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
        assert_eq!(cold.images(), Vec::<String>::new());

        // A dependency changed: it builds on the versioned image.
        project.write("requirements.lock", "one==2\n");
        let relocked = pushed(&trilith, &cold, &project);
        assert_eq!(tags(&relocked), 2, "{relocked}");
        let after = stamps(&trilith, &relocked["reference"]);
        assert_eq!(after["base"], before["base"]);
        assert_ne!(after["deps"], before["deps"]);

        // The base changed: it builds on that.
        let other = trilith_testkit::Compression::None;
        let options = ImageOptions {
            compression: other,
            ..ImageOptions::default()
        };
        let base = busybox_image(&registry, "base:2", &options);
        project.write("trilith.toml", recipe(&registry, &base.reference));
        let rebased = pushed(&trilith, &cold, &project);
        assert_eq!(tags(&rebased), 3, "{rebased}");
        let after = stamps(&trilith, &rebased["reference"]);
        assert_ne!(after["base"], before["base"]);

        // Whoever has built nothing finds all of it.
        let elsewhere = Trilith::new();
        assert_eq!(pushed(&elsewhere, &nowhere, &project)["action"], "reuse");
        let inspected = elsewhere.json(&["inspect", rebased["reference"].as_str().unwrap()]);
        assert_eq!(
            inspected["labels"]["dev.trilith.level"], "source",
            "{inspected}"
        );
    }
}
