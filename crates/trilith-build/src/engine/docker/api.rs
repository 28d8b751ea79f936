//! The Docker Engine's API: requests, answers, and connections that are given away.
//!
//! `reqwest` carries it, over a socket as over TLS. (`bollard` was not used: it keeps the
//! connections it upgrades to itself, and its own BuildKit client holds a context in memory and
//! drops what the exporter says.) Answers are read in pieces; nothing long is ever in memory.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use reqwest::header::{CONNECTION, CONTENT_TYPE, HeaderMap, UPGRADE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use trilith_oci::Kind;

use crate::engine::address::TlsFiles;
use crate::engine::solve::AnyConnection;
use crate::engine::{EngineAddress, EngineError, EngineKind};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait for the first answer of an engine. For others there is no limit: a step may run
/// for hours.
const ANSWER: Duration = Duration::from_secs(30);
/// A silent connection is asked whether it is still there after this time, as often, and given up
/// after [`PROBES`] times of silence.
pub(in crate::engine) const KEEP_ALIVE: Duration = Duration::from_secs(15);
pub(in crate::engine) const PROBES: u32 = 4;
/// The most bytes of an answer that are read where a short one is expected.
const MAX_ANSWER: usize = 4 << 20;
/// The most bytes of one message in a stream of them.
const MAX_LINE: usize = 4 << 20;
/// The newest version of the API that is spoken here; an older engine is spoken to in its own.
const NEWEST: ApiVersion = ApiVersion(1, 45);

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion(pub(super) u32, pub(super) u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// An engine's API.
#[derive(Debug)]
pub(in crate::engine) struct Api {
    client: Client,
    /// What requests start with, `http://engine` without a slash at the end.
    base: String,
    address: EngineAddress,
    version: OnceCell<ApiVersion>,
}

/// What is being done, for errors.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Doing<'a>(
    pub(in crate::engine) &'static str,
    pub(in crate::engine) &'a str,
);

/// What an engine says of a failure.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    message: String,
}

impl Api {
    /// Returns the API at `address`. Opens no connection.
    pub(in crate::engine) fn try_new(address: EngineAddress) -> Result<Self, EngineError> {
        let builder = Client::builder()
            .connect_timeout(CONNECT)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(PROBES)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let (builder, base, tls) = match &address {
            EngineAddress::Unix(path) => (
                builder.unix_socket(path.as_path()),
                "http://engine".to_owned(),
                None,
            ),
            EngineAddress::Tcp { authority, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                (builder, format!("{scheme}://{authority}"), tls.as_ref())
            }
        };
        // Without TLS too: else another backend is looked for.
        let tls = match tls {
            Some(files) => files.load()?,
            None => TlsFiles::trusting_nobody()?,
        };
        let client = builder.tls_backend_preconfigured(tls).build();
        let client = client.map_err(|error| EngineError::Unreachable {
            engine: EngineKind::Docker,
            address: address.to_string(),
            source: Some(error.into()),
        })?;
        Ok(Self {
            client,
            base,
            address,
            version: OnceCell::new(),
        })
    }

    pub(in crate::engine) fn address(&self) -> &EngineAddress {
        &self.address
    }

