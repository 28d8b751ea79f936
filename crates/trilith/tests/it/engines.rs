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

/// Returns how many images of levels have a tag; lists of inputs have others.
fn level_tags(registry: &Registry) -> usize {
    let tags = registry.tags("acme/app");
    tags.iter().filter(|tag| tag.starts_with("v1")).count()
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

/// Returns what a failing build prints.
fn refused(trilith: &Trilith, engine: &Engine, project: &Project, flags: &[&str]) -> String {
    let output = run(&mut build(trilith, engine, project, flags));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{stderr}"
    );
    stderr
}

fn built(trilith: &Trilith, engine: &Engine, project: &Project, flags: &[&str]) -> Value {
    let mut command = build(trilith, engine, project, flags);
    let output = assert_success(command.args(["--format", "json"]));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks that a build has left no temporary file in the store.
fn assert_tidy(trilith: &Trilith) {
    let Ok(entries) = std::fs::read_dir(trilith.store()) else {
        return;
    };
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("engine-"), "{name} stayed behind");
    }
}

#[test]
fn a_failing_step_moves_no_tag() {
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let failing = "RUN i=0; while [ $i -lt 70 ]; do echo line $i; i=$((i+1)); done; exit 7";
        project.write("Dockerfile", format!("{DOCKERFILE}{failing}\n"));
        let error = refused(&trilith, &engine, &project, &["--push", "--quiet"]);
        assert!(error.contains("[runtime") && error.contains('7'), "{error}");
        assert!(
            error.contains("| line 69") && error.contains("| line 20"),
            "{error}"
        );
        assert!(!error.contains("| line 19\n"), "{error}");
        assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
        assert_eq!(engine.images(), Vec::<String>::new());
        assert_tidy(&trilith);

        // Nor does a file that cannot be there, a stage that does not exist, or a missing base.
        let copies = DOCKERFILE.replace("COPY app", "COPY no-such-file");
        project.write("Dockerfile", copies);
        let error = refused(&trilith, &engine, &project, &["--push"]);
        assert!(error.contains("no-such-file"), "{error}");
        project.write("Dockerfile", DOCKERFILE.replace("AS runtime", "AS other"));
        let error = refused(&trilith, &engine, &project, &["--push"]);
        assert!(
            error.contains("`runtime`") && error.contains("hint: "),
            "{error}"
        );
        project.write("Dockerfile", DOCKERFILE);
        let gone = registry.reference("gone:1");
        let error = refused(
            &trilith,
            &engine,
            &project,
            &["--push", "--base-image", &gone],
        );
        assert!(error.contains("gone:1"), "{error}");
        assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    }
}

#[test]
fn secrets_stay_secret() {
    const SECRET: &str = "s3cr3t-that-nobody-may-see";
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let step = "RUN --mount=type=secret,id=token grep -c nobody /run/secrets/token > /seen";
        project.write("Dockerfile", format!("{DOCKERFILE}{step}\n"));
        let mut command = build(
            &trilith,
            &engine,
            &project,
            &["--push", "--progress", "json"],
        );
        command.args(["--secret", "id=token,env=TOKEN", "--format", "json"]);
        let output = assert_success(command.env("TOKEN", SECRET));
        let events = String::from_utf8(output.stderr).unwrap();
        for line in events.lines() {
            let _event: Value = serde_json::from_str(line).unwrap();
        }
        let document = String::from_utf8(output.stdout).unwrap();
        let reference: Value = serde_json::from_str(&document).unwrap();
        let reference = reference["reference"].as_str().unwrap().to_owned();
        let inspected = trilith.json(&["inspect", &reference]).to_string();
        let directory = tempfile::tempdir().unwrap();
        let rootfs = directory.path().join("rootfs");
        trilith.json(&["copy", &reference, &format!("dir:{}", rootfs.display())]);
        assert_eq!(std::fs::read_to_string(rootfs.join("seen")).unwrap(), "1\n");
        for text in [&events, &document, &inspected] {
            assert!(!text.contains(SECRET), "{text}");
        }
        let found = run(Command::new("grep")
            .args(["-rl", SECRET])
            .args([&rootfs, trilith.home()]));
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    }
}

