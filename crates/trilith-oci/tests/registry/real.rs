//! The client against Debian's `docker-registry`, which knows no referrers API.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use trilith_core::Repository;
use trilith_oci::media_type::{OCI_CONFIG, OCI_MANIFEST};
use trilith_oci::registry::{CaCertificates, RegistryConfig, RegistryRepository};
use trilith_oci::{BlobSource, Descriptor, ImageStore, Kind, Mount, Name, RawManifest};

use super::docker_registry::{DockerRegistry, Protection};
use super::{PASSWORD, blob, client, config, content, credentials, manifest, tag};

fn memory(content: &[u8]) -> BlobSource {
    BlobSource::Memory(Bytes::copy_from_slice(content))
}

fn open(registry: &DockerRegistry, path: &str, config: RegistryConfig) -> RegistryRepository {
    client(config)
        .repository(&registry.repository(path))
        .unwrap()
}

/// An image of `layer`, or an artifact about `subject`.
fn image(layer: &Descriptor, subject: Option<&Descriptor>, number: u32) -> RawManifest {
    let config = Descriptor::of(OCI_CONFIG, b"{}");
    let value = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example",
        "config": config,
        "layers": [layer],
        "annotations": {"number": number.to_string()},
    });
    let mut value = value;
    if let Some(subject) = subject {
        value["subject"] = serde_json::to_value(subject).unwrap();
    }
    manifest(&value.to_string())
}

async fn push(repository: &RegistryRepository, layer: &[u8]) -> RawManifest {
    let descriptor = blob(layer);
    repository
        .push_blob(&descriptor, memory(layer))
        .await
        .unwrap();
    repository
        .push_blob(&Descriptor::of(OCI_CONFIG, b"{}"), memory(b"{}"))
        .await
        .unwrap();
    let image = image(&descriptor, None, 0);
    repository.push_manifest(&image).await.unwrap();
    image
}

#[tokio::test]
async fn an_image_there_and_back() {
    let registry = DockerRegistry::start(Protection::None);
    let repository = open(&registry, "team/app", config());
    assert_eq!(repository.resolve(&tag("v1")).await.unwrap(), None);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer");
    let layer: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &layer).unwrap();
    let descriptor = blob(&layer);
    assert!(!repository.has_blob(&descriptor).await.unwrap());
    repository
        .push_blob(&descriptor, BlobSource::File(path))
        .await
        .unwrap();
    assert!(repository.has_blob(&descriptor).await.unwrap());
    assert_eq!(repository.client().stats().uploaded_bytes, descriptor.size);

    let image = push(&repository, b"small").await;
    repository
        .tag(&"v1".parse().unwrap(), &image)
        .await
        .unwrap();
    let before = repository.client().stats().requests;
    let found = repository.resolve(&tag("v1")).await.unwrap();
    assert_eq!(found.as_ref(), Some(&image.descriptor));
    assert_eq!(repository.client().stats().requests, before + 1);
    for name in [tag("v1"), Name::Digest(image.descriptor.digest.clone())] {
        assert_eq!(repository.fetch_manifest(&name).await.unwrap(), image);
    }
    let stream = repository.fetch_blob(&descriptor).await.unwrap();
    assert!(content(stream).await.unwrap() == layer);
}

#[tokio::test]
async fn empty_blobs_and_missing_ones() {
    let registry = DockerRegistry::start(Protection::None);
    let repository = open(&registry, "a", config());
    repository.push_blob(&blob(b""), memory(b"")).await.unwrap();
    assert!(repository.has_blob(&blob(b"")).await.unwrap());
    let incomplete = image(&blob(b"missing"), None, 0);
    let error = repository.push_manifest(&incomplete).await.unwrap_err();
    assert!(
        error.to_string().contains("MANIFEST_BLOB_UNKNOWN"),
        "{error}"
    );
    let missing = repository.fetch_blob(&blob(b"missing")).await;
    assert_eq!(missing.err().unwrap().kind(), Kind::NotFound);
}

