//! Publishing: the one order in which anything is written to a store.
//!
//! Blobs, then manifests by digest (what an index names before the index), then tags. A tag
//! therefore never points to something incomplete, wherever a run is cut off. Decides nothing about
//! content: what to publish, under which tags, and where each blob may come from is the caller's to
//! say.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use bytes::Bytes;
use futures_util::future;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use trilith_core::{Digest, Repository, Tag};

use crate::descriptor::Descriptor;
use crate::error::{Error, Kind};
use crate::links::Links;
use crate::media_type;
use crate::store::{BlobSource, ImageStore, Mount, Pushed, RawManifest};

/// How many blobs travel at a time unless the caller says otherwise.
pub const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(5);

/// A blob to be published and where it may come from.
#[derive(Clone)]
pub struct PublicationBlob {
    /// What the blob is.
    pub descriptor: Descriptor,
    /// Where it may come from. The cheapest kind is tried first, whatever the order:
    /// present, mount, upload; several of a kind in the order given.
    pub origins: Vec<BlobOrigin>,
}

impl PublicationBlob {
    /// Returns the blob of these bytes, to be sent where they are not.
    #[must_use]
    pub fn of(media_type: &str, bytes: Bytes) -> Self {
        Self {
            descriptor: Descriptor::of(media_type, &bytes),
            origins: vec![BlobOrigin::Upload(BlobSource::Memory(bytes))],
        }
    }
}

/// Where a published blob may come from.
#[derive(Clone)]
pub enum BlobOrigin {
    /// The destination has it: a manifest that is there names it. Costs no request.
    Present,
    /// Another repository on the destination's registry. Costs one request, whether the
    /// destination has the blob already or not, and no bytes.
    Mount(Repository),
    /// The bytes. The destination is asked first and they travel only if it has them not.
    Upload(BlobSource),
}

/// Images, whole, and the tags that shall point to them.
#[derive(Clone, Default)]
pub struct Publication {
    /// Every blob that the manifests name. One listed twice is published once.
    pub blobs: Vec<PublicationBlob>,
    /// The manifests, each after those it names.
    pub manifests: Vec<RawManifest>,
    /// Tags and the digest of the manifest each gets, least specific first.
    pub tags: Vec<(Tag, Digest)>,
}

/// What became of a published blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was there.
    Present,
    /// It was taken from another repository of the registry.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// One published blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBlob {
    /// The blob's digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What became of it.
    pub outcome: BlobOutcome,
}

/// What publishing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishReport {
    /// Every blob once, in the order given.
    pub blobs: Vec<PublishedBlob>,
}

impl PublishReport {
    /// Returns what became of the blob with `digest`, `None` where it was not published.
    #[must_use]
    pub fn outcome(&self, digest: &Digest) -> Option<BlobOutcome> {
        let blob = self.blobs.iter().find(|blob| &blob.digest == digest)?;
        Some(blob.outcome)
    }

    /// Returns how many blobs came to `outcome`.
    #[must_use]
    pub fn count(&self, outcome: BlobOutcome) -> usize {
        let with_outcome = |blob: &&PublishedBlob| blob.outcome == outcome;
        self.blobs.iter().filter(with_outcome).count()
    }

    /// Returns how many bytes of blobs were sent. Manifests, a few kilobytes, do not count.
    #[must_use]
    pub fn uploaded_bytes(&self) -> u64 {
        let uploaded = |blob: &&PublishedBlob| blob.outcome == BlobOutcome::Uploaded;
        self.blobs.iter().filter(uploaded).map(|b| b.size).sum()
    }
}

/// Writes `publication` to `destination`, at most `concurrency` blobs or manifests at a time.
///
/// # Errors
/// As [`publish_content`]. After an error no tag has been moved to a manifest that is not
/// complete.
pub async fn publish(
    destination: &dyn ImageStore,
    publication: &Publication,
    concurrency: NonZeroUsize,
) -> Result<PublishReport, Error> {
    let report = publish_content(destination, publication, concurrency).await?;
    publish_tags(destination, publication).await?;
    Ok(report)
}

