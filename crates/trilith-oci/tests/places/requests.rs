//! What publishing to a real registry costs in requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use trilith_core::Repository;
use trilith_oci::image::Image;
use trilith_oci::publish::{
    BlobOrigin, BlobOutcome, DEFAULT_CONCURRENCY, Publication, PublicationBlob, PublishReport,
    publish,
};
use trilith_oci::{BlobSource, Descriptor, Graft, GraftLayer, ImageStore, graft, layer};
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

/// An image grafted on one in the repository `base`.
struct Grafted {
    registry: Registry,
    base_store: Arc<dyn ImageStore>,
    base: Image,
    top: layer::Layer,
    top_content: Vec<u8>,
    image: Image,
}

impl Grafted {
    async fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default());
        busybox_image(&registry, "base:1", &ImageOptions::default());
        let (base_store, name) = remote(&registry, "base:1");
        let platform = "linux/amd64".parse().unwrap();
        let base = Image::load(base_store.as_ref(), &name, &platform)
            .await
            .unwrap();
        let base = base.image;
        let mut top_content = Vec::new();
        let entry = layer::LayerEntry {
            path: b"app".to_vec(),
            kind: layer::EntryKind::Directory { mode: 0o755 },
            owner: trilith_core::Owner::default(),
        };
        let compression = layer::Compression::default();
        let top = layer::write_layer(vec![entry], compression, &mut top_content).unwrap();
        let layers = [GraftLayer {
            layer: top.clone(),
            created_by: "test".to_owned(),
            comment: None,
        }];
        let made = Graft {
            layers: &layers,
            config: None,
            labels: &BTreeMap::new(),
            base: None,
        };
        let image = graft(&base, &made).unwrap();
        Self {
            registry,
            base_store,
            base,
            top,
            top_content,
            image,
        }
    }

    /// The image with its base's upper layers mounted from `mount`, and the lowest known to be
    /// there, as when an image that has it is built upon.
    fn publication(&self, mount: &str) -> Publication {
        let from: Repository = self.registry.reference(mount).parse().unwrap();
        let blob = |descriptor: &Descriptor, origins| PublicationBlob {
            descriptor: descriptor.clone(),
            origins,
        };
        let memory = |content: &[u8]| {
            let content = Bytes::copy_from_slice(content);
            vec![BlobOrigin::Upload(BlobSource::Memory(content))]
        };
        let store = || BlobOrigin::Upload(BlobSource::Store(Arc::clone(&self.base_store)));
        let (lowest, upper) = self.base.manifest().layers().split_first().unwrap();
        let mut blobs = vec![blob(lowest, vec![BlobOrigin::Present])];
        for layer in upper {
            blobs.push(blob(layer, vec![BlobOrigin::Mount(from.clone()), store()]));
        }
        blobs.push(blob(&self.top.descriptor, memory(&self.top_content)));
        let config = self.image.config().to_bytes();
        let manifest = self.image.manifest().to_raw();
        let digest = manifest.descriptor.digest.clone();
        blobs.push(blob(self.image.manifest().config(), memory(&config)));
        Publication {
            blobs,
            manifests: vec![manifest],
            tags: ["v1", "v1_lock"]
                .map(|tag| (tag.parse().unwrap(), digest.clone()))
                .to_vec(),
        }
    }

    /// The repository `name`, which has the base's lowest layer.
    async fn repository(&self, name: &str) -> Arc<dyn ImageStore> {
        let (store, _) = remote(&self.registry, name);
        let from = self.registry.reference("base").parse().unwrap();
        let lowest = &self.base.manifest().layers()[0];
        store.mount_blob(lowest, &from).await.unwrap();
        self.registry.forget_requests();
        store
    }
}

async fn run(store: &Arc<dyn ImageStore>, publication: &Publication) -> PublishReport {
    publish(store.as_ref(), publication, DEFAULT_CONCURRENCY)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_grafted_image_takes_the_fewest() {
    let grafted = Grafted::new().await;
    let store = grafted.repository("app:1").await;
    let publication = grafted.publication("base");
    let report = run(&store, &publication).await;
    assert_eq!(report.count(BlobOutcome::Present), 1);
    assert_eq!(report.count(BlobOutcome::Mounted), 1);
    assert_eq!(report.count(BlobOutcome::Uploaded), 2);
    let mut blobs = requests(&grafted.registry);
    let tail = blobs.split_off(blobs.len() - 2);
    blobs.sort();
    assert_eq!(
        blobs,
        [
            "POST /blobs/uploads/ mount 201",
            "POST /blobs/uploads/ mount 202",
            "POST /blobs/uploads/ mount 202",
            "PUT /blobs/uploads/ 201",
            "PUT /blobs/uploads/ 201",
        ]
    );
    assert_eq!(tail, ["PUT /manifests/ 201"; 2]);

    // Again: the process knows what is there.
    let report = run(&store, &publication).await;
    assert_eq!(report.uploaded_bytes(), 0);
    assert_eq!(requests(&grafted.registry), ["PUT /manifests/ 201"; 2]);

    // Again in another process: a question for each blob.
    let (store, _) = remote(&grafted.registry, "app:1");
    let report = run(&store, &publication).await;
    assert_eq!(report.uploaded_bytes(), 0);
    assert_eq!(requests(&grafted.registry).len(), 3 + 2);
}

#[tokio::test]
async fn a_declined_mount_has_opened_the_upload_that_follows() {
    let grafted = Grafted::new().await;
    let store = grafted.repository("app:1").await;
    let report = run(&store, &grafted.publication("gone")).await;
    assert_eq!(report.count(BlobOutcome::Uploaded), 3);
    let after = requests(&grafted.registry);
    let count = |what: &str| after.iter().filter(|r| r.starts_with(what)).count();
    assert_eq!(count("POST /blobs/uploads/ mount 202"), 3, "{after:?}");
    let counts = (count("HEAD"), count("POST"), count("PUT /blobs/"));
    assert_eq!(counts, (0, 3, 3), "{after:?}");
}
