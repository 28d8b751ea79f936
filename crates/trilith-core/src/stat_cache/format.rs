//! The file a stat cache is kept in.
//!
//! [`MAGIC`], then records of [`RECORD`] bytes sorted by device and inode, then the SHA-256 of all
//! that. A record is, numbers least significant byte first: device, inode, size, seconds and
//! nanoseconds of the modification, seconds and nanoseconds of the change (8, 8, 8, 8, 4, 8, 4
//! bytes), one byte that says which hashes follow (1: MD5, 2: SHA-256), one for the age, and room
//! for both hashes. Records are read where they lie, so that loading costs little more than
//! the checksum.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Entry, Moment, Stamp, Sums};

const MAGIC: &[u8] = b"trilith stat cache, version 1\n";
const RECORD: usize = 98;
const CHECKSUM: usize = 32;

/// The most entries that are kept; those not seen for the longest time go first.
const MAX_RECORDS: usize = 400_000;

/// Records as they were loaded.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Loads the records in `file`; none where anything about it is odd.
    pub(super) fn load(file: &Path) -> Self {
        Self::read(file).unwrap_or_default()
    }

    fn read(file: &Path) -> Option<Self> {
        let mut content = Vec::new();
        let limit = MAGIC.len() + MAX_RECORDS * RECORD + CHECKSUM;
        let file = File::open(file).ok()?;
        file.take(limit as u64 + 1).read_to_end(&mut content).ok()?;
        if content.len() > limit || !content.starts_with(MAGIC) {
            return None;
        }
        let end = content.len().checked_sub(CHECKSUM)?;
        let records = content.get(MAGIC.len()..end)?;
        if records.len() % RECORD != 0 || Sha256::digest(&content[..end])[..] != content[end..] {
            return None;
        }
        Some(Self(content))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len().saturating_sub(MAGIC.len() + CHECKSUM) / RECORD
    }

    fn record(&self, position: usize) -> Option<&[u8]> {
        let start = MAGIC.len() + position * RECORD;
        self.0.get(start..start + RECORD)
    }

    pub(super) fn get(&self, position: usize) -> Option<Entry> {
        decode(self.record(position)?)
    }

    /// Returns the entry of a file, and its position.
    pub(super) fn find(&self, key: (u64, u64)) -> Option<(usize, Entry)> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let (device, rest) = self.record(middle)?.split_first_chunk()?;
            let (inode, _) = rest.split_first_chunk()?;
            if (u64::from_le_bytes(*device), u64::from_le_bytes(*inode)) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let entry = self.get(low).filter(|entry| entry.stamp.key() == key)?;
        Some((low, entry))
    }
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
    entries.sort_by_key(|entry| entry.stamp.key());
    let mut content = Vec::with_capacity(MAGIC.len() + entries.len() * RECORD + CHECKSUM);
    content.extend_from_slice(MAGIC);
    for entry in &*entries {
        encode(entry, &mut content);
    }
    let checksum = Sha256::digest(&content);
    content.extend_from_slice(&checksum);

    let directory = directory_of(file);
    fs::create_dir_all(directory)?;
    let mut new = tempfile::Builder::new()
        .prefix(".stat-cache-")
        .tempfile_in(directory)?;
    new.write_all(&content)?;
    new.persist(file)?;
    Ok(())
}

fn encode(entry: &Entry, content: &mut Vec<u8>) {
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
    content.push(u8::from(md5.is_some()) | u8::from(sha256.is_some()) << 1);
    content.push(entry.age);
    content.extend_from_slice(&md5.unwrap_or_default());
    content.extend_from_slice(&sha256.unwrap_or_default());
}

fn decode(record: &[u8]) -> Option<Entry> {
    let mut rest = record;
    let device = u64::from_le_bytes(take(&mut rest)?);
    let inode = u64::from_le_bytes(take(&mut rest)?);
    let size = u64::from_le_bytes(take(&mut rest)?);
    let modified = take_moment(&mut rest)?;
    let changed = take_moment(&mut rest)?;
    let [present, age] = take(&mut rest)?;
    let md5 = take(&mut rest)?;
    let sha256 = take(&mut rest)?;
    Some(Entry {
        stamp: Stamp {
            device,
            inode,
            size,
            modified,
            changed,
        },
        sums: Sums {
            md5: (present & 1 != 0).then_some(md5),
            sha256: (present & 2 != 0).then_some(sha256),
        },
        age,
    })
}

fn take_moment(rest: &mut &[u8]) -> Option<Moment> {
    Some(Moment {
        seconds: i64::from_le_bytes(take(rest)?),
        nanoseconds: u32::from_le_bytes(take(rest)?),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}
