//! A repository on a registry: the images of levels, each with its tags and the list of its inputs.
//!
//! Images carry no time, and registries tell none: how long one was not used is what the records of
//! this machine say, which has built or found it. What this machine does not know stays, and so does
//! every image that is not Trilith's or has a tag that no scheme made. Manifests are deleted and nothing else; blobs that no manifest
//! names any more are the registry's to collect.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use trilith_core::{Digest, Level, Reference, Repository, Tag};
use trilith_oci::image::{ImageConfig, Index, Manifest};
use trilith_oci::registry::RegistryRepository;
use trilith_oci::{Descriptor, ImageStore as _, Name, RawManifest, media_type, read_blob};

use super::{Item, PruneOptions, choose, level, runs};
use crate::context::Context;
use crate::engine::running_images;
use crate::error::Error;

/// How many manifests are asked for at a time.
const CONCURRENCY: usize = 8;
/// The most bytes of a configuration that are read.
const MAX_CONFIG_SIZE: u64 = 4 * 1024 * 1024;
/// What tags begin with that hold lists of referrers.
const REFERRERS: [&str; 2] = ["sha256-", "sha512-"];

/// What went of a repository, or would.
#[derive(Clone, Debug, Default)]
pub struct RegistryPruneReport {
    /// The tags that went, each with what it pointed to and how long that was not used.
    pub images: Vec<(Reference, Digest, Option<Level>, Duration)>,
    /// How many manifests and indexes went, lists of inputs and of referrers among them.
    pub manifests: usize,
    /// How many tags are left.
    pub kept_images: usize,
    /// How many of them this machine does not know the age of.
    pub unknown_images: usize,
    /// How many images stay since a running container uses them.
    pub running_images: usize,
}

/// What one digest is, and the tags that point to it.
struct Tagged {
    digest: Digest,
    tags: Vec<Tag>,
    level: Option<Level>,
    /// Its manifest, and those that it names.
    manifests: BTreeSet<Digest>,
    /// Whether this machine knows when it was used.
    is_known: bool,
}

/// Prunes `repository` on its registry.
///
/// # Errors
/// Something cannot be read or told, or the registry deletes nothing. What is left is whole all the
/// same.
pub async fn prune_registry(
    context: &Context,
    repository: &Repository,
    options: &PruneOptions,
) -> Result<RegistryPruneReport, Error> {
    let now = SystemTime::now();
    let place = context.registry.repository(repository)?.for_writing();
    let running = running_images(&context.engines, &context.registry).await?;
    let mut report = RegistryPruneReport::default();
    let mut items = Vec::new();
    for (digest, (manifest, tags)) in tagged(&place).await? {
        let Contents {
            manifests,
            blobs,
            configs,
        } = contents(&place, &manifest).await?;
        let level = level(&configs);
        let runs = runs(&running, &blobs, &configs);
        report.running_images += usize::from(runs);
        let last_used = context.records().last_used(&digest);
        let keeps = level.is_none_or(|level| options.keep_levels.contains(&level));
        let is_named = !tags.iter().all(is_of_level);
        items.push(Item {
            is_protected: runs || keeps || is_named || last_used.is_none(),
            what: Tagged {
                digest,
                tags,
                level,
                manifests,
                is_known: last_used.is_some(),
            },
            blobs,
            last_used: last_used.unwrap_or(now),
        });
    }
    let (gone, kept) = choose(items, options, now);
    let needed: BTreeSet<&Digest> = kept.iter().flat_map(|item| &item.what.manifests).collect();
    for item in &gone {
        let Tagged {
            digest,
            tags,
            level,
            manifests,
            ..
        } = &item.what;
        if needed.contains(digest) {
            // An index that stays names it, and its tags would go with it.
            report.kept_images += tags.len();
            continue;
        }
        let mut doomed = about(&place, digest).await?;
        // What names others goes before them.
        doomed.push(digest.clone());
        let below = manifests.iter().filter(|below| *below != digest);
        doomed.extend(below.filter(|below| !needed.contains(below)).cloned());
        for manifest in doomed {
            let went = options.dry_run || place.delete_manifest(&manifest).await?;
            report.manifests += usize::from(went);
        }
        let unused = now.duration_since(item.last_used).unwrap_or_default();
        let tags = tags.iter().map(|tag| repository.with_tag(tag.clone()));
        let tags = tags.map(|tag| (tag, digest.clone(), *level, unused));
        report.images.extend(tags);
    }
    for item in &kept {
        report.kept_images += item.what.tags.len();
        if !item.what.is_known {
            report.unknown_images += item.what.tags.len();
        }
    }
    Ok(report)
}

