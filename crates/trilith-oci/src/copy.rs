//! Copying an image, whole and byte for byte, from one store to another.
//!
//! Everything that belongs to the image comes along: the manifests of an index, their
//! blobs, and the list of inputs Trilith keeps beside an image (other referrers, such as
//! signatures, are not looked for). Changes nothing on the way: no manifest is rewritten, no
//! layer recompressed, so digests stay.
//!
//! Layers that may not be distributed and say where to get them stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use trilith_core::{Digest, Platform, Repository, Tag};

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::{Image, Index, Manifest};
use crate::links::Links;
use crate::media_type;
use crate::publish::{
    BlobOrigin, BlobOutcome, DEFAULT_CONCURRENCY, Publication, PublicationBlob, publish,
};
use crate::store::{BlobSource, ImageStore, MAX_MANIFEST_SIZE, Name, RawManifest};

/// How many indexes may stand between a name and an image. The specification allows any
/// number; two have been seen in the wild.
const MAX_DEPTH: usize = 4;
/// How many bytes of manifests one index may stand for; they are held in memory.
const MAX_TREE_SIZE: u64 = 16 * MAX_MANIFEST_SIZE;

/// What to copy, and how.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// The one platform to take out of an index; all of it where there is none.
    pub platform: Option<Platform>,
    /// The tags the copy gets, least specific first. Without any it is there by digest only.
    pub tags: Vec<Tag>,
    /// The source's repository, where source and destination are on one registry.
    pub mount_from: Option<Repository>,
    /// Whether an image manifest that the destination has vouches for its blobs, which are
    /// then not asked for one by one. Right for registries, which checked them; on a disk
    /// files get lost, and asking costs nothing.
    pub manifests_vouch: bool,
    /// How many blobs travel at a time.
    pub concurrency: NonZeroUsize,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            platform: None,
            tags: Vec::new(),
            mount_from: None,
            manifests_vouch: false,
            concurrency: DEFAULT_CONCURRENCY,
        }
    }
}

/// What copying came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// The digest of the manifest or index that was copied, the same in both places.
    pub digest: Digest,
    /// How many blobs were sent.
    pub blobs_copied: usize,
    /// How many blobs were there.
    pub blobs_skipped: usize,
    /// How many blobs were taken from another repository of the registry.
    pub blobs_mounted: usize,
    /// How many bytes of blobs were sent.
    pub bytes_copied: u64,
    /// What the destination could not keep, one sentence each. Only a directory has any.
    pub warnings: Vec<String>,
}

impl CopyReport {
    /// Returns the report for all of `image` sent.
    pub(crate) fn of_image(image: &Image) -> Self {
        let manifest = image.manifest();
        let layers = manifest.layers().iter().map(|layer| layer.size);
        let bytes = layers.fold(manifest.config().size, u64::saturating_add);
        Self {
            digest: manifest.to_raw().descriptor.digest,
            blobs_copied: manifest.layers().len() + 1,
            blobs_skipped: 0,
            blobs_mounted: 0,
            bytes_copied: bytes,
            warnings: Vec::new(),
        }
    }
}

/// Copies the image `from` of `source` to `destination`.
///
/// # Errors
/// [`Error::NoSuchPlatform`] where the platform asked for is not there; [`Error::Transfer`],
/// which names both places, where a blob cannot be brought over. After an error
/// no tag has been moved.
pub async fn copy_image(
    source: Arc<dyn ImageStore>,
    from: &Name,
    destination: &dyn ImageStore,
    options: &CopyOptions,
) -> Result<CopyReport, Error> {
    let platform = options.platform.as_ref();
    let tree = ImageTree::fetch(source.as_ref(), from, platform, options.concurrency).await?;
    let present = if options.manifests_vouch {
        vouched_for(&tree, destination, options.concurrency).await?
    } else {
        BTreeSet::new()
    };
    let digest = tree.root.descriptor.digest.clone();
    let publication = tree.publication(&source, &present, options)?;
    let report = publish(destination, &publication, options.concurrency).await?;
    Ok(CopyReport {
        digest,
        blobs_copied: report.count(BlobOutcome::Uploaded),
        blobs_skipped: report.count(BlobOutcome::Present),
        blobs_mounted: report.count(BlobOutcome::Mounted),
        bytes_copied: report.uploaded_bytes(),
        warnings: Vec::new(),
    })
}

