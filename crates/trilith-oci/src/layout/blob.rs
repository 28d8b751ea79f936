//! Blobs of a layout: written whole or not at all, and never read without being checked.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream;
use tokio::task::spawn_blocking;
use trilith_core::{Algorithm, Digester};

use super::Layout;
use super::file::TempFile;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::store::BlobStream;

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
        let path = self.layout.blob_path(&digest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        self.temp.persist(&path)?;
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
    let reader = BlobReader {
        file: open(layout, blob)?,
        digester: Digester::new(blob.digest.algorithm()),
        left: blob.size,
        ended: false,
        blob: blob.clone(),
        path,
    };
    Ok(Box::pin(stream::try_unfold(reader, |reader| async move {
        if reader.ended {
            return Ok(None);
        }
        blocking(move || reader.next()).await
    })))
}

/// Runs `work`, which blocks or computes, off the threads that drive the network.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Opens the file of `blob`, which must have the blob's size.
fn open(layout: &Layout, blob: &Descriptor) -> Result<File, Error> {
    let path = layout.blob_path(&blob.digest);
    let object = || format!("blob `{}` in `{}`", blob.digest, layout.root().display());
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotFound { object: object() });
        }
        other => other.map_err(Error::io("open", &path))?,
    };
    let metadata = file.metadata().map_err(Error::io("examine", &path))?;
    check_size(object, blob, metadata.len())?;
    Ok(file)
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

struct BlobReader {
    file: File,
    digester: Digester,
    left: u64,
    ended: bool,
    blob: Descriptor,
    path: PathBuf,
}

impl BlobReader {
    fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        let wanted = usize::try_from(self.left)
            .unwrap_or(READ_SIZE)
            .min(READ_SIZE);
        let mut piece = vec![0; wanted];
        self.file
            .read_exact(&mut piece)
            .map_err(Error::io("read", &self.path))?;
        self.digester.update(&piece);
        self.left -= wanted as u64;
        self.ended = self.left == 0;
        if self.ended {
            let actual = self.digester.clone().finish();
            if actual != self.blob.digest {
                return Err(Error::DigestMismatch {
                    object: format!("`{}`", self.path.display()),
                    expected: self.blob.digest,
                    actual,
                });
            }
        }
        Ok(Some((piece.into(), self)))
    }
}
