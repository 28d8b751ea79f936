//! Files and directories into a workspace and out of it, as tars that are never on disk.
//!
//! What comes out was made by whoever is in the container: no name and no link in it leads out of
//! the target.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use trilith_build::engine::{Containers, Pieces};
use trilith_oci::Kind;

use crate::Error;

/// How many pieces wait between a thread that blocks and one that does not.
const PIECES: usize = 16;

/// Copies the file or directory `from` of this machine to `to` in a container: into it where it
/// is a directory, else under its name.
pub async fn copy_in(
    engine: &dyn Containers,
    id: &str,
    from: &Path,
    to: &str,
) -> Result<(), Error> {
    if !to.starts_with('/') {
        return Err(Error::Usage(format!("`{to}` is no absolute path")));
    }
    let (directory, name) = if is_directory(engine, id, to).await? {
        let name = from.canonicalize().map_err(failed("read", from))?;
        let name = name.file_name().map(PathBuf::from);
        (to.to_owned(), name)
    } else {
        let (parent, name) = to.rsplit_once('/').unwrap_or(("", to));
        let parent = if parent.is_empty() { "/" } else { parent };
        (parent.to_owned(), Some(PathBuf::from(name)))
    };
    let name = name.filter(|name| !name.as_os_str().is_empty());
    let name = name.ok_or_else(|| Error::Usage(format!("`{to}` has no name")))?;
    let (sender, receiver) = channel(PIECES);
    let source = from.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&source, &name, sender));
    let written = engine.write_archive(id, &directory, pieces(receiver)).await;
    let packed = packing.await.map_err(io::Error::other);
    let packed = packed.and_then(|packed| packed);
    // What is wrong with a file here shows as a tar that is cut off there.
    packed
        .map_err(failed("read", from))
        .and(written.map_err(Error::from))
}

/// Copies the file or directory `from` in a container to `to` on this machine: into it where it
/// is a directory, else under its name.
pub async fn copy_out(
    engine: &dyn Containers,
    id: &str,
    from: &str,
    to: &Path,
) -> Result<(), Error> {
    let archive = engine.read_archive(id, from).await?;
    let (sender, receiver) = channel(PIECES);
    let target = to.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || unpack(Pipe::new(receiver), &target));
    let sent = send(archive, sender).await;
    let unpacked = unpacking.await.map_err(io::Error::other);
    unpacked
        .and_then(|unpacked| unpacked)
        .map_err(failed("write", to))?;
    sent.map_err(|error| Error::system(format!("read `{from}`"), error))
}

/// Returns whether there is a directory at `path` of a container.
async fn is_directory(engine: &dyn Containers, id: &str, path: &str) -> Result<bool, Error> {
    let mut archive = match engine.read_archive(id, path).await {
        Err(error) if error.kind() == Kind::NotFound => return Ok(false),
        archive => archive?,
    };
    let mut head = Vec::new();
    while head.len() < 512 {
        match archive.next().await {
            Some(Ok(piece)) => head.extend_from_slice(&piece),
            _ => return Ok(false),
        }
    }
    let mut entries = tar::Archive::new(&head[..]);
    let mut entries = entries
        .entries()
        .map_err(|error| Error::system("read a tar", error))?;
    Ok(matches!(entries.next(), Some(Ok(entry)) if entry.header().entry_type().is_dir()))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let operation = format!("{operation} `{}`", path.display());
    move |error| Error::system(operation, error)
}

/// Writes `source` as a tar in which it is called `name`. Blocks.
fn pack(source: &Path, name: &Path, sender: Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut archive = tar::Builder::new(Outlet(sender));
    archive.follow_symlinks(false);
    if source.is_dir() {
        archive.append_dir_all(name, source)?;
    } else {
        archive.append_path_with_name(source, name)?;
    }
    archive.into_inner().map(drop)
}

/// Unpacks a tar of one file or directory at `target`. Blocks.
fn unpack(archive: Pipe, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_overwrite(true);
    if target.is_dir() {
        return unpack_into(&mut archive, target);
    }
    // Somewhere beside it first, under the name that it has there.
    let parent = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let beside = tempfile::Builder::new()
        .prefix(".trilith-cp-")
        .tempdir_in(parent.unwrap_or(Path::new(".")))?;
    unpack_into(&mut archive, beside.path())?;
    let entry = std::fs::read_dir(beside.path())?.next();
    let entry = entry.ok_or_else(|| io::Error::other("nothing has come"))??;
    std::fs::rename(entry.path(), target)
}

fn unpack_into(archive: &mut tar::Archive<Pipe>, directory: &Path) -> io::Result<()> {
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let is_plain =
            |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        let leads_out = !path.components().all(is_plain) || !entry.unpack_in(directory)?;
        if leads_out {
            let reason = format!("`{}` leads out of the target", path.display());
            return Err(io::Error::other(reason));
        }
    }
    Ok(())
}

/// Sends an archive on; an end before its end is nobody's concern here.
async fn send(mut archive: Pieces, sender: Sender<io::Result<Bytes>>) -> io::Result<()> {
    while let Some(piece) = archive.next().await {
        let reason = piece.as_ref().err().map(io::Error::to_string);
        if sender.send(piece).await.is_err() {
            return Ok(());
        }
        if let Some(reason) = reason {
            return Err(io::Error::other(reason));
        }
    }
    Ok(())
}

fn pieces(receiver: Receiver<io::Result<Bytes>>) -> Pieces {
    Box::pin(futures_util::stream::unfold(
        receiver,
        async |mut receiver| receiver.recv().await.map(|piece| (piece, receiver)),
    ))
}

/// Where a thread that blocks writes to.
struct Outlet(Sender<io::Result<Bytes>>);

impl io::Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a thread that blocks reads from.
struct Pipe {
    receiver: Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Pipe {
    fn new(receiver: Receiver<io::Result<Bytes>>) -> Self {
        let rest = Bytes::new();
        Self { receiver, rest }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Returns a tar with one link and one file, whose name is written as it is.
    fn tar(link: Option<&str>, name: &str) -> Pipe {
        let mut builder = tar::Builder::new(Vec::new());
        if let Some(target) = link {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, "link", target).unwrap();
        }
        let mut header = tar::Header::new_old();
        header.set_size(1);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        let (_, receiver) = channel(1);
        let rest = builder.into_inner().unwrap().into();
        Pipe { receiver, rest }
    }

    #[test]
    fn nothing_gets_out_of_the_target() {
        for (link, name) in [
            (None, "../out"),
            (None, "a/../../out"),
            (None, "/out"),
            (Some(".."), "link/out"),
        ] {
            let outer = tempfile::tempdir().unwrap();
            let target = outer.path().join("target");
            std::fs::create_dir(&target).unwrap();
            assert!(unpack(tar(link, name), &target).is_err(), "{name}");
            assert!(!outer.path().join("out").exists(), "{name}");
        }
    }

    #[test]
    fn a_file_takes_the_name_of_its_target() {
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("b");
        unpack(tar(None, "a"), &target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
        unpack(tar(None, "a"), outer.path()).unwrap();
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2);
    }
}
