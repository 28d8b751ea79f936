//! Reads a tar from a stream, member by member, with every bound checked.
//!
//! Memory stays bounded whatever the tar says: extended headers are at most
//! [`MAX_EXTENSION`] long, data is only ever handed through. PAX records are read by their
//! length, so binary extended attributes survive. Sparse members are refused: the image
//! specification advises against them (`layer.md#file-types`), and tools disagree on them.
//! Writes nothing and resolves no path.

use std::io::{self, BufReader, Read};

use crate::error::Error;
use crate::reading::read_failure;

const BLOCK: usize = 512;
/// The most bytes of a long name or of a member's PAX records; Go's reader has the same bound.
const MAX_EXTENSION: u64 = 1 << 20;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member of a tar, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub kind: MemberKind,
    /// Where it goes, as written: not yet safe to use.
    pub path: Vec<u8>,
    /// What a link points to, as written.
    pub link: Vec<u8>,
    /// Bytes of data; 0 for all but files.
    pub size: u64,
    /// Where the data starts in the tar.
    pub offset: u64,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Modification time in seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What the extension headers before a member say about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar being read. Reading from it gives the data of the member last returned.
pub(crate) struct TarReader<R> {
    inner: R,
    skip: fn(&mut R, u64) -> io::Result<()>,
    object: String,
    position: u64,
    data_left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    /// Returns a reader of the tar in `inner`; `object` names it in messages.
    pub(crate) fn new(inner: R, object: String) -> Self {
        Self::with_skip(inner, object, skip_by_reading)
    }

    fn with_skip(inner: R, object: String, skip: fn(&mut R, u64) -> io::Result<()>) -> Self {
        Self {
            inner,
            skip,
            object,
            position: 0,
            data_left: 0,
            padding: 0,
        }
    }

