//! A store in memory that keeps the rules of the seam and a record of what it was asked.
//!
//! For unit tests only: it counts requests and refuses manifests and tags that point to
//! something it has not, which a registry would do as well but not tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use trilith_core::{Digest, Platform, Repository, Tag};

use crate::descriptor::{Descriptor, DescriptorPlatform};
use crate::error::Error;
use crate::links::Links;
use crate::media_type;
use crate::store::{BlobSource, BlobStream, ImageStore, Mount, Name, Pushed, RawManifest};

/// What a [`MemoryStore`] was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Resolve,
    FetchManifest,
    FetchBlob,
    HasBlob,
    PushBlob,
    Mount,
    PushManifest,
    Tag,
    Referrers,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<Digest, Bytes>,
    manifests: BTreeMap<Digest, RawManifest>,
    tags: BTreeMap<String, Digest>,
    neighbours: BTreeSet<(Repository, Digest)>,
    calls: Vec<Call>,
}

/// A repository in memory.
pub(crate) struct MemoryStore {
    name: String,
    state: Mutex<State>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::named("memory")
    }
}

impl MemoryStore {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: Mutex::default(),
        }
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.state.lock().unwrap())
    }

    fn asked<T>(&self, call: Call, action: impl FnOnce(&mut State) -> T) -> T {
        self.with(|state| {
            state.calls.push(call);
            action(state)
        })
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.with(|state| state.calls.clone())
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.calls().into_iter().filter(|&c| c == call).count()
    }

    pub(crate) fn tags(&self) -> Vec<String> {
        self.with(|state| state.tags.keys().cloned().collect())
    }

    pub(crate) fn forget_calls(&self) {
        self.with(|state| state.calls.clear());
    }

    pub(crate) fn insert(&self, content: &[u8]) {
        let content = Bytes::copy_from_slice(content);
        self.with(|state| state.blobs.insert(Digest::of(&content), content));
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        self.with(|state| state.blobs.remove(digest));
    }

    /// Lets `content` be mounted from `repository`.
    pub(crate) fn offer(&self, repository: &Repository, content: &[u8]) {
        self.with(|state| {
            let entry = (repository.clone(), Digest::of(content));
            state.neighbours.insert(entry);
        });
    }

    pub(crate) fn insert_manifest(&self, manifest: &RawManifest, tag: Option<&str>) {
        let digest = manifest.descriptor.digest.clone();
        self.with(|state| {
            state.manifests.insert(digest.clone(), manifest.clone());
            if let Some(tag) = tag {
                state.tags.insert(tag.to_owned(), digest);
            }
        });
    }

    pub(crate) fn insert_image(&self, image: &TestImage, tag: Option<&str>) {
        for content in image.layers.iter().chain([&image.config]) {
            self.insert(content);
        }
        self.insert_manifest(&image.manifest, tag);
    }

    fn missing(&self, what: &str) -> Error {
        Error::NotFound {
            object: format!("{what} in `{}`", self.name),
        }
    }
}

