//! Build contexts as streams of bytes, for engines that are sent them over a connection.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::mpsc;
use trilith_oci::layer::Compression;

use super::context::BuildContext;
use super::error::BuildContextError;
use super::tarball::ContextArchive;

/// Bytes in a piece of the stream.
const PIECE: usize = 128 * 1024;
/// Pieces that wait to be taken.
const PIECES: usize = 4;

/// The archive of a context while it is made.
///
/// An error is its last item. Whoever reads it to the end without one has read the whole archive;
/// whoever drops it before ends the work.
#[derive(Debug)]
pub struct ContextStream {
    pieces: mpsc::Receiver<Result<Bytes, BuildContextError>>,
    done: Arc<std::sync::OnceLock<ContextArchive>>,
}

impl BuildContext {
    /// Returns the context as an archive that is made while it is read.
    ///
    /// # Panics
    /// Outside a Tokio runtime, whose threads for blocking work it uses.
    #[must_use]
    pub fn stream(self: Arc<Self>, compression: Compression) -> ContextStream {
        let (sender, pieces) = mpsc::channel(PIECES);
        let done = Arc::new(std::sync::OnceLock::new());
        let written = Arc::clone(&done);
        tokio::task::spawn_blocking(move || {
            let mut output = Pieces {
                piece: BytesMut::new(),
                sender: sender.clone(),
            };
            match self.write(compression, &mut output) {
                Ok(archive) => {
                    // Nothing else ever sets it.
                    let _ = written.set(archive);
                }
                // If nobody listens any more, nobody wants to know.
                Err(error) => drop(sender.blocking_send(Err(error))),
            }
        });
        ContextStream { pieces, done }
    }
}

impl ContextStream {
    /// Returns what was written, once all of it has been read.
    #[must_use]
    pub fn archive(&self) -> Option<&ContextArchive> {
        self.done.get()
    }
}

impl Stream for ContextStream {
    type Item = Result<Bytes, BuildContextError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context)
    }
}

/// Sends what is written to it in pieces.
struct Pieces {
    piece: BytesMut,
    sender: mpsc::Sender<Result<Bytes, BuildContextError>>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
