//! What publishing to a real registry costs in requests.

use std::sync::Arc;

use trilith_oci::image::Image;
use trilith_oci::publish::{
    BlobOrigin, BlobOutcome, DEFAULT_CONCURRENCY, Publication, PublicationBlob, publish,
};
use trilith_oci::{BlobSource, Descriptor, Graft, GraftLayer, graft, layer, media_type};
use trilith_testkit::{ImageOptions, Registry, RegistryOptions, busybox_image};

use super::remote;

/// The requests since the last call, as `METHOD what status`.
fn requests(registry: &Registry) -> Vec<String> {
    let requests = registry.requests();
    registry.forget_requests();
    let what = |path: &str| {
        let mount = if path.contains("mount=") {
            " mount"
        } else {
            ""
        };
        ["/blobs/uploads/", "/blobs/", "/manifests/"]
            .into_iter()
            .find(|part| path.contains(part))
            .map_or_else(|| path.to_owned(), |part| format!("{part}{mount}"))
    };
    requests
        .iter()
        .map(|r| format!("{} {} {}", r.method, what(&r.path), r.status.unwrap_or(0)))
        .collect()
}

#[tokio::test]
async fn a_grafted_image_takes_the_fewest() {
    let registry = Registry::start(RegistryOptions::default());
    busybox_image(&registry, "base:1", &ImageOptions::default());
    let (base_store, base_name) = remote(&registry, "base:1");
    let platform = "linux/amd64".parse().unwrap();
    let base = Image::load(base_store.as_ref(), &base_name, &platform)
        .await
        .unwrap()
        .image;
    let mut content = Vec::new();
    let entry = layer::LayerEntry {
        path: b"app".to_vec(),
        kind: layer::EntryKind::Directory { mode: 0o755 },
        owner: trilith_core::Owner::default(),
    };
    let top = layer::write_layer(vec![entry], layer::Compression::default(), &mut content).unwrap();
    let layers = [GraftLayer {
        layer: top.clone(),
        created_by: "test".to_owned(),
        comment: None,
    }];
    let image = graft(
        &base,
        &Graft {
            layers: &layers,
            config: None,
            labels: &std::collections::BTreeMap::new(),
            base: None,
        },
    )
    .unwrap();

    let publication = |mount: &str| {
        let from: trilith_core::Repository = registry.reference(mount).parse().unwrap();
        let base_layer = |layer: &Descriptor| PublicationBlob {
            descriptor: layer.clone(),
            origins: vec![
                BlobOrigin::Mount(from.clone()),
                BlobOrigin::Upload(BlobSource::Store(Arc::clone(&base_store))),
            ],
        };
        let upload = |descriptor: Descriptor, content: Vec<u8>| PublicationBlob {
            descriptor,
            origins: vec![BlobOrigin::Upload(BlobSource::Memory(content.into()))],
        };
        let config = image.config().to_bytes();
        let mut layers: Vec<_> = base.manifest().layers()[1..]
            .iter()
            .map(base_layer)
            .collect();
        layers.push(upload(top.descriptor.clone(), content.clone()));
        // The lowest layer is known to be there, as when an image that has it is built upon.
        layers.push(PublicationBlob {
            descriptor: base.manifest().layers()[0].clone(),
            origins: vec![BlobOrigin::Present],
        });
        let manifest = image.manifest().to_raw();
        let digest = manifest.descriptor.digest.clone();
        Publication {
            layers,
            configs: vec![upload(
                Descriptor::of(media_type::OCI_CONFIG, &config),
                config.to_vec(),
            )],
            manifests: vec![manifest],
            tags: ["v1", "v1_lock"]
                .map(|tag| (tag.parse().unwrap(), digest.clone()))
                .to_vec(),
        }
    };
    let (first, _) = remote(&registry, "app:1");
    let lowest = &base.manifest().layers()[0];
    let from = registry.reference("base").parse().unwrap();
    first.mount_blob(lowest, &from).await.unwrap();
    registry.forget_requests();

    let report = publish(first.as_ref(), &publication("base"), DEFAULT_CONCURRENCY)
        .await
        .unwrap();
    assert_eq!(report.count(BlobOutcome::Mounted), 1);
    assert_eq!(report.count(BlobOutcome::Uploaded), 2);
    let mut blobs = requests(&registry);
    let tail = blobs.split_off(blobs.len() - 3);
    blobs.sort();
    assert_eq!(
        blobs,
        [
            "HEAD /blobs/ 404",
            "HEAD /blobs/ 404",
            "POST /blobs/uploads/ 202",
            "POST /blobs/uploads/ 202",
            "POST /blobs/uploads/ mount 201",
            "PUT /blobs/uploads/ 201",
            "PUT /blobs/uploads/ 201",
        ]
    );
    assert_eq!(tail, ["PUT /manifests/ 201"; 3]);

    // A mount that is declined has opened the upload that follows.
    let (second, _) = remote(&registry, "second:1");
    second.mount_blob(lowest, &from).await.unwrap();
    registry.forget_requests();
    let report = publish(second.as_ref(), &publication("gone"), DEFAULT_CONCURRENCY)
        .await
        .unwrap();
    assert_eq!(report.count(BlobOutcome::Uploaded), 3);
    let after = requests(&registry);
    let count = |what: &str| after.iter().filter(|r| r.starts_with(what)).count();
    assert_eq!(count("POST /blobs/uploads/ mount 202"), 1, "{after:?}");
    assert_eq!(
        (count("HEAD"), count("POST"), count("PUT /blobs/")),
        (2, 3, 3),
        "{after:?}"
    );

    // Again, when all is there: a question for each blob that is not mounted.
    let report = publish(first.as_ref(), &publication("base"), DEFAULT_CONCURRENCY)
        .await
        .unwrap();
    assert_eq!(report.uploaded_bytes(), 0);
    assert_eq!(requests(&registry).len(), 3 + 3);
}
