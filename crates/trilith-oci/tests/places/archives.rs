//! Archives that skopeo, umoci, Docker and Podman made, and what they make of ours.

use std::fs;
use std::process::Command;

use trilith_oci::archive::{
    DockerArchiveOptions, LayerForm, OciArchiveOptions, open_docker_archive, open_oci_archive,
    write_docker_archive, write_oci_archive,
};
use trilith_testkit::{
    Compression, Format, ImageOptions, Podman, Registry, RegistryOptions, assert_success,
    busybox_image, skopeo, stdout_of, umoci,
};

use super::{docker_source, push, remote, skopeo_digest, skopeo_id};

#[tokio::test]
async fn oci_archives_of_others_are_read() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    for (name, options) in [
        ("base:oci", ImageOptions::default()),
        ("base:index", ImageOptions::multi_platform(Format::Oci)),
        (
            "base:zstd",
            ImageOptions {
                compression: Compression::Zstd,
                ..ImageOptions::default()
            },
        ),
    ] {
        let image = busybox_image(&registry, name, &options);
        let path = directory.path().join(name);
        let path = path.with_file_name(name.replace(':', "-"));
        let place = format!("oci-archive:{}:v1", path.display());
        let mut copy = skopeo("copy");
        copy.args(["--quiet", "--all", "--preserve-digests"]);
        assert_success(
            copy.arg(format!("docker://{}", image.reference))
                .arg(&place),
        );
        let tag = "v1".parse().unwrap();
        for tag in [None, Some(&tag)] {
            let source = open_oci_archive(&path, tag, directory.path())
                .await
                .unwrap();
            let report = push(&source, &registry, "copy:1").await;
            assert_eq!(report.digest.as_str(), image.digest, "{name}");
        }
        let copied = skopeo_digest(&format!("docker://{}", registry.reference("copy:1")));
        assert_eq!(copied, image.digest, "{name}");
    }
}

#[tokio::test]
async fn oci_archives_are_what_others_read() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let image = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (store, name) = remote(&registry, "base:1");
    let options = OciArchiveOptions {
        platform: None,
        tags: vec!["v1".parse().unwrap()],
    };
    write_oci_archive(store, &name, &path, &options)
        .await
        .unwrap();

    for place in ["oci-archive:{}", "oci-archive:{}:v1"] {
        let place = place.replace("{}", &path.display().to_string());
        assert_eq!(skopeo_digest(&place), image.digest);
    }
    let podman = Podman::new();
    assert_success(podman.podman().arg("load").arg("--input").arg(&path));
    let name = stdout_of(
        podman
            .podman()
            .args(["images", "--format", "{{.Repository}}:{{.Tag}}"]),
    );
    assert_eq!(podman.run(&name, &["cat", "/etc/motd"]), "welcome back");

    let layout = directory.path().join("layout");
    fs::create_dir(&layout).unwrap();
    assert_success(
        Command::new("tar")
            .arg("-xf")
            .arg(&path)
            .arg("-C")
            .arg(&layout),
    );
    let bundle = directory.path().join("bundle");
    let mut unpack = umoci();
    unpack
        .args(["unpack", "--image"])
        .arg(format!("{}:v1", layout.display()));
    assert_success(unpack.arg(&bundle));
    let motd = fs::read_to_string(bundle.join("rootfs/etc/motd")).unwrap();
    assert_eq!(motd, "welcome back\n");
}

#[tokio::test]
async fn an_index_in_an_archive_stays_one() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    for format in [Format::Oci, Format::DockerV2s2] {
        let image = busybox_image(
            &registry,
            "base:index",
            &ImageOptions::multi_platform(format),
        );
        let (store, name) = remote(&registry, "base:index");
        let options = OciArchiveOptions::default();
        let report = write_oci_archive(store, &name, &path, &options)
            .await
            .unwrap();
        assert_eq!(report.digest.as_str(), image.digest);
        assert_eq!(
            skopeo_digest(&format!("oci-archive:{}", path.display())),
            image.digest
        );
        let source = open_oci_archive(&path, None, directory.path())
            .await
            .unwrap();
        push(&source, &registry, "copy:index").await;
        let copied = skopeo_digest(&format!("docker://{}", registry.reference("copy:index")));
        assert_eq!(copied, image.digest);
    }
}

#[tokio::test]
async fn docker_archives_of_others_are_read() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    let options = ImageOptions {
        format: Format::DockerV2s2,
        ..ImageOptions::default()
    };
    let image = busybox_image(&registry, "base:1", &options);
    let source = format!("docker://{}", image.reference);
    let id = skopeo_id(&source);
    let place = format!("docker-archive:{}:acme/app:1", path.display());
    assert_success(skopeo("copy").arg("--quiet").arg(&source).arg(&place));
    let reference = "acme/app:1".parse().unwrap();
    for layers in [LayerForm::AsStored, LayerForm::Gzip] {
        let options = docker_source(directory.path(), layers);
        let opened = open_docker_archive(&path, Some(&reference), &options)
            .await
            .unwrap();
        push(&opened, &registry, "copy:1").await;
        let copy = format!("docker://{}", registry.reference("copy:1"));
        assert_eq!(skopeo_id(&copy), id);
    }
}

#[tokio::test]
async fn docker_archives_are_what_others_read() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let podman = Podman::new();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let options = ImageOptions {
            compression,
            ..ImageOptions::default()
        };
        let image = busybox_image(&registry, "base:1", &options);
        let id = skopeo_id(&format!("docker://{}", image.reference));
        let path = directory.path().join("image.tar");
        let (store, name) = remote(&registry, "base:1");
        let options = DockerArchiveOptions {
            platform: None,
            references: vec!["localhost/acme/app:1".parse().unwrap()],
        };
        write_docker_archive(store, &name, &path, &options)
            .await
            .unwrap();
        assert_eq!(skopeo_id(&format!("docker-archive:{}", path.display())), id);
        assert_success(podman.podman().arg("load").arg("--input").arg(&path));
        let name = "localhost/acme/app:1";
        let loaded = podman
            .podman()
            .args(["inspect", "--format", "{{.Id}}", name])
            .output();
        let loaded = String::from_utf8(loaded.unwrap().stdout).unwrap();
        assert_eq!(format!("sha256:{}", loaded.trim()), id);
        assert_eq!(podman.run(name, &["cat", "/etc/motd"]), "welcome back");

        let saved = directory.path().join("saved.tar");
        assert_success(podman.podman().args(["save", name, "--output"]).arg(&saved));
        let source = docker_source(directory.path(), LayerForm::Gzip);
        let source = open_docker_archive(&saved, None, &source).await.unwrap();
        push(&source, &registry, "copy:1").await;
        let copy = format!("docker://{}", registry.reference("copy:1"));
        assert_eq!(skopeo_id(&copy), id);
        assert_success(podman.podman().args(["rmi", name]));
        fs::remove_file(&saved).unwrap();
    }
}
