//! A socket at which a buildkitd answers: that of a Docker Engine, whose `/grpc` is the same API.
//!
//! Debian has no buildkitd, but its `dockerd` is one. What is left out is only how it is asked for.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A relay; ends when dropped.
pub(crate) struct Relay {
    directory: TempDir,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts to pass on what is sent to a new socket to the engine at `host`.
    pub(crate) fn start(host: &str) -> Self {
        let engine = PathBuf::from(host.strip_prefix("unix://").unwrap());
        // Where the engine can see it too, to mount it into a container.
        let directory = tempfile::Builder::new()
            .prefix("relay-")
            .tempdir_in(engine.parent().unwrap())
            .unwrap();
        let listener = UnixListener::bind(directory.path().join("buildkitd.sock")).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let engine = engine.clone();
                tokio::spawn(async move { pass(client, &engine).await });
            }
        });
        Self { directory, task }
    }

    /// Returns the directory of the socket.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join("buildkitd.sock")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: UnixStream, engine: &Path) {
    // An engine that is gone is a connection that ends.
    let Ok(mut engine) = UnixStream::connect(engine).await else {
        return;
    };
    let request = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    engine.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(engine.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    // Either side may break it off.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
}