/// Returns whether a scheme may have made `tag`; people call images `latest` or `stable`.
fn is_of_level(tag: &Tag) -> bool {
    let tag = tag.as_str();
    let version = tag.strip_prefix("oh_").unwrap_or(tag).strip_prefix('v');
    version.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('_'))
}

/// Returns what the tags point to, without lists of referrers.
async fn tagged(
    place: &RegistryRepository,
) -> Result<BTreeMap<Digest, (RawManifest, Vec<Tag>)>, Error> {
    let tags = place.tags().await?.into_iter();
    let tags = tags.filter(|tag| {
        !REFERRERS
            .iter()
            .any(|start| tag.as_str().starts_with(start))
    });
    let fetched: Vec<(Tag, Option<RawManifest>)> = stream::iter(tags)
        .map(|tag| async move {
            let name = Name::Tag(tag.clone());
            match place.fetch_manifest(&name).await {
                Ok(manifest) => Ok((tag, Some(manifest))),
                // It went meanwhile.
                Err(trilith_oci::Error::NotFound { .. }) => Ok((tag, None)),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let mut tagged: BTreeMap<Digest, (RawManifest, Vec<Tag>)> = BTreeMap::new();
    for (tag, manifest) in fetched {
        if let Some(manifest) = manifest {
            let digest = manifest.descriptor.digest.clone();
            let (_, tags) = tagged.entry(digest).or_insert((manifest, Vec::new()));
            tags.push(tag);
        }
    }
    Ok(tagged)
}

/// What an image is made of.
#[derive(Default)]
struct Contents {
    manifests: BTreeSet<Digest>,
    blobs: BTreeMap<Digest, u64>,
    configs: Vec<ImageConfig>,
}

/// Reads what `manifest` names, down to the configurations.
async fn contents(place: &RegistryRepository, manifest: &RawManifest) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    let mut waiting = vec![manifest.clone()];
    while let Some(raw) = waiting.pop() {
        let Descriptor { digest, size, .. } = &raw.descriptor;
        contents.blobs.insert(digest.clone(), *size);
        if !contents.manifests.insert(digest.clone()) {
            continue;
        }
        if media_type::is_index(&raw.descriptor.media_type) {
            for child in Index::parse(&raw)?.manifests() {
                let name = Name::Digest(child.digest.clone());
                waiting.push(place.fetch_manifest(&name).await?);
            }
            continue;
        }
        let manifest = Manifest::parse(&raw)?;
        let config = manifest.config();
        for blob in manifest.layers().iter().chain([config]) {
            contents.blobs.insert(blob.digest.clone(), blob.size);
        }
        let bytes = read_blob(place, config, MAX_CONFIG_SIZE).await?;
        // That of an artifact is none.
        contents.configs.extend(ImageConfig::parse(bytes).ok());
    }
    Ok(contents)
}

/// Returns the manifests that are about `digest` and go with it: its list of inputs, and the list of
/// its referrers where nothing else is on it.
async fn about(place: &RegistryRepository, digest: &Digest) -> Result<Vec<Digest>, Error> {
    let own = place.referrers(digest, media_type::TRILITH_INPUTS).await?;
    let mut about: Vec<Digest> = own.into_iter().map(|one| one.digest).collect();
    let tag = Name::Tag(RegistryRepository::referrers_tag(digest)?);
    if let Some(found) = place.resolve(&tag).await?
        && media_type::is_index(&found.media_type)
    {
        let list = Index::parse(&place.fetch_manifest(&Name::Digest(found.digest)).await?)?;
        let is_ours = |one: &Descriptor| about.contains(&one.digest);
        if list.manifests().iter().all(is_ours) {
            about.insert(0, list.to_raw().descriptor.digest);
        } else {
            // Signatures and the like are others' to remove, and their list is with them.
            about.clear();
        }
    }
    Ok(about)
}
