//! Blobs of a layout: written whole or not at all, and never read without being checked.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use trilith_core::{Algorithm, Digest, Digester};

use super::Layout;
use super::file::TempFile;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::reading::off_thread;
use crate::store::BlobStream;
use crate::verified::verified;

/// Bytes that are read at once.
const READ_SIZE: usize = 256 * 1024;

/// Writes a new blob. Until [`Self::finish`] it is a temporary file that goes when this is dropped.
#[derive(Debug)]
pub struct BlobWriter {
    layout: Layout,
    temp: TempFile,
    digester: Digester,
    size: u64,
}

impl BlobWriter {
    pub(super) fn new(layout: Layout, temp: TempFile, algorithm: Algorithm) -> Self {
        Self {
            layout,
            temp,
            digester: Digester::new(algorithm),
            size: 0,
        }
    }

    /// Writes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.temp
            .write_all(bytes)
            .map_err(Error::io("write", self.temp.path()))?;
        self.digester.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Puts the blob in its place and returns what it is. A blob that is there is replaced, which
    /// mends one that was damaged.
    pub fn finish(self, media_type: &str) -> Result<Descriptor, Error> {
        let digest = self.digester.finish();
        keep(&self.layout, self.temp, &digest)?;
        Ok(Descriptor::new(media_type, digest, self.size))
    }

    /// Puts the blob in its place if it is `expected`.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] and [`Error::DigestMismatch`]; then nothing is kept.
    pub fn finish_as(self, expected: &Descriptor) -> Result<(), Error> {
        let object = || format!("content for blob `{}`", expected.digest);
        check_size(object, expected, self.size)?;
        let actual = self.digester.clone().finish();
        if actual != expected.digest {
            return Err(Error::DigestMismatch {
                object: object(),
                expected: expected.digest.clone(),
                actual,
            });
        }
        self.finish(&expected.media_type).map(drop)
    }
}

/// Makes `temp` the blob with this digest, which the caller has computed.
pub(super) fn keep(layout: &Layout, temp: TempFile, digest: &Digest) -> Result<(), Error> {
    let path = layout.blob_path(digest);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    temp.persist(&path)
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(Error::Io { source, .. }) => Err(source),
            Err(other) => Err(io::Error::other(other)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the content of `blob` in `layout`; its last piece comes when all of it was checked.
pub(super) fn stream(layout: &Layout, blob: &Descriptor) -> Result<BlobStream, Error> {
    let path = layout.blob_path(&blob.digest);
    let file = open(layout, blob)?;
    let pieces = stream::try_unfold((file, path), |(mut file, path)| {
        off_thread(move || {
            let piece = next_piece(&mut file, &path)?;
            Ok(piece.map(|piece| (piece, (file, path))))
        })
    });
    Ok(verified(Box::pin(pieces), blob, object(layout, blob)))
}

/// Returns the next piece of a file, `None` at its end.
fn next_piece(file: &mut File, path: &Path) -> Result<Option<Bytes>, Error> {
    let mut piece = vec![0; READ_SIZE];
    let count = file.read(&mut piece).map_err(Error::io("read", path))?;
    piece.truncate(count);
    Ok((count > 0).then(|| piece.into()))
}

/// Opens the file of `blob`, which must have the blob's size.
fn open(layout: &Layout, blob: &Descriptor) -> Result<File, Error> {
    let path = layout.blob_path(&blob.digest);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound {
                object: object(layout, blob),
            });
        }
        other => other.map_err(Error::io("open", &path))?,
    };
    let metadata = file.metadata().map_err(Error::io("examine", &path))?;
    check_size(|| object(layout, blob), blob, metadata.len())?;
    Ok(file)
}

fn object(layout: &Layout, blob: &Descriptor) -> String {
    format!("blob `{}` in `{}`", blob.digest, layout.root().display())
}

fn check_size(
    object: impl FnOnce() -> String,
    expected: &Descriptor,
    actual: u64,
) -> Result<(), Error> {
    if actual == expected.size {
        return Ok(());
    }
    Err(Error::SizeMismatch {
        object: object(),
        expected: expected.size,
        actual,
    })
}
