//! The entries of a layer, made in the directory they belong in.
//!
//! Everything is made anew under a name that is free, relative to an open directory, and no
//! link is followed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::{Entry, Unpacker, pending, refused, safe_path, timestamps};
use super::root::{Inside, open_directory};
use super::unpack::Ownership;
use crate::error::Error;
use crate::reading::read_failure;
use crate::tar_reader::{Member, MemberKind, show};

impl Unpacker {
    pub(super) fn make(&mut self, entry: &Entry<'_>, data: &mut impl Read) -> Result<(), Error> {
        let failed = self.failed(entry.member);
        let member = entry.member;
        match member.kind {
            MemberKind::File => self.make_file(entry, data),
            MemberKind::Directory => self.make_directory(entry),
            MemberKind::HardLink => self.make_hard_link(entry),
            MemberKind::Symlink => {
                let link = member.link.as_slice();
                rustix::fs::symlinkat(link, &entry.parent.fd, entry.name).map_err(failed)?;
                self.finish_special(entry)
            }
            MemberKind::Fifo => self.make_node(entry, FileType::Fifo),
            MemberKind::CharDevice => self.make_node(entry, FileType::CharacterDevice),
            MemberKind::BlockDevice => self.make_node(entry, FileType::BlockDevice),
        }
    }

    fn make_file(&mut self, entry: &Entry<'_>, data: &mut impl Read) -> Result<(), Error> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let opened = rustix::fs::openat(&entry.parent.fd, entry.name, flags, mode);
        let mut file = File::from(opened.map_err(self.failed(entry.member))?);
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let read = match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_failure(entry.layer, error)),
            };
            file.write_all(&buffer[..read])
                .map_err(self.failed(entry.member))?;
        }
        // Changing the owner takes setuid bits and capabilities away, so it comes first.
        self.own(&file, entry.member)?;
        self.set_xattrs(&file, entry.member)?;
        let mode = Mode::from_raw_mode(entry.member.mode);
        rustix::fs::fchmod(&file, mode).map_err(self.failed(entry.member))?;
        let times = timestamps(entry.member.mtime);
        rustix::fs::futimens(&file, &times).map_err(self.failed(entry.member))
    }

    fn make_directory(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        match rustix::fs::mkdirat(&entry.parent.fd, entry.name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.failed(entry.member)(errno)),
        }
        let opened = open_directory(&entry.parent.fd, entry.name);
        let directory = opened.map_err(self.failed(entry.member))?;
        self.own(&directory, entry.member)?;
        self.set_xattrs(&directory, entry.member)?;
        let path = entry.parent.join(entry.name);
        self.directories.insert(path, pending(entry.member));
        Ok(())
    }

    /// Returns the directory and name of what a hard link points to.
    pub(super) fn link_target(&self, entry: &Entry<'_>) -> Result<(Inside, Vec<u8>), Error> {
        let member = entry.member;
        let refused = |reason: &str| refused(entry.layer, member, reason);
        let mut path = safe_path(&member.link).map_err(|reason| {
            refused(&format!("it links to `{}`: {reason}", show(&member.link)))
        })?;
        let Some(name) = path.pop() else {
            return Err(refused("it links to the root"));
        };
        let parent = self.root.directory(&path.join(&b'/'));
        match parent {
            Ok(parent) => Ok((parent, name.to_vec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let target = show(&member.link);
                Err(refused(&format!(
                    "it links to `{target}`, which is not there"
                )))
            }
            Err(error) => Err(self.not_below(error, member, entry.layer)),
        }
    }

    fn make_hard_link(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let (target, target_name) = self.link_target(entry)?;
        let linked = rustix::fs::linkat(
            &target.fd,
            target_name.as_slice(),
            &entry.parent.fd,
            entry.name,
            AtFlags::empty(),
        );
        let reason = match linked {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT) => "which is not there",
            Err(Errno::PERM) => "which is a directory",
            Err(errno) => return Err(self.failed(entry.member)(errno)),
        };
        let reason = format!("it links to `{}`, {reason}", show(&entry.member.link));
        Err(refused(entry.layer, entry.member, &reason))
    }

    /// Makes a fifo or device; what the system does not allow is left out.
    fn make_node(&mut self, entry: &Entry<'_>, kind: FileType) -> Result<(), Error> {
        let member = entry.member;
        let is_device = kind != FileType::Fifo;
        if is_device && self.ownership == Ownership::Mine {
            self.warn(
                member,
                "is a device, which needs privileges, and was left out",
            );
            return Ok(());
        }
        let (major, minor) = member.device;
        let device = if is_device {
            rustix::fs::makedev(major, minor)
        } else {
            0
        };
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mknodat(&entry.parent.fd, entry.name, kind, mode, device) {
            Ok(()) => {}
            Err(Errno::PERM) if is_device => {
                self.warn(
                    member,
                    "is a device, which is not allowed here, and was left out",
                );
                return Ok(());
            }
            Err(errno) => return Err(self.failed(member)(errno)),
        }
        self.finish_special(entry)
    }

    /// Sets owner, mode and time of what cannot be opened.
    fn finish_special(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        let Entry {
            member,
            parent,
            name,
            ..
        } = *entry;
        let no_follow = AtFlags::SYMLINK_NOFOLLOW;
        if self.ownership == Ownership::AsInImage {
            let (uid, gid) = owner(member);
            rustix::fs::chownat(&parent.fd, name, uid, gid, no_follow)
                .map_err(self.failed(member))?;
        }
        if member.kind != MemberKind::Symlink {
            // Not followed: what has the name was made just now and is no link.
            let mode = Mode::from_raw_mode(member.mode);
            rustix::fs::chmodat(&parent.fd, name, mode, AtFlags::empty())
                .map_err(self.failed(member))?;
        }
        let times = timestamps(member.mtime);
        rustix::fs::utimensat(&parent.fd, name, &times, no_follow).map_err(self.failed(member))
    }

    pub(super) fn own(&self, file: impl AsFd, member: &Member) -> Result<(), Error> {
        if self.ownership == Ownership::Mine {
            return Ok(());
        }
        let (uid, gid) = owner(member);
        rustix::fs::fchown(file, uid, gid).map_err(self.failed(member))
    }

    fn set_xattrs(&mut self, file: impl AsFd, member: &Member) -> Result<(), Error> {
        for (name, value) in &member.xattrs {
            // Others mean something to this system, not to the image: labels, overlay's marks.
            let is_kept = name == b"security.capability" || name.starts_with(b"user.");
            let set = if is_kept {
                rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty())
            } else {
                Err(Errno::PERM)
            };
            match set {
                Ok(()) => {}
                Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {
                    let name = show(name);
                    self.warn(
                        member,
                        &format!("has the attribute `{name}`, which was left out"),
                    );
                }
                Err(errno) => return Err(self.failed(member)(errno)),
            }
        }
        Ok(())
    }
}

fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
    (Some(uid), Some(gid))
}
