//! The file a stat cache is kept in.
//!
//! [`MAGIC`], one byte that says which hashes there are (1: MD5, 2: SHA-256), records sorted by
//! device and inode, and a checksum of all that (see [`checksum`]).
//!
//! A record is, numbers least significant byte first: device, inode, size, seconds and
//! nanoseconds of the modification, seconds and nanoseconds of the change (8, 8, 8, 8, 4, 8, 4
//! bytes), one byte that says which hashes of this file are known, one for the age, and room for
//! the hashes there are. Records are read where they lie, so that loading costs little more than
//! the checksum.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{Entry, Moment, Stamp, Sums};

const MAGIC: &[u8] = b"trilith stat cache, version 1\n";
const HEADER: usize = MAGIC.len() + 1;
const CHECKSUM: usize = 32;

/// How many bytes of the file are hashed in one piece.
const PIECE: usize = 256 * 1024;

/// The most entries that are kept; those not seen for the longest time go first.
const MAX_RECORDS: usize = 400_000;

/// Which hashes there are.
#[derive(Clone, Copy, Debug, Default)]
struct Columns(u8);

impl Columns {
    const MD5: u8 = 1;
    const SHA256: u8 = 2;

    fn of(sums: &Sums) -> Self {
        let md5 = sums.md5.map_or(0, |_| Self::MD5);
        let sha256 = sums.sha256.map_or(0, |_| Self::SHA256);
        Self(md5 | sha256)
    }

    fn has(self, column: u8) -> bool {
        self.0 & column != 0
    }

    /// Returns the length of a record.
    fn record(self) -> usize {
        50 + 16 * usize::from(self.has(Self::MD5)) + 32 * usize::from(self.has(Self::SHA256))
    }
}

/// Records as they were loaded.
#[derive(Debug, Default)]
pub(super) struct Records {
    columns: Columns,
    /// The whole file.
    content: Vec<u8>,
    /// Device and inode of each record, in one number and close together for searching.
    keys: Vec<u128>,
}

impl Records {
    /// Loads the records in `file`; none where anything about it is odd.
    pub(super) fn load(file: &Path) -> Self {
        Self::read(file).unwrap_or_default()
    }

    fn read(file: &Path) -> Option<Self> {
        // Opening a named pipe would wait for somebody to write.
        if !fs::metadata(file).ok()?.is_file() {
            return None;
        }
        let file = File::open(file).ok()?;
        let limit = HEADER + MAX_RECORDS * Columns(u8::MAX).record() + CHECKSUM;
        let size = usize::try_from(file.metadata().ok()?.len()).ok()?;
        let mut content = Vec::with_capacity(size.min(limit) + 1);
        file.take(limit as u64 + 1).read_to_end(&mut content).ok()?;
        if content.len() > limit || !content.starts_with(MAGIC) {
            return None;
        }
        let (body, sum) = content.split_last_chunk::<CHECKSUM>()?;
        let (header, records) = body.split_at_checked(HEADER)?;
        let columns = Columns(*header.last()?);
        if columns.0 > Columns::MD5 | Columns::SHA256
            || records.len() % columns.record() != 0
            || checksum(body) != *sum
        {
            return None;
        }
        let keys = records
            .chunks_exact(columns.record())
            .map(|mut record| Some(key(take_number(&mut record)?, take_number(&mut record)?)));
        let keys = keys.collect::<Option<_>>()?;
        Some(Self {
            columns,
            content,
            keys,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn get(&self, position: usize) -> Option<Entry> {
        let length = self.columns.record();
        let start = HEADER + position * length;
        decode(self.content.get(start..start + length)?, self.columns)
    }

    /// Returns the position of the entry with this device and inode.
    pub(super) fn find(&self, device: u64, inode: u64) -> Option<usize> {
        self.keys.binary_search(&key(device, inode)).ok()
    }
}

fn key(device: u64, inode: u64) -> u128 {
    u128::from(device) << 64 | u128::from(inode)
}

/// Returns the directory that `file` lies in.
pub(super) fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Replaces `file` by one that holds `entries`.
pub(super) fn write(file: &Path, entries: &mut Vec<Entry>) -> io::Result<()> {
    if entries.len() > MAX_RECORDS {
        entries.sort_by_key(|entry| entry.age);
        entries.truncate(MAX_RECORDS);
    }
    entries.sort_by_key(|entry| key(entry.stamp.device, entry.stamp.inode));
    let columns = entries.iter().map(|entry| Columns::of(&entry.sums).0);
    let columns = Columns(columns.fold(0, |all, one| all | one));
    let mut content = Vec::with_capacity(HEADER + entries.len() * columns.record() + CHECKSUM);
    content.extend_from_slice(MAGIC);
    content.push(columns.0);
    for entry in &*entries {
        encode(entry, columns, &mut content);
    }
    let sum = checksum(&content);
    content.extend_from_slice(&sum);

    let directory = directory_of(file);
    fs::create_dir_all(directory)?;
    let mut new = tempfile::Builder::new()
        .prefix(".stat-cache-")
        .tempfile_in(directory)?;
    new.write_all(&content)?;
    new.persist(file)?;
    Ok(())
}

/// Returns the SHA-256 of the SHA-256s of all pieces of [`PIECE`] bytes.
pub(super) fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let pieces: Vec<_> = if content.len() <= PIECE {
        content.chunks(PIECE).map(Sha256::digest).collect()
    } else {
        content.par_chunks(PIECE).map(Sha256::digest).collect()
    };
    let mut all = Sha256::new();
    for piece in pieces {
        all.update(piece);
    }
    all.finalize().into()
}

fn encode(entry: &Entry, columns: Columns, content: &mut Vec<u8>) {
    let Stamp {
        device,
        inode,
        size,
        modified,
        changed,
    } = entry.stamp;
    for number in [device, inode, size] {
        content.extend_from_slice(&number.to_le_bytes());
    }
    for moment in [modified, changed] {
        content.extend_from_slice(&moment.seconds.to_le_bytes());
        content.extend_from_slice(&moment.nanoseconds.to_le_bytes());
    }
    let Sums { md5, sha256 } = entry.sums;
    content.push(Columns::of(&entry.sums).0);
    content.push(entry.age);
    if columns.has(Columns::MD5) {
        content.extend_from_slice(&md5.unwrap_or_default());
    }
    if columns.has(Columns::SHA256) {
        content.extend_from_slice(&sha256.unwrap_or_default());
    }
}

fn decode(record: &[u8], columns: Columns) -> Option<Entry> {
    let mut rest = record;
    let stamp = Stamp {
        device: take_number(&mut rest)?,
        inode: take_number(&mut rest)?,
        size: take_number(&mut rest)?,
        modified: take_moment(&mut rest)?,
        changed: take_moment(&mut rest)?,
    };
    let [known, age] = take(&mut rest)?;
    let mut sums = Sums::default();
    if columns.has(Columns::MD5) {
        sums.md5 = Some(take(&mut rest)?).filter(|_| Columns(known).has(Columns::MD5));
    }
    if columns.has(Columns::SHA256) {
        sums.sha256 = Some(take(&mut rest)?).filter(|_| Columns(known).has(Columns::SHA256));
    }
    Some(Entry { stamp, sums, age })
}

fn take_moment(rest: &mut &[u8]) -> Option<Moment> {
    Some(Moment {
        seconds: i64::from_le_bytes(take(rest)?),
        nanoseconds: u32::from_le_bytes(take(rest)?),
    })
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest)?))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}