#[test]
fn into_the_store_and_into_the_engine() {
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (hot, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let first = built(&trilith, &hot, &project, &[]);
        assert_eq!((&first["action"], tags(&first)), (&"build".into(), 3));
        assert_eq!(hot.images(), Vec::<String>::new());
        assert_eq!(built(&trilith, &hot, &project, &[])["action"], "reuse");
        assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
        let layers = first["layers"].as_array().unwrap();
        let levels: Vec<&str> = layers
            .iter()
            .map(|l| l["level"].as_str().unwrap())
            .collect();
        let expected = ["versioned", "lock", "lock", "source", "source"];
        assert_eq!(levels, expected, "{first}");

        // The lock image is brought from the store to an engine that has never seen it.
        let cold = engine();
        project.write("app/run", "changed\n");
        let changed = built(&trilith, &cold, &project, &[]);
        assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
        assert_eq!(tags(&changed), 1);
        assert_eq!(cold.images(), Vec::<String>::new());

        // Into the engine, and nowhere else.
        let trilith = Trilith::new();
        let loaded = built(&trilith, &hot, &project, &["--load"]);
        assert_eq!((&loaded["action"], tags(&loaded)), (&"build".into(), 3));
        assert_eq!(hot.images().len(), 3, "{:?}", hot.images());
        assert_eq!(
            built(&trilith, &hot, &project, &["--load"])["action"],
            "reuse"
        );
        let stranger = Trilith::new();
        assert_eq!(
            built(&stranger, &hot, &project, &["--load"])["action"],
            "reuse"
        );
        project.write("app/run", "changed again\n");
        let again = built(&trilith, &hot, &project, &["--load"]);
        assert_eq!(tags(&again), 1, "{again}");
        assert_eq!(hot.images().len(), 4);

        // Both, and what the registry has is brought to an engine that has it not.
        let both = built(&trilith, &cold, &project, &["--push", "--load"]);
        assert_eq!(both["action"], "build");
        assert_eq!(cold.images().len(), 3);
        assert_eq!(level_tags(&registry), 3);
        let fresh = engine();
        let reused = built(&trilith, &fresh, &project, &["--push", "--load"]);
        assert_eq!(reused["action"], "reuse");
        assert_eq!(fresh.images().len(), 1);
        assert_tidy(&trilith);
    }
}

#[test]
fn a_dockerfile_without_levels_has_all_tags() {
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let recipe = recipe(&registry, &base.reference);
        let (plain, _levels) = recipe.split_once("levels = ").unwrap();
        let config =
            "[config]\nuser = \"10001:10001\"\nenv = { GREETING = \"say \\\"$HOME\\\"\" }\n";
        project.write(
            "trilith.toml",
            format!("{plain}args = {{ UNUSED = \"1\" }}\n{config}"),
        );
        let first = pushed(&trilith, &engine, &project);
        assert_eq!(tags(&first), 3);
        let digests: Vec<Value> = first["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| trilith.json(&["inspect", tag.as_str().unwrap()])["digest"].clone())
            .collect();
        assert!(digests.iter().all(|digest| *digest == first["digest"]));
        let inspected = trilith.json(&["inspect", first["reference"].as_str().unwrap()]);
        let config = inspected.to_string();
        assert!(config.contains("10001:10001"), "{config}");
        assert!(config.contains(r#"say \"$HOME\""#), "{config}");

        // What changes moves the tags of its level and above, and all of it is built again.
        for (file, content, moved) in [
            ("app/run", "other\n", 1),
            ("requirements.lock", "other==1\n", 2),
            ("Dockerfile", &DOCKERFILE.replace("/opt/app/run", "/x"), 3),
        ] {
            let before = level_tags(&registry);
            project.write(file, content);
            assert_eq!(tags(&pushed(&trilith, &engine, &project)), 3, "{file}");
            assert_eq!(level_tags(&registry) - before, moved, "{file}");
        }
        let forced = built(&trilith, &engine, &project, &["--push", "--force"]);
        assert_eq!((&forced["action"], tags(&forced)), (&"build".into(), 3));
    }
}

#[test]
fn templates_are_told_what_they_start_from() {
    const TEMPLATE: &str = "\
FROM {{ base_image }}
{% if build_from_scratch %}RUN mkdir /stamps && cat /proc/sys/kernel/random/uuid > /stamps/base
{% endif %}{% if build_from_scratch or build_from_versioned %}COPY requirements.lock /deps/
RUN cat /proc/sys/kernel/random/uuid > /stamps/deps && echo '{{ extra_deps }}' > /deps/extra
{% endif %}COPY app /opt/app
RUN echo {{ build_from }} > /stamps/runtime
";
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let recipe = recipe(&registry, &base.reference);
        let (plain, _levels) = recipe.split_once("path = ").unwrap();
        project.write(
            "trilith.toml",
            format!("{plain}template = \"Dockerfile.j2\"\n"),
        );
        project.write("Dockerfile.j2", TEMPLATE);
        let first = pushed(&trilith, &engine, &project);
        let before = stamps(&trilith, &first["reference"]);
        assert_eq!((tags(&first), before["runtime"].as_str()), (3, "scratch\n"));
        project.write("app/run", "other\n");
        let changed = pushed(&trilith, &engine, &project);
        let after = stamps(&trilith, &changed["reference"]);
        assert_eq!((tags(&changed), after["runtime"].as_str()), (1, "lock\n"));
        assert_eq!(after["deps"], before["deps"]);
        let flags = ["--push", "--extra-deps", "git"];
        let extra = built(&trilith, &engine, &project, &flags);
        let after = stamps(&trilith, &extra["reference"]);
        assert_eq!(
            (tags(&extra), after["runtime"].as_str()),
            (2, "versioned\n")
        );
        assert_eq!(after["base"], before["base"]);
    }
}

#[test]
fn several_platforms_are_one_index() {
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let options = ImageOptions::multi_platform(trilith_testkit::Format::Oci);
        let base = busybox_image(&registry, "base:1", &options);
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        // Nothing runs here what is made for another machine.
        let copies: Vec<&str> = DOCKERFILE
            .lines()
            .filter(|line| !line.starts_with("RUN"))
            .collect();
        project.write("Dockerfile", copies.join("\n"));
        let platforms = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
        let flags = [&["--push"][..], &platforms].concat();
        let first = built(&trilith, &engine, &project, &flags);
        let tag = first["reference"]
            .as_str()
            .unwrap()
            .rsplit_once(':')
            .unwrap()
            .1;
        let index = registry.manifest("acme/app", tag).unwrap().json();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
        // No other tags than those of the levels, and of the lists of inputs.
        let tags = registry.tags("acme/app");
        let levels = tags.iter().filter(|tag| tag.starts_with("v1")).count();
        let lists = tags.iter().filter(|tag| tag.starts_with("sha256-")).count();
        assert_eq!((levels, tags.len()), (3, levels + lists), "{tags:?}");
        assert_eq!(engine.images(), Vec::<String>::new());
        assert_eq!(
            built(&trilith, &engine, &project, &flags)["action"],
            "reuse"
        );
        project.write("app/run", "changed\n");
        let changed = built(&trilith, &engine, &project, &flags);
        assert_eq!(changed["tags"].as_array().unwrap().len(), 1);
        let error = refused(
            &trilith,
            &engine,
            &project,
            &[&flags[..], &["--force", "--load"]].concat(),
        );
        assert!(error.contains("one platform"), "{error}");
    }
}

