//! What can go of a store or a registry: what was not used for long, or is too much.
//!
//! One choice for both; what is there and how it is removed differ. Nothing is printed.

mod registry;
mod store;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use trilith_core::{Digest, Level};
use trilith_oci::image::ImageConfig;

use crate::engine::RunningImage;
use crate::labels;

pub use registry::{RegistryPruneReport, prune_registry};
pub use store::{PruneReport, PrunedImage, prune};

/// What goes and what stays.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Images, layers, records and caches that were not used for this long go.
    pub older_than: Option<Duration>,
    /// The images and layers that were not used for longest go, until the rest has no more bytes.
    pub keep_size: Option<u64>,
    /// Images of these levels stay.
    pub keep_levels: Vec<Level>,
    /// Change nothing.
    pub dry_run: bool,
}

/// Something that can go, and what is to be known of it.
struct Item<T> {
    what: T,
    /// Everything it needs: digests and sizes in bytes.
    blobs: BTreeMap<Digest, u64>,
    last_used: SystemTime,
    is_protected: bool,
}

/// Returns what goes and what stays.
fn choose<T>(
    mut items: Vec<Item<T>>,
    options: &PruneOptions,
    now: SystemTime,
) -> (Vec<Item<T>>, Vec<Item<T>>) {
    items.sort_by_key(|item| item.last_used);
    let is_old = |item: &Item<T>| {
        let unused = now.duration_since(item.last_used).unwrap_or_default();
        options.older_than.is_some_and(|limit| unused > limit)
    };
    let (mut gone, kept): (Vec<Item<T>>, Vec<Item<T>>) = items
        .into_iter()
        .partition(|item| !item.is_protected && is_old(item));
    let Some(keep_size) = options.keep_size else {
        return (gone, kept);
    };
    let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut size = 0;
    for (digest, bytes) in kept.iter().flat_map(|item| &item.blobs) {
        let count = users.entry(digest.clone()).or_default();
        if *count == 0 {
            size += bytes;
        }
        *count += 1;
    }
    let mut left = Vec::new();
    for item in kept {
        if item.is_protected || size <= keep_size {
            left.push(item);
            continue;
        }
        for (digest, bytes) in &item.blobs {
            let count = users.entry(digest.clone()).or_default();
            *count -= 1;
            if *count == 0 {
                size -= bytes;
            }
        }
        gone.push(item);
    }
    (gone, left)
}

/// Returns the level of an image with these configurations, one for each platform.
fn level(configs: &[ImageConfig]) -> Option<Level> {
    let labels = configs.first()?.labels();
    labels::level(&labels)
}

/// Returns whether any of `running` is a container of the image that is made of `blobs`.
fn runs(running: &[RunningImage], blobs: &BTreeMap<Digest, u64>, configs: &[ImageConfig]) -> bool {
    running.iter().any(|running| {
        let mut configs = configs.iter();
        blobs.contains_key(&running.id)
            || configs.any(|config| labels::are_same(&config.labels(), &running.labels))
    })
}