    /// Returns what is under the tar.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// Returns the next member, `None` at the end.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            match header.entry_type().as_byte() {
                b'L' => extensions.path = Some(self.read_name(&header)?),
                b'K' => extensions.link = Some(self.read_name(&header)?),
                b'x' => {
                    let records = self.read_extension(&header)?;
                    self.parse_pax(&records, &mut extensions)?;
                }
                // Global records (`git archive` writes a comment) concern no single member.
                b'g' => self.start_data(self.size_of(&header)?),
                _ => return self.member(&header, extensions).map(Some),
            }
        }
    }

    /// Reads the next header, `None` at the end of the tar or of the stream.
    fn read_header(&mut self) -> Result<Option<tar::Header>, Error> {
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_failure(&self.object, error)),
            }
        }
        self.position += filled as u64;
        if filled == 0 || (filled == BLOCK && block.iter().all(|&byte| byte == 0)) {
            return Ok(None);
        }
        if filled < BLOCK {
            return Err(self.malformed("it is cut off in a header"));
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            // The checksum itself counts as spaces.
            .map(|(at, &byte)| u32::from(if (148..156).contains(&at) { b' ' } else { byte }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(self.malformed("it is no tar, or a header in it is damaged"));
        }
        Ok(Some(header))
    }

    fn member(&mut self, header: &tar::Header, more: Extensions) -> Result<Member, Error> {
        let path = more.path.unwrap_or_else(|| header.path_bytes().into());
        let kind = self.kind_of(header, &path)?;
        // Of what is no file only the header counts, whatever size it claims.
        let data = match header.entry_type().as_byte() {
            b'0' | 0 | b'7' => more.size.map_or_else(|| self.size_of(header), Ok)?,
            _ => 0,
        };
        let link = more
            .link
            .or_else(|| header.link_name_bytes().map(Into::into));
        let old = header.as_old();
        let device = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or(0);
        let member = Member {
            kind,
            link: link.unwrap_or_default(),
            size: if kind == MemberKind::File { data } else { 0 },
            offset: self.position,
            mode: number(&old.mode, header.mode()).map_err(|e| self.damaged(&path, &e))? & 0o7777,
            uid: self.id(&path, more.uid, number(&old.uid, header.uid()))?,
            gid: self.id(&path, more.gid, number(&old.gid, header.gid()))?,
            mtime: more.mtime.unwrap_or_else(|| {
                let seconds = header.mtime().unwrap_or(0);
                (i64::try_from(seconds).unwrap_or(0), 0)
            }),
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: more.xattrs,
            path,
        };
        self.start_data(data);
        Ok(member)
    }

    fn kind_of(&self, header: &tar::Header, path: &[u8]) -> Result<MemberKind, Error> {
        Ok(match header.entry_type().as_byte() {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 | b'7' if path.ends_with(b"/") => MemberKind::Directory,
            b'0' | 0 | b'7' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::CharDevice,
            b'4' => MemberKind::BlockDevice,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            b'S' => return Err(self.sparse(path)),
            other => {
                let name = show(path);
                let reason = format!("member `{name}` has the unknown type {other}");
                return Err(self.malformed(&reason));
            }
        })
    }

    fn id(&self, path: &[u8], pax: Option<u64>, header: io::Result<u64>) -> Result<u32, Error> {
        let id = match pax {
            Some(id) => id,
            None => header.map_err(|error| self.damaged(path, &error))?,
        };
        u32::try_from(id).map_err(|_| {
            let reason = format!("member `{}` has the owner {id}", show(path));
            self.malformed(&reason)
        })
    }

    fn size_of(&self, header: &tar::Header) -> Result<u64, Error> {
        number(&header.as_old().size, header.entry_size())
            .map_err(|error| self.damaged(&header.path_bytes(), &error))
    }

    fn start_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Passes over what is left of the data of the last member, and its padding.
    fn skip_data(&mut self) -> Result<(), Error> {
        let Some(left) = self.data_left.checked_add(self.padding) else {
            return Err(self.malformed("a member in it is impossibly large"));
        };
        (self.skip)(&mut self.inner, left).map_err(|error| read_failure(&self.object, error))?;
        self.position += left;
        self.start_data(0);
        Ok(())
    }

    fn read_extension(&mut self, header: &tar::Header) -> Result<Vec<u8>, Error> {
        let size = self.size_of(header)?;
        if size > MAX_EXTENSION {
            return Err(self.malformed("it holds an extended header of more than 1 MiB"));
        }
        self.start_data(size);
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes);
        read.map_err(|error| read_failure(&self.object, error))?;
        Ok(bytes)
    }

    fn read_name(&mut self, header: &tar::Header) -> Result<Vec<u8>, Error> {
        let mut name = self.read_extension(header)?;
        if let Some(end) = name.iter().position(|&byte| byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// Takes the records `LENGTH KEY=VALUE\n` apart (POSIX.1-2001, `pax`, extended header).
    fn parse_pax(&self, mut records: &[u8], extensions: &mut Extensions) -> Result<(), Error> {
        while !records.is_empty() {
            let Some((key, value, rest)) = split_record(records) else {
                return Err(self.malformed("it holds a damaged PAX record"));
            };
            records = rest;
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                extensions.xattrs.push((name.to_vec(), value.to_vec()));
                continue;
            }
            if key.starts_with(b"GNU.sparse.") {
                return Err(self.sparse(extensions.path.as_deref().unwrap_or(b"")));
            }
            let number = || {
                let text = std::str::from_utf8(value).ok()?;
                text.parse::<u64>().ok()
            };
            match key {
                b"path" => extensions.path = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" | b"uid" | b"gid" if number().is_none() => {
                    return Err(self.malformed("a number in a PAX record is none"));
                }
                b"size" => extensions.size = number(),
                b"uid" => extensions.uid = number(),
                b"gid" => extensions.gid = number(),
                b"mtime" => extensions.mtime = parse_time(value),
                _ => {}
            }
        }
        Ok(())
    }

    fn malformed(&self, reason: &str) -> Error {
        Error::Malformed {
            object: self.object.clone(),
            reason: reason.to_owned(),
        }
    }

    fn damaged(&self, path: &[u8], error: &io::Error) -> Error {
        self.malformed(&format!("the header of `{}`: {error}", show(path)))
    }

    fn sparse(&self, path: &[u8]) -> Error {
        let reason = format!(
            "member `{}` is a sparse file; write the tar without `--sparse`",
            show(path)
        );
        self.malformed(&reason)
    }
}

