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
//! The moment is read off a nameless file beside the cache, not off a clock. Two things nobody can
//! see by looking at files: stores through a shared memory mapping that was written to before the
//! file was read, and changes by other clients of a network file system until its own cache
//! of times runs out. git's index has the same limits.
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

use crate::content::Recent;
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
    /// What was too recent to be added when it was read.
    recent: Mutex<Vec<Recent>>,
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
    ///
    /// Files that had been written within a few ticks of the clock before they were read are read
    /// again first, which takes up to 50 ms: whoever waits for a hash should have it before.
    pub fn save(&self) -> Saved {
        let Some(file) = &self.file else {
            return Saved::Unchanged;
        };
        self.settle();
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

    /// Takes note of files that [`Self::save`] shall read again.
    pub(crate) fn read_later(&self, files: impl Iterator<Item = Recent>) {
        lock(&self.recent).extend(files);
    }

    fn settle(&self) {
        let recent = std::mem::take(&mut *lock(&self.recent));
        if recent.is_empty() {
            return;
        }
        if let Some(now) = self.now_settling(recent.iter().map(|file| &file.stamp)) {
            for file in recent {
                file.settle(self, now);
            }
        }
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
        lock(&self.added)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use tempfile::TempDir;

    use super::*;
    use crate::{Patterns, Tree, load_dirhash, load_tree};

    /// A tree of a few files and a place for its cache.
    struct Project {
        work: TempDir,
    }

    impl Project {
        fn new() -> Self {
            let work = tempfile::tempdir().unwrap();
            fs::create_dir_all(work.path().join("tree/d")).unwrap();
            for (path, content) in [("tree/a", "1"), ("tree/b", "2"), ("tree/d/c", "3")] {
                fs::write(work.path().join(path), content).unwrap();
            }
            Self { work }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.work.path().join(path)
        }

        /// Returns the tree, and how many files were read for it.
        fn run(&self) -> (Tree, usize) {
            let cache = StatCache::load(&self.path("cache/stat"));
            let tree = self.load(&cache);
            let saved = cache.save();
            assert!(!matches!(saved, Saved::Failed(_)), "{saved:?}");
            (tree, cache.files_read())
        }

        fn load(&self, cache: &StatCache) -> Tree {
            load_tree(&self.path("tree"), &Patterns::default(), cache).unwrap()
        }

        fn load_uncached(&self) -> Tree {
            self.load(&StatCache::disabled())
        }
    }

    #[test]
    fn a_second_run_reads_what_has_changed() {
        let project = Project::new();
        let (before, read) = project.run();
        assert_eq!(read, 3);
        assert_eq!(project.run(), (before.clone(), 0));

        fs::write(project.path("tree/b"), "x").unwrap();
        let (after, read) = project.run();
        assert_eq!(read, 1);
        assert_ne!(after, before);
        assert_eq!(after, project.load_uncached());
        assert_eq!(project.run(), (after, 0));
    }

    #[test]
    fn nothing_is_written_where_nothing_was_read() {
        let project = Project::new();
        project.run();
        let cache = StatCache::load(&project.path("cache/stat"));
        project.load(&cache);
        assert!(matches!(cache.save(), Saved::Unchanged));
        assert!(matches!(StatCache::disabled().save(), Saved::Unchanged));
        let files = fs::read_dir(project.path("cache")).unwrap();
        assert_eq!(files.count(), 1, "no temporary file may stay");
    }

    #[test]
    fn both_hashes_of_a_file_are_kept() {
        let project = Project::new();
        let (tree, _) = project.run();
        let dirhash =
            |cache: &StatCache| load_dirhash::<&str>(&project.path("tree"), &[], cache).unwrap();
        let cache = StatCache::load(&project.path("cache/stat"));
        let hash = dirhash(&cache);
        assert_eq!(cache.files_read(), 3);
        assert!(matches!(cache.save(), Saved::Written));
        let cache = StatCache::load(&project.path("cache/stat"));
        assert_eq!(project.load(&cache), tree);
        assert_eq!(dirhash(&cache), hash);
        assert_eq!(cache.files_read(), 0);
    }

    #[test]
    fn one_run_reads_a_file_once() {
        let project = Project::new();
        // What was written a moment ago is read again each time.
        std::thread::sleep(Duration::from_millis(60));
        let cache = StatCache::load(&project.path("cache/stat"));
        let tree = project.load(&cache);
        assert_eq!(project.load(&cache), tree);
        assert_eq!(cache.files_read(), 3);
    }

    #[test]
    fn a_change_that_hides_itself_is_seen() {
        let project = Project::new();
        let path = project.path("tree/a");
        let old = fs::metadata(&path).unwrap().modified().unwrap();
        project.run();
        // Same size, same modification time; only the change time cannot be set.
        fs::write(&path, "9").unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        let (after, read) = project.run();
        assert_eq!((after, read), (project.load_uncached(), 1));
        // Another file in its place.
        fs::write(project.path("new"), "8").unwrap();
        fs::rename(project.path("new"), &path).unwrap();
        let (after, read) = project.run();
        assert_eq!((after, read), (project.load_uncached(), 1));
    }

    #[test]
    fn rapid_changes_of_one_size_are_seen() {
        let project = Project::new();
        for round in 0..30u32 {
            fs::write(project.path("tree/a"), format!("{round:4}")).unwrap();
            let (tree, _) = project.run();
            // At once, and often within the tick of the clock in which the file was read.
            fs::write(project.path("tree/a"), format!("{:4}", round + 100)).unwrap();
            assert_ne!(project.run().0, tree, "{round}");
        }
    }

    #[test]
    fn times_in_the_future_are_not_trusted() {
        let project = Project::new();
        let file = File::options()
            .write(true)
            .open(project.path("tree/a"))
            .unwrap();
        let future = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(3600);
        file.set_modified(future).unwrap();
        project.run();
        assert_eq!(project.run().1, 1);
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        project.run();
        assert_eq!(project.run().1, 0);
    }

    #[test]
    fn what_settles() {
        let moment = |seconds, nanoseconds| Moment {
            seconds,
            nanoseconds,
        };
        let now = Now {
            device: 1,
            moment: moment(100, 500),
        };
        for (device, modified, changed, expected) in [
            (1, moment(50, 0), moment(60, 1), true),
            (1, moment(50, 0), moment(60, 0), false),
            (1, moment(100, 1), moment(60, 1), false),
            (1, moment(50, 0), moment(99, 999_999_999), false),
            (1, moment(50, 0), moment(99, 975_000_500), true),
            (1, moment(50, 0), moment(99, 975_000_501), false),
            (1, moment(50, 0), moment(101, 1), false),
            (2, moment(50, 0), moment(98, 500), true),
            (2, moment(50, 0), moment(98, 501), false),
            (1, moment(-5, 0), moment(-5, 7), true),
        ] {
            let stamp = Stamp {
                device,
                inode: 1,
                size: 1,
                modified,
                changed,
            };
            assert_eq!(now.settles(&stamp), expected, "{stamp:?}");
        }
        assert_eq!(Moment::new(1, 1_000_000_000), moment(1, 0));
        assert_eq!(Moment::new(1, u64::MAX), moment(1, 0));
    }

    #[test]
    fn damage_costs_time_only() {
        let project = Project::new();
        let (tree, _) = project.run();
        let path = project.path("cache/stat");
        let good = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
        for position in 0..good.len() {
            for bit in [1, 128] {
                let mut bytes = good.clone();
                bytes[position] ^= bit;
                damaged.push(bytes);
            }
        }
        damaged.push([&good[..], b"x"].concat());
        damaged.push([&good[..], &good[..]].concat());
        damaged.push(vec![0; good.len()]);
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let cache = StatCache::load(&path);
            assert_eq!(cache.records.len(), 0);
        }
        assert_eq!(project.run(), (tree.clone(), 3));
        assert_eq!(project.run(), (tree, 0));
    }

    #[test]
    fn other_versions_count_as_empty() {
        let project = Project::new();
        project.run();
        let path = project.path("cache/stat");
        let mut bytes = fs::read(&path).unwrap();
        let version = bytes.iter().position(|&byte| byte == b'1').unwrap();
        bytes[version] = b'2';
        let body = bytes.len() - 32;
        let sum = format::checksum(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(StatCache::load(&path).records.len(), 0);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_failure() {
        let project = Project::new();
        fs::write(project.path("file"), "").unwrap();
        fs::create_dir(project.path("directory")).unwrap();
        let expected = project.load_uncached();
        for path in ["file/below/stat", "directory"] {
            let cache = StatCache::load(&project.path(path));
            assert_eq!(project.load(&cache), expected);
            assert!(!matches!(cache.save(), Saved::Written), "{path}");
        }
        let pipe = project.path("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert_eq!(project.load(&StatCache::load(&pipe)), expected);
    }

    #[test]
    fn saving_at_once_leaves_one_whole_cache() {
        let project = Project::new();
        let expected = project.load_uncached();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..10u32 {
                        let own = tempfile::tempdir_in(project.work.path()).unwrap();
                        fs::write(own.path().join("f"), round.to_le_bytes()).unwrap();
                        let cache = StatCache::load(&project.path("cache/stat"));
                        load_tree(own.path(), &Patterns::default(), &cache).unwrap();
                        assert_eq!(project.load(&cache), expected);
                        assert!(!matches!(cache.save(), Saved::Failed(_)));
                    }
                });
            }
        });
        assert!(StatCache::load(&project.path("cache/stat")).records.len() > 0);
        assert_eq!(project.run().0, expected);
    }

    #[test]
    fn what_is_never_seen_again_is_dropped() {
        let project = Project::new();
        project.run();
        fs::remove_dir_all(project.path("tree/d")).unwrap();
        let path = project.path("cache/stat");
        for round in 0..=u32::from(MAX_AGE) {
            assert_eq!(StatCache::load(&path).records.len(), 3, "{round}");
            // The same file, so that no entry is added.
            fs::write(project.path("tree/a"), round.to_le_bytes()).unwrap();
            project.run();
        }
        assert_eq!(StatCache::load(&path).records.len(), 2);
    }
}
