//! Places for images, checked against the tools others use: skopeo, umoci, Docker and Podman.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod archives;
mod engines;
mod requests;
mod transfers;

use std::path::Path;
use std::sync::Arc;

use trilith_core::Reference;
use trilith_oci::archive::{DockerArchiveSource, LayerForm};
use trilith_oci::copy::{CopyOptions, CopyReport, copy_image};
use trilith_oci::registry::{RegistryClient, RegistryConfig};
use trilith_oci::{ImageStore, Name};
use trilith_testkit::{Registry, skopeo, stdout_of};

/// A repository on `registry`, and the name `reference` has in it.
fn remote(registry: &Registry, name: &str) -> (Arc<dyn ImageStore>, Name) {
    let reference: Reference = registry.reference(name).parse().unwrap();
    let client = RegistryClient::try_new(RegistryConfig::default()).unwrap();
    let repository = client.repository(reference.repository()).unwrap();
    let name = Name::Tag(reference.tag().unwrap().clone());
    (Arc::new(repository), name)
}

/// Copies an image to `name` on `registry`.
async fn push(source: &(Arc<dyn ImageStore>, Name), registry: &Registry, name: &str) -> CopyReport {
    let (destination, tag) = remote(registry, name);
    let Name::Tag(tag) = tag else { unreachable!() };
    let options = CopyOptions {
        tags: vec![tag],
        ..CopyOptions::default()
    };
    copy_image(
        Arc::clone(&source.0),
        &source.1,
        destination.as_ref(),
        &options,
    )
    .await
    .unwrap()
}

fn docker_source(directory: &Path, layers: LayerForm) -> DockerArchiveSource {
    DockerArchiveSource {
        temp_dir: directory.to_owned(),
        layers,
    }
}

/// Returns what skopeo says the digest of an image is, with or without its index.
fn skopeo_digest(image: &str) -> String {
    let raw = trilith_testkit::assert_success(skopeo("inspect").arg("--raw").arg(image)).stdout;
    trilith_core::Digest::of(&raw).to_string()
}

/// Returns the ID of an image, the digest of its config.
fn skopeo_id(image: &str) -> String {
    let mut config = skopeo("inspect");
    let raw = trilith_testkit::assert_success(config.args(["--raw", "--config"]).arg(image));
    trilith_core::Digest::of(&raw.stdout).to_string()
}

/// Runs `command` of busybox in `image` with Docker and returns what it prints.
fn docker_run(dockerd: &trilith_testkit::Dockerd, image: &str, command: &[&str]) -> String {
    let mut docker = dockerd.docker();
    docker.args(["run", "--rm", "--network", "none", image]);
    stdout_of(docker.args(command))
}
