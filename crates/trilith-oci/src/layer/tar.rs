//! Headers of tar archives, byte for byte the same for the same entry.
//!
//! POSIX ustar; what does not fit there goes into a PAX header in front: paths and link targets
//! beyond 100 bytes or outside ASCII, sizes beyond 8 GiB, owners beyond 2097151, file
//! capabilities. Times are 0, owners are numbers. Never GNU extensions or ustar's path prefix, for
//! which readers differ more.

use trilith_core::Owner;

/// The unit an archive is made of, in bytes.
pub(crate) const BLOCK: usize = 512;
/// What an archive ends with.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Kind of an entry, its `typeflag`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

impl Kind {
    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// What a header says of an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Header<'a> {
    /// Path without a trailing slash.
    pub(crate) path: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    /// Length of the content, 0 for what has none.
    pub(crate) size: u64,
    /// Target of a link, else empty.
    pub(crate) target: &'a [u8],
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// Value of the extended attribute `security.capability`.
    pub(crate) capability: Option<&'a [u8]>,
}

const NAME_LEN: usize = 100;
/// The record of the one extended attribute layers carry, as star, Go and others name it.
const CAPABILITY: &str = "SCHILY.xattr.security.capability";
const MAX_OCTAL_7: u64 = 0o777_7777;
const MAX_OCTAL_11: u64 = 0o777_7777_7777;

impl Header<'_> {
    /// Returns the header's blocks, the PAX header in front where there is one.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let path = match self.kind {
            Kind::Directory => [self.path, b"/"].concat(),
            _ => self.path.to_vec(),
        };
        let records = self.records(&path);
        let mut blocks = Vec::with_capacity(BLOCK);
        if !records.is_empty() {
            let size = records.len() as u64;
            let pax = Header {
                path: b"././@PaxHeader",
                mode: 0o644,
                size,
                ..Header::default()
            };
            blocks.extend(pax.block(b'x', pax.path));
            blocks.extend_from_slice(&records);
            blocks.resize(padded(blocks.len()), 0);
        }
        blocks.extend(self.block(self.kind.flag(), &path));
        blocks
    }

    /// Returns the header's own block. Text that does not fit is cut, for the PAX header says it
    /// whole.
    fn block(&self, flag: u8, path: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block[..100], path);
        number(&mut block[100..108], self.mode.into());
        number(&mut block[108..116], self.owner.uid.into());
        number(&mut block[116..124], self.owner.gid.into());
        number(&mut block[124..136], self.size);
        number(&mut block[136..148], 0);
        block[148..156].fill(b' ');
        block[156] = flag;
        put(&mut block[157..257], self.target);
        put(&mut block[257..265], b"ustar\x0000");
        number(&mut block[329..337], self.device.0.into());
        number(&mut block[337..345], self.device.1.into());
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        number(&mut block[148..155], sum);
        block
    }

    /// Returns the records of the PAX header, sorted by keyword; empty where none is needed.
    fn records(&self, path: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        let number = |value: u64, max: u64| (value > max).then(|| value.to_string().into_bytes());
        let text = |text: &[u8]| (text.len() > NAME_LEN || !text.is_ascii()).then(|| text.to_vec());
        for (keyword, value) in [
            (CAPABILITY, self.capability.map(<[u8]>::to_vec)),
            ("gid", number(self.owner.gid.into(), MAX_OCTAL_7)),
            ("linkpath", text(self.target)),
            ("path", text(path)),
            ("size", number(self.size, MAX_OCTAL_11)),
            ("uid", number(self.owner.uid.into(), MAX_OCTAL_7)),
        ] {
            if let Some(value) = value {
                records.extend(record(keyword, &value));
            }
        }
        records
    }
}

/// Returns how long content of `size` bytes is with the zeros that fill its last block.
pub(crate) fn padded(size: usize) -> usize {
    size.next_multiple_of(BLOCK)
}

