//! Builds that fail, are ended, or know a secret.

use std::process::Command;

use serde_json::Value;
use trilith_testkit::{
    Fault, FaultProxy, ImageOptions, Project, Registry, RegistryOptions, Rule, assert_success,
    busybox_image, run,
};

use super::parts::*;
use crate::support::{Trilith, on, path};

on! {
    [docker_20, docker_26, docker_with_containerd, podman_4, podman_5, buildkit]:
    a_failing_step_moves_no_tag,
    secrets_stay_secret,
    an_interrupted_build_leaves_nothing,
}
// On engines that push over plain HTTP at once: containerd tries TLS first, and takes the proxy
// that refuses for one that is broken.
on!([docker_20, docker_26, podman_4, podman_5]: a_refused_push_moves_no_tag);
// The engine is not asked: one of each kind stands for all.
on!([docker_20, podman_4, buildkit]: an_unreadable_context_moves_no_tag);

fn a_failing_step_moves_no_tag(engine: Start) {
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
    assert_tidy(&trilith, &engine);

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

/// What cannot be read of the context is named, before the engine is asked for anything.
fn an_unreadable_context_moves_no_tag(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    project.write("app/private/key", "x\n");
    let known = |engine: &Engine| match engine.name {
        "buildkit" => Vec::new(),
        _ => engine.client(&["images", "--all", "--quiet"]).stdout,
    };
    let flags = ["--push"];
    let nothing = known(&engine);
    for (what, name, mode) in [("read", "app/run", 0o644), ("list", "app/private", 0o755)] {
        project.set_mode(name, 0o000);
        let error = refused_without_rights(&trilith, &engine, &project, &flags);
        let said = format!("error: cannot {what} `{}/{name}`", path(&project));
        assert!(error.contains(&said), "{error}");
        assert!(error.contains("ermission denied"), "{error}");
        assert!(
            error.contains("hint: make it readable, or add it"),
            "{error}"
        );
        assert!(!error.contains("building "), "{error}");
        project.set_mode(name, mode);
    }
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert_eq!(known(&engine), nothing);
    assert_tidy(&trilith, &engine);

    // Nor is what was read once taken for what it is now.
    let first = built(&trilith, &engine, &project, &flags);
    let (before, images) = (registry.tags("acme/app"), known(&engine));
    project.set_mode("app/private/key", 0o000);
    let flags = ["--push", "--force"];
    let error = refused_without_rights(&trilith, &engine, &project, &flags);
    assert!(error.contains("cannot read `"), "{error}");
    assert!(error.contains("app/private/key"), "{error}");
    assert_eq!(registry.tags("acme/app"), before);
    assert_eq!(known(&engine), images);
    project.set_mode("app/private/key", 0o644);
    let same = built(&trilith, &engine, &project, &["--push"]);
    assert_eq!(
        (&same["action"], &same["digest"]),
        (&"reuse".into(), &first["digest"])
    );
}

/// Returns what a failing build prints that may not read every file, as root may.
fn refused_without_rights(
    trilith: &Trilith,
    engine: &Engine,
    project: &Project,
    flags: &[&str],
) -> String {
    let build = build(trilith, engine, project, flags);
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(build.get_program())
        .args(build.get_args())
        .env_clear()
        .envs(
            build
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let output = run(&mut command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

fn secrets_stay_secret(engine: Start) {
    const SECRET: &str = "s3cr3t-that-nobody-may-see";
    const PROXY: &str = "pr0xy-passw0rd";
    const LOGIN: &str = "r3gistry-passw0rd";
    let registry = Registry::start(RegistryOptions {
        auth: Some(("robot".to_owned(), LOGIN.to_owned())),
        ..RegistryOptions::default()
    });
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    trilith.log_in(&registry);
    let step = "RUN --mount=type=secret,id=token grep -c nobody /run/secrets/token > /seen; \
        echo \"by $http_proxy\"";
    project.write("Dockerfile", format!("{DOCKERFILE}{step}\n"));
    let proxy = format!("http_proxy=http://me:{PROXY}@127.0.0.1:9/");
    let mut command = build(
        &trilith,
        &engine,
        &project,
        &["--push", "--progress", "json"],
    );
    command.args(["--secret", "id=token,env=TOKEN", "--format", "json"]);
    command.args(["--build-arg", &proxy]);
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
        for secret in [SECRET, PROXY, LOGIN] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    let found = run(Command::new("grep")
        .args(["-rl", "-e", SECRET, "-e", PROXY, "-e", LOGIN])
        .args([&rootfs, trilith.home()]));
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

fn an_interrupted_build_leaves_nothing(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let slow = format!("{DOCKERFILE}RUN echo waiting && sleep 300\n");
    project.write("Dockerfile", slow);
    let waiting = Waiting::start(build(&trilith, &engine, &project, &["--push"]));
    let pid = waiting.id().to_string();
    assert_success(Command::new("kill").args(["-INT", &pid]));
    let said = waiting.failure();
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);
}

/// A registry that refuses what is pushed is told of, and nothing stays behind.
fn a_refused_push_moves_no_tag(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let proxy = FaultProxy::start(registry.host());
    proxy.add(Rule::new("PUT", "/manifests/", Fault::status(403)));
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let elsewhere = proxy.reference("acme/app");
    let flags = ["--push", "--repository", &elsewhere];
    let error = refused(&trilith, &engine, &project, &flags);
    assert!(
        error.contains("error: ") && error.contains("push"),
        "{error}"
    );
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);

    // Once it takes it, all of it is there.
    proxy.clear();
    assert_eq!(tags(&built(&trilith, &engine, &project, &flags)), 3);
    assert_eq!(level_tags(&registry), 3);
}