#[tokio::test]
async fn blobs_travel_between_repositories() {
    let registry = DockerRegistry::start(Protection::None);
    let client = client(config());
    let base = client.repository(&registry.repository("base")).unwrap();
    let app = client.repository(&registry.repository("app")).unwrap();
    let layer = blob(b"a layer");
    base.push_blob(&layer, memory(b"a layer")).await.unwrap();
    let sent = client.stats().uploaded_bytes;
    let mounted = app.mount_blob(&layer, &registry.repository("base")).await;
    assert_eq!(mounted.unwrap(), Mount::Mounted);
    assert!(app.has_blob(&layer).await.unwrap());
    let stats = client.stats();
    assert_eq!((stats.uploaded_bytes, stats.mounted_blobs), (sent, 1));

    // Declined: what is not there cannot be mounted. The upload it opened is used.
    let other = blob(b"another");
    let mounted = app.mount_blob(&other, &registry.repository("base")).await;
    assert_eq!(mounted.unwrap(), Mount::Declined);
    let before = client.stats().requests;
    app.push_blob(&other, memory(b"another")).await.unwrap();
    assert_eq!(client.stats().requests, before + 1);
    // From one registry's repository into another's, streamed.
    let second = DockerRegistry::start(Protection::None);
    let copy = client.repository(&second.repository("copy")).unwrap();
    let source = BlobSource::Store(Arc::new(app));
    copy.push_blob(&other, source).await.unwrap();
    assert!(copy.has_blob(&other).await.unwrap());
}

#[tokio::test]
async fn a_locked_registry() {
    let registry = DockerRegistry::start(Protection::Password);
    let directory = tempfile::tempdir().unwrap();
    let with = |entry: &str| RegistryConfig {
        credentials: credentials(directory.path(), registry.address(), entry),
        ..config()
    };
    let repository = open(&registry, "a", with(PASSWORD)).for_writing();
    let image = push(&repository, b"layer").await;
    repository
        .tag(&"v1".parse().unwrap(), &image)
        .await
        .unwrap();
    assert!(repository.resolve(&tag("v1")).await.unwrap().is_some());
    assert_eq!(repository.resolve(&tag("v2")).await.unwrap(), None);
    for config in [
        config(),
        with(""),
        with(r#""username": "user", "password": "x""#),
    ] {
        let error = open(&registry, "a", config)
            .resolve(&tag("v2"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.hint().unwrap().contains("docker login 127.0.0.1:"));
    }
}

#[tokio::test]
async fn a_registry_with_tls() {
    let registry = DockerRegistry::start(Protection::Tls);
    let name: Repository = format!("0.0.0.0:{}/a", registry.port()).parse().unwrap();
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/tls/ca.pem");
    let trusting = RegistryConfig {
        ca_certificates: vec![CaCertificates::File(authority.into())],
        ..config()
    };
    let repository = client(trusting).repository(&name).unwrap();
    let image = push(&repository, b"layer").await;
    let found = repository
        .resolve(&Name::Digest(image.descriptor.digest.clone()))
        .await;
    assert_eq!(found.unwrap(), Some(image.descriptor));

    let doubting = client(config()).repository(&name).unwrap();
    let error = doubting.resolve(&tag("v1")).await.unwrap_err();
    assert!(
        error.to_string().contains("cannot trust `0.0.0.0:"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("authority"));
    assert!(!error.is_retryable());

    let plain = RegistryConfig {
        insecure_registries: vec![name.registry().to_owned()],
        ..config()
    };
    let plain = client(plain).repository(&name).unwrap();
    let error = plain.fetch_manifest(&tag("v1")).await.unwrap_err();
    assert!(error.hint().unwrap().contains("speaks TLS"), "{error}");
}

#[tokio::test]
async fn referrers_are_found_however_many_write_at_once() {
    let registry = DockerRegistry::start(Protection::None);
    let first = open(&registry, "a", config());
    let subject = push(&first, b"layer").await;
    let digest = &subject.descriptor.digest;
    let kind = "application/vnd.example";
    assert_eq!(first.referrers(digest, kind).await.unwrap(), []);
    // Several tasks of one process take turns.
    let pushes = (0..6).map(|number| {
        let about = image(&blob(b"layer"), Some(&subject.descriptor), number);
        let first = first.clone();
        async move {
            first.push_manifest(&about).await?;
            // Again, to no effect.
            first.push_manifest(&about).await
        }
    });
    try_join_all(pushes).await.unwrap();
    let found = first.referrers(digest, kind).await.unwrap();
    assert_eq!(found.len(), 6);
    assert!(
        found
            .iter()
            .all(|one| one.annotations.contains_key("number"))
    );
    assert_eq!(first.referrers(digest, "other/type").await.unwrap(), []);
    // The image itself is what it was.
    let name = Name::Digest(digest.clone());
    assert_eq!(first.fetch_manifest(&name).await.unwrap(), subject);
}
