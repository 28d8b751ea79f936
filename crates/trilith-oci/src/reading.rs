//! Blobs as plain readers, for code that runs off the async threads, and whose fault it is
//! when one fails.

use std::io::{self, Read};
use std::path::Path;

use bytes::{Buf, Bytes};
use futures_util::stream::{Fuse, StreamExt};
use tokio::runtime::Handle;

use crate::error::Error;
use crate::store::BlobStream;

/// Reads a [`BlobStream`] where blocking is allowed, as in `spawn_blocking`.
///
/// A failure of the stream comes as an [`io::Error`] with the [`Error`] inside.
pub(crate) struct BlockingReader {
    runtime: Handle,
    stream: Fuse<BlobStream>,
    piece: Bytes,
}

impl BlockingReader {
    /// Returns a reader of `stream`, whose input and output `runtime` drives.
    pub(crate) fn new(stream: BlobStream, runtime: Handle) -> Self {
        Self {
            runtime,
            // Readers may be asked again after their end; streams may not.
            stream: stream.fuse(),
            piece: Bytes::new(),
        }
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Runs `work` where it may block, and waits for it.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        // The runtime is shutting down, and nobody waits for the answer.
        Err(failed) => Err(Error::Read {
            object: "what a cancelled task was reading".to_owned(),
            source: io::Error::other(failed),
        }),
    }
}

/// Marks the failures of a reader as those of what is read, so that they are told from
/// failures to write what was read.
pub(crate) struct Blamed<R> {
    inner: R,
    object: String,
}

impl<R: Read> Blamed<R> {
    /// Returns a reader of `inner`, which messages call `object`.
    pub(crate) fn new(inner: R, object: String) -> Self {
        Self { inner, object }
    }
}

impl<R: Read> Read for Blamed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(read_failure(&self.object, error)),
        })
    }
}

/// Returns the error for a failed read of `object`: the one a store raised on the way, a
/// malformed object where the data is to blame, else the system's.
pub(crate) fn read_failure(object: &str, error: io::Error) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => return error,
        Err(error) => error,
    };
    let object = object.to_owned();
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            let reason = error.to_string();
            Error::Malformed { object, reason }
        }
        _ => Error::Read {
            object,
            source: error,
        },
    }
}

/// Returns the error for a failed copy to the file at `path`: that of a [`BlockingReader`] or
/// [`Blamed`] reader it was copied from, else one of writing.
pub(crate) fn write_failure(path: &Path, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("write", path)(error),
    }
}
