//! The local store: images, payload layers that are kept for the next build, and what nothing refers
//! to any more.
//!
//! What is removed is what the layout's sweep removes under its locks
//! ([`trilith_oci::layout::Layout::sweep`]), so that builds may run meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use trilith_core::{Digest, Level};
use trilith_oci::layout::{Layout, StoredImage, Sweep, Swept};

use super::{Item, PruneOptions, choose, level, runs};
use crate::builder::leftovers;
use crate::context::Context;
use crate::engine::running_images;
use crate::error::Error;
use crate::flight;
use crate::records::{PayloadRecord, Records};

/// How long a temporary directory is left alone while builds run, and any other.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// What temporary directories of builds are called, and those of everything else.
const OF_BUILDS: [&str; 2] = [leftovers::PREFIX, "subtree-"];
const OF_OTHERS: &str = ".tmp";

/// What went, or would.
#[derive(Clone, Debug, Default)]
pub struct PruneReport {
    /// Images that lost their name.
    pub images: Vec<PrunedImage>,
    /// How many cached payload layers went.
    pub layers: usize,
    /// How many blobs went with all that.
    pub blobs: usize,
    /// How many records and caches of file hashes went.
    pub records: usize,
    /// How many temporary files, directories and locks of processes that are gone.
    pub temporary: usize,
    /// Bytes of the blobs that went.
    pub freed_bytes: u64,
    /// Bytes of the blobs that are left.
    pub kept_bytes: u64,
    /// How many images are left.
    pub kept_images: usize,
    /// How many images stay since a running container uses them.
    pub running_images: usize,
    /// How many blobs that nothing refers to are left to builds that run.
    pub spared_blobs: usize,
}

/// An image that goes.
#[derive(Clone, Debug)]
pub struct PrunedImage {
    /// Its name.
    pub name: String,
    /// What the name pointed to.
    pub digest: Digest,
    /// Its level, where it is of one.
    pub level: Option<Level>,
    /// How long it was not used.
    pub unused: Duration,
    /// Bytes of all that it needs, shared or not.
    pub bytes: u64,
}

/// An image, or a payload layer where there is none.
type Stored<'a> = Item<Option<&'a StoredImage>>;

/// Prunes the local store.
///
/// # Errors
/// The store cannot be read or changed, or an engine answers but does not say what runs. What is
/// left is whole all the same.
pub async fn prune(context: &Context, options: &PruneOptions) -> Result<PruneReport, Error> {
    let now = SystemTime::now();
    let mut report = PruneReport::default();
    if context.store.join("index.json").exists() {
        prune_store(context, options, now, &mut report).await?;
    }
    if let (Some(cache), Some(limit)) = (&context.cache, options.older_than) {
        let files = list(&cache.join("files"));
        report.records += remove_old(files, limit, now, options.dry_run);
    }
    Ok(report)
}

async fn prune_store(
    context: &Context,
    options: &PruneOptions,
    now: SystemTime,
    report: &mut PruneReport,
) -> Result<(), Error> {
    let layout = context.layout()?;
    let records = context.records();
    let payloads = records.payloads();
    let reading = layout.clone();
    let images = off_thread(move || reading.images()).await?;
    let removes_images = options.older_than.is_some() || options.keep_size.is_some();
    let running = if removes_images && !images.is_empty() {
        running_images(&context.engines, &context.registry).await?
    } else {
        Vec::new()
    };
    let mut items = layers(&layout, &payloads)?;
    for image in &images {
        let runs = runs(&running, &image.blobs, &image.configs);
        report.running_images += usize::from(runs);
        let level = level(&image.configs);
        let keeps = level.is_some_and(|level| options.keep_levels.contains(&level));
        items.push(Item {
            what: Some(image),
            blobs: image.blobs.clone(),
            last_used: image.last_used,
            is_protected: runs || keeps,
        });
    }
    let (gone, kept) = choose(items, options, now);
    let sweep = Sweep {
        names: gone.iter().filter_map(name).collect(),
        keep: kept.iter().flat_map(layer).cloned().collect(),
        dry_run: options.dry_run,
    };
    let sweeping = layout.clone();
    let swept = off_thread(move || sweeping.sweep(&sweep)).await?;
    describe(report, &gone, &kept, &swept, now);
    let kept: BTreeSet<&Digest> = kept.iter().flat_map(|item| item.blobs.keys()).collect();
    let dry_run = options.dry_run;
    // A record of a layer that is gone says nothing any more.
    let stale = payloads
        .iter()
        .filter(|(_, record)| !record.foreign && !kept.contains(&record.descriptor.digest));
    let stale = stale.map(|(path, _)| path.clone()).collect();
    report.records += remove_old(stale, Duration::ZERO, now, dry_run);
    if let Some(limit) = options.older_than {
        let files = records.all_files();
        let current = payloads
            .iter()
            .filter(|(_, record)| kept.contains(&record.descriptor.digest));
        let current: BTreeSet<&PathBuf> = current.map(|(path, _)| path).collect();
        let old = files.into_iter().filter(|file| !current.contains(file));
        report.records += remove_old(old.collect(), limit, now, dry_run);
    }
    report.temporary = swept.temporary
        + flight::remove_stale(&context.store, dry_run)
        + remove_temporary(&context.store, &records, swept.was_alone, now, dry_run);
    Ok(())
}

