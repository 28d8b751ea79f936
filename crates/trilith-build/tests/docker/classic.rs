//! Engines whose BuildKit is not spoken with, and one that only looks like Docker.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use trilith_build::engine::{
    BuildSecret, DockerEngine, Engine, EngineError, Export, Feature, SecretSource,
};
use trilith_oci::Kind;
use trilith_oci::registry::Secret;
use trilith_testkit::{
    Dockerd, DockerdOptions, ImageOptions, Podman, Registry, RegistryOptions, busybox_image,
    stdout_of,
};

use crate::build::{Build, Told};
use crate::parts::{docker_at, is_running, parts, until};
use crate::relay::{Passes, Relay};

/// Returns an engine that does not give away connections to BuildKit, as before 19.03; those of
/// 19.03 are not taken.
fn old() -> (Relay, DockerEngine) {
    let relay = Relay::start(&parts().docker.host(), Passes::NoBuildKit);
    let engine = docker_at(&format!("unix://{}", relay.socket().display()), &[]);
    (relay, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_and_caches() {
    let parts = parts();
    let (_relay, engine) = old();
    let info = engine.info().await.unwrap();
    let features = info.capabilities.features;
    assert_eq!(
        features,
        [Feature::Load, Feature::Push, Feature::CacheImport].into()
    );
    let mut build = Build::new(
        "ARG BASE\nFROM $BASE AS deps\nARG WORD\nCOPY tools/ /tools/\n\
         RUN echo \"said $WORD\" && sh /tools/greet.sh > /greeting && cat /etc/hosts >> /greeting\n\
         FROM deps AS other\nRUN exit 1\n",
    )
    .arg("BASE", &parts.base)
    .arg("WORD", "hello")
    .arg("http_proxy", "http://agent:proxy-pa55word@127.0.0.1:9")
    .label("dev.trilith.level", "lock");
    build.file(
        "tools/greet.sh",
        "echo greetings via $http_proxy; echo $http_proxy >&2\n",
    );
    build.target = Some("deps");
    build.extra_hosts = vec![("build.example".to_owned(), "192.0.2.7".to_owned())];
    let told = Told::default();
    let built = build.run(&engine, &told).await.unwrap();
    let log = told.log("RUN echo");
    // The engine reads the two outputs side by side.
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["http://[redacted]@127.0.0.1:9", "said hello"]);
    assert_eq!(told.end("[deps 5/6] RUN echo"), (false, None));
    let greeting = parts.sh(&built, "cat /greeting; stat -c %Y /tools/greet.sh");
    assert!(
        greeting.starts_with("greetings via http://agent"),
        "{greeting}"
    );
    assert!(greeting.contains("192.0.2.7\tbuild.example"), "{greeting}");
    assert!(greeting.ends_with("\n0"), "{greeting}");
    assert_eq!(parts.labels(&built)["dev.trilith.level"], "lock");

    let told = Told::default();
    assert_eq!(build.run(&engine, &told).await.unwrap(), built);
    assert_eq!(told.end("RUN echo"), (true, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_told_the_address_of_the_machine() {
    let parts = parts();
    let bridged = Dockerd::start_with(DockerdOptions {
        bridge: true,
        ..DockerdOptions::default()
    });
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("base.tar");
    let archive = archive.to_str().unwrap();
    parts.docker(&["pull", &parts.base]);
    parts.docker(&["save", "--output", archive, &parts.base]);
    stdout_of(bridged.docker().args(["load", "--input", archive]));
    let mut addresses = Command::new("busybox");
    addresses.args(["ip", "-4", "address", "show", "docker0"]);
    let addresses = stdout_of(&mut bridged.inside_network(&addresses));
    let relay = Relay::start(&bridged.host(), Passes::NoBuildKit);
    let engine = docker_at(&format!("unix://{}", relay.socket().display()), &[]);
    let mut build = Build::new(&format!("FROM {}\nRUN cat /etc/hosts\n", parts.base));
    build.extra_hosts = vec![("machine".to_owned(), "host-gateway".to_owned())];
    let told = Told::default();
    build.run(&engine, &told).await.unwrap();
    let log = told.log("RUN");
    let line = log.lines().find(|line| line.ends_with("\tmachine"));
    let (address, _) = line.unwrap().split_once('\t').unwrap();
    assert!(
        addresses.contains(&format!("inet {address}/")),
        "{log}{addresses}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures() {
    let parts = parts();
    let (_relay, engine) = old();
    let build = Build::new(&format!(
        "FROM {} AS deps\nRUN seq 1 80; printf unfinished; exit 3\n",
        parts.base
    ));
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    let EngineError::Step { step, reason, log } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(step, "[deps 2/2] RUN seq 1 80; printf unfinished; exit 3");
    assert_eq!((reason.as_str(), log.len()), ("exit code: 3", 50));
    assert_eq!(log.last().unwrap(), "unfinished");

    let missing = parts.registry.reference("missing:2");
    let build = Build::new(&format!("FROM {missing}\n"));
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");

    let mut build = Build::new(&format!("FROM {}\nCOPY data /file\n", parts.base));
    build.file("data", "before");
    let context = Arc::new(build.context());
    build.file("data", "after!");
    let request = build.request(context);
    let error = engine
        .build(&request, Export::Keep, &|_| ())
        .await
        .unwrap_err();
    assert!(matches!(error, EngineError::Context(_)), "{error:?}");

    build.secrets = vec![BuildSecret {
        id: "x".to_owned(),
        source: SecretSource::Value(Secret::new("planted")),
    }];
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    assert!(
        error.to_string().ends_with("cannot mount build secrets"),
        "{error}"
    );

    let seconds = format!("66{}", std::process::id());
    let sleep = format!("sleep {seconds}");
    let build = Build::new(&format!("FROM {}\nRUN {sleep}\n", parts.base));
    let told = Told::default();
    tokio::select! {
        built = build.run(&engine, &told) => panic!("{built:?}"),
        () = until("the step runs", || is_running(&sleep)) => {}
    }
    until("the step is gone", || !is_running(&sleep)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_behind_a_password() {
    let auth = Some(("agent".to_owned(), "planted-pa55word".to_owned()));
    let registry = Registry::start(RegistryOptions {
        auth,
        ..RegistryOptions::default()
    });
    let base = busybox_image(&registry, "base:1", &ImageOptions::default()).reference;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    let login = serde_json::json!({ "username": "agent", "password": "planted-pa55word" });
    let config = serde_json::json!({ "auths": { registry.host(): login } });
    fs::write(&file, config.to_string()).unwrap();
    let (relay, engine) = old();
    let build = Build::new(&format!("FROM {base}\nLABEL x=y\n"));
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
    let engine = docker_at(&format!("unix://{}", relay.socket().display()), &[&file]);
    let told = Told::default();
    build.run(&engine, &told).await.unwrap();
    assert!(!format!("{:?}", told.all()).contains("planted-pa55word"));
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_is_not_docker() {
    let podman = Podman::new();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("podman.sock");
    let address = format!("unix://{}", socket.display());
    let mut service = podman.podman();
    service.args(["system", "service", "--time=0", &address]);
    let mut service = service.spawn().unwrap();
    until("podman answers", || socket.exists()).await;
    let engine = docker_at(&address, &[]);
    let error = loop {
        match engine.info().await.unwrap_err() {
            // It makes its socket before it listens.
            EngineError::Unreachable { .. } => tokio::task::yield_now().await,
            other => break other,
        }
    };
    service.kill().unwrap();
    service.wait().unwrap();
    assert!(
        matches!(error, EngineError::Unsupported { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("it is Podman"), "{error}");
}
