//! The server: who may ask, what is served where, and how connections are treated.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::bash;
use crate::command::{Commands, shell};
use crate::failure::{Failure, Outcome, json as json_response};
use crate::files::{self, Root};
use crate::git;
use crate::key::Keys;

/// The header that carries the key.
const KEY: &str = "x-session-api-key";

/// How long a JSON document may be, in bytes.
const DOCUMENT: usize = 4 << 20;

/// How many connections there may be at a time; more wait.
const CONNECTIONS: usize = 1024;

/// How long a client may take to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// How much of a connection is buffered in each direction, in bytes.
const BUFFER: usize = 256 << 10;

/// What all requests share.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    keys: Arc<Keys>,
    pub(crate) commands: Arc<Commands>,
    pub(crate) root: Arc<Root>,
    started: Instant,
    last_request: Arc<Mutex<Instant>>,
}

impl Agent {
    pub(crate) fn new(keys: Keys, commands: Arc<Commands>, root: Root) -> Self {
        let now = Instant::now();
        Self {
            keys: Arc::new(keys),
            commands,
            root: Arc::new(root),
            started: now,
            last_request: Arc::new(Mutex::new(now)),
        }
    }
}

/// Returns what is served: without a key whether the agent lives, with one all the rest.
pub(crate) fn router(agent: Agent) -> Router {
    let ok = || async { json_response(r#"{"status":"ok"}"#) };
    let guarded = Router::new()
        .route("/server_info", get(server_info))
        .nest("/api/bash", bash::routes())
        .nest("/api/file", files::routes())
        .nest("/api/git", git::routes())
        .fallback(async || Failure::not_found("Not Found"))
        .method_not_allowed_fallback(async || {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(from_fn_with_state(agent.clone(), check_key));
    Router::new()
        .route("/health", get(ok))
        .route("/alive", get(ok))
        .route(
            "/ready",
            get(|| async { json_response(r#"{"status":"ready"}"#) }),
        )
        .merge(guarded)
        .with_state(agent)
}

/// Lets nothing through without the key.
async fn check_key(State(agent): State<Agent>, request: Request, next: Next) -> Response {
    if !is_allowed(&agent.keys, request.headers()) {
        return Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
    }
    *agent
        .last_request
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    next.run(request).await
}

fn is_allowed(keys: &Keys, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(KEY).iter();
    // With two it is not clear which counts.
    matches!((values.next(), values.next()), (Some(key), None) if keys.accepts(key.as_bytes()))
}

async fn server_info(State(agent): State<Agent>) -> Response {
    let last = *agent
        .last_request
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let document = json!({
        "uptime": agent.started.elapsed().as_secs(),
        "idle_time": last.elapsed().as_secs(),
        "title": "Trilith Agent",
        "version": env!("CARGO_PKG_VERSION"),
        "capabilities": [],
        "usable_tools": [],
        "shell": shell(),
    });
    json_response(document.to_string())
}

/// The parameters of a query; those that are wrong are told as all failures are.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Outcome<Self> {
        let query = Query::try_from_uri(&parts.uri);
        let Query(parameters) = query.map_err(|error| Failure::invalid(error.body_text()))?;
        Ok(Self(parameters))
    }
}

/// Reads the body of a request, which may be so long and not longer.
pub(crate) async fn read_document(body: Body) -> Outcome<Bytes> {
    axum::body::to_bytes(body, DOCUMENT).await.map_err(|error| {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Failure::new(
            status,
            format!("cannot read the body (at most {DOCUMENT} bytes): {error}"),
        )
    })
}

/// Serves whoever connects, until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, router: Router) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The client may have gone; where files have run out, some will come back.
                if !is_of_connection(&error) {
                    sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        // Answers are small and waited for. A socket that cannot be set up tells when it is read.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(BUFFER)
                .half_close(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is none of anybody's concern.
            let _ = connection.await;
            drop(place);
        });
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted
    )
}
