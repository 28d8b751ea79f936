//! Hashes the content of many files at once, with the help of the stat cache.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use md5::Md5;
use rayon::prelude::*;
use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use crate::hash_error::HashError;
use crate::md5_lanes::{LANES, md5_lanes};
use crate::stat_cache::{Now, Stamp, StatCache, Sums};

/// How many bytes of a large file are read at once.
const CHUNK: usize = 256 * 1024;

/// Up to this size files are read whole and hashed in groups.
const SMALL: usize = 128 * 1024;

/// Up to this many bytes of files that have only just been written are read twice.
const LITTLE: u64 = 16 * 1024 * 1024;

/// How many small files are dealt out at once.
const NEIGHBOURS: usize = 64;

/// A hash function as the stat cache keeps its results.
pub(crate) trait ContentHash: Copy + Send + Sync + Sized {
    /// How many small files are best hashed at once.
    const GROUP: usize;

    type Hasher: sha2::Digest;

    fn finish(hasher: Self::Hasher) -> Self;

    /// Returns the hashes of up to [`Self::GROUP`] contents.
    fn of_group(contents: &[&[u8]]) -> Vec<Self>;

    fn pick(sums: &Sums) -> Option<Self>;

    fn sums(self) -> Sums;
}

/// MD5, which the `OpenHands` schemes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Md5Sum(pub(crate) [u8; 16]);

/// SHA-256, the digest of everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sha256Sum(pub(crate) [u8; 32]);

impl ContentHash for Md5Sum {
    const GROUP: usize = LANES;

    type Hasher = Md5;

    fn finish(hasher: Md5) -> Self {
        Self(hasher.finalize().into())
    }

    fn of_group(contents: &[&[u8]]) -> Vec<Self> {
        let mut lanes: [&[u8]; LANES] = [&[]; LANES];
        for (lane, content) in lanes.iter_mut().zip(contents) {
            *lane = content;
        }
        let sums = md5_lanes(lanes).into_iter().map(Self);
        sums.take(contents.len()).collect()
    }

    fn pick(sums: &Sums) -> Option<Self> {
        sums.md5.map(Self)
    }

    fn sums(self) -> Sums {
        Sums {
            md5: Some(self.0),
            sha256: None,
        }
    }
}

impl ContentHash for Sha256Sum {
    // Processors that have instructions for SHA-256 keep busy with one.
    const GROUP: usize = 1;

    type Hasher = Sha256;

    fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    fn of_group(contents: &[&[u8]]) -> Vec<Self> {
        let sum = |content: &&[u8]| Self(Sha256::digest(content).into());
        contents.iter().map(sum).collect()
    }

    fn pick(sums: &Sums) -> Option<Self> {
        sums.sha256.map(Self)
    }

    fn sums(self) -> Sums {
        Sums {
            md5: None,
            sha256: Some(self.0),
        }
    }
}

/// Whether a symbolic link may stand in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

impl Links {
    /// Returns the flags with which to open files and directories.
    pub(crate) fn flags(self) -> OFlags {
        match self {
            Self::Follow => OFlags::empty(),
            Self::Refuse => OFlags::NOFOLLOW,
        }
    }
}

/// The content of a file, read or not.
#[derive(Clone, Debug)]
pub(crate) enum Content<H> {
    Known {
        /// How many bytes there are.
        size: u64,
        hash: H,
    },
    /// Not read yet; the walk saw a file that looks like this.
    Unread(Box<Stamp>),
}

impl<H: ContentHash> Content<H> {
    /// Returns the content of the file that looks like `stamp`, known if `cache` knows it.
    pub(crate) fn look_up(stamp: Stamp, cache: &StatCache) -> Self {
        match cache.lookup(&stamp, H::pick) {
            Some(hash) => Self::Known {
                size: stamp.size,
                hash,
            },
            None => Self::Unread(Box::new(stamp)),
        }
    }

    /// Returns what there is to do for [`hash_files`], if anything.
    pub(crate) fn unread(&mut self, path: impl FnOnce() -> PathBuf) -> Option<Unread<'_, H>> {
        match self {
            Self::Known { .. } => None,
            Self::Unread(stamp) => Some(Unread {
                stamp: **stamp,
                path: path(),
                content: self,
            }),
        }
    }

    /// Returns how many bytes the file holds, and their hash.
    ///
    /// # Panics
    /// If it has not been read; see [`hash_files`].
    pub(crate) fn known(&self) -> (u64, H) {
        match self {
            Self::Known { size, hash } => (*size, *hash),
            Self::Unread(_) => unreachable!("files are read before their hashes are asked for"),
        }
    }
}