impl TarReader<BufReader<std::fs::File>> {
    /// Returns a reader of the tar in `file` that jumps over data nobody reads.
    pub(crate) fn of_file(file: std::fs::File, object: String) -> Self {
        Self::with_skip(BufReader::new(file), object, skip_by_seeking)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.data_left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(cut_off());
        }
        self.data_left -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

/// Returns the number in `field`, which was read as `parsed`; left empty it is 0.
fn number<T: Default>(field: &[u8], parsed: io::Result<T>) -> io::Result<T> {
    let is_empty = field.iter().all(|&byte| matches!(byte, 0 | b' '));
    if is_empty { Ok(T::default()) } else { parsed }
}

fn skip_by_reading<R: Read>(inner: &mut R, count: u64) -> io::Result<()> {
    let skipped = io::copy(&mut inner.by_ref().take(count), &mut io::sink())?;
    if skipped == count {
        Ok(())
    } else {
        Err(cut_off())
    }
}

fn skip_by_seeking(inner: &mut BufReader<std::fs::File>, count: u64) -> io::Result<()> {
    let Some(before_last) = count.checked_sub(1) else {
        return Ok(());
    };
    inner.seek_relative(i64::try_from(before_last).map_err(|_| cut_off())?)?;
    // Beyond the end one can seek, but not read.
    inner.read_exact(&mut [0]).map_err(|_| cut_off())
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off")
}

/// Splits the first PAX record off `records`: key, value and the rest.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

/// Parses `seconds[.fraction]`; a time that is none counts as not given.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let (seconds, nanos): (i64, u32) = (seconds.parse().ok()?, digits.parse().ok()?);
    if text.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

/// Returns a member's name for messages.
pub(crate) fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    fn reader(bytes: &[u8]) -> TarReader<&[u8]> {
        TarReader::new(bytes, "layer `x`".to_owned())
    }

    /// Reads all of `bytes`: the members and their data, or what is wrong.
    fn read_all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Error> {
        let mut reader = reader(bytes);
        let mut members = Vec::new();
        while let Some(member) = reader.next_member()? {
            let mut data = Vec::new();
            let read = reader.read_to_end(&mut data);
            read.map_err(|error| read_failure("layer `x`", error))?;
            members.push((member, data));
        }
        Ok(members)
    }

    fn header(kind: u8, path: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        header.set_cksum();
        header
    }

