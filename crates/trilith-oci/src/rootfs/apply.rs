//! Layers applied to a directory, one over the other.
//!
//! Decides what a member replaces, what a whiteout hides and which directories have to be
//! there; how each kind of entry is made is in `entries.rs`.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Timespec, Timestamps};
use rustix::io::Errno;
use trilith_core::Digest;

use super::pack::WHITEOUT;
use super::root::{Inside, Root, join, kind_of, names_in, open_directory, remove};
use super::unpack::{Ownership, UnpackOptions, UnpackReport};
use super::watch::Watch;
use crate::decompress::{Hashed, unpacked};
use crate::error::Error;
use crate::reading::read_failure;
use crate::tar_reader::{Member, MemberKind, TarReader, show};

/// How many warnings are kept; a layer can hold any number of devices.
const MAX_WARNINGS: usize = 100;
/// What stands behind it in the name that hides all of a directory, `.wh..wh..opq`.
pub(super) const OPAQUE: &[u8] = b".wh..opq";

/// What a directory gets when nothing more is put into it.
pub(super) struct Pending {
    mode: u32,
    mtime: (i64, u32),
}

/// A directory of which nothing is known but that something lies below it.
const IMPLICIT: Pending = Pending {
    mode: 0o755,
    mtime: (0, 0),
};

pub(super) struct Unpacker {
    pub(super) root: Root,
    /// The directory's later name, for messages.
    target: PathBuf,
    pub(super) ownership: Ownership,
    /// Modes and times of directories, by path; set at the end, for every entry made in a
    /// directory changes its time, and a mode may forbid making any.
    pub(super) directories: BTreeMap<Vec<u8>, Pending>,
    /// What the present layer put there, with the directories above: whiteouts spare it.
    fresh: HashSet<Vec<u8>>,
    warnings: Vec<String>,
    watch: Option<Watch>,
}

/// A member that has a name, and the layer it is from.
pub(super) struct Entry<'a> {
    pub member: &'a Member,
    pub parent: &'a Inside,
    pub name: &'a [u8],
    pub layer: &'a str,
}

impl Unpacker {
    pub(super) fn new(
        staging: &Path,
        target: &Path,
        options: UnpackOptions,
    ) -> Result<Self, Error> {
        let root = Root::open(staging).map_err(Error::io("open", staging))?;
        Ok(Self {
            root,
            target: target.to_owned(),
            ownership: options.ownership,
            directories: BTreeMap::from([(Vec::new(), IMPLICIT)]),
            fresh: HashSet::new(),
            warnings: Vec::new(),
            watch: options.find.map(Watch::new),
        })
    }

    /// Unpacks one layer, `object` in messages, over what is there.
    pub(super) fn apply(
        &mut self,
        content: impl Read + Send,
        object: &str,
        diff_id: &Digest,
    ) -> Result<(), Error> {
        self.fresh.clear();
        if let Some(watch) = &mut self.watch {
            watch.next_layer();
        }
        let (plain, _) = unpacked(content).map_err(|error| read_failure(object, error))?;
        let mut tar = TarReader::new(Hashed::new(plain, diff_id), object.to_owned());
        while let Some(member) = tar.next_member()? {
            self.put(&member, &mut tar, object)?;
        }
        let (actual, _) = tar
            .into_inner()
            .finish()
            .map_err(|error| read_failure(object, error))?;
        if actual == *diff_id {
            return Ok(());
        }
        Err(Error::DigestMismatch {
            object: format!("{object}, uncompressed,"),
            expected: diff_id.clone(),
            actual,
        })
    }

