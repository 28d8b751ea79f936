//! Remembers what files hash to, so that a second run reads no file that has not changed.
//!
//! A file is known again by device, inode, size, modification and change time. That is safe where
//! a change of content always changes the change time, so an entry is only made when
//!
//! - the file looks the same before and after it is read;
//! - its times lie behind the moment before it was opened by a margin (see [`Now::settles`]):
//!   a second change within one tick of the clock would otherwise leave no trace;
//! - its change time has a fraction of a second. File systems that keep whole seconds are too
//!   coarse, and packed images (`squashfs`, ISO) often have one fixed time for everything.
//!
//! The moment is read off a nameless file beside the cache, not off a clock.
//!
//! Nothing that goes wrong with the cache is an error, and nothing makes it answer wrongly: a
//! file that is damaged, cut short, of another version or too large counts as empty, and one that
//! cannot be written is not written. Processes that save at the same time overwrite each other's
//! work whole; what is lost is hashed again. One cache serves one project; it is no store for
//! everything on the machine, because each run reads all of it.

mod clock;
mod format;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::Stat;

use clock::Clock;
pub(crate) use clock::Now;
use format::Records;

/// After how many saves an entry is dropped that was in no tree hashed in between.
const MAX_AGE: u8 = 16;

/// A point in time as the file system keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Seconds since 1970, which may be negative.
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

impl Moment {
    fn new(seconds: i64, nanoseconds: u64) -> Self {
        Self {
            seconds,
            // What is out of range, if a file system has that, counts as no fraction at all.
            nanoseconds: u32::try_from(nanoseconds)
                .ok()
                .filter(|&nanoseconds| nanoseconds < 1_000_000_000)
                .unwrap_or(0),
        }
    }
}

/// Everything by which a file is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: Moment,
    pub(crate) changed: Moment,
}

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            // Sizes are never negative.
            size: stat.st_size.unsigned_abs(),
            modified: Moment::new(stat.st_mtime, stat.st_mtime_nsec),
            changed: Moment::new(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    fn key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// What is known about a file's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Sums {
    fn or(self, other: Self) -> Self {
        Self {
            md5: self.md5.or(other.md5),
            sha256: self.sha256.or(other.sha256),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    stamp: Stamp,
    sums: Sums,
    /// How many saves ago the file was last seen.
    age: u8,
}

/// The hashes of files as of earlier runs, and those this run adds.
#[derive(Debug, Default)]
pub struct StatCache {
    /// Where it is kept; nowhere when it is disabled.
    file: Option<PathBuf>,
    records: Records,
    /// Which of `records` this run has asked for.
    seen: Vec<AtomicBool>,
    added: Mutex<BTreeMap<(u64, u64), Entry>>,
    clock: OnceLock<Option<Clock>>,
    files_read: AtomicUsize,
}

/// What came of [`StatCache::save`].
#[derive(Debug)]
pub enum Saved {
    /// There was nothing new to write.
    Unchanged,
    /// The file was replaced.
    Written,
    /// The file could not be written; the next run will hash more than it had to.
    Failed(io::Error),
}

impl StatCache {
    /// Returns a cache that knows nothing and keeps nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Loads the cache kept in `file`. It is empty where the file is missing, damaged or unreadable.
    #[must_use]
    pub fn load(file: &Path) -> Self {
        let records = Records::load(file);
        Self {
            file: Some(file.to_owned()),
            seen: (0..records.len()).map(|_| AtomicBool::new(false)).collect(),
            records,
            ..Self::default()
        }
    }

    /// Returns how many files have been read so far because the cache did not know them.
    #[must_use]
    pub fn files_read(&self) -> usize {
        self.files_read.load(Ordering::Relaxed)
    }

    /// Writes the cache back where anything was added to it. The file is replaced as a whole;
    /// missing directories above it are created.
    pub fn save(&self) -> Saved {
        let Some(file) = &self.file else {
            return Saved::Unchanged;
        };
        let added = self.added();
        if added.is_empty() {
            return Saved::Unchanged;
        }
        let kept = (0..self.records.len()).filter_map(|position| {
            let mut entry = self.records.get(position)?;
            let seen = self.seen[position].load(Ordering::Relaxed);
            entry.age = if seen { 0 } else { entry.age.saturating_add(1) };
            let keep = entry.age <= MAX_AGE && !added.contains_key(&entry.stamp.key());
            keep.then_some(entry)
        });
        let mut entries: Vec<Entry> = kept.chain(added.values().copied()).collect();
        match format::write(file, &mut entries) {
            Ok(()) => Saved::Written,
            Err(error) => Saved::Failed(error),
        }
    }

    /// Returns the sum that `pick` takes from what is known of the file that looks like `stamp`.
    pub(crate) fn lookup<S>(&self, stamp: &Stamp, pick: fn(&Sums) -> Option<S>) -> Option<S> {
        self.file.as_ref()?;
        let pick = |entry: &Entry| {
            let same = entry.stamp == *stamp;
            pick(&entry.sums).filter(|_| same)
        };
        let old = self.records.find(stamp.device, stamp.inode);
        let old = old.and_then(|position| {
            self.seen[position].store(true, Ordering::Relaxed);
            pick(&self.records.get(position)?)
        });
        old.or_else(|| self.added().get(&stamp.key()).and_then(pick))
    }

    /// Adds what was read from the file that looked like `stamp` before and after; `now` is
    /// from before it was opened. Adds nothing when the file may change without a trace.
    pub(crate) fn record(&self, stamp: &Stamp, sums: Sums, now: Now) {
        if !now.settles(stamp) {
            return;
        }
        let known = self.lookup(stamp, |sums| Some(*sums));
        let entry = Entry {
            stamp: *stamp,
            sums: sums.or(known.unwrap_or_default()),
            age: 0,
        };
        self.added().insert(stamp.key(), entry);
    }

    /// Counts files that were opened and read.
    pub(crate) fn count_read(&self) {
        self.files_read.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the present moment, `None` where nothing can be recorded.
    pub(crate) fn now(&self) -> Option<Now> {
        let file = self.file.as_ref()?;
        let clock = self.clock.get_or_init(|| Clock::beside(file));
        clock.as_ref()?.now()
    }

    /// Returns the present moment once all of `stamps` are settled that soon can be. That
    /// takes a few ticks of the clock at most.
    pub(crate) fn now_settling<'a>(&self, stamps: impl Iterator<Item = &'a Stamp>) -> Option<Now> {
        let now = self.now()?;
        self.clock.get()?.as_ref()?.settle(now, stamps)
    }

    fn added(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Entry>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
