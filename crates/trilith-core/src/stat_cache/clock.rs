//! The clock of the file system, read off the modification time of a file without a name.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{Moment, Stamp};

/// The margin where file and clock lie on one file system. Its clock ticks every 10 ms or
/// faster (Linux with `CONFIG_HZ=100`, exFAT); twice that, and some.
const SAME_CLOCK_MARGIN: Duration = Duration::from_millis(25);

/// The margin elsewhere: a server's clock may be a little behind ours.
const OTHER_CLOCK_MARGIN: Duration = Duration::from_secs(2);

/// How long [`Clock::settle`] sleeps between two looks at the clock.
const NAP: Duration = Duration::from_millis(5);

/// How often it sleeps at most: for the margin, a tick that the clock may be behind, and some.
const NAPS: u32 = 10;

/// A file in the directory of the cache whose times tell what the time is there.
#[derive(Debug)]
pub(super) struct Clock(File);

/// A moment as some file system sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(super) device: u64,
    pub(super) moment: Moment,
}

impl Clock {
    /// Returns the clock of the directory that `cache` lies in, which is created if need be.
    pub(super) fn beside(cache: &Path) -> Option<Self> {
        let directory = super::format::directory_of(cache);
        fs::create_dir_all(directory).ok()?;
        tempfile::tempfile_in(directory).ok().map(Self)
    }

    /// Returns the present moment.
    pub(super) fn now(&self) -> Option<Now> {
        let touch = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: touch(UTIME_OMIT),
            last_modification: touch(UTIME_NOW),
        };
        rustix::fs::futimens(&self.0, &times).ok()?;
        let stamp = Stamp::of(&rustix::fs::fstat(&self.0).ok()?);
        Some(Now {
            device: stamp.device,
            moment: stamp.modified,
        })
    }

    /// Returns the moment at which those of `stamps` are settled for which that is a matter
    /// of ticks: they are on this file system, and not from the future.
    pub(super) fn settle<'a>(
        &self,
        mut now: Now,
        stamps: impl Iterator<Item = &'a Stamp>,
    ) -> Option<Now> {
        let soon = |stamp: &&Stamp| {
            stamp.device == now.device && stamp.is_fine() && stamp.latest() <= now.moment
        };
        if let Some(last) = stamps.filter(soon).max_by_key(|stamp| stamp.latest()) {
            for _ in 0..NAPS {
                if now.settles(last) {
                    break;
                }
                thread::sleep(NAP);
                now = self.now()?;
            }
        }
        Some(now)
    }
}

impl Now {
    /// Returns whether a change from now on is certain to change the times in `stamp`.
    pub(crate) fn settles(&self, stamp: &Stamp) -> bool {
        let margin = if stamp.device == self.device {
            SAME_CLOCK_MARGIN
        } else {
            OTHER_CLOCK_MARGIN
        };
        stamp.is_fine() && stamp.latest().plus(margin) <= self.moment
    }
}

impl Stamp {
    /// Returns whether the change time looks as if it tells one tick from the next.
    fn is_fine(&self) -> bool {
        self.changed.nanoseconds != 0
    }

    fn latest(&self) -> Moment {
        self.modified.max(self.changed)
    }
}

impl Moment {
    fn plus(self, duration: Duration) -> Self {
        let nanoseconds = self.nanoseconds + duration.subsec_nanos();
        let carry = i64::from(nanoseconds / 1_000_000_000);
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self {
            seconds: self.seconds.saturating_add(seconds).saturating_add(carry),
            nanoseconds: nanoseconds % 1_000_000_000,
        }
    }
}