/// Returns the blobs of those image manifests that `destination` has.
///
/// An index vouches for nothing: registries let its manifests be deleted under it.
async fn vouched_for(
    tree: &ImageTree,
    destination: &dyn ImageStore,
    concurrency: NonZeroUsize,
) -> Result<BTreeSet<Digest>, Error> {
    let images = tree.manifests().filter(|manifest| !is_index(manifest));
    stream::iter(images)
        .map(|manifest| async move {
            let name = Name::Digest(manifest.descriptor.digest.clone());
            if destination.resolve(&name).await?.is_none() {
                return Ok(Vec::new());
            }
            let links = Links::parse(manifest)?;
            Ok(links.blobs().map(|blob| blob.digest.clone()).collect())
        })
        .buffer_unordered(concurrency.get())
        .try_fold(BTreeSet::new(), |mut present, blobs| async move {
            present.extend(blobs);
            Ok(present)
        })
        .await
}

/// An image with everything that belongs to it, as far as manifests tell.
#[derive(Clone, Debug)]
pub(crate) struct ImageTree {
    /// The image or index itself.
    pub root: RawManifest,
    /// What is below it, each manifest after those it names; nothing for a plain image.
    pub children: Vec<RawManifest>,
    /// Trilith's lists of inputs of any of these.
    pub artifacts: Vec<RawManifest>,
}

impl ImageTree {
    /// Fetches the manifests of the image `from`, of one `platform` or all.
    pub(crate) async fn fetch(
        source: &dyn ImageStore,
        from: &Name,
        platform: Option<&Platform>,
        concurrency: NonZeroUsize,
    ) -> Result<Self, Error> {
        let root = fetch_root(source, from, platform).await?;
        let children = fetch_children(source, &root, concurrency).await?;
        let artifacts = fetch_artifacts(source, &root, &children, concurrency).await?;
        Ok(Self {
            root,
            children,
            artifacts,
        })
    }

    /// Returns every manifest, each after those it names or is about.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &RawManifest> {
        self.children
            .iter()
            .chain([&self.root])
            .chain(&self.artifacts)
    }

    /// Returns the blobs of all manifests, each once: layers, then configs.
    pub(crate) fn blobs(&self) -> Result<(Vec<Descriptor>, Vec<Descriptor>), Error> {
        let (mut layers, mut configs) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for manifest in self.manifests() {
            let links = Links::parse(manifest)?;
            let config = links.config.as_ref().map(|config| &config.digest);
            for blob in links.blobs() {
                if !seen.insert(blob.digest.clone()) {
                    continue;
                }
                if config == Some(&blob.digest) {
                    configs.push(blob.clone());
                } else {
                    layers.push(blob.clone());
                }
            }
        }
        Ok((layers, configs))
    }

    fn publication(
        &self,
        source: &Arc<dyn ImageStore>,
        present: &BTreeSet<Digest>,
        options: &CopyOptions,
    ) -> Result<Publication, Error> {
        let with_origins = |descriptor: Descriptor| {
            let origins = if present.contains(&descriptor.digest) {
                vec![BlobOrigin::Present]
            } else {
                let mount = options.mount_from.clone().map(BlobOrigin::Mount);
                let upload = BlobOrigin::Upload(BlobSource::Store(Arc::clone(source)));
                mount.into_iter().chain([upload]).collect()
            };
            PublicationBlob {
                descriptor,
                origins,
            }
        };
        let (layers, configs) = self.blobs()?;
        let digest = &self.root.descriptor.digest;
        let tags = options.tags.iter().map(|tag| (tag.clone(), digest.clone()));
        Ok(Publication {
            blobs: layers
                .into_iter()
                .chain(configs)
                .map(with_origins)
                .collect(),
            manifests: self.manifests().cloned().collect(),
            tags: tags.collect(),
        })
    }
}

fn is_index(manifest: &RawManifest) -> bool {
    media_type::is_index(&manifest.descriptor.media_type)
}

/// Fetches the manifest of `from`, down to `platform` where one is asked for.
pub(crate) async fn fetch_root(
    source: &dyn ImageStore,
    from: &Name,
    platform: Option<&Platform>,
) -> Result<RawManifest, Error> {
    match platform {
        None => source.fetch_manifest(from).await,
        Some(platform) => {
            let found = Image::load(source, from, platform).await?;
            Ok(found.image.manifest().to_raw())
        }
    }
}

