//! Connections to a buildkitd.
//!
//! A dead peer shows: on a socket at once, on TCP after a minute of silence on both sides. HTTP/2
//! has pings for that too, but gRPC's servers hang up on clients that use them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::Method;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use trilith_oci::Kind;

use crate::engine::address::TlsFiles;
use crate::engine::docker::{Api, Doing, KEEP_ALIVE, PROBES};
use crate::engine::solve::AnyConnection;
use crate::engine::{EngineAddress, EngineError, EngineKind};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait before a process is looked at again.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that wait to be passed on.
const BUFFER: usize = 256 * 1024;
/// The stream of a multiplexed connection that is the program's standard output.
const STDOUT: u8 = 1;

/// Connects to a socket or port.
pub(super) async fn direct(address: &EngineAddress) -> Result<AnyConnection, EngineError> {
    let connected = match address {
        EngineAddress::Unix(path) => timely(async move {
            let stream = UnixStream::connect(path).await?;
            Ok(Box::new(stream) as AnyConnection)
        }),
        EngineAddress::Tcp { authority, tls } => {
            let tls = tls.as_ref().map(TlsFiles::load).transpose()?;
            timely(port(authority, tls))
        }
    };
    connected.await.map_err(|error| EngineError::Unreachable {
        engine: EngineKind::Buildkit,
        address: address.to_string(),
        source: Some(error.into()),
    })
}

async fn port(authority: &str, tls: Option<ClientConfig>) -> io::Result<AnyConnection> {
    let stream = TcpStream::connect(authority).await?;
    keep_alive(&stream)?;
    let Some(mut tls) = tls else {
        return Ok(Box::new(stream));
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(tls));
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// Gives up on `connecting` after [`CONNECT`].
fn timely<'a>(
    connecting: impl Future<Output = io::Result<AnyConnection>> + Send + 'a,
) -> BoxFuture<'a, io::Result<AnyConnection>> {
    let limited = tokio::time::timeout(CONNECT, connecting);
    limited
        .map(|connected| connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
        .boxed()
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    Ok(())
}

/// What an engine says of a process that it will start.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exec {
    id: String,
}

/// How a process is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExecState {
    running: bool,
    exit_code: Option<i64>,
}

/// Connects to the buildkitd in container `name`, through a process there that passes on bytes.
pub(super) async fn container(docker: &Api, name: &str) -> Result<AnyConnection, EngineError> {
    let doing = Doing("reach BuildKit in", name);
    let process = json!({
        "AttachStdin": true,
        "AttachStdout": true,
        "AttachStderr": true,
        "Cmd": ["buildctl", "dial-stdio"],
    });
    let path = format!("/containers/{name}/exec");
    let request = docker.post(&path, &process).await?;
    let exec: Exec = docker.get(request, doing).await?;
    let path = format!("/exec/{}/start", exec.id);
    let how = json!({ "Detach": false, "Tty": false });
    let request = docker.post(&path, &how).await?;
    let connection = docker.upgrade(request, "tcp", doing).await?;
    started(docker, &exec.id, doing).await?;
    Ok(Box::new(demultiplex(connection)))
}

/// Waits until the process runs. What keeps it from that comes as its output, so the connection
/// would only look broken.
async fn started(docker: &Api, id: &str, doing: Doing<'_>) -> Result<(), EngineError> {
    let path = format!("/exec/{id}/json");
    let deadline = Instant::now() + CONNECT;
    loop {
        let request = docker.request(Method::GET, &path).await?;
        let state: ExecState = docker.get(request, doing).await?;
        let reason = match state.exit_code {
            _ if state.running => return Ok(()),
            Some(126 | 127) => "there is no `buildctl` in the container that can be run",
            Some(_) => "`buildctl dial-stdio` ended at once",
            None if Instant::now() > deadline => "`buildctl dial-stdio` does not start",
            None => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        return Err(doing.failed(reason, Kind::Unavailable));
    }
}

/// Returns the standard input and output of a process whose streams are multiplexed.
///
/// Both directions end when the other side of either is gone.
fn demultiplex(connection: AnyConnection) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (mut from_process, mut to_process) = tokio::io::split(connection);
    let (mut from_us, mut to_us) = tokio::io::split(theirs);
    tokio::spawn(async move {
        let there = async {
            // What goes wrong shows as an end.
            drop(tokio::io::copy(&mut from_us, &mut to_process).await);
        };
        let back = async {
            while let Some((stream, piece)) = next_piece(&mut from_process).await {
                if stream == STDOUT && to_us.write_all(&piece).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    });
    ours
}

/// Returns the next piece and the stream it belongs to; `None` at the end.
async fn next_piece(from: &mut ReadHalf<AnyConnection>) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 8];
    from.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let mut piece = Vec::new();
    let read = from
        .take(length.into())
        .read_to_end(&mut piece)
        .await
        .ok()?;
    (read == usize::try_from(length).ok()?).then_some((head[0], piece))
}