/// Returns a PAX record: its own length in decimal, keyword and value.
fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    // The space, the equals sign and the line feed.
    let rest = keyword.len() + value.len() + 3;
    let mut len = rest;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    let mut record = format!("{len} {keyword}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn put(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
}

/// Writes `value` in octal with a NUL behind, or in base 256 where it has too many digits.
///
/// POSIX leaves the field to the PAX header then; the right number in it keeps readers without
/// PAX from taking content for headers.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if octal.len() == digits {
        put(field, octal.as_bytes());
        return;
    }
    for (place, byte) in field.iter_mut().rev().zip(value.to_le_bytes()) {
        *place = byte;
    }
    field[0] |= 0x80;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8]) -> Header<'_> {
        Header {
            path,
            mode: 0o644,
            ..Header::default()
        }
    }

    #[test]
    fn plain_entries_are_one_block() {
        for (path, blocks) in [(100, 1), (101, 3)] {
            let path = vec![b'a'; path];
            assert_eq!(file(&path).encode().len(), blocks * BLOCK);
        }
        let directory = Header {
            kind: Kind::Directory,
            ..file(b"d")
        };
        assert!(directory.encode().starts_with(b"d/\0"));
        // The slash counts.
        let directory = Header {
            kind: Kind::Directory,
            ..file(&[b'd'; 100])
        };
        assert_eq!(directory.encode().len(), 3 * BLOCK);
    }

    #[test]
    fn records_count_their_own_length() {
        // On both sides of where the length's own digits push it over a power of ten.
        for (value, len) in [
            (1, 9),
            (2, 11),
            (90, 99),
            (91, 101),
            (989, 999),
            (990, 1001),
        ] {
            let record = record("path", &vec![b'a'; value]);
            assert_eq!(record.len(), len, "{value}");
            assert!(
                record.starts_with(format!("{len} path=a").as_bytes()),
                "{value}"
            );
        }
    }

    #[test]
    fn numbers_beyond_octal_stand_twice() {
        let owner = Owner {
            uid: 2_097_152,
            gid: 2_097_151,
        };
        let header = Header {
            owner,
            size: 1 << 33,
            ..file(b"f")
        }
        .encode();
        let text = String::from_utf8_lossy(&header[BLOCK..2 * BLOCK]).into_owned();
        assert!(
            text.starts_with("19 size=8589934592\n15 uid=2097152\n\0"),
            "{text}"
        );
        let ustar = &header[2 * BLOCK..];
        assert_eq!(ustar[108..116], [0x80, 0, 0, 0, 0, 0x20, 0, 0]);
        assert_eq!(&ustar[116..124], b"7777777\0");
        assert_eq!(ustar[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    }

    /// More than octal digits can say, read by two others, who both skip what lies between.
    #[test]
    fn beyond_eight_gigabytes_others_find_the_next_entry() {
        use std::os::unix::fs::FileExt as _;
        let archive = tempfile::NamedTempFile::new().unwrap();
        let size = (9 << 30) + 1;
        let big = Header {
            size,
            ..file(b"big")
        }
        .encode();
        let next = big.len() as u64 + size.next_multiple_of(BLOCK as u64);
        archive.as_file().write_all_at(&big, 0).unwrap();
        archive
            .as_file()
            .write_all_at(&file(b"next").encode(), next)
            .unwrap();
        archive.as_file().set_len(next + 3 * BLOCK as u64).unwrap();
        let list = "import sys, tarfile
for m in tarfile.open(sys.argv[1]): print(m.size, m.name)";
        let path = archive.path().to_str().unwrap();
        for (command, expected) in [
            (
                vec!["tar", "-tvf", path],
                "9663676417 1970-01-01 00:00 big\n",
            ),
            (
                vec!["python3", "-c", list, path],
                "9663676417 big\n0 next\n",
            ),
        ] {
            let mut command_ = std::process::Command::new(command[0]);
            let output = command_.args(&command[1..]).output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert!(
                output.status.success() && printed.contains(expected),
                "{printed}"
            );
            assert!(printed.ends_with("next\n"), "{printed}");
        }
    }
}