fn name(item: &Stored<'_>) -> Option<(String, Digest)> {
    let image = item.what?;
    Some((image.name.clone(), image.descriptor.digest.clone()))
}

fn layer<'a>(item: &'a Stored<'_>) -> impl Iterator<Item = &'a Digest> {
    let blobs = item.blobs.keys();
    blobs.filter(|_| item.what.is_none())
}

/// Returns the payload layers that are kept in the store for the next build.
fn layers<'a>(
    layout: &Layout,
    payloads: &[(PathBuf, PayloadRecord)],
) -> Result<Vec<Stored<'a>>, Error> {
    let mut items = BTreeMap::new();
    for (_, record) in payloads.iter().filter(|(_, record)| !record.foreign) {
        let digest = &record.descriptor.digest;
        if let Some((last_used, size)) = layout.last_used(digest)? {
            let item = Item {
                what: None,
                blobs: BTreeMap::from([(digest.clone(), size)]),
                last_used,
                is_protected: false,
            };
            items.insert(digest.clone(), item);
        }
    }
    Ok(items.into_values().collect())
}

fn describe(
    report: &mut PruneReport,
    gone: &[Stored<'_>],
    kept: &[Stored<'_>],
    swept: &Swept,
    now: SystemTime,
) {
    let removed = gone.iter().filter_map(|item| {
        let image = item.what?;
        // One that was built anew meanwhile stays.
        let went = swept.names.contains(&image.name);
        went.then(|| PrunedImage {
            name: image.name.clone(),
            digest: image.descriptor.digest.clone(),
            level: level(&image.configs),
            unused: now.duration_since(item.last_used).unwrap_or_default(),
            bytes: item.blobs.values().sum(),
        })
    });
    report.images = removed.collect();
    report.layers = gone.iter().filter(|item| item.what.is_none()).count();
    report.kept_images = kept.iter().filter(|item| item.what.is_some()).count();
    report.blobs = swept.blobs;
    report.freed_bytes = swept.bytes;
    report.kept_bytes = swept.left;
    report.spared_blobs = swept.spared;
}

/// Removes the files that were not changed for `limit`, and returns how many there are.
fn remove_old(files: Vec<PathBuf>, limit: Duration, now: SystemTime, dry_run: bool) -> usize {
    let old = files.into_iter().filter(|path| {
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let age = modified.map(|modified| now.duration_since(modified).unwrap_or_default());
        let is_old = age.is_ok_and(|age| age >= limit);
        // Records and caches only save work, and one that cannot be removed is left.
        is_old && (dry_run || std::fs::remove_file(path).is_ok())
    });
    old.count()
}

/// Removes what processes that are gone have left behind in `store`, and returns how much it is.
fn remove_temporary(
    store: &Path,
    records: &Records,
    was_alone: bool,
    now: SystemTime,
    dry_run: bool,
) -> usize {
    let named = |path: &PathBuf, starts: &[&str]| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        starts.iter().any(|start| name.starts_with(start))
    };
    let is_abandoned = |path: &Path| {
        let age = now.duration_since(newest(path)).unwrap_or_default();
        age > ABANDONED
    };
    let mut removed = 0;
    for path in list(store) {
        let of_builds = named(&path, &OF_BUILDS);
        if !path.is_dir() || !(of_builds || named(&path, &[OF_OTHERS])) {
            continue;
        }
        if leftovers::has_note(&path) {
            if was_alone && !dry_run {
                leftovers::leave_only_note(&path);
            }
            continue;
        }
        if (of_builds && was_alone) || is_abandoned(&path) {
            removed += usize::from(dry_run || std::fs::remove_dir_all(&path).is_ok());
        }
    }
    let files = records.all_files().into_iter();
    let unfinished = files.filter(|path| named(path, &[OF_OTHERS]));
    removed + remove_old(unfinished.collect(), ABANDONED, now, dry_run)
}

/// Returns when anything at or below `path` was changed last.
fn newest(path: &Path) -> SystemTime {
    let metadata = std::fs::symlink_metadata(path);
    let is_directory = metadata.as_ref().is_ok_and(std::fs::Metadata::is_dir);
    let own = metadata.and_then(|metadata| metadata.modified());
    let below = if is_directory { list(path) } else { Vec::new() };
    let below = below.iter().map(|path| newest(path));
    below.fold(own.unwrap_or(SystemTime::UNIX_EPOCH), SystemTime::max)
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, trilith_oci::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
