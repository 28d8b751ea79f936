//! Connections to an engine, and gRPC over one of them.
//!
//! HTTP/2 runs on whatever carries bytes: a socket, TLS, the upgraded connection of another
//! protocol, the streams of a process in a container. Nothing is reconnected and nothing is
//! asked twice. Whoever drops a [`Channel`] closes its connection, which is how builds are
//! cancelled.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::http::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::client::Grpc;

use crate::engine::Connection;

/// Bytes an engine may send ahead on one stream.
const WINDOW: u32 = 2 << 20;

/// A connection of any kind.
pub(in crate::engine) type AnyConnection = Box<dyn Connection>;

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(in crate::engine) struct Task(JoinHandle<()>);

impl Task {
    /// Starts `work`.
    pub(in crate::engine) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// gRPC over one connection.
pub(super) struct Channel {
    sender: SendRequest<Body>,
    _connection: Task,
}

impl Channel {
    /// Starts HTTP/2 on `connection`.
    pub(super) async fn open(connection: AnyConnection) -> Result<Self, hyper::Error> {
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(connection))
            .await?;
        // What goes wrong with it, each request is told too.
        let connection = Task::spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            _connection: connection,
        })
    }

    /// Returns a client for one request.
    pub(super) fn client(&self) -> Grpc<Sender> {
        Grpc::with_origin(
            Sender(self.sender.clone()),
            Uri::from_static("http://buildkit"),
        )
        .max_decoding_message_size(super::MAX_MESSAGE)
    }
}

/// Sends requests over a [`Channel`].
#[derive(Clone)]
pub(super) struct Sender(SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
