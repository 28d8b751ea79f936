//! One build of an image at a time: who comes second waits, and finds what it wanted.
//!
//! On one machine a lock on a file in the store sees to that, in one process as between several. It
//! is taken once the plan says that there is something to build and not before, and the kernel gives
//! it up when its process ends, in whatever way. Locks only ever save work: where none can be had, a
//! build goes on as if it were alone. Between machines there is no lock; who finishes second is told
//! so before it writes a tag, and keeps what the first has made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trilith_core::{Action, Digest, Existence, FieldHasher, Level, Plan, Strategy};
use trilith_oci::layout::Layout;

use crate::builder::{Builder, Job};
use crate::context::Event;
use crate::error::Error;
use crate::target::{self, Destination};

/// The directory of the locks in the store.
pub(crate) const FLIGHTS: &str = "flights";
/// How soon a lock that is held is asked for again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The right to build an image, until it is dropped.
pub(crate) struct Flight {
    held: Option<Held>,
    /// Tells who prunes the store that a build runs.
    store: Option<Layout>,
}

/// A lock that is held, on a file that is gone before the lock is.
struct Held {
    _file: File,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever finds it later takes it as it is.
        let _left_behind = fs::remove_file(&self.path);
    }
}

impl Flight {
    /// Waits until nobody else on this machine builds the image that `plan` is about to, and
    /// changes the plan where it exists by then.
    ///
    /// A build that would not reuse what another makes waits for none.
    ///
    /// # Errors
    /// It cannot be told whether the image exists.
    pub(crate) async fn board(
        builder: &dyn Builder,
        job: Job<'_>,
        plan: &mut Plan,
    ) -> Result<Self, Error> {
        let mut flight = Self {
            held: None,
            store: None,
        };
        if matches!(plan.action, Action::Reuse { .. }) {
            return Ok(flight);
        }
        flight.store = job.context.layout().ok();
        let mut waited = false;
        if may_reuse(job) {
            flight.held = wait(job, &mut waited).await;
        }
        // Somebody may have begun and ended between the plan and the lock. A graft that is made
        // twice is the same and costs little; steps are worth a question.
        if flight.held.is_some()
            && (waited || has_steps(job))
            && let Existence::Present(digest) = builder.existence(job, Level::Source).await?
        {
            reuse(plan, digest);
            job.context.observe(Event::Planned(plan));
        }
        Ok(flight)
    }
}

/// Returns the lock on the image of `job`, `None` where none can be had.
async fn wait(job: Job<'_>, waited: &mut bool) -> Option<Held> {
    let path = path(job);
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(held) = attempt(&path).ok()? {
            return Some(held);
        }
        if !std::mem::replace(waited, true) {
            let reference = job.target.reference(&job.loaded.tags, Level::Source);
            let reference = &reference;
            job.context.observe(Event::Waiting { reference });
        }
        // Not in a thread that waits for the lock: nothing could end it.
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Makes `plan` reuse the source image, which was not there when the plan was made.
pub(crate) fn reuse(plan: &mut Plan, digest: Digest) {
    let level = Level::Source;
    plan.reasons = vec![format!(
        "another build has made the {level} image meanwhile"
    )];
    plan.existence
        .insert(level, Existence::Present(digest.clone()));
    plan.tags_to_write.clear();
    plan.action = Action::Reuse { level, digest };
}

/// Returns the source image that somebody else has published since the plan was made, which is as
/// good as the one that is about to be.
///
/// # Errors
/// It cannot be told.
pub(crate) async fn overtaken(job: Job<'_>) -> Result<Option<Digest>, Error> {
    // The store and the engines of this machine are under the lock.
    if job.target.destination != Destination::Registry || !may_reuse(job) {
        return Ok(None);
    }
    let existence = target::existence(job.context, job.loaded, job.target, Level::Source).await?;
    Ok(match existence {
        Existence::Present(digest) => Some(digest),
        Existence::Stale { .. } | Existence::Absent | Existence::Unknown(_) => None,
    })
}

/// Returns whether two builds of the image may come to different bytes.
pub(crate) fn has_steps(job: Job<'_>) -> bool {
    job.loaded.dockerfile.is_some()
}

fn may_reuse(job: Job<'_>) -> bool {
    let plan = job.options.plan;
    !plan.force && plan.strategy != Strategy::Scratch
}

/// Returns where the lock on the image of `job` is: of its key, at its destination.
fn path(job: Job<'_>) -> PathBuf {
    let destination = match job.target.destination {
        Destination::Store => "store",
        Destination::Registry => "registry",
        Destination::Engine => "engine",
    };
    let mut name = FieldHasher::new("trilith/flight/v1");
    name.field("key", job.loaded.keys.get(Level::Source).as_bytes())
        .field("tag", job.loaded.tags.get(Level::Source).as_str())
        .field("repository", job.target.repository.to_string())
        .field("destination", destination);
    let directory = job.context.store.join(FLIGHTS);
    directory.join(name.finish().to_hex())
}

/// Removes the locks that the dead have left in `store`, and returns how many there are.
pub(crate) fn remove_stale(store: &Path, dry_run: bool) -> usize {
    let Ok(entries) = fs::read_dir(store.join(FLIGHTS)) else {
        return 0;
    };
    let stale = entries.flatten().filter(|entry| {
        let path = entry.path();
        if dry_run {
            let file = File::open(&path);
            return file.is_ok_and(|file| file.try_lock().is_ok());
        }
        // What is held is removed when it is let go.
        matches!(attempt(&path), Ok(Some(_)))
    });
    stale.count()
}

/// Returns the lock on the file at `path`, `None` while somebody else holds it.
fn attempt(path: &Path) -> io::Result<Option<Held>> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    loop {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = file.open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path)? => {
                let path = path.to_owned();
                return Ok(Some(Held { _file: file, path }));
            }
            // It was removed by whoever held it, and locks nothing any more.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok(own.dev() == there.dev() && own.ino() == there.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let store = tempfile::tempdir().unwrap();
        let path = store.path().join("flights/a");
        let first = attempt(&path).unwrap();
        assert!(first.is_some());
        assert!(attempt(&path).unwrap().is_none());
        assert!(attempt(&store.path().join("flights/b")).unwrap().is_some());
        drop(first);
        assert!(!path.exists());
        assert!(attempt(&path).unwrap().is_some());
    }

    #[test]
    fn what_the_dead_left_is_taken() {
        let store = tempfile::tempdir().unwrap();
        let path = store.path().join("flight");
        fs::write(&path, "").unwrap();
        assert!(attempt(&path).unwrap().is_some());
    }

    #[test]
    fn many_at_once() {
        let store = tempfile::tempdir().unwrap();
        let path = store.path().join("flights/a");
        let building = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut turns = 0;
                    while turns < 200 {
                        if let Some(held) = attempt(&path).unwrap() {
                            let order = std::sync::atomic::Ordering::SeqCst;
                            assert!(!building.swap(true, order));
                            assert!(building.swap(false, order));
                            drop(held);
                            turns += 1;
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_place_that_cannot_be_written_locks_nothing() {
        assert!(attempt(Path::new("/proc/nowhere/flight")).is_err());
    }
}
