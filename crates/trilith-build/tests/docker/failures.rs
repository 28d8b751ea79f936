//! Builds that fail, and what they leave behind.

use std::fs;
use std::sync::Arc;

use trilith_build::engine::{Engine, EngineError, Export};
use trilith_core::Platform;
use trilith_oci::Kind;
use trilith_testkit::{Dockerd, Format, ImageOptions, busybox_image};

use crate::build::{Build, Told};
use crate::parts::{Parts, docker_at, is_running, kill, parts, running, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_named_with_its_last_lines() {
    failing_step(parts()).await;
}

pub(crate) async fn failing_step(parts: &Parts) {
    let build = Build::new(&format!(
        "FROM {} AS deps\nRUN seq 1 80; printf unfinished; exit 3\n\
         FROM deps\nRUN echo never\n",
        parts.base
    ));
    let told = Told::default();
    let error = build.run(&parts.engine(), &told).await.unwrap_err();
    let EngineError::Step { step, reason, log } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(step, "[deps 2/2] RUN seq 1 80; printf unfinished; exit 3");
    assert_eq!(reason, "exit code: 3");
    let mut lines: Vec<String> = (32..=80).map(|line| line.to_string()).collect();
    lines.push("unfinished".to_owned());
    assert_eq!(*log, lines);
    assert_eq!(error.kind(), Kind::System);
    assert!(told.log("RUN seq").starts_with("1\n2\n3\n"));
    assert!(told.end("RUN seq").1.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_built() {
    let parts = parts();
    let missing = parts.registry.reference("missing:1");
    for (dockerfile, kind, reason) in [
        (format!("FROM {missing}\n"), Kind::NotFound, "missing:1"),
        (
            "FORM scratch\n".to_owned(),
            Kind::Usage,
            "unknown instruction",
        ),
        (
            format!("FROM {}\nCOPY nothing /\n", parts.base),
            Kind::System,
            "nothing",
        ),
    ] {
        let build = Build::new(&dockerfile);
        let error = build
            .run(&parts.engine(), &Told::default())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.to_lowercase().contains(reason), "{text}");
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!text.contains("rpc error"), "{text}");
    }
    let mut build = Build::new("FROM scratch\nCOPY Dockerfile /\n");
    build.target = Some("nowhere");
    let error = build
        .run(&parts.engine(), &Told::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    let options = ImageOptions::multi_platform(Format::Oci);
    let base = busybox_image(&parts.registry, "many:1", &options).reference;
    let mut build = Build::new(&format!("FROM {base}\nRUN true\n"));
    build.platform = Platform::new("linux", "s390x", None);
    let error = build
        .run(&parts.engine(), &Told::default())
        .await
        .unwrap_err();
    let expected = format!("docker failed to fetch `{base}`: ");
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(
        error.to_string().contains("no match for platform"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent() {
    let parts = parts();
    let build = Build::new(&format!("FROM {}\nCOPY data /\n", parts.base));
    for change in ["longer than before", "after!", "gone"] {
        build.file("data", "before");
        let context = Arc::new(build.context());
        if change == "gone" {
            fs::remove_file(build.path().join("data")).unwrap();
        } else {
            build.file("data", change);
        }
        let engine = parts.engine();
        let request = build.request(context);
        let error = engine
            .build(&request, Export::Keep, &|_| ())
            .await
            .unwrap_err();
        let EngineError::Context(error) = &error else {
            panic!("{error:?}");
        };
        let expected = format!(
            "`{}/data` changed while the build context was sent",
            fs::canonicalize(build.path()).unwrap().display()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_build_is_stopped() {
    dropped_build(parts()).await;
}

pub(crate) async fn dropped_build(parts: &Parts) {
    let seconds = format!("77{}", std::process::id());
    let build = Build::new(&format!("FROM {}\nRUN sleep {seconds}\n", parts.base));
    let sleep = format!("sleep {seconds}");
    let engine = parts.engine();
    let told = Told::default();
    tokio::select! {
        built = build.run(&engine, &told) => panic!("{built:?}"),
        () = until("the step runs", || is_running(&sleep)) => {}
    }
    until("the step is gone", || !is_running(&sleep)).await;
    let build = Build::new(&format!("FROM {}\nRUN true\n", parts.base));
    build.run(&engine, &Told::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_or_was_never_there() {
    let parts = Parts::start(Dockerd::start);
    let seconds = format!("88{}", std::process::id());
    let build = Build::new(&format!("FROM {}\nRUN sleep {seconds}\n", parts.base));
    let sleep = format!("sleep {seconds}");
    let engine = parts.engine();
    let told = Told::default();
    let killed = async {
        until("the step runs", || is_running(&sleep)).await;
        kill(&parts.pid());
        // What a daemon leaves running that is killed, nobody else ends.
        kill(&running(&sleep)[0]);
        until("the step is gone", || !is_running(&sleep)).await;
    };
    let (built, ()) = tokio::join!(build.run(&engine, &told), killed);
    let error = built.unwrap_err();
    assert!(matches!(error, EngineError::Lost { .. }), "{error:?}");
    assert!(error.is_retryable());
    let error = build.run(&parts.engine(), &told).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );

    let engine = docker_at("unix:///nonexistent/docker.sock", &[]);
    let error = engine.info().await.unwrap_err();
    let expected = "docker does not answer at `unix:///nonexistent/docker.sock`";
    assert_eq!(error.to_string(), expected);
}
