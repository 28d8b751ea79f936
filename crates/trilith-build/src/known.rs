//! What is known of the images that builds start from: in a batch what each name points to is asked
//! once, however many variants and names it has, and on one machine each manifest and configuration
//! is read once, by its digest. Some registries count what is read, and none what is asked. Elsewhere, a
//! batch that is to build on bases which are new to the machine reads them right away.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OnceCell;
use trilith_core::{Digest, Platform, Repository, Tag};
use trilith_oci::place::Place;
use trilith_oci::{
    BlobSource, BlobStream, Descriptor, Error, ImageStore, Kind, Mount, Name, Pushed, RawManifest,
    read_blob,
};

use crate::context::Context;
use crate::error;
use crate::load::{ResolvedImage, find, pinned, resolve};
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
    /// Whether something is going to be built.
    builds: AtomicBool,
    /// Whether an image was met whose manifest was never read on this machine.
    met_new: AtomicBool,
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
            if !matches!(place, Place::Registry(_)) {
                return resolve(context, place, platform).await;
            }
            let (store, name) = context.open(place, platform).await?;
            let store = Remembering::of(context, &store, Arc::clone(&self.documents));
            let digest = self.digest(context, &*store, &name).await?;
            pinned(place, store, digest).map(Some)
        };
        answer.get_or_try_init(ask).await.cloned()
    }

    /// Takes note that something is going to be built.
    pub(crate) fn expect_builds(&self) {
        self.builds.store(true, Ordering::Relaxed);
    }

    /// Returns what `name` points to. Where its manifest will be needed, and reading it is as
    /// good as asking, it is read.
    async fn digest(
        &self,
        context: &Context,
        store: &dyn ImageStore,
        name: &Name,
    ) -> Result<Option<Digest>, error::Error> {
        let is_set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let is_tag = matches!(name, Name::Tag(_));
        if is_tag && is_set(&self.builds) && is_set(&self.met_new) && !store.counts_reads() {
            return match store.fetch_manifest(name).await {
                Ok(manifest) => Ok(Some(manifest.descriptor.digest)),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let digest = find(store, name).await?;
        if is_tag
            && !is_set(&self.met_new)
            && let Some(digest) = &digest
            && !context.records().has_manifest(digest)
        {
            self.met_new.store(true, Ordering::Relaxed);
        }
        Ok(digest)
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

    fn remember(&self, manifest: &RawManifest) {
        if manifest.descriptor.size <= LARGEST {
            self.records.remember_manifest(manifest);
        }
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

    fn counts_reads(&self) -> bool {
        self.store.counts_reads()
    }

    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        let Name::Digest(digest) = name else {
            let manifest = self.store.fetch_manifest(name).await?;
            let known = self.documents.manifests.get(&manifest.descriptor.digest);
            let _known_already = known.set(manifest.clone());
            self.remember(&manifest);
            return Ok(manifest);
        };
        let manifest = self.documents.manifests.get(digest);
        let fetch = async || {
            if let Some(manifest) = self.records.manifest(digest) {
                return Ok::<_, Error>(manifest);
            }
            let manifest = self.store.fetch_manifest(name).await?;
            self.remember(&manifest);
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
