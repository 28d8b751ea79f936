//! The seam between images and the places they are kept.
//!
//! Two places implement all of it: a repository on a registry ([`crate::registry`]) and an
//! OCI layout on disk ([`crate::layout`]). Archives, engines and root file systems
//! ([`crate::archive`], [`crate::rootfs`]) are read as stores that refuse writes, and written whole
//! out of any store.

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use trilith_core::{Digest, Repository, Tag};

use crate::descriptor::Descriptor;
use crate::error::Error;

/// The most bytes of a manifest that are read; larger ones are refused.
///
/// The distribution specification asks registries to accept 4 MiB and clients not to exceed it.
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// The bytes of a blob, in order. Whoever consumes it to the end may trust it: the
/// stream yields an error instead of its last piece when length or digest are wrong.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A tag (in a layout: the value of `org.opencontainers.image.ref.name`).
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

/// A manifest as it was stored: its exact bytes and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// Media type, digest and length of `bytes`.
    pub descriptor: Descriptor,
    /// The bytes, which hash to `descriptor.digest`.
    pub bytes: Bytes,
}

/// What came of the attempt to take a blob from a neighbouring repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// The blob is there now; no byte travelled.
    Mounted,
    /// The registry declined; the blob has to be uploaded.
    Declined,
}

/// What came of writing a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was not there, and its bytes were written.
    Written,
    /// It was there already.
    Present,
}

/// A place that holds the manifests and blobs of one repository.
///
/// Every write is idempotent. A manifest is accepted only when what it points to is
/// present; callers write blobs, then manifests by digest, then tags.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// Returns the place in words for messages, `localhost:5000/a` for instance.
    fn describe(&self) -> String;

    /// Returns what `name` points to, `None` where it is known to be absent.
    ///
    /// # Errors
    /// Every answer that is neither yes nor no (a timeout, 401, 429, 5xx).
    async fn resolve(&self, name: &Name) -> Result<Option<Descriptor>, Error>;

    /// Returns whether the place has said that it counts what is read of it, as registries with
    /// quotas of pulls do. What is asked with [`Self::resolve`] does not count there.
    fn counts_reads(&self) -> bool {
        false
    }

    /// Returns the manifest `name` points to.
    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error>;

    /// Returns the content of `blob`, checked against its digest and size while it is read.
    async fn fetch_blob(&self, blob: &Descriptor) -> Result<BlobStream, Error>;

    /// Returns whether `blob` is present.
    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error>;

    /// Writes `content` as `blob` unless it is there, which is asked first; what does not hash to
    /// its digest is refused and leaves no trace.
    async fn push_blob(&self, blob: &Descriptor, content: BlobSource) -> Result<Pushed, Error>;

    /// Asks for `blob` to be taken from `from`, a repository on the same registry.
    async fn mount_blob(&self, blob: &Descriptor, from: &Repository) -> Result<Mount, Error>;

    /// Writes a manifest under its digest.
    async fn push_manifest(&self, manifest: &RawManifest) -> Result<(), Error>;

    /// Returns whether [`Self::tag`] writes the manifest too.
    fn tags_with_manifest(&self) -> bool {
        false
    }

    /// Points `tag` at `manifest`, which is present already unless [`Self::tags_with_manifest`].
    async fn tag(&self, tag: &Tag, manifest: &RawManifest) -> Result<(), Error>;

    /// Returns the manifests whose `subject` is `digest` and whose artifact type is `artifact_type`.
    async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error>;
}

/// Returns the content of `blob`, which must not be larger than `limit` bytes.
///
/// # Errors
/// [`Error::SizeMismatch`] where it is larger, and whatever reading it comes to.
pub async fn read_blob(
    store: &dyn ImageStore,
    blob: &Descriptor,
    limit: u64,
) -> Result<Bytes, Error> {
    if blob.size > limit {
        return Err(Error::SizeMismatch {
            object: format!("blob `{}` of `{}`", blob.digest, store.describe()),
            expected: limit,
            actual: blob.size,
        });
    }
    let pieces: Vec<Bytes> = store.fetch_blob(blob).await?.try_collect().await?;
    Ok(pieces.concat().into())
}

/// Where the bytes of a blob to be pushed come from. Can be opened again for a retry.
#[derive(Clone)]
pub enum BlobSource {
    /// Bytes in memory.
    Memory(Bytes),
    /// A file that holds exactly the blob.
    File(std::path::PathBuf),
    /// The blob of the same digest in another store.
    Store(std::sync::Arc<dyn ImageStore>),
}

impl BlobSource {
    /// Returns the source in words for messages: a path, a place, or `memory`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Store(store) => store.describe(),
        }
    }
}