/// Returns the image `from`: of an index the one for `platform`, or the only one.
///
/// # Errors
/// [`Error::Unsupported`] where an index holds several and no platform says which.
pub(crate) async fn only_image(
    source: &dyn ImageStore,
    from: &Name,
    platform: Option<&Platform>,
) -> Result<Image, Error> {
    if let Some(platform) = platform {
        return Ok(Image::load(source, from, platform).await?.image);
    }
    let root = source.fetch_manifest(from).await?;
    if !is_index(&root) {
        return Image::fetch(source, Manifest::parse(&root)?).await;
    }
    let platforms = Index::parse(&root)?.platforms();
    if let [only] = platforms.as_slice() {
        return Ok(Image::load(source, from, only).await?.image);
    }
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    Err(Error::Unsupported {
        object: format!("an index of images for {}", names.join(", ")),
        reason: "the destination holds an image for one platform".to_owned(),
        advice: "name the platform",
    })
}

async fn fetch_child(source: &dyn ImageStore, child: &Descriptor) -> Result<RawManifest, Error> {
    let name = Name::Digest(child.digest.clone());
    let mut manifest = source.fetch_manifest(&name).await?;
    if manifest.descriptor.size != child.size {
        return Err(Error::SizeMismatch {
            object: format!("manifest `{}` of `{}`", child.digest, source.describe()),
            expected: child.size,
            actual: manifest.descriptor.size,
        });
    }
    // A place that finds manifests by digest may have to guess; the parent says it.
    manifest.descriptor.media_type.clone_from(&child.media_type);
    Ok(manifest)
}

/// Fetches everything below `root`, each manifest after those it names.
async fn fetch_children(
    source: &dyn ImageStore,
    root: &RawManifest,
    concurrency: NonZeroUsize,
) -> Result<Vec<RawManifest>, Error> {
    let mut found: BTreeMap<Digest, RawManifest> = BTreeMap::new();
    let mut wanted = children_of(root)?;
    let mut size = 0_u64;
    for _ in 0..MAX_DEPTH {
        let mut seen = BTreeSet::new();
        wanted.retain(|child| {
            !found.contains_key(&child.digest) && seen.insert(child.digest.clone())
        });
        let sizes = wanted.iter().map(|child| child.size);
        size = sizes.fold(size, u64::saturating_add);
        if size > MAX_TREE_SIZE {
            return Err(Error::Malformed {
                object: format!("index `{}`", root.descriptor.digest),
                reason: format!(
                    "it names more than {} MiB of manifests",
                    MAX_TREE_SIZE >> 20
                ),
            });
        }
        let fetched: Vec<RawManifest> = stream::iter(&wanted)
            .map(|child| fetch_child(source, child))
            .buffered(concurrency.get())
            .try_collect()
            .await?;
        wanted = Vec::new();
        for manifest in fetched {
            wanted.extend(children_of(&manifest)?);
            found.insert(manifest.descriptor.digest.clone(), manifest);
        }
        if wanted.is_empty() {
            let mut ordered = Vec::with_capacity(found.len());
            order(root, &mut found, &mut ordered)?;
            return Ok(ordered);
        }
    }
    Err(too_deep(root))
}

fn children_of(manifest: &RawManifest) -> Result<Vec<Descriptor>, Error> {
    if is_index(manifest) {
        Ok(Links::parse(manifest)?.manifests)
    } else {
        Ok(Vec::new())
    }
}

/// Moves what is below `parent` from `found` to `ordered`, each manifest after those it names.
fn order(
    parent: &RawManifest,
    found: &mut BTreeMap<Digest, RawManifest>,
    ordered: &mut Vec<RawManifest>,
) -> Result<(), Error> {
    for child in children_of(parent)? {
        if let Some(manifest) = found.remove(&child.digest) {
            order(&manifest, found, ordered)?;
            ordered.push(manifest);
        }
    }
    Ok(())
}

fn too_deep(root: &RawManifest) -> Error {
    Error::Malformed {
        object: format!("index `{}`", root.descriptor.digest),
        reason: format!("it holds indexes in indexes, more than {MAX_DEPTH} deep"),
    }
}