/// A file that has to be read, and where its hash goes.
#[derive(Debug)]
pub(crate) struct Unread<'a, H> {
    path: PathBuf,
    stamp: Stamp,
    content: &'a mut Content<H>,
}

/// Reads all of `files`, and tells `cache` what they hash to.
///
/// What has only just been written could be written again without a trace, so it cannot be
/// remembered. If it is little, the cache reads it [once more](StatCache::save) when a few
/// ticks of the clock have passed; if it is much, it is read only then.
pub(crate) fn hash_files<H: ContentHash>(
    files: Vec<Unread<'_, H>>,
    links: Links,
    cache: &StatCache,
) -> Result<(), HashError> {
    if files.is_empty() {
        return Ok(());
    }
    let now = cache.now();
    let (recent, mut settled): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|file| now.is_some_and(|now| !now.settles(&file.stamp)));
    if recent.iter().map(|file| file.stamp.size).sum::<u64>() > LITTLE {
        Batch { links, cache, now }.hash(settled)?;
        let now = cache.now_settling(recent.iter().map(|file| &file.stamp));
        return Batch { links, cache, now }.hash(recent);
    }
    cache.read_later(recent.iter().map(|file| Recent {
        path: file.path.clone(),
        stamp: file.stamp,
        links,
        read: read_again::<H>,
    }));
    settled.extend(recent);
    Batch { links, cache, now }.hash(settled)
}

/// A file that had been written shortly before it was read.
#[derive(Debug)]
pub(crate) struct Recent {
    path: PathBuf,
    pub(crate) stamp: Stamp,
    links: Links,
    read: fn(&Recent) -> Option<Sums>,
}

impl Recent {
    /// Reads the file again and tells `cache` what it hashes to; `now` is from before that.
    pub(crate) fn settle(&self, cache: &StatCache, now: Now) {
        if let Some(sums) = (self.read)(self) {
            cache.record(&self.stamp, sums, now);
        }
    }
}

/// Returns what the file hashes to, `None` where it has changed or cannot be read: whoever
/// hashes it next is told what is wrong with it.
fn read_again<H: ContentHash>(recent: &Recent) -> Option<Sums> {
    let mut source = Source::open(&recent.path, recent.stamp, recent.links).ok()?;
    let (_, stamp, hash) = source.hash::<H>().ok()?;
    (stamp == Some(recent.stamp)).then(|| hash.sums())
}

/// What is the same for all files read together.
#[derive(Clone, Copy)]
struct Batch<'a> {
    links: Links,
    cache: &'a StatCache,
    /// A moment before the first of them is opened.
    now: Option<Now>,
}

