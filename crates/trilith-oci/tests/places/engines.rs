//! A private Docker daemon, spoken to through its own API and its own archives.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use trilith_oci::Kind;
use trilith_oci::archive::{
    Daemon, DockerArchiveOptions, LayerForm, open_docker_archive, write_docker_archive,
};
use trilith_oci::place::DaemonImage;
use trilith_oci::rootfs::open_scratch;
use trilith_testkit::{
    Compression, Dockerd, Format, ImageOptions, Registry, RegistryOptions, assert_success,
    busybox_image, stdout_of,
};

use super::{docker_run, docker_source, push, remote, skopeo_id};

fn named(reference: &str) -> DaemonImage {
    DaemonImage::Reference(reference.parse().unwrap())
}

#[tokio::test]
async fn images_go_into_the_engine_and_out_again() {
    let registry = Registry::start(RegistryOptions::default());
    let dockerd = Dockerd::start();
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::try_new(&dockerd.host()).unwrap();
    for (app, format, compression) in [
        ("acme/oci:1", Format::Oci, Compression::Zstd),
        ("acme/docker:1", Format::DockerV2s2, Compression::Gzip),
    ] {
        assert_eq!(daemon.image_id(&named(app)).await.unwrap(), None);
        let options = ImageOptions {
            format,
            compression,
            ..ImageOptions::default()
        };
        let image = busybox_image(&registry, "base:1", &options);
        let id = skopeo_id(&format!("docker://{}", image.reference));
        let (store, name) = remote(&registry, "base:1");
        let options = DockerArchiveOptions {
            platform: None,
            references: vec![
                app.parse().unwrap(),
                format!("ghcr.io/{app}").parse().unwrap(),
            ],
        };
        let load = || daemon.load(Arc::clone(&store), &name, &options, directory.path());
        let report = load().await.unwrap();
        assert_eq!((report.blobs_copied, report.blobs_skipped), (3, 0));
        assert_eq!(report.digest.as_str(), image.digest);
        for name in [app, &format!("ghcr.io/{app}")] {
            let loaded = daemon.image_id(&named(name)).await.unwrap().unwrap();
            assert_eq!(loaded.as_str(), id);
            let motd = docker_run(&dockerd, name, &["cat", "/etc/motd"]);
            assert_eq!(motd, "welcome back");
        }
        // What is there is not sent again.
        let report = load().await.unwrap();
        assert_eq!((report.blobs_copied, report.blobs_skipped), (0, 3));

        let by_id = DaemonImage::Id(id.parse().unwrap());
        for image in [named(app), by_id] {
            let options = docker_source(directory.path(), LayerForm::Gzip);
            let source = daemon.open(&image, &options).await.unwrap();
            push(&source, &registry, "copy:1").await;
            let copy = registry.reference("copy:1");
            assert_eq!(skopeo_id(&format!("docker://{copy}")), id);
            assert_success(dockerd.docker().args(["pull", "--quiet", &copy]));
            assert_eq!(
                docker_run(&dockerd, &copy, &["cat", "/etc/motd"]),
                "welcome back"
            );
        }
    }
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "temporary files were left");
}

#[tokio::test]
async fn archives_to_and_from_the_docker_command() {
    let registry = Registry::start(RegistryOptions::default());
    let dockerd = Dockerd::start();
    let directory = tempfile::tempdir().unwrap();
    let written = directory.path().join("ours.tar");
    let saved = directory.path().join("saved.tar");
    let image = busybox_image(&registry, "base:1", &ImageOptions::default());
    let id = skopeo_id(&format!("docker://{}", image.reference));
    let (store, name) = remote(&registry, "base:1");
    let options = DockerArchiveOptions {
        platform: None,
        references: vec!["acme/app:1".parse().unwrap()],
    };
    write_docker_archive(store, &name, &written, &options)
        .await
        .unwrap();
    assert_success(dockerd.docker().arg("load").arg("--input").arg(&written));
    let loaded = stdout_of(
        dockerd
            .docker()
            .args(["inspect", "--format", "{{.Id}}", "acme/app:1"]),
    );
    assert_eq!(loaded, id);

    // A second image over the first: the archive holds the shared layers once, as a link.
    assert_success(
        dockerd
            .docker()
            .args(["run", "--name", "changed", "--network", "none"])
            .args(["acme/app:1", "sh", "-c", "echo more > /more"]),
    );
    assert_success(dockerd.docker().args(["commit", "changed", "acme/app:2"]));
    let mut save = dockerd.docker();
    save.args(["save", "acme/app:1", "acme/app:2", "--output"]);
    assert_success(save.arg(&saved));
    let options = docker_source(directory.path(), LayerForm::Gzip);
    let error = open_docker_archive(&saved, None, &options)
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    for (reference, file, expected) in [
        ("acme/app:1", "/etc/motd", "welcome back"),
        ("acme/app:2", "/more", "more"),
    ] {
        let parsed = reference.parse().unwrap();
        let source = open_docker_archive(&saved, Some(&parsed), &options)
            .await
            .unwrap();
        push(&source, &registry, "copy:1").await;
        let copy = registry.reference("copy:1");
        assert_success(dockerd.docker().args(["pull", "--quiet", &copy]));
        assert_eq!(docker_run(&dockerd, &copy, &["cat", file]), expected);
    }
}