    fn put(&mut self, member: &Member, data: &mut impl Read, layer: &str) -> Result<(), Error> {
        let path = safe_path(&member.path).map_err(|reason| refused(layer, member, reason))?;
        if let Some(watch) = &mut self.watch {
            watch.see(&path, member);
        }
        let Some(name) = path.last() else {
            return self.put_root(member, layer);
        };
        let parent = path[..path.len() - 1].join(&b'/');
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.hide(member, &parent, hidden, layer);
        }
        let lexical = parent;
        let parent = self.parent(member, &lexical, layer)?;
        let real = parent.join(name);
        if let Some(watch) = &mut self.watch
            && real != join(&lexical, name)
        {
            // Through a link on the way.
            let real: Vec<&[u8]> = real.split(|&byte| byte == b'/').collect();
            watch.see(&real, member);
        }
        let entry = Entry {
            member,
            parent: &parent,
            name,
            layer,
        };
        if !self.make_room(&entry)? {
            return Ok(());
        }
        self.make(&entry, data)
    }

    /// The root's own entry: only its mode and owner can matter.
    fn put_root(&mut self, member: &Member, layer: &str) -> Result<(), Error> {
        if member.kind != MemberKind::Directory {
            return Err(refused(layer, member, "it would replace the root"));
        }
        let root = self.root.directory(b"").map_err(self.failed(member))?;
        self.own(&root.fd, member)?;
        self.directories.insert(Vec::new(), pending(member));
        Ok(())
    }

    /// Opens the directory a member goes into, and notes what had to be made for it.
    fn parent(&mut self, member: &Member, path: &[u8], layer: &str) -> Result<Inside, Error> {
        let directories = &mut self.directories;
        let mut made = |path: &[u8]| {
            directories.insert(path.to_vec(), IMPLICIT);
        };
        match self.root.ensure_directory(path, &mut made) {
            Ok(inside) => Ok(inside),
            Err(error) => Err(self.not_below(error, member, layer)),
        }
    }

    /// Returns the error of a path that cannot be followed: the layer's fault where something
    /// that is no directory is in the way, the system's else.
    pub(super) fn not_below(&self, error: io::Error, member: &Member, layer: &str) -> Error {
        let reason = match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR) => "what it lies in is no directory".to_owned(),
            Some(Errno::LOOP) => "links lead to it in a circle".to_owned(),
            _ if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
            _ => return self.failed(member)(error),
        };
        refused(layer, member, &reason)
    }

    /// Removes what stands where an entry goes, and returns whether the entry is still to be
    /// made: a directory over a directory keeps what is in it, a link to itself is one already.
    fn make_room(&mut self, entry: &Entry<'_>) -> Result<bool, Error> {
        let path = entry.parent.join(entry.name);
        let present = kind_of(&entry.parent.fd, entry.name).map_err(self.failed(entry.member))?;
        let is_directory = entry.member.kind == MemberKind::Directory;
        if entry.member.kind == MemberKind::HardLink {
            let (target, name) = self.link_target(entry)?;
            if target.join(&name) == path {
                return Ok(false);
            }
        }
        match present {
            None => {}
            Some(FileType::Directory) if is_directory => {}
            Some(_) => {
                remove(&entry.parent.fd, entry.name).map_err(self.failed(entry.member))?;
                forget_below(&mut self.directories, &path);
            }
        }
        self.note_fresh(path);
        Ok(true)
    }

    /// Notes that the present layer put something at `path`.
    fn note_fresh(&mut self, mut path: Vec<u8>) {
        while !path.is_empty() {
            let above = match path.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => path[..slash].to_vec(),
                None => Vec::new(),
            };
            if !self.fresh.insert(path) {
                return;
            }
            path = above;
        }
    }

    /// Does what a whiteout says: removes something of a lower layer.
    fn hide(
        &mut self,
        member: &Member,
        parent: &[u8],
        hidden: &[u8],
        layer: &str,
    ) -> Result<(), Error> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(layer, member, "it hides no name"));
        }
        let directory = match self.root.directory(parent) {
            Ok(directory) => directory,
            // Nothing is there that could be hidden.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::NOTDIR)
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(self.not_below(error, member, layer)),
        };
        let done = if hidden == OPAQUE {
            self.hide_all(&directory)
        } else if hidden.starts_with(WHITEOUT) {
            // Bookkeeping of aufs, as in `.wh..wh.plnk`.
            Ok(())
        } else {
            self.hide_one(&directory, hidden)
        };
        done.map_err(self.failed(member))
    }

    /// Removes what lower layers have in `directory`.
    fn hide_all(&mut self, directory: &Inside) -> io::Result<()> {
        for name in names_in(&directory.fd)? {
            self.hide_one(directory, &name)?;
        }
        Ok(())
    }

    /// Removes what lower layers have at `name`; what the present layer put there stays.
    fn hide_one(&mut self, directory: &Inside, name: &[u8]) -> io::Result<()> {
        let path = join(&directory.path, name);
        let kind = kind_of(&directory.fd, name)?;
        match kind {
            None => Ok(()),
            Some(kind) if self.fresh.contains(&path) => {
                if kind != FileType::Directory {
                    return Ok(());
                }
                let fd = open_directory(&directory.fd, name)?;
                self.hide_all(&Inside { fd, path })
            }
            Some(_) => {
                forget_below(&mut self.directories, &path);
                remove(&directory.fd, name)
            }
        }
    }

    /// Gives all directories their modes and times, lower ones first: a mode may forbid
    /// going further down.
    pub(super) fn finish(self) -> Result<UnpackReport, Error> {
        for (path, pending) in self.directories.iter().rev() {
            let failed = || Error::io("set the mode of", &self.shown(path));
            let directory = self.root.directory(path).map_err(failed())?;
            let mode = Mode::from_raw_mode(pending.mode);
            let times = timestamps(pending.mtime);
            rustix::fs::fchmod(&directory.fd, mode).map_err(|errno| failed()(errno.into()))?;
            rustix::fs::futimens(&directory.fd, &times).map_err(|errno| failed()(errno.into()))?;
        }
        Ok(UnpackReport {
            warnings: self.warnings,
            found: self.watch.as_ref().and_then(Watch::finish),
        })
    }

    pub(super) fn warn(&mut self, member: &Member, what: &str) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings
                .push(format!("`{}` {what}", show(&member.path)));
        }
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::OsStr::from_bytes(path);
        self.target
            .join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))
    }

    pub(super) fn failed<E: Into<io::Error>>(
        &self,
        member: &Member,
    ) -> impl FnOnce(E) -> Error + use<E> {
        let failed = Error::io("unpack", &self.shown(&member.path));
        move |error| failed(error.into())
    }
}

/// Takes the path of a member or hard link apart; what it names is inside the root.
pub(super) fn safe_path(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let parts: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("a name in a layer may not hold `..`");
    }
    if path.contains(&0) {
        return Err("a name may not hold a NUL byte");
    }
    Ok(parts)
}

/// Returns the error for a member that cannot be unpacked because of what it is.
pub(super) fn refused(layer: &str, member: &Member, reason: &str) -> Error {
    Error::Malformed {
        object: layer.to_owned(),
        reason: format!("member `{}`: {reason}", show(&member.path)),
    }
}

pub(super) fn pending(member: &Member) -> Pending {
    Pending {
        mode: member.mode,
        mtime: member.mtime,
    }
}

pub(super) fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Forgets the directory at `path` and those below it, which are gone.
fn forget_below(directories: &mut BTreeMap<Vec<u8>, Pending>, path: &[u8]) {
    directories.remove(path);
    let below = join(path, b"");
    let gone: Vec<Vec<u8>> = directories
        .range(below.clone()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(&below))
        .cloned()
        .collect();
    for path in gone {
        directories.remove(&path);
    }
}