/// Writes everything of `publication` but its tags, for a caller that has something to ask
/// before those move.
///
/// # Errors
/// [`Error::Malformed`], before anything is written, where a manifest or tag names something that
/// the publication does not hold. [`Error::Transfer`], which names the blob and both places,
/// where one cannot be brought there.
pub async fn publish_content(
    destination: &dyn ImageStore,
    publication: &Publication,
    concurrency: NonZeroUsize,
) -> Result<PublishReport, Error> {
    let tagged = check(publication)?;
    let (mut images, mut artifacts, mut with_tag) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_artifacts = BTreeSet::new();
    for manifest in &publication.manifests {
        let digest = &manifest.descriptor.digest;
        let is_tagged = tagged
            .iter()
            .any(|(_, tagged)| tagged.descriptor.digest == *digest);
        let links = Links::parse(manifest)?;
        if links.subject.is_some() {
            of_artifacts.extend(links.blobs().map(|blob| blob.digest.clone()));
            artifacts.push(manifest);
        } else if is_tagged && destination.tags_with_manifest() {
            with_tag.push(manifest);
        } else {
            images.push(manifest);
        }
    }
    let blobs = merge(&publication.blobs);
    let (attached, blobs): (Vec<_>, Vec<_>) = blobs
        .into_iter()
        .enumerate()
        .partition(|(_, blob)| of_artifacts.contains(&blob.descriptor.digest));
    // An artifact is small and may come before its subject (distribution specification 1.1, "Pushing
    // Manifests with Subject"), so it travels beside the layers. Where a registry does not know
    // that, its manifest comes once more behind its subject.
    let attach = async {
        let attached = publish_blobs(destination, &attached, concurrency).await?;
        let early = publish_manifests(destination, &artifacts, concurrency).await;
        Ok((attached, early))
    };
    let publish = publish_blobs(destination, &blobs, concurrency);
    let (mut published, (attached, early)) = future::try_join(publish, attach).await?;
    published.extend(attached);
    published.sort_by_key(|(position, _)| *position);
    let blobs = published.into_iter().map(|(_, blob)| blob).collect();
    let report = PublishReport { blobs };
    publish_manifests(destination, &images, concurrency).await?;
    if early.is_err() {
        publish_manifests(destination, &with_tag, concurrency).await?;
        publish_manifests(destination, &artifacts, concurrency).await?;
    }
    Ok(report)
}

/// Writes the tags of `publication`, the rest of which is at `destination`.
///
/// # Errors
/// As [`publish_content`], and what writing a tag comes to.
pub async fn publish_tags(
    destination: &dyn ImageStore,
    publication: &Publication,
) -> Result<(), Error> {
    for (tag, manifest) in check(publication)? {
        destination.tag(tag, manifest).await?;
    }
    Ok(())
}

/// Checks that `publication` holds all that its manifests and tags name, and returns each
/// tag with its manifest.
fn check(publication: &Publication) -> Result<Vec<(&Tag, &RawManifest)>, Error> {
    let malformed = |object: String, digest: &Digest| Error::Malformed {
        object,
        reason: format!("it names `{digest}`, which is not published before it"),
    };
    let blobs: BTreeSet<&Digest> = publication
        .blobs
        .iter()
        .map(|blob| &blob.descriptor.digest)
        .collect();
    let mut manifests: BTreeMap<&Digest, &RawManifest> = BTreeMap::new();
    for manifest in &publication.manifests {
        let links = Links::parse(manifest)?;
        let missing_blob = links.blobs().find(|blob| !blobs.contains(&blob.digest));
        let mut children = links.manifests.iter();
        let missing_child = children.find(|child| !manifests.contains_key(&child.digest));
        if let Some(missing) = missing_blob.or(missing_child) {
            let object = format!("publication of manifest `{}`", manifest.descriptor.digest);
            return Err(malformed(object, &missing.digest));
        }
        manifests.insert(&manifest.descriptor.digest, manifest);
    }
    let tagged = publication.tags.iter().map(|(tag, digest)| {
        let manifest = manifests.get(digest).copied();
        let missing = || malformed(format!("publication of tag `{tag}`"), digest);
        Ok((tag, manifest.ok_or_else(missing)?))
    });
    tagged.collect()
}