#[tokio::test]
async fn an_engine_says_what_is_wrong() {
    let dockerd = Dockerd::start();
    let directory = tempfile::tempdir().unwrap();
    let options = docker_source(directory.path(), LayerForm::Gzip);
    let daemon = Daemon::try_new(&dockerd.host()).unwrap();
    let error = daemon.open(&named("gone:1"), &options).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("does not exist"), "{error}");

    let socket = directory.path().join("none.sock");
    let absent = Daemon::try_new(&format!("unix://{}", socket.display())).unwrap();
    let error = absent.image_id(&named("a")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("none.sock"), "{error}");
    assert!(error.hint().is_some());

    for host in [
        "ssh://a",
        "unix://relative",
        "tcp://",
        "/var/run/docker.sock",
        "",
    ] {
        let error = Daemon::try_new(host).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{host}");
    }
}

/// Answers the first request on a loopback port with `answer`, whatever it is, and hangs up.
async fn engine_that_says(answer: String) -> Daemon {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        // The end of a request's head, or of a short body sent in pieces.
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut request).await.unwrap();
            seen.extend_from_slice(&request[..count]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        // To close with bytes unread would take the answer back.
        while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
    });
    Daemon::try_new(&format!("tcp://{address}")).unwrap()
}

fn ok(length: usize, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn an_engine_that_breaks_off_or_talks_nonsense() {
    let directory = tempfile::tempdir().unwrap();
    let options = docker_source(directory.path(), LayerForm::Gzip);
    for (answer, kind, reason) in [
        (ok(1 << 20, "half of it"), Kind::Unavailable, ""),
        (ok(0, ""), Kind::Corrupt, "malformed"),
        (ok(4, "junk"), Kind::Corrupt, "malformed"),
        (
            "HTTP/1.1 500 Oops\r\nContent-Length: 23\r\n\r\n{\"message\":\"disk full\"}".to_owned(),
            Kind::Unavailable,
            "disk full",
        ),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Kind::Denied,
            "403",
        ),
        ("nonsense\r\n\r\n".to_owned(), Kind::Unavailable, ""),
    ] {
        let engine = engine_that_says(answer).await;
        let error = engine.open(&named("a"), &options).await.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    for (answer, reason) in [
        (ok(4, "junk"), "expected"),
        (ok(12, r#"{"Id":"abc"}"#), "its ID"),
        (ok(2 << 20, &"x".repeat(2 << 20)), "longer than 1 MiB"),
    ] {
        let engine = engine_that_says(answer).await;
        let error = engine.image_id(&named("a")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_the_engine_refuses_is_a_failure_though_the_status_says_success() {
    let directory = tempfile::tempdir().unwrap();
    let line = r#"{"errorDetail":{"message":"no space"},"error":"no space"}"#;
    let engine = engine_that_says(ok(line.len() + 2, &format!("{line}\r\n"))).await;
    let platform = "linux/amd64".parse().unwrap();
    let (store, name) = open_scratch(&platform).unwrap();
    // Without a name the engine is not asked what it has.
    let options = DockerArchiveOptions::default();
    let error = engine
        .load(store, &name, &options, directory.path())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("load an image") && error.to_string().contains("no space"));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
