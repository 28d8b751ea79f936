//! What is known of the images that builds start from: in a batch what each name points to is asked
//! once, however many variants and names it has, and on one machine each manifest and configuration
//! is read once, by its digest. Some registries count what is read, and none what is asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OnceCell;
use trilith_core::{Digest, Platform, Repository, Tag};
use trilith_oci::place::Place;
use trilith_oci::{
    BlobSource, BlobStream, Descriptor, Error, ImageStore, Mount, Name, Pushed, RawManifest,
    read_blob,
};

use crate::context::Context;
use crate::error;
use crate::load::{ResolvedImage, resolve};
use crate::records::Records;

/// How many manifests are kept, and how many configurations. Those who share them are neighbours in a batch.
const DOCUMENTS: usize = 256;

/// The largest document that is kept, in bytes: configurations, not layers.
const LARGEST: u64 = 64 << 10;

/// What is known of images.
#[derive(Default)]
pub(crate) struct KnownImages {
    resolved: Mutex<HashMap<(String, Platform), Answer>>,
    documents: Arc<Documents>,
}

/// What a name points to, once that is known.
type Answer = Arc<OnceCell<Option<ResolvedImage>>>;

impl KnownImages {
    /// As [`resolve`], which is asked once for each place and platform.
    ///
    /// # Errors
    /// As [`resolve`]; then it is asked again the next time.
    pub(crate) async fn resolve(
        &self,
        context: &Context,
        place: &Place,
        platform: &Platform,
    ) -> Result<Option<ResolvedImage>, error::Error> {
        let key = (place.to_string(), platform.clone());
        let answer = Arc::clone(lock(&self.resolved).entry(key).or_default());
        let ask = async || {
            let mut resolved = resolve(context, place, platform).await?;
            if let (Some(image), Place::Registry(_)) = (&mut resolved, place) {
                let documents = Arc::clone(&self.documents);
                image.store = Remembering::of(context, &image.store, documents);
            }
            Ok(resolved)
        };
        answer.get_or_try_init(ask).await.cloned()
    }
}

/// What was read last of manifests and of configurations.
#[derive(Default)]
struct Documents {
    manifests: Recent<RawManifest>,
    configs: Recent<Bytes>,
}

/// Documents by digest, the newest at the end.
struct Recent<T>(Mutex<VecDeque<(Digest, Arc<OnceCell<T>>)>>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Recent<T> {
    /// Returns the place of a document, whether it has been read or not.
    fn get(&self, digest: &Digest) -> Arc<OnceCell<T>> {
        let mut all = lock(&self.0);
        let found = all.iter().position(|(known, _)| known == digest);
        let entry = found.and_then(|position| all.remove(position));
        let entry = entry.unwrap_or_else(|| (digest.clone(), Arc::default()));
        let document = Arc::clone(&entry.1);
        all.push_back(entry);
        if all.len() > DOCUMENTS {
            all.pop_front();
        }
        document
    }
}

/// Returns `store`, what is read of which is remembered on this machine.
pub(crate) fn remembering(context: &Context, store: &Arc<dyn ImageStore>) -> Arc<dyn ImageStore> {
    Remembering::of(context, store, Arc::default())
}

/// A repository whose manifests and configurations are read once.
struct Remembering {
    store: Arc<dyn ImageStore>,
    documents: Arc<Documents>,
    records: Records,
}

impl Remembering {
    fn of(
        context: &Context,
        store: &Arc<dyn ImageStore>,
        documents: Arc<Documents>,
    ) -> Arc<dyn ImageStore> {
        Arc::new(Self {
            store: Arc::clone(store),
            documents,
            records: context.records(),
        })
    }
}

#[async_trait]
impl ImageStore for Remembering {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn resolve(&self, name: &Name) -> Result<Option<Descriptor>, Error> {
        self.store.resolve(name).await
    }

    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        let Name::Digest(digest) = name else {
            return self.store.fetch_manifest(name).await;
        };
        let manifest = self.documents.manifests.get(digest);
        let fetch = async || {
            if let Some(manifest) = self.records.manifest(digest) {
                return Ok::<_, Error>(manifest);
            }
            let manifest = self.store.fetch_manifest(name).await?;
            if manifest.descriptor.size <= LARGEST {
                self.records.remember_manifest(&manifest);
            }
            Ok(manifest)
        };
        manifest.get_or_try_init(fetch).await.cloned()
    }

    async fn fetch_blob(&self, blob: &Descriptor) -> Result<BlobStream, Error> {
        if blob.size > LARGEST {
            return self.store.fetch_blob(blob).await;
        }
        let config = self.documents.configs.get(&blob.digest);
        let fetch = async || {
            if let Some(config) = self.records.config(&blob.digest) {
                return Ok::<_, Error>(config);
            }
            let config = read_blob(&*self.store, blob, LARGEST).await?;
            self.records.remember_config(&blob.digest, &config);
            Ok(config)
        };
        let bytes = config.get_or_try_init(fetch).await?.clone();
        Ok(Box::pin(stream::once(async move { Ok(bytes) })))
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        self.store.has_blob(blob).await
    }

    async fn push_blob(&self, blob: &Descriptor, content: BlobSource) -> Result<Pushed, Error> {
        self.store.push_blob(blob, content).await
    }

    async fn mount_blob(&self, blob: &Descriptor, from: &Repository) -> Result<Mount, Error> {
        self.store.mount_blob(blob, from).await
    }

    async fn push_manifest(&self, manifest: &RawManifest) -> Result<(), Error> {
        self.store.push_manifest(manifest).await
    }

    fn tags_with_manifest(&self) -> bool {
        self.store.tags_with_manifest()
    }

    async fn tag(&self, tag: &Tag, manifest: &RawManifest) -> Result<(), Error> {
        self.store.tag(tag, manifest).await
    }

    async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        self.store.referrers(digest, artifact_type).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the values whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