/// Fetches the lists of inputs of `root` and `children`.
async fn fetch_artifacts(
    source: &dyn ImageStore,
    root: &RawManifest,
    children: &[RawManifest],
    concurrency: NonZeroUsize,
) -> Result<Vec<RawManifest>, Error> {
    let subjects = [root].into_iter().chain(children);
    let found: Vec<Vec<RawManifest>> = stream::iter(subjects)
        .map(|subject| async move {
            let digest = &subject.descriptor.digest;
            let found = source.referrers(digest, media_type::TRILITH_INPUTS).await?;
            let fetched = found.iter().map(|artifact| fetch_child(source, artifact));
            futures_util::future::try_join_all(fetched).await
        })
        .buffered(concurrency.get())
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Call, MemoryStore, TestImage, image, index_of, manifest};

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn tagged(tags: &[&str]) -> CopyOptions {
        CopyOptions {
            tags: tags.iter().map(|t| tag(t)).collect(),
            ..CopyOptions::default()
        }
    }

    async fn copy(
        source: &Arc<MemoryStore>,
        destination: &MemoryStore,
        options: &CopyOptions,
    ) -> Result<CopyReport, Error> {
        let source: Arc<dyn ImageStore> = Arc::<MemoryStore>::clone(source);
        copy_image(source, &Name::Tag(tag("t")), destination, options).await
    }

    /// A store with an index `t` of two images that share their lowest layer.
    fn two_platforms() -> (Arc<MemoryStore>, RawManifest, [TestImage; 2]) {
        let store = MemoryStore::named("source");
        let images = [
            image(&[b"shared", b"amd64"], "linux/amd64"),
            image(&[b"shared", b"arm64"], "linux/arm64"),
        ];
        for image in &images {
            store.insert_image(image, None);
        }
        let index = index_of(&[&images[0].manifest, &images[1].manifest]);
        store.insert_manifest(&index, Some("t"));
        (Arc::new(store), index, images)
    }

    #[tokio::test]
    async fn an_index_comes_whole_and_unchanged() {
        let (source, index, images) = two_platforms();
        let destination = MemoryStore::default();
        let report = copy(&source, &destination, &tagged(&["a", "b"]))
            .await
            .unwrap();
        assert_eq!(report.digest, index.descriptor.digest);
        assert_eq!((report.blobs_copied, report.blobs_skipped), (5, 0));
        assert_eq!(destination.tags(), ["a", "b"]);
        for manifest in [&index, &images[0].manifest, &images[1].manifest] {
            let name = Name::Digest(manifest.descriptor.digest.clone());
            assert_eq!(destination.fetch_manifest(&name).await.unwrap(), *manifest);
        }
    }

    #[tokio::test]
    async fn the_second_time_no_blob_is_asked_for_where_manifests_vouch() {
        let (source, ..) = two_platforms();
        let destination = MemoryStore::default();
        let options = CopyOptions {
            manifests_vouch: true,
            ..tagged(&["t"])
        };
        copy(&source, &destination, &options).await.unwrap();
        destination.forget_calls();
        source.forget_calls();
        let report = copy(&source, &destination, &options).await.unwrap();
        assert_eq!((report.blobs_copied, report.blobs_skipped), (0, 5));
        assert_eq!(report.bytes_copied, 0);
        assert_eq!(destination.count(Call::Resolve), 2);
        assert_eq!(
            destination.count(Call::HasBlob) + source.count(Call::FetchBlob),
            0
        );
    }

    #[tokio::test]
    async fn a_blob_the_destination_lost_is_sent_again() {
        let (source, _, images) = two_platforms();
        let destination = MemoryStore::default();
        let options = tagged(&["t"]);
        copy(&source, &destination, &options).await.unwrap();
        destination.remove(&Digest::of(&images[0].layers[1]));
        let report = copy(&source, &destination, &options).await.unwrap();
        assert_eq!((report.blobs_copied, report.blobs_skipped), (1, 4));
    }

    #[tokio::test]
    async fn one_platform_of_an_index() {
        let (source, _, images) = two_platforms();
        let destination = MemoryStore::default();
        let options = CopyOptions {
            platform: Some("linux/arm64".parse().unwrap()),
            ..tagged(&["t"])
        };
        let report = copy(&source, &destination, &options).await.unwrap();
        assert_eq!(report.digest, images[1].manifest.descriptor.digest);
        assert_eq!(report.blobs_copied, 3);
    }

    #[tokio::test]
    async fn a_platform_that_is_not_there_is_refused() {
        let (source, ..) = two_platforms();
        let single = MemoryStore::named("single");
        single.insert_image(&image(&[b"a"], "linux/amd64"), Some("t"));
        for source in [source, Arc::new(single)] {
            let destination = MemoryStore::default();
            let options = CopyOptions {
                platform: Some("linux/riscv64".parse().unwrap()),
                ..tagged(&["t"])
            };
            let error = copy(&source, &destination, &options).await.unwrap_err();
            assert!(
                error.to_string().contains("no image for linux/riscv64"),
                "{error}"
            );
            assert!(error.hint().unwrap().contains("linux/amd64"));
            assert!(destination.calls().is_empty());
        }
    }

    #[tokio::test]
    async fn the_list_of_inputs_comes_along_and_nothing_else() {
        let store = MemoryStore::named("source");
        let subject = image(&[b"layer"], "linux/amd64");
        store.insert_image(&subject, Some("t"));
        store.insert(b"{}");
        for (kind, content) in [
            (media_type::TRILITH_INPUTS, b"inputs" as &[u8]),
            ("application/vnd.example.signature", b"signature"),
        ] {
            store.insert(content);
            let json = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": media_type::OCI_MANIFEST,
                "artifactType": kind,
                "config": Descriptor::of(media_type::OCI_EMPTY, b"{}"),
                "layers": [Descriptor::of(kind, content)],
                "subject": subject.manifest.descriptor,
            });
            store.insert_manifest(&manifest(media_type::OCI_MANIFEST, &json), None);
        }
        let destination = MemoryStore::default();
        let report = copy(&Arc::new(store), &destination, &tagged(&["t"]))
            .await
            .unwrap();
        // The layer, the list, the image's config and the artifact's empty one.
        assert_eq!(report.blobs_copied, 4);
        let digest = &subject.manifest.descriptor.digest;
        let kind = media_type::TRILITH_INPUTS;
        assert_eq!(destination.referrers(digest, kind).await.unwrap().len(), 1);
        let calls = destination.calls();
        assert_eq!(
            calls.iter().position(|&c| c == Call::Tag),
            Some(calls.len() - 2)
        );
    }

    #[tokio::test]
    async fn a_neighbour_is_mounted() {
        let (source, ..) = two_platforms();
        let neighbour: Repository = "localhost:1/source".parse().unwrap();
        let destination = MemoryStore::default();
        destination.offer(&neighbour, b"shared");
        let options = CopyOptions {
            mount_from: Some(neighbour),
            ..tagged(&["t"])
        };
        let report = copy(&source, &destination, &options).await.unwrap();
        assert_eq!((report.blobs_mounted, report.blobs_copied), (1, 4));
        assert_eq!(destination.count(Call::Mount), 5);
    }

    #[tokio::test]
    async fn a_blob_the_source_lost_leaves_no_tag() {
        let (source, _, images) = two_platforms();
        let lost = Digest::of(&images[1].layers[1]);
        source.remove(&lost);
        let destination = MemoryStore::default();
        let error = copy(&source, &destination, &tagged(&["t"]))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(lost.as_str()), "{text}");
        assert!(text.contains("from `source` to `memory`"), "{text}");
        assert!(destination.tags().is_empty());
        assert_eq!(destination.count(Call::PushManifest), 0);
    }

    #[tokio::test]
    async fn a_manifest_named_twice_comes_before_both_that_name_it() {
        let leaf = image(&[b"a"], "linux/amd64");
        let inner = index_of(&[&leaf.manifest]);
        for order in [[&inner, &leaf.manifest], [&leaf.manifest, &inner]] {
            let outer = index_of(&order);
            let source = MemoryStore::named("source");
            source.insert_image(&leaf, None);
            source.insert_manifest(&inner, None);
            source.insert_manifest(&outer, Some("t"));
            let destination = MemoryStore::default();
            copy(&Arc::new(source), &destination, &tagged(&["t"]))
                .await
                .unwrap();
            assert_eq!(destination.count(Call::PushManifest), 3);
        }
    }

    #[tokio::test]
    async fn endless_indexes_are_refused() {
        let source = MemoryStore::named("source");
        let leaf = image(&[b"a"], "linux/amd64");
        source.insert_image(&leaf, None);
        let mut top = leaf.manifest;
        for _ in 0..=MAX_DEPTH {
            top = index_of(&[&top]);
            source.insert_manifest(&top, None);
        }
        source.insert_manifest(&top, Some("t"));
        let source = Arc::new(source);
        let error = copy(&source, &MemoryStore::default(), &tagged(&["t"])).await;
        assert!(error.unwrap_err().to_string().contains("more than 4 deep"));
        let huge = serde_json::json!({ "schemaVersion": 2, "manifests": [Descriptor {
            size: MAX_TREE_SIZE + 1,
            ..top.descriptor
        }]});
        source.insert_manifest(&manifest(media_type::OCI_INDEX, &huge), Some("t"));
        let error = copy(&source, &MemoryStore::default(), &tagged(&["t"])).await;
        assert!(error.unwrap_err().to_string().contains("64 MiB"));
    }
}
