//! What graft makes is what other tools take: skopeo, umoci, docker and podman.

use trilith_testkit::{
    Dockerd, Format, ImageOptions, Podman, Project, Registry, RegistryOptions, assert_success,
    busybox_image, skopeo, stdout_of, umoci,
};

use crate::support::{Trilith, path, project, tag};

/// A pushed image of a project on a busybox base of `format`.
fn pushed(registry: &Registry, trilith: &Trilith, format: Format) -> (Project, String) {
    let base = busybox_image(
        registry,
        "base:1",
        &ImageOptions {
            format,
            ..Default::default()
        },
    );
    let project = project(registry, "acme/app", &base.reference);
    let built = trilith.push(&project);
    (project, built["reference"].as_str().unwrap().to_owned())
}

#[test]
fn skopeo_and_umoci() {
    let registry = Registry::start(RegistryOptions::default());
    let trilith = Trilith::new();
    let (_project, reference) = pushed(&registry, &trilith, Format::Oci);
    let inspected = stdout_of(
        skopeo("inspect")
            .arg("--tls-verify=false")
            .arg(format!("docker://{reference}")),
    );
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Labels"]["dev.trilith.level"], "source");
    assert_eq!(inspected["Architecture"], "amd64");

    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    trilith.json(&["copy", &reference, &format!("oci:{}:app", layout.display())]);
    let bundle = dir.path().join("bundle");
    assert_success(
        umoci()
            .args(["unpack", "--image"])
            .arg(format!("{}:app", layout.display()))
            .arg(&bundle),
    );
    let run = bundle.join("rootfs/opt/app/run");
    assert_eq!(
        std::fs::read_to_string(run).unwrap(),
        "#!/bin/sh\necho hello from app\n"
    );
    assert!(bundle.join("rootfs/opt/app/vendor/lib.py").exists());
}

#[test]
fn docker_runs_it() {
    let registry = Registry::start(RegistryOptions::default());
    let docker = Dockerd::start();
    for format in [Format::Oci, Format::DockerV2s2] {
        let trilith = Trilith::new();
        let (project, reference) = pushed(&registry, &trilith, format);
        assert_success(docker.docker().args(["pull", &reference]));
        let hello = ["run", "--rm", "--network", "none"];
        assert_eq!(
            stdout_of(docker.docker().args(hello).arg(&reference)),
            "hello from app"
        );

        let archive = project.path().join("image.tar");
        let output = format!("docker-archive:{}:acme/app:loaded", archive.display());
        trilith.json(&["build", "--project", path(&project), "--output", &output]);
        assert_success(docker.docker().args(["load", "--input"]).arg(&archive));
        let loaded = stdout_of(docker.docker().args(hello).arg("acme/app:loaded"));
        assert_eq!(loaded, "hello from app");

        let host = docker.host();
        let daemon = trilith
            .command()
            .env("DOCKER_HOST", &host)
            .args(["copy", &reference, "docker-daemon:acme/app:daemon"])
            .status()
            .unwrap();
        assert!(daemon.success());
        let copied = stdout_of(docker.docker().args(hello).arg("acme/app:daemon"));
        assert_eq!(copied, "hello from app");
    }
}

#[test]
fn podman_runs_it() {
    let registry = Registry::start(RegistryOptions::default());
    let podman = Podman::new();
    for format in [Format::Oci, Format::DockerV2s2] {
        let trilith = Trilith::new();
        let (project, reference) = pushed(&registry, &trilith, format);
        podman.pull(&reference);
        assert_eq!(podman.run(&reference, &[]), "hello from app");
        let archive = format!("oci-archive:{}/image.tar", path(&project));
        trilith.json(&["build", "--project", path(&project), "--output", &archive]);
        assert_success(podman.podman().args(["pull", "--quiet", &archive]));
    }
}

#[test]
fn copies_between_all_places_are_the_same_image() {
    let registry = Registry::start(RegistryOptions::default());
    let trilith = Trilith::new();
    let (project, reference) = pushed(&registry, &trilith, Format::Oci);
    let at = |kind: &str, name: &str| format!("{kind}:{}/{name}", path(&project));
    let digest = trilith.json(&["inspect", &reference])["digest"].clone();
    let back = registry.reference("acme/back:1");
    let steps = [
        reference.clone(),
        at("oci", "layout:app"),
        at("oci-archive", "image.tar"),
        registry.reference("acme/copy:1"),
        back.clone(),
    ];
    for pair in steps.windows(2) {
        let copied = trilith.json(&["copy", &pair[0], &pair[1]]);
        assert_eq!(copied["digest"], digest, "{pair:?}");
    }
    // What is there is not sent again, and on one registry nothing travels at all.
    let again = trilith.json(&["copy", &steps[3], &back]);
    assert_eq!(again["bytes_copied"], 0);
    // The list of inputs comes along.
    assert_eq!(
        trilith.json(&["inspect", &back])["inputs"]["level"],
        "source"
    );

    let rootfs = at("dir", "rootfs");
    trilith.json(&["copy", &reference, &rootfs]);
    assert!(project.path().join("rootfs/opt/app/run").exists());
    let (rebuilt, again) = (
        registry.reference("acme/rootfs:1"),
        registry.reference("acme/rootfs:2"),
    );
    let first = trilith.json(&["copy", &rootfs, &rebuilt]);
    assert_eq!(
        trilith.json(&["copy", &rootfs, &again])["digest"],
        first["digest"]
    );
}

#[test]
fn raw_inspection_is_the_manifest_to_the_byte() {
    let registry = Registry::start(RegistryOptions::default());
    let trilith = Trilith::new();
    let (_project, reference) = pushed(&registry, &trilith, Format::Oci);
    let raw = assert_success(trilith.command().args(["inspect", "--raw", &reference])).stdout;
    let name = tag(&serde_json::Value::from(reference)).to_owned();
    assert_eq!(raw, registry.manifest("acme/app", &name).unwrap().bytes);
}