#[test]
fn a_dry_run_writes_what_would_be_sent() {
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let folder = project.path().with_extension("sent");
        let flags = [
            "--push",
            "--dry-run",
            "--build-folder",
            folder.to_str().unwrap(),
        ];
        let plan = built(&trilith, &engine, &project, &flags);
        assert_eq!(plan["written"].as_array().unwrap().len(), 3, "{plan}");
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        // The base is the one that was hashed.
        assert!(
            read("source/Dockerfile").contains(&base.digest),
            "{}",
            read("source/Dockerfile")
        );
        assert_eq!(read("source/context/app/run"), project.read("app/run"));
        assert!(!folder.join("lock/context/app").exists());
        assert!(!folder.join("source/context/notes.txt").exists());
        assert!(read("lock/request.json").contains("\"target\": \"deps\""));
        assert_eq!(registry.tags("acme/app"), Vec::<String>::new());

        pushed(&trilith, &engine, &project);
        project.write("app/run", "changed\n");
        std::fs::remove_dir_all(&folder).unwrap();
        let plan = built(&trilith, &engine, &project, &flags);
        assert_eq!(plan["written"].as_array().unwrap().len(), 1, "{plan}");
        let sent = read("source/Dockerfile") + &read("source/request.json");
        assert!(!folder.join("source/context/requirements.lock").exists() || sent.contains("deps"));
        assert!(sent.contains("acme/app@sha256:"), "{sent}");
        std::fs::remove_dir_all(&folder).unwrap();
        assert_tidy(&trilith);
    }
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    use std::io::{BufRead as _, BufReader};
    for engine in ENGINES {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let (engine, trilith) = (engine(), Trilith::new());
        let project = project(&registry, &base.reference);
        let slow = format!("{DOCKERFILE}RUN echo waiting && sleep 300\n");
        project.write("Dockerfile", slow);
        let mut command = build(
            &trilith,
            &engine,
            &project,
            &["--push", "--progress", "json"],
        );
        let mut running = command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let events = BufReader::new(running.stderr.take().unwrap());
        let mut events = events.lines().map(|line| line.unwrap());
        let waits = |line: &String| line.contains("\"log\"") && line.contains("waiting");
        assert!(events.any(|line| waits(&line)));
        let pid = running.id().to_string();
        assert_success(Command::new("kill").args(["-INT", &pid]));
        let rest: Vec<String> = events.collect();
        let status = running.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{rest:?}");
        assert!(
            rest.iter().any(|line| line.contains("interrupted")),
            "{rest:?}"
        );
        assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
        assert_eq!(engine.images(), Vec::<String>::new());
        assert_tidy(&trilith);
    }
}
