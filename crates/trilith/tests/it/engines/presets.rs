//! Presets, from a checkout to tags in a registry.

use serde_json::{Value, json};
use trilith_testkit::{
    ImageOptions, Project, Registry, RegistryOptions, assert_success, busybox_image,
};

use super::parts::Engine;
use crate::support::{Trilith, path};

const V1_DOCKERFILE: &str = "\
ARG BASE_IMAGE=nowhere.invalid/nothing
FROM ${BASE_IMAGE} AS builder
WORKDIR /agent-server
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY openhands ./openhands
RUN find . -type f | sort > /files

FROM ${BASE_IMAGE} AS base-image
ARG VARIANT
ARG VERSION
RUN echo \"$VARIANT $VERSION\" > /facts

FROM base-image AS source
COPY --from=builder /agent-server /agent-server

FROM base-image AS binary
COPY --from=builder /files /files
CMD [\"cat\", \"/files\"]
";

const V0_TEMPLATE: &str = "\
FROM {{ base_image }}
{% if build_from_scratch %}RUN mkdir /stamps && cat /proc/sys/kernel/random/uuid > /stamps/base
{% endif %}{% if build_from_scratch or build_from_versioned %}
COPY ./code/pyproject.toml ./code/poetry.lock /openhands/code/
RUN cat /proc/sys/kernel/random/uuid > /stamps/deps
{% endif %}
COPY ./code/skills /openhands/code/skills
COPY ./code/openhands /openhands/code/openhands
{% if extra_deps %}RUN {{ extra_deps }}{% endif %}
";

fn v1_checkout() -> Project {
    let project = Project::empty();
    for (file, text) in [
        ("pyproject.toml", "[project]\nname='x'\n"),
        ("uv.lock", "version = 1\n"),
        ("README.md", "read me\n"),
        ("LICENSE", "MIT\n"),
        ("openhands/a.py", "print(1)\n"),
        ("openhands/notes.md", "neither hashed nor sent\n"),
        ("openhands/agent_server/docker/Dockerfile", V1_DOCKERFILE),
        (
            "openhands/sdk/pyproject.toml",
            "[project]\nversion = '1.2.0'\n",
        ),
        ("tests/test.py", ""),
    ] {
        project.write(file, text);
    }
    project
}

fn v0_checkout() -> Project {
    let project = Project::empty();
    for (file, text) in [
        ("pyproject.toml", "[tool.poetry]\nversion = \"0.62.0\"\n"),
        ("poetry.lock", "lock\n"),
        ("openhands/__init__.py", ""),
        (
            "openhands/runtime/utils/runtime_templates/Dockerfile.j2",
            V0_TEMPLATE,
        ),
        ("skills/one.md", "# One\n"),
    ] {
        project.write(file, text);
    }
    project
}

/// Returns what `trilith` prints with a preset of `project`, named `repository` on `registry`.
fn with_preset(
    (trilith, engine): (&Trilith, &Engine),
    command: &[&str],
    preset: &str,
    project: &Project,
    image: (&str, &str),
) -> Value {
    let (base, repository) = image;
    let mut trilith = trilith.command();
    trilith
        .args(command)
        .args(["--preset", preset, "--sdk-root", path(project)])
        .args(["--base-image", base, "--repository", repository])
        .args(["--platform", "linux/amd64", "--format", "json"])
        .envs(engine.environment.iter().cloned());
    serde_json::from_slice(&assert_success(&mut trilith).stdout).unwrap()
}

fn strings(values: &Value) -> Vec<&str> {
    let values = values.as_array().unwrap().iter();
    values.map(|value| value.as_str().unwrap()).collect()
}

const BUILD: [&str; 6] = [
    "build",
    "--builder",
    "docker",
    "--network",
    "none",
    "--push",
];

#[test]
fn tags_ask_nobody_and_say_what_the_preset_is() {
    let trilith = Trilith::new();
    let project = v1_checkout();
    project.write(".git/HEAD", "ref: refs/heads/main\n");
    let mut command = trilith.command();
    command
        .args(["tags", "--preset", "openhands-v1", "--format", "json"])
        .args(["--target", "source", "--variant", "golang"])
        .args(["--base-image", "ubuntu:22.04"])
        .env("SDK_SHA", "0123456789")
        .env("GITHUB_SHA", "9876543210")
        .current_dir(project.path().join("openhands/sdk"));
    let output = assert_success(&mut command);
    let tags: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(tags["scheme"], "openhands-v1");
    assert_eq!(tags["lock"], "v1.2.0_ayo96luyqh37tqnf-dev");
    assert_eq!(tags["versioned"], "v1.2.0_ubuntu_tag_22.04-dev");
    let preset = &tags["preset"];
    assert_eq!(preset["variant"], "golang");
    assert_eq!(
        preset["git_info"],
        json!({"sha": "0123456789", "short_sha": "0123456", "ref": "main"})
    );
    let lock = format!("agent-server:{}", tags["lock"].as_str().unwrap());
    assert_eq!(preset["tags"][1], lock);

    let project = v0_checkout();
    let mut command = trilith.command();
    command
        .args(["tags", "--preset", "openhands-v0", "--format", "json"])
        .args(["--sdk-root", path(&project)])
        .env("OH_RUNTIME_RUNTIME_IMAGE_REPO", "ghcr.io/acme/runtime");
    let output = assert_success(&mut command);
    let tags: Value = serde_json::from_slice(&output.stdout).unwrap();
    let slug = "nikolaik_s_python-nodejs_t_python3.12-nodejs22";
    let versioned = format!("ghcr.io/acme/runtime:oh_v0.62.0_{slug}");
    assert_eq!(tags["references"]["versioned"], versioned);
}

#[test]
fn flags_that_a_preset_decides_are_refused() {
    let trilith = Trilith::new();
    let project = v0_checkout();
    let root = path(&project);
    let v0 = ["tags", "--preset", "openhands-v0", "--sdk-root", root];
    for (flags, problem) in [
        (&["--scheme", "trilith"][..], "cannot be used with"),
        (&["--dockerfile", "Dockerfile"], "cannot be used with"),
        (
            &["--variant", "python"],
            "`--variant` is for `--preset openhands-v1`",
        ),
    ] {
        let error = trilith.error(2, &[&v0, flags].concat());
        assert!(error.contains(problem), "{error}");
    }
    let error = trilith.error(2, &["tags", "--sdk-root", root]);
    assert!(error.contains("--preset"), "{error}");
    let v1 = ["tags", "--preset", "openhands-v1", "--sdk-root", root];
    let error = trilith.error(2, &v1);
    assert!(
        error.contains("is in no checkout of OpenHands SDK"),
        "{error}"
    );
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn an_agent_server_ends_with_all_three_tags() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (Engine::docker_20(), Trilith::new());
    let project = v1_checkout();
    let repository = registry.reference("acme/agent-server");
    let image = (&*base.reference, &*repository);
    let run = |command: &[&str]| {
        with_preset(
            (&trilith, &engine),
            command,
            "openhands-v1",
            &project,
            image,
        )
    };
    let plan = run(&["plan", "--skip-tags", "versioned"]);
    assert_eq!(strings(&plan["tags"]).len(), 2, "{plan}");
    let plan = run(&["plan"]);
    assert_eq!(plan["action"], "build");
    assert_eq!(plan["tags"].as_array().unwrap().len(), 3, "{plan}");

    let folder = project.path().with_extension("sent");
    let flags = ["--dry-run", "--build-folder", folder.to_str().unwrap()];
    let dry = run(&[&BUILD[..], &flags].concat());
    assert_eq!(dry["written"].as_array().unwrap().len(), 1, "{dry}");
    let request = std::fs::read_to_string(folder.join("source/request.json")).unwrap();
    let request: Value = serde_json::from_str(&request).unwrap();
    assert_eq!(request["target"], "binary");
    assert_eq!(
        request["args"],
        json!({"BASE_IMAGE": base.reference, "VARIANT": "python", "VERSION": "1.2.0"})
    );
    let context = folder.join("source/context");
    let lifted = std::fs::read_to_string(context.join("Dockerfile")).unwrap();
    assert_eq!(lifted, V1_DOCKERFILE);
    assert!(context.join("openhands/a.py").exists());
    assert!(!context.join("openhands/notes.md").exists());
    assert!(!context.join("tests").exists());
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(registry.tags("acme/agent-server"), Vec::<String>::new());

    let built = run(&BUILD);
    assert_eq!(built["action"], "build");
    assert_eq!(built["tags"], plan["tags"]);
    for reference in strings(&built["tags"]) {
        let digest = &trilith.json(&["inspect", reference])["digest"];
        assert_eq!(digest, &built["digest"]);
    }
    let rootfs = trilith.home().join("rootfs");
    let place = format!("dir:{}", rootfs.display());
    trilith.json(&["copy", built["reference"].as_str().unwrap(), &place]);
    let facts = std::fs::read_to_string(rootfs.join("facts")).unwrap();
    assert_eq!(facts, "python 1.2.0\n");
    let files = std::fs::read_to_string(rootfs.join("files")).unwrap();
    assert!(files.contains("./openhands/a.py\n"), "{files}");
    assert!(!files.contains("notes.md"), "{files}");

    // What is not sent is no input, and a commit is none either.
    project.write("openhands/notes.md", "other\n");
    project.write(".git/HEAD", "0123456789012345678901234567890123456789\n");
    let again = run(&[&BUILD[..], &["--tag", "latest", "--load"]].concat());
    assert_eq!(again["action"], "reuse");
    let latest = registry.reference("acme/agent-server:latest");
    assert_eq!(strings(&again["tags"]), [&*latest]);
    assert_eq!(
        trilith.json(&["inspect", &latest])["digest"],
        built["digest"]
    );
    assert!(engine.images().contains(&latest), "{:?}", engine.images());
    let only_engine = [&BUILD[..5], &["--tag", "local", "--load"]].concat();
    assert_eq!(run(&only_engine)["action"], "reuse");
    let local = registry.reference("acme/agent-server:local");
    assert!(engine.images().contains(&local), "{:?}", engine.images());
    assert_eq!(registry.manifest("acme/agent-server", "local"), None);
    let development = run(&[&BUILD[..], &["--target", "source"]].concat());
    assert!(
        strings(&development["tags"])
            .iter()
            .all(|tag| tag.ends_with("-dev")),
        "{development}"
    );
}

#[test]
fn a_runtime_is_built_from_its_lock_image() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (Engine::docker_20(), Trilith::new());
    let project = v0_checkout();
    let repository = registry.reference("acme/runtime");
    let image = (&*base.reference, &*repository);
    let run = |command: &[&str]| {
        with_preset(
            (&trilith, &engine),
            command,
            "openhands-v0",
            &project,
            image,
        )
    };
    let built = run(&BUILD);
    assert_eq!(strings(&built["tags"]).len(), 3, "{built}");
    project.write("openhands/__init__.py", "CHANGED = 1\n");
    let changed = run(&BUILD);
    assert_eq!(strings(&changed["tags"]).len(), 1, "{changed}");
    assert_eq!(run(&["plan"])["action"], "reuse");

    // The tags know nothing of skills, and the image's key does.
    project.write("skills/one.md", "# Other\n");
    let other = run(&BUILD);
    assert_eq!(other["action"], "build");
    assert_eq!(other["reference"], changed["reference"]);
    assert_ne!(other["digest"], changed["digest"]);
}
