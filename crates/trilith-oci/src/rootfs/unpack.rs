//! Images unpacked into a directory, layer by layer.
//!
//! Nothing a layer says leads out of the directory: names with `..` are refused, absolute
//! names mean the directory, links in the way are followed inside it. The directory appears
//! under its name when all is done, so that nothing half-written is ever there.
//!
//! Kept: modes with setuid, setgid and sticky bits, times, hard and symbolic links, fifos, and
//! of extended attributes `security.capability` and `user.*`. Owners and devices need
//! privileges. Left out, with a warning, is what cannot be kept; sparse members are refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::apply::Unpacker;
use super::watch::Subtree;
use crate::error::Error;
use crate::image::Image;
use crate::reading::{BlockingReader, off_thread};
use crate::store::ImageStore;

/// Who owns what is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Whom the image says. Needs privileges.
    AsInImage,
    /// Whoever unpacks.
    Mine,
}

impl Default for Ownership {
    /// Returns what the process is allowed: root keeps owners.
    fn default() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::AsInImage
        } else {
            Self::Mine
        }
    }
}

/// How to unpack.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {
    /// Who owns what is unpacked.
    pub ownership: Ownership,
    /// A subtree that may be all of one layer.
    pub find: Option<Subtree>,
}

/// What unpacking came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnpackReport {
    /// What could not be kept, one sentence each, at most a hundred.
    pub warnings: Vec<String>,
    /// The layer, counted from the bottom, that holds exactly the
    /// [subtree](UnpackOptions::find): it alone changes it, and changes nothing else.
    pub found: Option<usize>,
}

/// Unpacks `image`, whose layers are in `source`, into `target`, an empty or absent directory.
///
/// # Errors
/// [`Error::Unsupported`] where `target` holds something; [`Error::Malformed`] where a layer is
/// no tar, leads out of the directory or has another diff ID. `target` is then as before.
pub async fn unpack_image(
    source: &Arc<dyn ImageStore>,
    image: &Image,
    target: &Path,
    options: UnpackOptions,
) -> Result<UnpackReport, Error> {
    let staging = Staging::beside(target)?;
    let mut unpacker = Unpacker::new(staging.path(), target, options)?;
    let diff_ids = image.config().diff_ids().iter();
    for (layer, diff_id) in image.manifest().layers().iter().zip(diff_ids) {
        let stream = source.fetch_blob(layer).await?;
        let reader = BlockingReader::new(stream, Handle::current());
        let object = format!("layer `{}` of `{}`", layer.digest, source.describe());
        let diff_id = diff_id.as_digest().clone();
        unpacker = off_thread(move || {
            unpacker.apply(reader, &object, &diff_id)?;
            Ok(unpacker)
        })
        .await?;
    }
    off_thread(move || {
        let report = unpacker.finish()?;
        staging.publish()?;
        Ok(report)
    })
    .await
}

/// The directory that is filled before it gets its name.
struct Staging {
    directory: tempfile::TempDir,
    target: PathBuf,
}

impl Staging {
    /// Makes a directory beside `target`, which must be empty or absent.
    fn beside(target: &Path) -> Result<Self, Error> {
        match std::fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::Unsupported {
                    object: format!("`{}` as a destination", target.display()),
                    reason: "it is not empty".to_owned(),
                    advice: "name a directory that is empty or does not exist",
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("open", target)(error)),
        }
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let directory = tempfile::Builder::new()
            .prefix(".trilith-unpack-")
            .tempdir_in(parent)
            .map_err(Error::io("create a directory in", parent))?;
        Ok(Self {
            directory,
            target: target.to_owned(),
        })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the directory its name, in place of an empty one.
    fn publish(self) -> Result<(), Error> {
        std::fs::rename(self.path(), &self.target).map_err(Error::io("create", &self.target))?;
        // What it would remove is no longer there under that name.
        let _ = self.directory.keep();
        Ok(())
    }
}
