//! Blobs as plain readers, for code that runs off the async threads.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::runtime::Handle;

use crate::error::Error;
use crate::store::BlobStream;

/// Reads a [`BlobStream`] where blocking is allowed, as in `spawn_blocking`.
///
/// A failure of the stream comes as an [`io::Error`] with the [`Error`] inside.
pub(crate) struct BlockingReader {
    runtime: Handle,
    stream: BlobStream,
    piece: Bytes,
}

impl BlockingReader {
    /// Returns a reader of `stream`, whose input and output `runtime` drives.
    pub(crate) fn new(stream: BlobStream, runtime: Handle) -> Self {
        Self {
            runtime,
            stream,
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
