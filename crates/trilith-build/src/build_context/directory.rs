//! Build contexts as directories, for engines that read them from disk.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps};
use trilith_core::{Digest, Digester, EntryKind};
use trilith_oci::layer::LayerContent;

use super::context::{BuildContext, ContextEntry};
use super::error::BuildContextError;

/// Bytes that are copied at once.
const PIECE: usize = 128 * 1024;

impl BuildContext {
    /// Writes what instructions can copy, which is [`Self::entries`], into `directory`, which
    /// exists and is empty: with the modes that were hashed and all times 0.
    ///
    /// # Errors
    /// A file is not what it was when it was listed, or cannot be read; the directory cannot be
    /// written to. Then part of the context is in it.
    pub fn write_directory(&self, directory: &Path) -> Result<(), BuildContextError> {
        let mut buffer = vec![0; PIECE];
        for entry in self.entries() {
            write_entry(entry, directory, &mut buffer)?;
        }
        // From the end, as what is made in a directory changes its time, and some cannot be
        // written to any more.
        for entry in self.entries().iter().rev() {
            if let EntryKind::Directory { mode } = entry.entry.kind {
                let path = directory.join(OsStr::from_bytes(&entry.entry.path));
                finish(&path, Some(mode))?;
            }
        }
        Ok(())
    }

    /// Writes the Dockerfile into the file `path`, which does not exist.
    ///
    /// # Errors
    /// As [`Self::write_directory`].
    pub fn write_dockerfile(&self, path: &Path) -> Result<(), BuildContextError> {
        let mut entries = self.archive_entries();
        let found = entries.find(|entry| entry.entry.path == self.dockerfile());
        match found {
            Some(entry) => write_file(entry, path, &mut vec![0; PIECE]),
            None => fs::write(path, "").map_err(BuildContextError::io("create", path)),
        }
    }
}

fn write_entry(
    entry: &ContextEntry,
    directory: &Path,
    buffer: &mut [u8],
) -> Result<(), BuildContextError> {
    let path = directory.join(OsStr::from_bytes(&entry.entry.path));
    match &entry.entry.kind {
        EntryKind::Directory { .. } => {
            // One that is made here as the parent of another may have an entry of its own.
            fs::create_dir_all(&path).map_err(BuildContextError::io("create", &path))
        }
        EntryKind::Symlink { target } => {
            make_parent(&path)?;
            std::os::unix::fs::symlink(OsStr::from_bytes(target), &path)
                .map_err(BuildContextError::io("create", &path))?;
            finish(&path, None)
        }
        EntryKind::File { .. } => {
            make_parent(&path)?;
            write_file(entry, &path, buffer)
        }
    }
}

/// Makes the directory that `path` is in, where it is not there.
fn make_parent(path: &Path) -> Result<(), BuildContextError> {
    match path.parent() {
        Some(parent) if !parent.exists() => {
            fs::create_dir_all(parent).map_err(BuildContextError::io("create", parent))
        }
        _ => Ok(()),
    }
}

/// Copies a file, and checks that it is what was hashed.
fn write_file(
    entry: &ContextEntry,
    path: &Path,
    buffer: &mut [u8],
) -> Result<(), BuildContextError> {
    let EntryKind::File { mode, size, digest } = &entry.entry.kind else {
        return Ok(());
    };
    let mut output = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(BuildContextError::io("create", path))?;
    let expected = (*size, digest);
    match entry.content() {
        LayerContent::Path(from) => {
            let mut file = open(&from)?;
            copy(&mut file, &from, &mut output, path, expected, buffer)?;
        }
        LayerContent::Bytes(bytes) => {
            copy(&mut &bytes[..], path, &mut output, path, expected, buffer)?;
        }
    }
    finish(path, Some(*mode))
}

/// Opens a regular file, refusing what somebody put in its place.
fn open(path: &Path) -> Result<File, BuildContextError> {
    let changed = || BuildContextError::Changed {
        path: path.to_owned(),
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let is_link = Some(rustix::io::Errno::LOOP.raw_os_error());
    let file = opened.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == is_link {
            changed()
        } else {
            BuildContextError::io("open", path)(error)
        }
    })?;
    let metadata = file
        .metadata()
        .map_err(BuildContextError::io("examine", path))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(changed())
    }
}

