//! Builds that succeed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use trilith_build::engine::{
    BuildSecret, CacheEntry, Engine, EngineError, EngineKind, Feature, NamedContext, SecretSource,
    SshAgent,
};
use trilith_core::Platform;
use trilith_oci::registry::Secret;

use crate::build::{Build, Told};
use crate::parts::{Parts, parts};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_arguments_labels_and_hosts() {
    target_with_arguments_labels_and_hosts(parts()).await;
}

pub(crate) async fn target_with_arguments_labels_and_hosts(parts: &Parts) {
    let mut build = Build::new(
        "ARG BASE\nFROM $BASE AS deps\nARG WORD\nCOPY tools/ /tools/\n\
         RUN echo \"said $WORD\" && sh /tools/greet.sh > /greeting && cat /etc/hosts >> /greeting\n\
         FROM deps AS other\nRUN exit 1\n",
    )
    .arg("BASE", &parts.base)
    .arg("WORD", "hello")
    .label("dev.trilith.level", "lock");
    build.file("tools/greet.sh", "echo greetings\n");
    build.file("tools/not-sent.md", "");
    build.file(".dockerignore", "**/*.md\n");
    std::os::unix::fs::symlink("greet.sh", build.path().join("tools/link")).unwrap();
    build.target = Some("deps");
    build.extra_hosts = vec![("build.example".to_owned(), "192.0.2.7".to_owned())];
    let told = Told::default();
    let built = build.run(&parts.engine(), &told).await.unwrap();
    assert_eq!(told.log("RUN echo"), "said hello\n");
    assert_eq!(told.end("RUN echo"), (false, None));
    let greeting = parts.sh(&built, "cat /greeting");
    assert!(greeting.starts_with("greetings\n"), "{greeting}");
    assert!(greeting.contains("192.0.2.7\tbuild.example"), "{greeting}");
    // No time of this machine gets into the image.
    let files = parts.sh(&built, "cd /tools; stat -c '%n %Y %a %u' *; readlink link");
    assert_eq!(files, "greet.sh 0 644 0\nlink 0 777 0\ngreet.sh");
    assert_eq!(parts.labels(&built)["dev.trilith.level"], "lock");

    // Once more: nothing has to be done.
    let told = Told::default();
    let again = build.run(&parts.engine(), &told).await.unwrap();
    assert_eq!(again, built);
    assert_eq!(told.end("RUN echo"), (true, None));
    build.no_cache = true;
    let told = Told::default();
    build.run(&parts.engine(), &told).await.unwrap();
    assert_eq!(told.end("RUN echo"), (false, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_sent_even_if_they_keep_their_size() {
    let parts = parts();
    let build = Build::new(&format!("FROM {}\nCOPY a b/ /files/\n", parts.base));
    build.file("a", "one").file("b/c", "kept");
    let first = build.run(&parts.engine(), &Told::default()).await.unwrap();
    build.file("a", "two");
    let second = build.run(&parts.engine(), &Told::default()).await.unwrap();
    assert_eq!(parts.sh(&first, "cat /files/*"), "onekept");
    assert_eq!(parts.sh(&second, "cat /files/*"), "twokept");
    fs::remove_file(build.path().join("b/c")).unwrap();
    build.file("b/d", "new");
    let third = build.run(&parts.engine(), &Told::default()).await.unwrap();
    assert_eq!(parts.sh(&third, "cd /files; echo *"), "a d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_elsewhere_is_not_seen_by_instructions() {
    let parts = parts();
    let build = Build::new(&format!("FROM {}\nCOPY . /files/\n", parts.base));
    build.file(".dockerignore", "Dockerfile\n");
    let built = build.run(&parts.engine(), &Told::default()).await.unwrap();
    assert_eq!(parts.sh(&built, "cd /files; ls -A"), ".dockerignore");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_their_step_and_nothing_else() {
    secrets_show_nowhere(parts()).await;
}

pub(crate) async fn secrets_show_nowhere(parts: &Parts) {
    let proxy = "http://agent:proxy-pa55word@127.0.0.1:9";
    let mut build = Build::new(&format!(
        "FROM {}\n\
         RUN --mount=type=secret,id=token --mount=type=secret,id=file \
         cat /run/secrets/token /run/secrets/file | wc -c > /count && \
         cat /run/secrets/token /run/secrets/file && echo via $http_proxy && \
         printf 'planted-' && sleep 1 && echo t0ken\n",
        parts.base
    ))
    .arg("http_proxy", proxy);
    build.file("elsewhere/secret", "planted-file\nsecond-line\n");
    build.file(".dockerignore", "elsewhere\n");
    build.secrets = vec![
        BuildSecret {
            id: "token".to_owned(),
            source: SecretSource::Value(Secret::new("planted-t0ken")),
        },
        BuildSecret {
            id: "file".to_owned(),
            source: SecretSource::File(build.path().join("elsewhere/secret")),
        },
    ];
    let told = Told::default();
    let built = build.run(&parts.engine(), &told).await.unwrap();
    assert_eq!(parts.sh(&built, "cat /count"), "38");
    let id = built.id.as_str();
    let history = parts.docker(&["history", "--no-trunc", id]);
    let config = parts.docker(&["image", "inspect", id]);
    let log = told.log("RUN");
    assert!(log.contains("via http://[redacted]@127.0.0.1:9"), "{log}");
    for (place, text) in [
        ("events", format!("{:?}", told.all())),
        ("log", log),
        ("history", history),
        ("config", config),
    ] {
        for secret in [
            "planted-t0ken",
            "planted-file",
            "second-line",
            "proxy-pa55word",
        ] {
            assert!(!text.contains(secret), "{secret} is in the {place}: {text}");
        }
    }
    // A step that fails says no more.
    build.file(
        "Dockerfile",
        format!(
            "FROM {}\nRUN --mount=type=secret,id=token cat /run/secrets/token; exit 4\n",
            parts.base
        ),
    );
    let error = build
        .run(&parts.engine(), &Told::default())
        .await
        .unwrap_err();
    assert!(!format!("{error:?}").contains("planted-t0ken"), "{error:?}");
    let EngineError::Step { log, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(log, ["[redacted]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_use_an_ssh_agent() {
    let parts = parts();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut asked = [0; 5];
            if connection.read_exact(&mut asked).is_ok() {
                asked.reverse();
                connection.write_all(&asked).unwrap();
            }
        }
    });
    let script = "import os, socket; s = socket.socket(socket.AF_UNIX); \
        s.connect(os.environ['SSH_AUTH_SOCK']); s.send(b'hello'); print(s.recv(9))";
    let mut build = Build::new(&format!(
        "FROM {}\nRUN --mount=type=ssh python3 -c \"{script}\"\n",
        parts.python()
    ));
    build.ssh = vec![SshAgent {
        id: "default".to_owned(),
        socket,
    }];
    let told = Told::default();
    build.run(&parts.engine(), &told).await.unwrap();
    assert_eq!(told.log("RUN"), "b'olleh'\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_from_a_cache() {
    let parts = parts();
    let mut build = Build::new(&format!("FROM {}\nRUN date > /when\n", parts.base));
    build.cache_to = vec![CacheEntry {
        kind: "inline".to_owned(),
        options: [].into(),
    }];
    let engine = parts.engine();
    let built = build.run(&engine, &Told::default()).await.unwrap();
    let reference = parts.reference("cached:1");
    engine.tag(&built, &reference).await.unwrap();
    engine.push(&reference, &|_| ()).await.unwrap();
    let other = Parts::start(trilith_testkit::Dockerd::start);
    build.cache_to.clear();
    build.cache_from = vec![CacheEntry {
        kind: "registry".to_owned(),
        options: [("ref".to_owned(), reference.to_string())].into(),
    }];
    let told = Told::default();
    let again = build.run(&other.engine(), &told).await.unwrap();
    assert_eq!(told.end("RUN date"), (true, None));
    assert_eq!(other.sh(&again, "cat /when"), parts.sh(&built, "cat /when"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_says_what_it_cannot_do() {
    let parts = parts();
    let engine = parts.engine();
    let info = engine.info().await.unwrap();
    assert_eq!(info.kind, EngineKind::Docker);
    assert_eq!(info.address, parts.docker.host());
    assert!(info.version.starts_with("20.10."), "{info:?}");
    assert_eq!(info.capabilities.platforms[0], Platform::host());
    let features = info.capabilities.features;
    let expected = [
        Feature::Secrets,
        Feature::Ssh,
        Feature::CacheImport,
        Feature::Load,
        Feature::Push,
    ];
    assert_eq!(features, expected.into());

    let mut build = Build::new(&format!("FROM {}\n", parts.base));
    build.extra_hosts = vec![("machine".to_owned(), "host-gateway".to_owned())];
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unsupported { .. }),
        "{error:?}"
    );

    let mut build = Build::new("FROM scratch AS deps\nFROM deps\n");
    build.named_contexts = vec![NamedContext {
        stage: "deps".to_owned(),
        image: parts.base.parse().unwrap(),
    }];
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unsupported { .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .ends_with("cannot put images in place of stages"),
        "{error}"
    );
}
