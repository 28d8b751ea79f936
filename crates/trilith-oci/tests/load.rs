//! How an image is found: platforms, indexes within indexes, and those that lie.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod support;

use serde_json::json;
use trilith_core::{Digest, Platform};
use trilith_oci::image::{Format, Image, Index, Manifest, ResolvedImage};
use trilith_oci::layout::LayoutRepository;
use trilith_oci::{
    BlobSource, Descriptor, DescriptorPlatform, Error, ImageStore, Name, RawManifest, media_type,
};

use support::{bare, image, layout, push, tag};

async fn load(store: &LayoutRepository, platform: &str) -> Result<ResolvedImage, Error> {
    Image::load(store, &Name::Tag(tag("t")), &platform.parse().unwrap()).await
}

/// Writes `manifest` and tags it `t`.
async fn put(store: &LayoutRepository, manifest: &RawManifest) {
    store.push_manifest(manifest).await.unwrap();
    store.tag(&tag("t"), manifest).await.unwrap();
}

/// Writes an image for `platform` and returns it as an index lists it, with `listed` as platform.
async fn child(store: &LayoutRepository, platform: &str, listed: Option<&str>) -> Descriptor {
    let manifest = bare(store.layout(), platform, Format::Oci);
    store.push_manifest(&manifest).await.unwrap();
    let platform = listed.map(|listed| DescriptorPlatform::from(&listed.parse().unwrap()));
    Descriptor {
        platform,
        ..manifest.descriptor
    }
}

#[tokio::test]
async fn a_single_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    for format in [Format::Oci, Format::Docker] {
        let manifest = bare(store.layout(), "linux/arm/v6", format);
        put(&store, &manifest).await;
        for platform in ["linux/arm/v6", "linux/arm/v7"] {
            let found = load(&store, platform).await.unwrap();
            assert_eq!(
                (&found.top, &found.manifest),
                (&manifest.descriptor, &manifest.descriptor)
            );
            assert_eq!(found.image.manifest().format(), format);
        }
        for platform in ["linux/arm/v5", "linux/arm64", "windows/arm/v6"] {
            let error = load(&store, platform).await.unwrap_err();
            assert!(matches!(error, Error::NoSuchPlatform { .. }), "{error}");
            assert_eq!(error.hint().unwrap(), "it has: linux/arm/v6");
        }
    }
    let missing = Name::Tag(tag("missing"));
    let error = Image::load(&store, &missing, &Platform::host())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }));
}

#[tokio::test]
async fn an_index() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let amd64 = child(&store, "linux/amd64", Some("linux/amd64")).await;
    // Configs of arm images often leave out the variant, which reads as v7.
    let arm = child(&store, "linux/arm", Some("linux/arm/v6")).await;
    let hidden = child(&store, "linux/s390x", None).await;
    let mut attestation = child(&store, "linux/386", None).await;
    attestation.platform = Some(DescriptorPlatform {
        os: "unknown".to_owned(),
        architecture: "unknown".to_owned(),
        ..DescriptorPlatform::from(&Platform::host())
    });
    let inner = Index::new(std::slice::from_ref(&amd64)).to_raw();
    store.push_manifest(&inner).await.unwrap();
    let index = Index::new(&[attestation, hidden.clone(), arm.clone(), inner.descriptor]).to_raw();
    put(&store, &index).await;
    for (platform, expected) in [
        ("linux/amd64", &amd64),
        ("linux/arm/v6", &arm),
        ("linux/arm/v7", &arm),
        ("linux/s390x", &hidden),
    ] {
        let found = load(&store, platform).await.unwrap();
        assert_eq!(
            (&found.manifest, &found.top),
            (expected, &index.descriptor),
            "{platform}"
        );
    }
    let error = load(&store, "linux/386").await.unwrap_err();
    assert_eq!(
        error.hint().unwrap(),
        "it has: linux/amd64, linux/arm/v6, linux/s390x"
    );
}

#[tokio::test]
async fn indexes_that_lie_or_never_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let liar = child(&store, "linux/arm64", Some("linux/amd64")).await;
    put(&store, &Index::new(&[liar]).to_raw()).await;
    let error = load(&store, "linux/amd64").await.unwrap_err();
    assert!(
        error.to_string().contains("says it is for linux/amd64"),
        "{error}"
    );

    let unlisted = child(&store, "linux/arm64", None).await;
    put(&store, &Index::new(&vec![unlisted; 1000]).to_raw()).await;
    let error = load(&store, "linux/amd64").await.unwrap_err();
    assert!(
        error.to_string().contains("none of its first 32 manifests"),
        "{error}"
    );

    let mut nested = Index::new(&[]).to_raw();
    for _ in 0..100 {
        store.push_manifest(&nested).await.unwrap();
        nested = Index::new(&[nested.descriptor]).to_raw();
    }
    put(&store, &nested).await;
    assert!(matches!(
        load(&store, "linux/amd64").await,
        Err(Error::Malformed { .. })
    ));
}

#[tokio::test]
async fn artifacts_are_no_images() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let amd64 = child(&store, "linux/amd64", None).await;
    let content = push(&store, b"content").await.unwrap();
    let (empty, bytes) = Manifest::empty_config();
    store
        .push_blob(&empty, BlobSource::Memory(bytes))
        .await
        .unwrap();
    let artifact = Manifest::artifact("application/x", &content, &amd64).to_raw();
    put(&store, &artifact).await;
    let error = load(&store, "linux/amd64").await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("an artifact of type `application/x`"),
        "{error}"
    );

    // Among images it is passed over.
    let bare = Descriptor {
        artifact_type: None,
        ..artifact.descriptor
    };
    put(&store, &Index::new(&[bare, amd64.clone()]).to_raw()).await;
    assert_eq!(load(&store, "linux/amd64").await.unwrap().manifest, amd64);
}

#[tokio::test]
async fn manifest_and_config_must_agree() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let image = image(store.layout(), b"content");
    let config = image.manifest().config();
    let none = Manifest::new(Format::Oci, config, &[]).to_raw();
    put(&store, &none).await;
    let error = load(&store, "linux/amd64").await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("0 layers, but its config has 1 diff_ids"),
        "{error}"
    );

    let text = json!({"os": "linux", "architecture": "amd64"}).to_string();
    let wrong = Descriptor::of(config.media_type.as_str(), text.as_bytes());
    store
        .push_blob(&wrong, BlobSource::Memory(text.into()))
        .await
        .unwrap();
    put(&store, &Manifest::new(Format::Oci, &wrong, &[]).to_raw()).await;
    let error = load(&store, "linux/amd64").await.unwrap_err();
    assert!(error.to_string().contains("`rootfs` is missing"), "{error}");

    let huge = vec![b' '; 9 << 20];
    let huge_config = Descriptor::of(media_type::OCI_CONFIG, &huge);
    store
        .push_blob(&huge_config, BlobSource::Memory(huge.into()))
        .await
        .unwrap();
    put(
        &store,
        &Manifest::new(Format::Oci, &huge_config, &[]).to_raw(),
    )
    .await;
    let error = load(&store, "linux/amd64").await.unwrap_err();
    assert!(error.to_string().contains("larger than 8 MiB"), "{error}");

    let other = Image::scratch(&"linux/amd64".parse().unwrap());
    assert!(Image::new(image.manifest().clone(), other.config().clone()).is_err());
    assert_ne!(Digest::of(b""), config.digest);
}
