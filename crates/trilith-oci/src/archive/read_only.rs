//! A store that is read and never written: manifests in memory or in a file, blobs in files.
//!
//! What archives, engines and root file systems are read as. Every write is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use trilith_core::{Digest, Repository, Tag};

use super::members::Part;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::media_type_of;
use crate::layout::{Entry, choose, tagged};
use crate::links::Links;
use crate::store::{
    BlobSource, BlobStream, ImageStore, MAX_MANIFEST_SIZE, Mount, Name, Pushed, RawManifest,
};
use crate::verified::verified;

/// The annotation on an image's entry in `index.json` with the digests of manifests about
/// it, separated by commas. Entries of their own would make podman and skopeo ask which of
/// "several images" is meant.
pub(super) const REFERRERS: &str = "dev.trilith.referrers";

/// Where the bytes of a blob or manifest are.
#[derive(Clone)]
pub(crate) enum Content {
    Memory(Bytes),
    File(Part),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(part) => part.size(),
        }
    }
}

/// The store.
pub(crate) struct ReadOnlyStore {
    name: String,
    contents: BTreeMap<Digest, Content>,
    /// The entries of `index.json`.
    entries: Vec<Entry>,
}

impl ReadOnlyStore {
    /// Returns the store of `contents`, which messages call `name`.
    pub(crate) fn new(
        name: String,
        contents: BTreeMap<Digest, Content>,
        entries: Vec<Entry>,
    ) -> Self {
        Self {
            name,
            contents,
            entries,
        }
    }

    /// Returns the digest of the image called `tag`, or of the only image.
    ///
    /// # Errors
    /// Those of [`choose`].
    pub(super) fn image(&self, tag: Option<&Tag>) -> Result<&Digest, Error> {
        Ok(&choose(&self.entries, tag, &self.name)?.digest)
    }

    fn content(&self, digest: &Digest, kind: &str) -> Result<&Content, Error> {
        self.contents.get(digest).ok_or_else(|| Error::NotFound {
            object: format!("{kind} `{digest}` in `{}`", self.name),
        })
    }

    fn described(&self, digest: &Digest) -> Option<&Descriptor> {
        let mut descriptors = self.entries.iter().map(|entry| &entry.descriptor);
        descriptors.find(|descriptor| &descriptor.digest == digest)
    }

    async fn manifest(&self, digest: &Digest) -> Result<RawManifest, Error> {
        let content = self.content(digest, "manifest")?;
        let object = format!("manifest `{digest}` of `{}`", self.name);
        if content.size() > MAX_MANIFEST_SIZE {
            return Err(Error::ManifestTooLarge {
                object: digest.to_string(),
            });
        }
        let descriptor = Descriptor::new("", digest.clone(), content.size());
        let bytes = collect(stream_of(content.clone(), &descriptor, object)).await?;
        let media_type = match self.described(digest) {
            Some(entry) => entry.media_type.clone(),
            None => media_type_of(&bytes).ok_or_else(|| Error::Malformed {
                object: format!("manifest `{digest}` of `{}`", self.name),
                reason: "it is neither a manifest nor an index".to_owned(),
            })?,
        };
        Ok(RawManifest {
            descriptor: Descriptor::new(&media_type, digest.clone(), bytes.len() as u64),
            bytes,
        })
    }

    fn read_only(&self) -> Error {
        Error::Unsupported {
            object: format!("writing to `{}` piece by piece", self.name),
            reason: "archives are written whole".to_owned(),
            advice: "name the archive as the destination of a copy",
        }
    }
}

async fn collect(mut stream: BlobStream) -> Result<Bytes, Error> {
    use futures_util::StreamExt;
    let mut collected = Vec::new();
    while let Some(piece) = stream.next().await {
        collected.extend_from_slice(&piece?);
    }
    Ok(collected.into())
}

/// Returns the bytes of `content`, checked against `blob`.
fn stream_of(content: Content, blob: &Descriptor, object: String) -> BlobStream {
    match content {
        Content::Memory(bytes) => verified(stream::iter([Ok(bytes)]), blob, object),
        Content::File(part) => {
            let pieces = part.stream(object.clone());
            verified(pieces, blob, object)
        }
    }
}

#[async_trait]
impl ImageStore for ReadOnlyStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn resolve(&self, name: &Name) -> Result<Option<Descriptor>, Error> {
        let digest = match name {
            Name::Tag(tag) => match tagged(&self.entries, tag) {
                Some(entry) => &entry.digest,
                None => return Ok(None),
            },
            Name::Digest(digest) => digest,
        };
        if !self.contents.contains_key(digest) {
            return Ok(None);
        }
        Ok(Some(self.manifest(digest).await?.descriptor))
    }

    async fn fetch_manifest(&self, name: &Name) -> Result<RawManifest, Error> {
        match name {
            Name::Tag(tag) => self.manifest(self.image(Some(tag))?).await,
            Name::Digest(digest) => self.manifest(digest).await,
        }
    }

    async fn fetch_blob(&self, blob: &Descriptor) -> Result<BlobStream, Error> {
        let content = self.content(&blob.digest, "blob")?;
        let object = format!("blob `{}` of `{}`", blob.digest, self.name);
        if content.size() != blob.size {
            return Err(Error::SizeMismatch {
                object,
                expected: blob.size,
                actual: content.size(),
            });
        }
        Ok(stream_of(content.clone(), blob, object))
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        Ok(self.contents.contains_key(&blob.digest))
    }

    async fn push_blob(&self, _: &Descriptor, _: BlobSource) -> Result<Pushed, Error> {
        Err(self.read_only())
    }

    async fn mount_blob(&self, _: &Descriptor, _: &Repository) -> Result<Mount, Error> {
        Err(self.read_only())
    }

    async fn push_manifest(&self, _: &RawManifest) -> Result<(), Error> {
        Err(self.read_only())
    }

    async fn tag(&self, _: &Tag, _: &RawManifest) -> Result<(), Error> {
        Err(self.read_only())
    }

    async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut candidates: Vec<Digest> = Vec::new();
        for entry in &self.entries {
            let entry = &entry.descriptor;
            if entry.artifact_type.as_deref() == Some(artifact_type) {
                candidates.push(entry.digest.clone());
            }
            let listed = entry.annotations.get(REFERRERS).map_or("", String::as_str);
            candidates.extend(listed.split(',').filter_map(|text| text.parse().ok()));
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut found = Vec::new();
        for candidate in candidates {
            let manifest = self.manifest(&candidate).await?;
            let links = Links::parse(&manifest)?;
            let is_about = links.subject.as_ref().is_some_and(|s| &s.digest == digest);
            if is_about && links.artifact_type.as_deref() == Some(artifact_type) {
                found.push(manifest.descriptor);
            }
        }
        Ok(found)
    }
}

/// Returns `store` behind the seam.
pub(super) fn shared(store: ReadOnlyStore) -> Arc<dyn ImageStore> {
    Arc::new(store)
}
