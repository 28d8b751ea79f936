//! What an engine is told besides the recipe: caches, agents, and bases that no engine can get at.

use std::process::{Command, Stdio};

use trilith_testkit::{
    Format, ImageOptions, Registry, RegistryOptions, assert_success, busybox_image, debian_image,
    run,
};

use super::parts::*;
use crate::support::{Trilith, on};

on!([docker_with_containerd, podman_5, buildkit]: a_cache_in_a_registry);
on!([docker_20, podman_4, buildkit]: steps_ask_an_ssh_agent);
on!([docker_20, podman_5, buildkit]: a_base_on_this_machine);
on!([docker_20, docker_26, podman_5]: links_are_followed);

/// A cold engine takes from a cache in a registry what another has run.
fn a_cache_in_a_registry(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = project(&registry, &base.reference);
    let first_engine = engine();
    // Podman names a repository, BuildKit an image in one.
    let cache = match first_engine.name {
        "podman" => registry.reference("acme/cache"),
        _ => format!(
            "type=registry,ref={},mode=max",
            registry.reference("acme/cache:1")
        ),
    };
    let flags = ["--push", "--cache-to", &cache];
    let trilith = Trilith::new();
    let first = built(&trilith, &first_engine, &project, &flags);
    let before = stamps(&trilith, &first["reference"]);

    // Elsewhere nothing is there to be reused.
    let (cold, trilith) = (engine(), Trilith::new());
    let elsewhere = registry.reference("acme/other");
    let cache = cache.trim_end_matches(",mode=max");
    let flags = ["--push", "--repository", &elsewhere, "--cache-from", cache];
    let second = built(&trilith, &cold, &project, &flags);
    assert_eq!((&second["action"], tags(&second)), (&"build".into(), 3));
    assert_eq!(stamps(&trilith, &second["reference"]), before, "{second}");
    let steps = ["step_count", "cached_steps", "cache_misses"];
    let steps = steps.map(|name| second["telemetry"][name].as_u64().unwrap());
    assert_eq!(steps, [5, 5, 0], "{second}");
}

#[test]
fn what_an_engine_cannot_do_is_refused() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = project(&registry, &base.reference);
    let trilith = Trilith::new();
    let directory = format!("type=local,dest={}", project.path().join("cache").display());
    let cache = format!("type=registry,ref={}", registry.reference("acme/cache:1"));
    let buildkit: Start = Engine::buildkit;
    let docker: Start = Engine::docker_20;
    let podman: Start = Engine::podman_4;
    for (engine, flags, said) in [
        (docker, &["--cache-to", &cache], "cannot export its cache"),
        (podman, &["--cache-to", &directory], "cache"),
        (buildkit, &["--push", "--load"], "cannot keep images"),
    ] {
        let engine = engine();
        let error = refused(&trilith, &engine, &project, flags);
        assert!(
            error.contains(engine.name) && error.contains(said),
            "{error}"
        );
        assert!(error.contains("hint: "), "{error}");
        assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
        assert_tidy(&trilith, &engine);
    }
}

/// Asks the agent which keys it has, and prints what it says.
const ASKS_AGENT: &str = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); \
    s.connect(os.environ['SSH_AUTH_SOCK']); s.sendall(b'\\0\\0\\0\\1\\x0b'); \
    answer = s.makefile('rb'); length = int.from_bytes(answer.read(4), 'big'); \
    print('the agent has', answer.read(length)[-12:].decode())";

/// An agent of this machine with a key; it ends with its socket's directory.
struct Agent {
    running: std::process::Child,
    directory: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "key-of-tests", "-f"]);
        assert_success(keygen.arg(at("key")));
        let mut agent = Command::new("ssh-agent");
        agent
            .arg("-D")
            .arg("-a")
            .arg(at("agent"))
            .stdout(Stdio::null());
        let running = agent.spawn().unwrap();
        let add = || {
            let mut add = Command::new("ssh-add");
            run(add.arg(at("key")).env("SSH_AUTH_SOCK", at("agent")))
        };
        // It takes a moment to listen.
        let added = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            add().status.success()
        });
        assert!(added, "{:?}", add());
        Self { running, directory }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running.kill().unwrap();
        self.running.wait().unwrap();
    }
}

fn steps_ask_an_ssh_agent(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = debian_image(&registry, "base:1", Format::Oci, true);
    let (engine, trilith, agent) = (engine(), Trilith::new(), Agent::start());
    let project = project(&registry, &base.reference);
    let asks = format!("RUN --mount=type=ssh python3 -c \"{ASKS_AGENT}\"\n");
    project.write("Dockerfile", format!("{DOCKERFILE}{asks}"));
    let ssh = format!("default={}", agent.directory.path().join("agent").display());
    let output = assert_success(&mut build(
        &trilith,
        &engine,
        &project,
        &["--push", "--ssh", &ssh],
    ));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the agent has key-of-tests"), "{said}");
    assert_eq!(level_tags(&registry), 3);

    // Without the flag there is no agent to ask.
    let flags = ["--push", "--force", "--no-cache"];
    let error = refused(&trilith, &engine, &project, &flags);
    assert!(error.contains("error: "), "{error}");
}

/// A base that is a file of this machine is brought to the registry that is pushed to, and
/// otherwise refused.
fn a_base_on_this_machine(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let directory = tempfile::tempdir().unwrap();
    for kind in ["oci", "oci-archive", "docker-archive", "dir"] {
        let place = format!("{kind}:{}", directory.path().join(kind).display());
        trilith.json(&["copy", &base.reference, &place]);
        for flags in [&[][..], &["--load"]] {
            if engine.name == "buildkit" && flags == ["--load"] {
                continue;
            }
            let flags = [flags, &["--base-image", &place]].concat();
            let error = refused(&trilith, &engine, &project, &flags);
            assert!(
                error.contains(&place) && error.contains("hint: "),
                "{error}"
            );
            assert!(error.contains("trilith copy"), "{error}");
        }
        let repository = registry.reference(&format!("acme/{kind}"));
        let flags = [
            "--push",
            "--base-image",
            &place,
            "--repository",
            &repository,
        ];
        let first = built(&trilith, &engine, &project, &flags);
        assert_eq!(tags(&first), 3, "{first}");
        assert_eq!(stamps(&trilith, &first["reference"]).len(), 3);
        let again = built(&trilith, &engine, &project, &flags);
        assert_eq!(again["action"], "reuse", "{again}");
    }
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);
}

/// Instructions copy through symbolic links of the context.
fn links_are_followed(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    std::os::unix::fs::symlink("app", project.path().join("current")).unwrap();
    let through = DOCKERFILE.replace("COPY app /opt/app", "COPY current/run /opt/app/run");
    project.write("Dockerfile", through);
    let first = built(&trilith, &engine, &project, &["--push"]);
    let rootfs = tempfile::tempdir().unwrap();
    let rootfs = rootfs.path().join("rootfs");
    let reference = first["reference"].as_str().unwrap();
    trilith.json(&["copy", reference, &format!("dir:{}", rootfs.display())]);
    let copied = std::fs::read_to_string(rootfs.join("opt/app/run")).unwrap();
    assert_eq!(copied, project.read("app/run"));
    project.write("app/run", "changed\n");
    assert_eq!(tags(&built(&trilith, &engine, &project, &["--push"])), 1);
}