    fn member(kind: u8, path: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, path, data.len() as u64).as_bytes().to_vec();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body..body + 9).find(|n| n.to_string().len() + body == *n);
            let length = length.unwrap();
            data.extend(format!("{length} {key}=").bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        member(b'x', "pax", &data)
    }

    #[test]
    fn binary_attributes_and_overrides_of_pax_survive() {
        let capability = b"\x01\n\x00\x02=\n\n";
        let tar = [
            pax(&[
                ("SCHILY.xattr.security.capability", capability),
                ("path", "a/long\nname".as_bytes()),
                ("uid", b"3000000000"),
                ("mtime", b"-1.5"),
            ]),
            member(b'0', "short", b"data"),
            member(b'0', "next", b""),
        ]
        .concat();
        let members = read_all(&tar).unwrap();
        let (first, data) = &members[0];
        assert_eq!(first.path, b"a/long\nname");
        assert_eq!(first.uid, 3_000_000_000);
        assert_eq!(first.mtime, (-2, 500_000_000));
        assert_eq!(first.xattrs[0].0, b"security.capability");
        assert_eq!(first.xattrs[0].1, capability);
        assert_eq!(data, b"data");
        assert_eq!(members[1].0.path, b"next");
        assert_eq!((members[1].0.uid, members[1].0.mtime), (1, (3, 0)));
    }

    #[test]
    fn kinds() {
        for (byte, path, kind, size) in [
            (b'0', "f", MemberKind::File, 1),
            (0, "f", MemberKind::File, 1),
            (b'7', "f", MemberKind::File, 1),
            (b'0', "d/", MemberKind::Directory, 0),
            (b'0', "d/", MemberKind::Directory, 600),
            (b'5', "d", MemberKind::Directory, 0),
            (b'3', "c", MemberKind::CharDevice, 0),
            (b'4', "b", MemberKind::BlockDevice, 0),
            (b'6', "p", MemberKind::Fifo, 0),
        ] {
            let tar = [
                member(byte, path, &b"x".repeat(size)),
                member(b'6', "end", b""),
            ];
            let members = read_all(&tar.concat()).unwrap();
            assert_eq!(members[0].0.kind, kind, "{path}");
            assert_eq!(members[0].0.size, u64::from(kind == MemberKind::File));
            assert_eq!(members[1].0.path, b"end");
        }
    }

    #[test]
    fn links_claim_no_data() {
        let tar = [
            header(b'1', "l", 512).as_bytes().to_vec(),
            member(b'0', "f", b"x"),
        ]
        .concat();
        assert_eq!(read_all(&tar).unwrap()[1].0.path, b"f");
    }

    #[test]
    fn hostile_and_damaged_tars_are_refused() {
        let good = member(b'0', "f", b"data");
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        let huge = header(b'0', "f", u64::MAX).as_bytes().to_vec();
        let long_name = header(b'L', "n", 1 << 40).as_bytes().to_vec();
        let long_records = header(b'x', "n", MAX_EXTENSION + 1).as_bytes().to_vec();
        let cases: [(Vec<u8>, &str); 11] = [
            (flipped, "damaged"),
            (vec![b'x'; 2048], "no tar"),
            (good[..100].to_vec(), "cut off in a header"),
            (good[..514].to_vec(), "cut off"),
            (huge, "cut off"),
            (long_name, "more than 1 MiB"),
            (long_records, "more than 1 MiB"),
            (member(b'x', "p", b"9 a=b\n"), "PAX record"),
            (pax(&[("size", b"-1")]), "is none"),
            (pax(&[("GNU.sparse.major", b"1")]), "sparse"),
            (member(b'S', "s", b""), "sparse"),
        ];
        for (tar, reason) in cases {
            let error = read_all(&tar).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Corrupt, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        let error = read_all(&member(b'Z', "z", b"")).unwrap_err();
        assert!(error.to_string().contains("unknown type"), "{error}");
    }

    #[test]
    fn what_nobody_reads_is_still_found_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cut.tar");
        let whole = member(b'0', "f", &[b'x'; 4096]);
        for (length, fine) in [(whole.len(), true), (whole.len() - 1, false), (600, false)] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            let mut reader = TarReader::of_file(file, "archive".to_owned());
            assert_eq!(reader.next_member().unwrap().unwrap().offset, 512);
            assert_eq!(reader.next_member().is_ok(), fine, "{length}");
        }
    }

    #[test]
    fn reads_what_tar_writes_in_every_format() {
        let directory = tempfile::tempdir().unwrap();
        let tree: PathBuf = directory.path().join("tree");
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        std::fs::create_dir_all(tree.join(&long).parent().unwrap()).unwrap();
        std::fs::write(tree.join(&long), b"long").unwrap();
        std::fs::hard_link(tree.join(&long), tree.join("hard")).unwrap();
        std::os::unix::fs::symlink("x".repeat(150), tree.join("soft")).unwrap();
        for format in ["gnu", "pax", "posix"] {
            let output = Command::new("tar")
                .args(["--sort=name", "--format", format, "-cf", "-", "-C"])
                .args([tree.as_os_str(), std::ffi::OsStr::new(".")])
                .output()
                .unwrap();
            let members = read_all(&output.stdout).unwrap();
            let paths: Vec<String> = members.iter().map(|(m, _)| show(&m.path)).collect();
            assert_eq!(paths[2], format!("./{long}"), "{format}");
            assert_eq!(members[2].1, b"long");
            assert_eq!(members[3].0.kind, MemberKind::HardLink);
            assert_eq!(members[3].0.link, format!("./{long}").as_bytes());
            assert_eq!(members[4].0.link, "x".repeat(150).as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(position in 0_usize..2048, byte: u8) {
            let records: [(&str, &[u8]); 2] = [("path", b"p"), ("mtime", b"1.2")];
            let mut tar = [pax(&records), member(b'0', "f", b"x")].concat();
            tar[position] = byte;
            let mut block = tar::Header::from_byte_slice(&tar[..BLOCK]).clone();
            block.set_cksum();
            let _ = read_all(&tar);
            tar[..BLOCK].copy_from_slice(block.as_bytes());
            let _ = read_all(&tar);
        }
    }
}