/// Returns every blob once, in the order of first appearance, with all its origins.
fn merge(blobs: &[PublicationBlob]) -> Vec<PublicationBlob> {
    let mut merged: Vec<PublicationBlob> = Vec::new();
    let mut positions: BTreeMap<&Digest, usize> = BTreeMap::new();
    for blob in blobs {
        if let Some(&position) = positions.get(&blob.descriptor.digest) {
            merged[position].origins.extend(blob.origins.clone());
        } else {
            positions.insert(&blob.descriptor.digest, merged.len());
            merged.push(blob.clone());
        }
    }
    merged
}

/// Brings blobs to `destination`, each with its position, which is returned with what became of it.
async fn publish_blobs(
    destination: &dyn ImageStore,
    blobs: &[(usize, PublicationBlob)],
    concurrency: NonZeroUsize,
) -> Result<Vec<(usize, PublishedBlob)>, Error> {
    stream::iter(blobs)
        .map(|(position, blob)| async move {
            let published = PublishedBlob {
                digest: blob.descriptor.digest.clone(),
                size: blob.descriptor.size,
                outcome: publish_blob(destination, blob).await?,
            };
            Ok((*position, published))
        })
        // Unordered: a large blob in front must not keep the others from starting.
        .buffer_unordered(concurrency.get())
        .try_collect()
        .await
}

/// Brings one blob to `destination` with the fewest requests: none where it is known to be
/// there, one where it can be mounted, else those of an upload, which the store begins with
/// the question whether it is there.
async fn publish_blob(
    destination: &dyn ImageStore,
    blob: &PublicationBlob,
) -> Result<BlobOutcome, Error> {
    let descriptor = &blob.descriptor;
    if blob
        .origins
        .iter()
        .any(|o| matches!(o, BlobOrigin::Present))
    {
        return Ok(BlobOutcome::Present);
    }
    for origin in &blob.origins {
        if let BlobOrigin::Mount(from) = origin {
            match destination.mount_blob(descriptor, from).await {
                Ok(Mount::Mounted) => return Ok(BlobOutcome::Mounted),
                // Whoever may not read the neighbour can still bring the bytes.
                Ok(Mount::Declined) => {}
                Err(error) if error.kind() == Kind::Denied => {}
                Err(error) => {
                    return Err(transfer(descriptor, &from.to_string(), destination, error));
                }
            }
        }
    }
    let sources = blob.origins.iter().filter_map(|origin| match origin {
        BlobOrigin::Upload(source) => Some(source),
        BlobOrigin::Present | BlobOrigin::Mount(_) => None,
    });
    upload(destination, descriptor, sources).await
}

