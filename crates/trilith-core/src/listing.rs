//! What is in one directory. Everything is asked of the open directory, not by path, so that one
//! moved or replaced meanwhile gives no mixture.

use std::cell::RefCell;
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::content::Links;
use crate::hash_error::HashError;
use crate::walk::FEW;

/// How many bytes of entries are asked for at once.
const BUFFER: usize = 32 * 1024;

/// An open directory and the names in it, in no order.
struct Listing<'a> {
    path: &'a Path,
    directory: OwnedFd,
    /// All names, each with a NUL behind it.
    names: Box<[u8]>,
    /// Where each name ends, the NUL included, and what it names.
    entries: Box<[(usize, FileType)]>,
}

/// One entry of an open directory.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    listing: &'a Listing<'a>,
    id: NameId,
    name: &'a CStr,
    kind: FileType,
}

/// All names in a directory.
#[derive(Debug, Default)]
pub(crate) struct Names(Box<[u8]>);

/// One of [`Names`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameId {
    start: usize,
    end: usize,
}

impl Names {
    /// Returns the name.
    pub(crate) fn get(&self, name: NameId) -> &[u8] {
        &self.0[name.start..name.end]
    }
}

/// Returns what `look` says about each entry of the directory at `path`, in no order, and the
/// names of all entries.
pub(crate) fn map_entries<T, L>(
    path: &Path,
    links: Links,
    look: L,
) -> Result<(Names, Vec<T>), HashError>
where
    T: Send,
    L: Fn(Entry<'_>) -> Result<T, HashError> + Send + Sync,
{
    let listing = Listing::open(path, links)
        .map_err(|error| HashError::inside("list", path, error.into()))?;
    let look = |position| look(listing.entry(position)?);
    let positions = 0..listing.entries.len();
    let found = if positions.len() <= FEW {
        positions.map(look).collect::<Result<_, _>>()?
    } else {
        positions
            .into_par_iter()
            .map(look)
            .collect::<Result<_, _>>()?
    };
    Ok((Names(listing.names), found))
}

/// Buffers that grow once for all directories a thread lists.
struct Scratch {
    raw: Vec<u8>,
    names: Vec<u8>,
    entries: Vec<(usize, FileType)>,
}

type NamesAndEntries = (Box<[u8]>, Box<[(usize, FileType)]>);

impl Scratch {
    const fn new() -> Self {
        Self {
            raw: Vec::new(),
            names: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn read(&mut self, directory: &OwnedFd) -> Result<NamesAndEntries, Errno> {
        self.names.clear();
        self.entries.clear();
        self.raw.reserve(BUFFER);
        let mut raw = RawDir::new(directory, self.raw.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.names.extend_from_slice(name.to_bytes_with_nul());
                self.entries.push((self.names.len(), entry.file_type()));
            }
        }
        Ok((self.names.as_slice().into(), self.entries.as_slice().into()))
    }
}

impl<'a> Listing<'a> {
    fn open(path: &'a Path, links: Links) -> Result<Self, Errno> {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | links.flags();
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let (names, entries) = SCRATCH.with_borrow_mut(|scratch| scratch.read(&directory))?;
        Ok(Self {
            path,
            directory,
            names,
            entries,
        })
    }

    fn entry(&self, position: usize) -> Result<Entry<'_>, HashError> {
        let start = match position.checked_sub(1) {
            Some(before) => self.entries[before].0,
            None => 0,
        };
        let (end, kind) = self.entries[position];
        let mut entry = Entry {
            listing: self,
            id: NameId {
                start,
                end: end - 1,
            },
            name: CStr::from_bytes_with_nul(&self.names[start..end]).unwrap_or_default(),
            kind,
        };
        if kind == FileType::Unknown {
            // Some file systems do not say in listings.
            entry.kind = FileType::from_raw_mode(entry.stat()?.st_mode);
        }
        Ok(entry)
    }
}

impl Entry<'_> {
    /// Returns the name.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.to_bytes()
    }

    /// Returns what to get the name by, later.
    pub(crate) fn id(&self) -> NameId {
        self.id
    }

    /// Returns the path: that of the directory, and the name.
    pub(crate) fn path(&self) -> PathBuf {
        self.listing.path.join(OsStr::from_bytes(self.name()))
    }

    /// Returns what it is, links not followed.
    pub(crate) fn kind(&self) -> FileType {
        self.kind
    }

    /// Returns its status, links not followed.
    pub(crate) fn stat(&self) -> Result<Stat, HashError> {
        rustix::fs::statat(
            &self.listing.directory,
            self.name,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|error| self.failed("read", error))
    }

    /// Returns the status of what it leads to; `None` if it leads nowhere.
    pub(crate) fn target_stat(&self) -> Result<Option<Stat>, HashError> {
        match rustix::fs::statat(&self.listing.directory, self.name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("follow the link", error)),
        }
    }

    /// Returns where the symbolic link leads, as it is written.
    pub(crate) fn read_link(&self) -> Result<Vec<u8>, HashError> {
        rustix::fs::readlinkat(&self.listing.directory, self.name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| self.failed("read the link", error))
    }

    fn failed(&self, verb: &'static str, error: Errno) -> HashError {
        HashError::inside(verb, &self.path(), error.into())
    }
}
