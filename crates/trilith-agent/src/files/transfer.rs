//! Moving the bytes of files between the network and the disk: two pieces at a time, one on its
//! way to the disk or from it and one on the network, whatever the size of the file.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is written or read at once, in bytes.
const BATCH: usize = 512 << 10;

/// Writes to a file off the thread that serves requests.
#[derive(Debug)]
pub(super) struct Writer {
    file: Arc<File>,
    batch: Vec<Bytes>,
    length: usize,
    written: u64,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    /// Returns a writer that begins where the file's position is.
    pub(super) fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            batch: Vec::new(),
            length: 0,
            written: 0,
            running: None,
        }
    }

    /// Takes a piece, and waits for the disk when it is behind.
    pub(super) async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        self.length += piece.len();
        self.batch.push(piece);
        if self.length < BATCH {
            return Ok(());
        }
        self.start().await
    }

    /// Writes what is left and returns how much was written in all.
    pub(super) async fn finish(&mut self) -> io::Result<u64> {
        self.start().await?;
        self.wait().await?;
        Ok(self.written)
    }

    async fn start(&mut self) -> io::Result<()> {
        self.wait().await?;
        self.written += self.length as u64;
        self.length = 0;
        let batch = std::mem::take(&mut self.batch);
        let file = Arc::clone(&self.file);
        self.running = Some(spawn_blocking(move || {
            batch.iter().try_for_each(|piece| (&*file).write_all(piece))
        }));
        Ok(())
    }

    async fn wait(&mut self) -> io::Result<()> {
        match self.running.take() {
            Some(running) => running.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

/// Returns the bytes of `file` from `offset`, `length` of them. A file that shrinks meanwhile cuts the body off.
pub(super) fn body(file: File, offset: u64, length: u64) -> Body {
    let file = Arc::new(file);
    let first = read(&file, offset, length);
    Body::from_stream(try_unfold((file, offset, length, first), next))
}

type Reading = Option<JoinHandle<io::Result<Vec<u8>>>>;

/// Waits for a piece, and has the next one read while it is sent.
async fn next(
    (file, offset, length, reading): (Arc<File>, u64, u64, Reading),
) -> io::Result<Option<(Bytes, (Arc<File>, u64, u64, Reading))>> {
    let Some(reading) = reading else {
        return Ok(None);
    };
    let piece = reading.await.map_err(io::Error::other)??;
    let (offset, length) = (offset + piece.len() as u64, length - piece.len() as u64);
    let reading = read(&file, offset, length);
    Ok(Some((piece.into(), (file, offset, length, reading))))
}

fn read(file: &Arc<File>, offset: u64, length: u64) -> Reading {
    let size = usize::try_from(length).unwrap_or(BATCH).min(BATCH);
    if size == 0 {
        return None;
    }
    let file = Arc::clone(file);
    Some(spawn_blocking(move || {
        let mut piece = vec![0; size];
        file.read_exact_at(&mut piece, offset)?;
        Ok(piece)
    }))
}