impl Batch<'_> {
    fn hash<H: ContentHash>(self, mut files: Vec<Unread<'_, H>>) -> Result<(), HashError> {
        // The largest come first, so that none is left for the end alone.
        files.sort_by_key(|file| Reverse(file.stamp.size.max(SMALL as u64)));
        let large = files.partition_point(|file| file.stamp.size > SMALL as u64);
        let (large, small) = files.split_at_mut(large);
        if let ([file], []) | ([], [file]) = (&mut *large, &mut *small) {
            // Not worth waking the pool of threads.
            return self.hash_one(file);
        }
        let (large, small) = rayon::join(|| self.hash_large(large), || self.hash_small(small));
        large.and(small)
    }

    fn hash_large<H: ContentHash>(self, files: &mut [Unread<'_, H>]) -> Result<(), HashError> {
        let files = files.par_iter_mut().with_max_len(1);
        files.try_for_each(|file| self.hash_one(file))
    }

    fn hash_small<H: ContentHash>(self, files: &mut [Unread<'_, H>]) -> Result<(), HashError> {
        files.par_chunks_mut(NEIGHBOURS).try_for_each(|files| {
            // Neighbours have most of their paths in common. Those of like size fill the group.
            files.sort_unstable_by_key(|file| file.stamp.size);
            files.chunks_mut(H::GROUP).try_for_each(|group| {
                if self.hash_group(group)? {
                    return Ok(());
                }
                group.iter_mut().try_for_each(|file| self.hash_one(file))
            })
        })
    }

    /// Hashes files that fit into memory. Returns `false` if one of them does not any more, or
    /// has otherwise changed since the walk saw it.
    fn hash_group<H: ContentHash>(self, files: &mut [Unread<'_, H>]) -> Result<bool, HashError> {
        thread_local! {
            static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
        }
        BUFFERS.with_borrow_mut(|buffers| {
            buffers.resize_with(files.len().max(buffers.len()), Vec::new);
            let mut contents: Vec<&[u8]> = Vec::with_capacity(files.len());
            for (file, buffer) in files.iter().zip(buffers) {
                let mut source = Source::open(&file.path, file.stamp, self.links)?;
                match source.read_whole(buffer)? {
                    Some(content) if source.is_unchanged()? => contents.push(content),
                    _ => return Ok(false),
                }
            }
            for (file, hash) in files.iter_mut().zip(H::of_group(&contents)) {
                self.keep(file, file.stamp.size, Some(file.stamp), hash);
            }
            Ok(true)
        })
    }

    /// Hashes a file of any size, whatever the walk saw.
    fn hash_one<H: ContentHash>(self, file: &mut Unread<'_, H>) -> Result<(), HashError> {
        let mut source = Source::open(&file.path, file.stamp, self.links)?;
        let (size, stamp, hash) = source.hash()?;
        self.keep(file, size, stamp, hash);
        Ok(())
    }

    /// Keeps what was read. `stamp` is what the file looked like before and after, if that was
    /// the same.
    fn keep<H: ContentHash>(
        self,
        file: &mut Unread<'_, H>,
        size: u64,
        stamp: Option<Stamp>,
        hash: H,
    ) {
        self.cache.count_read();
        if let (Some(stamp), Some(now)) = (stamp, self.now) {
            self.cache.record(&stamp, hash.sums(), now);
        }
        *file.content = Content::Known { size, hash };
    }
}

/// A file that is being read.
struct Source<'a> {
    path: &'a Path,
    file: OwnedFd,
    /// What it looked like before it was read.
    before: Stamp,
    /// How many bytes have been read.
    size: u64,
}

impl<'a> Source<'a> {
    /// Opens the file at `path`, which looked like `before`.
    fn open(path: &'a Path, before: Stamp, links: Links) -> Result<Self, HashError> {
        // If a named pipe took the file's place meanwhile, there is no waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | links.flags();
        let opened = rustix::fs::open(path, flags, Mode::empty());
        Ok(Self {
            path,
            file: opened.map_err(|error| HashError::inside("read", path, error.into()))?,
            before,
            size: 0,
        })
    }

    /// Returns what it looks like. Whatever took a file's place is refused.
    fn stat(&self) -> Result<Stamp, HashError> {
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|error| HashError::inside("read", self.path, error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Stamp::of(&stat)),
            kind => Err(HashError::special(self.path, kind)),
        }
    }

    /// Reads and hashes it all, whatever it looked like. Returns its size, what it looks like if
    /// that did not change meanwhile, and the hash.
    fn hash<H: ContentHash>(&mut self) -> Result<(u64, Option<Stamp>, H), HashError> {
        self.before = self.stat()?;
        let mut hasher = H::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let stamp = self.is_unchanged()?.then_some(self.before);
        Ok((self.size, stamp, H::finish(hasher)))
    }

    /// Reads the next bytes; none at the end. Where a file has a size, its end is there.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HashError> {
        if self.size > 0 && self.size == self.before.size {
            return Ok(0);
        }
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&self.file, &mut *buffer));
        let count = count.map_err(|error| HashError::inside("read", self.path, error.into()))?;
        self.size += count as u64;
        Ok(count)
    }

    /// Reads everything into `buffer`, which grows as needed, and returns the part of it that
    /// was read. Returns `None` as soon as that is more than [`SMALL`].
    fn read_whole<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, HashError> {
        let expected = usize::try_from(self.before.size).unwrap_or(usize::MAX);
        let mut end = 0;
        while end <= SMALL {
            let room = expected.clamp(end, SMALL) + 1;
            buffer.resize(room.max(buffer.len()), 0);
            match self.read(&mut buffer[end..])? {
                0 => return Ok(Some(&buffer[..end])),
                count => end += count,
            }
        }
        Ok(None)
    }

    /// Returns whether it still looks as it did before, and was read to the end.
    fn is_unchanged(&self) -> Result<bool, HashError> {
        Ok(self.stat()? == self.before && self.size == self.before.size)
    }
}
