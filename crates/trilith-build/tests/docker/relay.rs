//! Sockets at which something else answers than what is there: a buildkitd, or an engine without.
//!
//! Debian has no buildkitd, but its `dockerd` is one: `/grpc` is the same API, and only how it is
//! asked for has to be left out.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A relay; ends when dropped.
pub(crate) struct Relay {
    directory: TempDir,
    task: JoinHandle<()>,
}

/// What a relay passes on.
#[derive(Clone, Copy)]
pub(crate) enum Passes {
    /// The API of BuildKit, as a buildkitd has it.
    BuildKit,
    /// The Engine's API, but for what gives away connections to BuildKit.
    NoBuildKit,
    /// Everything.
    All,
}

impl Relay {
    /// Starts to pass on what is sent to a new socket to the engine at `host`.
    pub(crate) fn start(host: &str, passes: Passes) -> Self {
        let engine = socket_of(host);
        // Where the engine can see it too, to mount it into a container.
        let directory = tempfile::Builder::new()
            .prefix("relay-")
            .tempdir_in(engine.parent().unwrap())
            .unwrap();
        let listener = UnixListener::bind(directory.path().join("buildkitd.sock")).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let engine = engine.clone();
                tokio::spawn(async move { pass(client, &engine, passes).await });
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

pub(crate) fn socket_of(host: &str) -> PathBuf {
    host.strip_prefix("unix://").unwrap().into()
}

/// Passes on what `client` says to `engine`, and what that answers.
pub(crate) async fn pass(
    client: impl AsyncRead + AsyncWrite + Unpin,
    engine: &Path,
    passes: Passes,
) {
    // An engine that is gone is a connection that ends.
    let Ok(mut engine) = UnixStream::connect(engine).await else {
        return;
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    if let Passes::BuildKit = passes {
        ask_for_buildkit(&mut engine).await;
    }
    let (mut from_engine, mut to_engine) = engine.into_split();
    let mut piece = vec![0; 64 * 1024];
    let mut answer = vec![0; 64 * 1024];
    // Either side may break it off.
    loop {
        tokio::select! {
            read = from_client.read(&mut piece) => {
                let Ok(read @ 1..) = read else { return };
                let said = &piece[..read];
                let for_buildkit = said.starts_with(b"POST ")
                    && said.split(|byte| *byte == b'\r').next().unwrap().ends_with(b"/grpc HTTP/1.1");
                if for_buildkit && matches!(passes, Passes::NoBuildKit) {
                    let refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                    to_client.write_all(refusal).await.unwrap();
                } else if to_engine.write_all(said).await.is_err() {
                    return;
                }
            }
            read = from_engine.read(&mut answer) => {
                let Ok(read @ 1..) = read else { return };
                if to_client.write_all(&answer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn ask_for_buildkit(engine: &mut UnixStream) {
    let request = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    engine.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(engine.read_u8().await.unwrap());
    }
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}