/// Sends the blob from the first of `sources` that has it; without any it has to be there.
async fn upload(
    destination: &dyn ImageStore,
    descriptor: &Descriptor,
    sources: impl Iterator<Item = &BlobSource>,
) -> Result<BlobOutcome, Error> {
    let mut failure = None;
    for source in sources {
        match destination.push_blob(descriptor, source.clone()).await {
            Ok(Pushed::Written) => return Ok(BlobOutcome::Uploaded),
            Ok(Pushed::Present) => return Ok(BlobOutcome::Present),
            Err(error) => {
                let is_missing = error.kind() == Kind::NotFound;
                failure = Some(transfer(descriptor, &source.describe(), destination, error));
                if !is_missing {
                    break;
                }
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None if destination.has_blob(descriptor).await? => Ok(BlobOutcome::Present),
        None => Err(Error::NotFound {
            object: format!(
                "blob `{}` in `{}`",
                descriptor.digest,
                destination.describe()
            ),
        }),
    }
}

fn transfer(
    descriptor: &Descriptor,
    from: &str,
    destination: &dyn ImageStore,
    source: Error,
) -> Error {
    Error::Transfer {
        digest: descriptor.digest.clone(),
        from: from.to_owned(),
        to: destination.describe(),
        source: Box::new(source),
    }
}

/// Writes the manifests of images and artifacts side by side, then, one by one, what names other
/// manifests.
async fn publish_manifests(
    destination: &dyn ImageStore,
    manifests: &[&RawManifest],
    concurrency: NonZeroUsize,
) -> Result<(), Error> {
    let is_index = |manifest: &&&RawManifest| media_type::is_index(&manifest.descriptor.media_type);
    stream::iter(manifests.iter().filter(|manifest| !is_index(manifest)))
        .map(|manifest| destination.push_manifest(manifest))
        .buffer_unordered(concurrency.get())
        .try_collect::<()>()
        .await?;
    for index in manifests.iter().filter(is_index) {
        destination.push_manifest(index).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{Call, MemoryStore, image, index_of};

    fn repository(name: &str) -> Repository {
        format!("localhost:1/{name}").parse().unwrap()
    }

    fn blob(content: &[u8], origins: Vec<BlobOrigin>) -> PublicationBlob {
        PublicationBlob {
            descriptor: Descriptor::of(media_type::OCI_LAYER_TAR, content),
            origins,
        }
    }

    fn memory(content: &'static [u8]) -> BlobOrigin {
        BlobOrigin::Upload(BlobSource::Memory(content.into()))
    }

    /// An image of two layers, `base` and `top`, and its config.
    fn publication(base: Vec<BlobOrigin>, top: Vec<BlobOrigin>) -> Publication {
        let image = image(&[b"base", b"top"], "linux/amd64");
        let digest = image.manifest.descriptor.digest.clone();
        Publication {
            blobs: vec![
                blob(b"base", base),
                blob(b"top", top),
                PublicationBlob::of(media_type::OCI_CONFIG, image.config),
            ],
            manifests: vec![image.manifest],
            tags: ["v1", "v1_lock"]
                .map(|tag| (tag.parse().unwrap(), digest.clone()))
                .to_vec(),
        }
    }

    async fn run(store: &MemoryStore, publication: &Publication) -> Result<PublishReport, Error> {
        publish(store, publication, DEFAULT_CONCURRENCY).await
    }

    #[tokio::test]
    async fn everything_comes_before_what_points_to_it() {
        let store = MemoryStore::default();
        let publication = publication(vec![memory(b"base")], vec![memory(b"top")]);
        let report = run(&store, &publication).await.unwrap();
        assert_eq!(report.count(BlobOutcome::Uploaded), 3);
        let sizes: u64 = publication.blobs[2].descriptor.size + 7;
        assert_eq!(report.uploaded_bytes(), sizes);
        let kinds: Vec<Call> = store.calls();
        let position = |call: Call| kinds.iter().position(|&c| c == call).unwrap();
        assert!(position(Call::PushBlob) < position(Call::PushManifest));
        assert!(position(Call::PushManifest) < position(Call::Tag));
        // HEAD and PUT per blob, the manifest once, two tags: nothing else.
        assert_eq!(kinds.len(), 3 * 2 + 1 + 2);
        assert_eq!(store.tags(), ["v1", "v1_lock"]);
    }

    #[tokio::test]
    async fn a_blob_that_is_there_travels_no_more() {
        let store = MemoryStore::default();
        store.insert(b"base");
        let publication = publication(vec![memory(b"base")], vec![memory(b"top")]);
        let report = run(&store, &publication).await.unwrap();
        let base = &publication.blobs[0].descriptor.digest;
        assert_eq!(report.outcome(base), Some(BlobOutcome::Present));
        assert_eq!(report.count(BlobOutcome::Uploaded), 2);
    }

    #[tokio::test]
    async fn what_is_known_to_be_there_costs_no_request() {
        let store = MemoryStore::default();
        store.insert(b"base");
        let publication = publication(vec![BlobOrigin::Present], vec![memory(b"top")]);
        run(&store, &publication).await.unwrap();
        assert_eq!(store.count(Call::HasBlob), 2);
    }

    #[tokio::test]
    async fn a_mount_is_one_request() {
        let store = MemoryStore::default();
        store.offer(&repository("base"), b"base");
        let origins = vec![BlobOrigin::Mount(repository("base"))];
        let publication = publication(origins, vec![memory(b"top")]);
        let report = run(&store, &publication).await.unwrap();
        assert_eq!(report.count(BlobOutcome::Mounted), 1);
        assert_eq!(store.count(Call::Mount), 1);
        assert_eq!(store.count(Call::HasBlob), 2);
    }

    #[tokio::test]
    async fn a_declined_mount_is_followed_by_the_bytes() {
        let store = MemoryStore::default();
        let source = MemoryStore::default();
        source.insert(b"base");
        let origins = vec![
            BlobOrigin::Mount(repository("other")),
            BlobOrigin::Upload(BlobSource::Store(Arc::new(source))),
        ];
        let publication = publication(origins, vec![memory(b"top")]);
        let report = run(&store, &publication).await.unwrap();
        assert_eq!(report.count(BlobOutcome::Uploaded), 3);
    }

    #[tokio::test]
    async fn a_second_source_serves_where_the_first_lacks_the_blob() {
        let store = MemoryStore::default();
        let empty = BlobSource::Store(Arc::new(MemoryStore::default()));
        let origins = vec![BlobOrigin::Upload(empty), memory(b"base")];
        let publication = publication(origins, vec![memory(b"top")]);
        run(&store, &publication).await.unwrap();
        assert_eq!(store.tags().len(), 2);
    }

    #[tokio::test]
    async fn failures_name_the_blob_and_both_places_and_leave_no_tag() {
        let empty = BlobSource::Store(Arc::new(MemoryStore::named("the source")));
        for (origins, expected) in [
            (
                vec![BlobOrigin::Upload(empty)],
                "from `the source` to `memory`",
            ),
            (vec![memory(b"other")], "from `memory` to `memory`"),
            (vec![], "in `memory` does not exist"),
            (
                vec![BlobOrigin::Mount(repository("gone"))],
                "in `memory` does not exist",
            ),
        ] {
            let store = MemoryStore::default();
            let publication = publication(origins, vec![memory(b"top")]);
            let error = run(&store, &publication).await.unwrap_err();
            let digest = publication.blobs[0].descriptor.digest.as_str();
            let text = error.to_string();
            assert!(text.contains(digest) && text.contains(expected), "{text}");
            assert_eq!(store.count(Call::PushManifest) + store.count(Call::Tag), 0);
        }
    }

    #[tokio::test]
    async fn an_incomplete_publication_is_refused_before_anything_is_written() {
        let whole = publication(vec![memory(b"base")], vec![memory(b"top")]);
        let index = index_of(&[&whole.manifests[0]]);
        let without = |change: fn(&mut Publication)| {
            let mut publication = whole.clone();
            change(&mut publication);
            publication
        };
        let mut parent_first = whole.clone();
        parent_first.manifests.insert(0, index);
        for broken in [
            without(|p| drop(p.blobs.remove(1))),
            without(|p| drop(p.blobs.remove(2))),
            without(|p| p.manifests.clear()),
            parent_first,
        ] {
            let store = MemoryStore::default();
            let error = run(&store, &broken).await.unwrap_err();
            assert!(
                error.to_string().contains("not published before it"),
                "{error}"
            );
            assert!(store.calls().is_empty());
        }
    }

    #[tokio::test]
    async fn a_blob_listed_twice_is_published_once() {
        let store = MemoryStore::default();
        let mut publication = publication(vec![memory(b"base")], vec![memory(b"top")]);
        publication.blobs.push(publication.blobs[0].clone());
        let report = run(&store, &publication).await.unwrap();
        assert_eq!(report.blobs.len(), 3);
        assert_eq!(store.count(Call::PushBlob), 3);
    }

    #[tokio::test]
    async fn layers_elsewhere_need_not_be_published() {
        let store = MemoryStore::default();
        let mut publication = publication(vec![], vec![]);
        let text = String::from_utf8(publication.manifests[0].bytes.to_vec()).unwrap();
        let text = text.replace(
            "application/vnd.oci.image.layer.v1.tar\"",
            "application/vnd.oci.image.layer.nondistributable.v1.tar\",\"urls\":[\"https://x\"]",
        );
        let digest = Digest::of(text.as_bytes());
        publication.manifests = vec![RawManifest {
            descriptor: Descriptor::of(media_type::OCI_MANIFEST, text.as_bytes()),
            bytes: text.into(),
        }];
        publication.blobs.drain(..2);
        publication.tags = vec![("t".parse().unwrap(), digest)];
        run(&store, &publication).await.unwrap();
        assert_eq!(store.tags(), ["t"]);
    }
}