fn copy(
    reader: &mut impl Read,
    from: &Path,
    output: &mut File,
    to: &Path,
    (size, digest): (u64, &Digest),
    buffer: &mut [u8],
) -> Result<(), BuildContextError> {
    let mut digester = Digester::new(digest.algorithm());
    // One byte more, so that a file that grew is not taken for what it was.
    let mut reader = reader.take(size + 1);
    loop {
        let count = match reader.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(BuildContextError::io("read", from)(error)),
        };
        digester.update(&buffer[..count]);
        output
            .write_all(&buffer[..count])
            .map_err(BuildContextError::io("write", to))?;
    }
    if digester.finish() == *digest {
        Ok(())
    } else {
        Err(BuildContextError::Changed {
            path: from.to_owned(),
        })
    }
}

/// Sets mode and times; a symbolic link has no mode of its own.
fn finish(path: &Path, mode: Option<u32>) -> Result<(), BuildContextError> {
    const ZERO: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(BuildContextError::io("set the mode of", path))?;
    }
    let times = Timestamps {
        last_access: ZERO,
        last_modification: ZERO,
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io::Error::from)
        .map_err(BuildContextError::io("set the times of", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use trilith_core::StatCache;

    use super::*;
    use crate::build_context::{Dockerfile, IgnoreRules};

    fn load(directory: &Path) -> BuildContext {
        let dockerfile = Dockerfile::Text("FROM scratch\n".to_owned());
        let rules = IgnoreRules::default();
        BuildContext::load(directory, &dockerfile, &rules, &StatCache::disabled()).unwrap()
    }

    #[test]
    fn what_is_written_is_what_was_hashed() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| from.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("a/b/run"), Permissions::from_mode(0o764)).unwrap();
        fs::write(at("hidden"), "x").unwrap();
        fs::write(at(".dockerignore"), "hidden\n").unwrap();
        fs::write(from.path().join(OsStr::from_bytes(b"a/\xff")), "raw").unwrap();
        std::os::unix::fs::symlink("b/run", at("a/link")).unwrap();
        fs::set_permissions(at("a/b"), Permissions::from_mode(0o555)).unwrap();

        let context = load(from.path());
        context.write_directory(to.path()).unwrap();
        let written = BuildContext::load(
            to.path(),
            &Dockerfile::Text("FROM scratch\n".to_owned()),
            &IgnoreRules::Nothing,
            &StatCache::disabled(),
        )
        .unwrap();
        let hashes = |context: &BuildContext| -> Vec<_> {
            let entries = context.entries().iter();
            entries
                .map(|entry| (entry.entry.path.clone(), entry.entry.hash()))
                .collect()
        };
        assert_eq!(hashes(&written), hashes(&context));
        assert!(!to.path().join("hidden").exists());
        for name in ["a", "a/b", "a/b/run", "a/link"] {
            let metadata = fs::symlink_metadata(to.path().join(name)).unwrap();
            assert_eq!(metadata.mtime(), 0, "{name}");
        }
        let text = to.path().join("Dockerfile");
        context.write_dockerfile(&text).unwrap();
        assert_eq!(fs::read_to_string(text).unwrap(), "FROM scratch\n");
    }

    #[test]
    fn what_changed_is_refused() {
        let from = tempfile::tempdir().unwrap();
        let file = from.path().join("f");
        for change in ["", "one!", "other", "removed", "link"] {
            let _ = fs::remove_file(&file);
            fs::write(&file, "one").unwrap();
            let context = load(from.path());
            match change {
                "removed" => fs::remove_file(&file).unwrap(),
                "link" => {
                    fs::remove_file(&file).unwrap();
                    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
                }
                text => fs::write(&file, text).unwrap(),
            }
            let to = tempfile::tempdir().unwrap();
            let error = context.write_directory(to.path()).unwrap_err();
            assert!(
                matches!(&error, BuildContextError::Changed { path } if *path == file),
                "{change}: {error}"
            );
        }
    }
}
