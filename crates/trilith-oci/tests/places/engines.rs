//! A private Docker daemon, spoken to through its own API and its own archives.

use std::sync::Arc;

use trilith_oci::Kind;
use trilith_oci::archive::{
    Daemon, DockerArchiveOptions, LayerForm, open_docker_archive, write_docker_archive,
};
use trilith_oci::place::DaemonImage;
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