#[async_trait]
impl ImageStore for MemoryStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn resolve(&self, name: &Name) -> Result<Option<Descriptor>, Error> {
        Ok(self.asked(Call::Resolve, |state| {
            let digest = match name {
                Name::Tag(tag) => state.tags.get(tag.as_str())?.clone(),
                Name::Digest(digest) => digest.clone(),
            };
            let manifest = state.manifests.get(&digest)?;
            Some(manifest.descriptor.clone())
        }))
    }

    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        self.asked(Call::FetchManifest, |state| {
            let digest = match name {
                Name::Tag(tag) => state.tags.get(tag.as_str())?.clone(),
                Name::Digest(digest) => digest.clone(),
            };
            state.manifests.get(&digest).cloned()
        })
        .ok_or_else(|| self.missing("manifest"))
    }

    async fn fetch_blob(&self, blob: &Descriptor) -> Result<BlobStream, Error> {
        let content = self
            .asked(Call::FetchBlob, |state| {
                state.blobs.get(&blob.digest).cloned()
            })
            .ok_or_else(|| self.missing(blob.digest.as_str()))?;
        Ok(futures_util::stream::iter([Ok(content)]).boxed())
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        Ok(self.asked(Call::HasBlob, |state| {
            state.blobs.contains_key(&blob.digest)
        }))
    }

    async fn push_blob(&self, blob: &Descriptor, content: BlobSource) -> Result<Pushed, Error> {
        if self.has_blob(blob).await? {
            return Ok(Pushed::Present);
        }
        let content = match content {
            BlobSource::Memory(bytes) => bytes,
            BlobSource::File(path) => std::fs::read(&path)
                .map_err(Error::io("read", &path))?
                .into(),
            BlobSource::Store(store) => {
                let pieces: Vec<Bytes> = store.fetch_blob(blob).await?.try_collect().await?;
                pieces.concat().into()
            }
        };
        let actual = Digest::of(&content);
        if actual != blob.digest {
            return Err(Error::DigestMismatch {
                object: "blob".to_owned(),
                expected: blob.digest.clone(),
                actual,
            });
        }
        self.asked(Call::PushBlob, |state| state.blobs.insert(actual, content));
        Ok(Pushed::Written)
    }

    async fn mount_blob(&self, blob: &Descriptor, from: &Repository) -> Result<Mount, Error> {
        Ok(self.asked(Call::Mount, |state| {
            let entry = (from.clone(), blob.digest.clone());
            if state.neighbours.contains(&entry) {
                state.blobs.insert(entry.1, Bytes::new());
                Mount::Mounted
            } else {
                Mount::Declined
            }
        }))
    }

    async fn push_manifest(&self, manifest: &RawManifest) -> Result<(), Error> {
        let links = Links::parse(manifest)?;
        self.asked(Call::PushManifest, |state| {
            let complete = links.blobs().all(|b| state.blobs.contains_key(&b.digest))
                && links
                    .manifests
                    .iter()
                    .all(|m| state.manifests.contains_key(&m.digest));
            assert!(complete, "a manifest came before what it points to");
            let digest = manifest.descriptor.digest.clone();
            state.manifests.insert(digest, manifest.clone());
        });
        Ok(())
    }

    async fn tag(&self, tag: &Tag, manifest: &RawManifest) -> Result<(), Error> {
        self.asked(Call::Tag, |state| {
            let digest = manifest.descriptor.digest.clone();
            assert!(state.manifests.contains_key(&digest), "a tag came first");
            state.tags.insert(tag.to_string(), digest);
        });
        Ok(())
    }

    async fn referrers(&self, digest: &Digest, kind: &str) -> Result<Vec<Descriptor>, Error> {
        self.asked(Call::Referrers, |state| {
            let mut found = Vec::new();
            for manifest in state.manifests.values() {
                let subject = Links::parse(manifest)?.subject;
                let text = String::from_utf8_lossy(&manifest.bytes);
                if subject.is_some_and(|s| &s.digest == digest) && text.contains(kind) {
                    found.push(manifest.descriptor.clone());
                }
            }
            Ok(found)
        })
    }
}

/// An OCI image made of `layers`, which are bytes and no tars.
pub(crate) struct TestImage {
    pub(crate) manifest: RawManifest,
    pub(crate) config: Bytes,
    pub(crate) layers: Vec<Bytes>,
}

pub(crate) fn manifest(media_type: &str, json: &serde_json::Value) -> RawManifest {
    let bytes: Bytes = json.to_string().into();
    RawManifest {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes,
    }
}

pub(crate) fn image(layers: &[&[u8]], platform: &str) -> TestImage {
    let platform: Platform = platform.parse().unwrap();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config: Bytes = serde_json::json!({
        "architecture": platform.architecture(),
        "os": platform.os(),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into();
    let layers: Vec<Bytes> = layers.iter().map(|l| Bytes::copy_from_slice(l)).collect();
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, &config),
        "layers": layers
            .iter()
            .map(|layer| Descriptor::of(media_type::OCI_LAYER_TAR, layer))
            .collect::<Vec<_>>(),
    });
    TestImage {
        manifest: manifest(media_type::OCI_MANIFEST, &json),
        config,
        layers,
    }
}

pub(crate) fn index_of(manifests: &[&RawManifest]) -> RawManifest {
    let platforms = ["linux/amd64", "linux/arm64", "linux/s390x"];
    let described: Vec<Descriptor> = manifests
        .iter()
        .zip(platforms)
        .map(|(manifest, platform)| Descriptor {
            platform: Some(DescriptorPlatform::from(
                &platform.parse::<Platform>().unwrap(),
            )),
            ..manifest.descriptor.clone()
        })
        .collect();
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": described,
    });
    manifest(media_type::OCI_INDEX, &json)
}