    /// Returns the version of the API that is spoken with the engine.
    pub(super) async fn version(&self) -> Result<ApiVersion, EngineError> {
        let ask = || async {
            let doing = Doing("ask", "/_ping");
            let request = self.client.get(format!("{}/_ping", self.base));
            let request = request.timeout(ANSWER);
            let response = self.send(request, doing).await?;
            let header = response.headers().get("api-version");
            let version = header
                .and_then(|version| version.to_str().ok())
                .and_then(ApiVersion::parse);
            version
                .map(|version| version.min(NEWEST))
                .ok_or_else(|| doing.failed("it tells no version of its API", Kind::Unavailable))
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    /// Returns a request for `path`, which starts with a slash.
    pub(in crate::engine) async fn request(
        &self,
        method: Method,
        path: &str,
    ) -> Result<RequestBuilder, EngineError> {
        let ApiVersion(major, minor) = self.version().await?;
        Ok(self
            .client
            .request(method, format!("{}/v{major}.{minor}{path}", self.base)))
    }

    /// Returns a request for `path` with a query.
    pub(in crate::engine) async fn query(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, EngineError> {
        let ApiVersion(major, minor) = self.version().await?;
        let url = format!("{}/v{major}.{minor}{path}", self.base);
        let url = Url::parse_with_params(&url, query).map_err(|error| {
            let doing = Doing("ask", path);
            doing.failed(&error.to_string(), Kind::Usage)
        })?;
        Ok(self.client.request(method, url))
    }

    /// Returns a request to `path` that says `what`.
    pub(in crate::engine) async fn post(
        &self,
        path: &str,
        what: &serde_json::Value,
    ) -> Result<RequestBuilder, EngineError> {
        let request = self.request(Method::POST, path).await?;
        let request = request.header(CONTENT_TYPE, "application/json");
        Ok(request.body(what.to_string()))
    }

    /// Sends `request` and returns the answer, which is a success.
    pub(in crate::engine) async fn call(
        &self,
        request: RequestBuilder,
        doing: Doing<'_>,
    ) -> Result<Response, EngineError> {
        let response = self.send(request, doing).await?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = self.body(response, doing).await?;
        let said: Said = serde_json::from_slice(&body).unwrap_or_default();
        let reason = if said.message.is_empty() {
            format!("it answers {status}")
        } else {
            said.message
        };
        let kind = match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
            StatusCode::BAD_REQUEST => Kind::Usage,
            _ => Kind::Unavailable,
        };
        Err(doing.failed(&reason, kind))
    }

    /// Sends `request` and returns the answer as JSON; `None` where there is no such thing.
    pub(in crate::engine) async fn find<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        doing: Doing<'_>,
    ) -> Result<Option<T>, EngineError> {
        match self.get(request, doing).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Sends `request` and returns the answer as JSON.
    pub(in crate::engine) async fn get<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        doing: Doing<'_>,
    ) -> Result<T, EngineError> {
        let response = self.call(request, doing).await?;
        let body = self.body(response, doing).await?;
        let parsed = serde_json::from_slice(&body);
        parsed.map_err(|error| {
            doing.failed(&format!("its answer is malformed: {error}"), Kind::Corrupt)
        })
    }

    /// Sends `request`, and returns the connection once the engine has given it away.
    pub(in crate::engine) async fn upgrade(
        &self,
        request: RequestBuilder,
        protocol: &str,
        doing: Doing<'_>,
    ) -> Result<AnyConnection, EngineError> {
        let request = request
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, protocol);
        let response = self.call(request, doing).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let reason = format!("it answers {status} where it should change the protocol");
            return Err(doing.failed(&reason, Kind::Unavailable));
        }
        let upgraded = response.upgrade().await;
        Ok(Box::new(upgraded.map_err(|error| doing.broken(&error))?))
    }

    /// Returns the JSON messages of an answer as they come, each of them on a line.
    pub(super) fn messages<'a, T: DeserializeOwned + 'a>(
        response: Response,
        doing: Doing<'a>,
    ) -> impl Stream<Item = Result<T, EngineError>> + 'a {
        let pieces = response.bytes_stream().map(move |piece| {
            let piece = piece.map_err(|error| doing.broken(&error))?;
            Ok::<_, EngineError>(piece)
        });
        let state = (Box::pin(pieces), Vec::new(), false);
        futures_util::stream::try_unfold(
            state,
            move |(mut pieces, mut text, mut ended)| async move {
                loop {
                    let end = text.iter().position(|&byte| byte == b'\n');
                    let end =
                        end.or_else(|| ended.then_some(text.len()).filter(|&length| length > 0));
                    if let Some(end) = end {
                        let rest = text.split_off((end + 1).min(text.len()));
                        let line = std::mem::replace(&mut text, rest);
                        if line.trim_ascii().is_empty() {
                            continue;
                        }
                        let message = serde_json::from_slice(&line).map_err(|error| {
                            let reason = format!("its answer is malformed: {error}");
                            doing.failed(&reason, Kind::Corrupt)
                        })?;
                        return Ok(Some((message, (pieces, text, ended))));
                    }
                    if text.len() > MAX_LINE {
                        let reason = "one of its messages is longer than 4 MiB";
                        return Err(doing.failed(reason, Kind::Corrupt));
                    }
                    match pieces.next().await {
                        Some(piece) => text.extend_from_slice(&piece?),
                        None if ended => return Ok(None),
                        None => ended = true,
                    }
                }
            },
        )
    }

    async fn send(
        &self,
        request: RequestBuilder,
        doing: Doing<'_>,
    ) -> Result<Response, EngineError> {
        request.send().await.map_err(|error| {
            if error.is_connect() || error.is_timeout() {
                EngineError::Unreachable {
                    engine: EngineKind::Docker,
                    address: self.address.to_string(),
                    source: Some(root_cause(&error)),
                }
            } else {
                doing.broken(&error)
            }
        })
    }

    /// Reads a short answer.
    async fn body(&self, mut response: Response, doing: Doing<'_>) -> Result<Vec<u8>, EngineError> {
        let mut body = Vec::new();
        let mut next = async || {
            let piece = response.chunk().await;
            piece.map_err(|error| doing.broken(&error))
        };
        while let Some(piece) = next().await? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(doing.failed("its answer is longer than 4 MiB", Kind::Corrupt));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

impl Doing<'_> {
    /// Returns that the connection broke.
    pub(super) fn broken(self, error: &reqwest::Error) -> EngineError {
        EngineError::Lost {
            engine: EngineKind::Docker,
            operation: self.0,
            object: self.1.to_owned(),
            source: root_cause(error),
        }
    }

    /// Returns that the engine failed.
    pub(in crate::engine) fn failed(self, reason: &str, kind: Kind) -> EngineError {
        EngineError::Failed {
            engine: EngineKind::Docker,
            operation: self.0,
            object: self.1.to_owned(),
            reason: reason.trim().to_owned(),
            kind,
        }
    }
}

/// Returns the innermost error, which says what went wrong.
fn root_cause(error: &reqwest::Error) -> Box<dyn StdError + Send + Sync> {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => io::Error::new(error.kind(), error.to_string()).into(),
        None => cause.to_string().into(),
    }
}

/// Returns header fields.
pub(super) fn header_map(fields: &[(&'static str, String)]) -> HeaderMap {
    let fields = fields.iter().filter_map(|(name, value)| {
        let value = reqwest::header::HeaderValue::from_str(value).ok()?;
        Some((reqwest::header::HeaderName::from_static(name), value))
    });
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(name, value);
    }
    map
}
