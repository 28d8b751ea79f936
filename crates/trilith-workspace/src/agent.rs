//! The agent of a workspace, spoken to over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use reqwest::{Body, Client, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{Error, SessionKey};

/// The header that carries the key.
const KEY: &str = "X-Session-API-Key";
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the agent may take to say that it is there.
const HEALTH: Duration = Duration::from_secs(2);
/// Bytes of standard input that are sent at once.
const PIECE: usize = 64 << 10;
/// How the agent begins what it says of a command whose time was over.
const TIMED_OUT: &str = "Command timed out after ";
/// What a shell adds to the number of the signal that has ended a command.
const SIGNALLED: i32 = 128;
/// More than a century, in seconds: the longest timeout that the agent takes.
const FOREVER: f64 = 4e9;

/// An agent at an address.
#[derive(Clone, Debug)]
pub struct Agent {
    client: Client,
    url: String,
    key: SessionKey,
}

/// A program to run, without a shell.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The directory; the container's if `None`.
    pub cwd: Option<String>,
    /// Variables over those of the container.
    pub environment: BTreeMap<String, String>,
    /// How long it may run, with all that it has started; for ever if `None`.
    pub timeout: Option<Duration>,
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, `128 + N` after signal N; `None` where its time was over.
    pub exit_code: Option<i32>,
    /// What the agent has to say, as that the program could not be started.
    pub note: Option<String>,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    exit_code: Option<i32>,
    stderr: Option<String>,
}

impl Agent {
    /// Returns the agent at `url`, which is plain HTTP. Nothing is asked.
    ///
    /// # Errors
    /// HTTP cannot be set up.
    pub fn try_new(url: &str, key: SessionKey) -> Result<Self, Error> {
        let failed = |reason: String| Error::Agent {
            operation: "be spoken to",
            reason,
        };
        // Never used for TLS; given so that no other backend is looked for.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build();
        Ok(Self {
            client: client.map_err(|error| failed(error.to_string()))?,
            url: url.trim_end_matches('/').to_owned(),
            key,
        })
    }

    /// Returns whether it answers.
    pub async fn is_healthy(&self) -> bool {
        let request = self.client.get(format!("{}/health", self.url));
        let answer = request.timeout(HEALTH).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Runs a command with the standard streams that are given, until it ends. A command whose
    /// future is dropped goes on.
    ///
    /// `interrupted` ends the command, and all that it has started.
    pub async fn run(
        &self,
        command: &Command,
        stdin: impl AsyncRead + Send + Unpin + 'static,
        stdout: &mut (impl AsyncWrite + Unpin),
        stderr: &mut (impl AsyncWrite + Unpin),
        interrupted: impl Future<Output = ()>,
    ) -> Result<Ended, Error> {
        let id = self.start(command).await?;
        let input = tokio::spawn(self.clone().feed(id.clone(), stdin));
        let outputs = async {
            tokio::try_join!(
                self.output(&id, "stdout", stdout),
                self.output(&id, "stderr", stderr)
            )
        };
        let stop = async {
            interrupted.await;
            // Whether it was there or not, its output ends.
            let path = format!("/api/bash/bash_commands/{id}/stop");
            let _stopped = self
                .call("stop a command", self.request(Method::POST, &path))
                .await;
            std::future::pending().await
        };
        let outcome = tokio::select! {
            outcome = outputs => outcome,
            never = stop => never,
        };
        input.abort();
        let (_, shown) = outcome?;
        self.ended(&id, shown).await
    }

    async fn start(&self, command: &Command) -> Result<String, Error> {
        let timeout = command.timeout.map_or(FOREVER, |time| time.as_secs_f64());
        let document = json!({
            "argv": command.argv,
            "cwd": command.cwd,
            "env": command.environment,
            "timeout": timeout,
            "stdin": true,
        });
        let request = self.request(Method::POST, "/api/bash/start_bash_command");
        let request = request
            .header("Content-Type", "application/json")
            .body(document.to_string());
        let started: Identified = self.document("start a command", request).await?;
        Ok(started.id)
    }

    /// Sends standard input, and its end.
    async fn feed(self, id: String, stdin: impl AsyncRead + Send + Unpin + 'static) {
        let pieces = unfold(stdin, async |mut stdin| {
            let mut piece = vec![0; PIECE];
            match stdin.read(&mut piece).await {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some((Ok(Bytes::from(piece)), stdin))
                }
                Err(error) => Some((Err(error), stdin)),
            }
        });
        let path = format!("/api/bash/bash_commands/{id}/stdin?close=true");
        let request = self.request(Method::POST, &path);
        // A command that does not read is none of anybody's concern.
        let _unread = request.body(Body::wrap_stream(pieces)).send().await;
    }

    /// Writes one stream of a command to `output` until it ends, and returns how long it was.
    async fn output(
        &self,
        id: &str,
        stream: &str,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let operation = "hand on output";
        let path = format!("/api/bash/bash_commands/{id}/output?stream={stream}");
        let response = self
            .call(operation, self.request(Method::GET, &path))
            .await?;
        let (mut pieces, mut length) = (response.bytes_stream(), 0);
        let failed = |reason: String| Error::Agent { operation, reason };
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| failed(error.to_string()))?;
            length += piece.len() as u64;
            let written = async {
                output.write_all(&piece).await?;
                output.flush().await
            };
            let written = written.await;
            written.map_err(|error| Error::system(format!("write to {stream}"), error))?;
        }
        Ok(length)
    }

    /// Returns how a command has ended that wrote `shown` bytes to standard error.
    async fn ended(&self, id: &str, shown: u64) -> Result<Ended, Error> {
        let operation = "tell how a command has ended";
        let path = format!(
            "/api/bash/bash_events/search?command_id__eq={id}&kind__eq=BashOutput\
             &sort_order=TIMESTAMP_DESC&limit=1"
        );
        let page: Page = self
            .document(operation, self.request(Method::GET, &path))
            .await?;
        let last = page.items.into_iter().next();
        let code = last.as_ref().and_then(|last| last.exit_code);
        let code = code.ok_or_else(|| Error::Agent {
            operation,
            reason: "it does not know".to_owned(),
        })?;
        let text = last.and_then(|last| last.stderr).unwrap_or_default();
        let said = text.lines().last().unwrap_or_default();
        if said.contains("bytes of output lost: ") {
            return Err(Error::Agent {
                operation: "hand on output",
                reason: said.to_owned(),
            });
        }
        let is_over = code == -1 && said.starts_with(TIMED_OUT);
        // The agent tells a signal as its negative.
        let code = if code < 0 { SIGNALLED - code } else { code };
        let has_note = is_over || shown == 0;
        Ok(Ended {
            exit_code: (!is_over).then_some(code),
            note: Some(said.to_owned()).filter(|said| has_note && !said.is_empty()),
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        request.header(KEY, self.key.expose())
    }

    async fn document<T: for<'d> Deserialize<'d>>(
        &self,
        operation: &'static str,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        let failed = |reason: String| Error::Agent { operation, reason };
        let response = self.call(operation, request).await?;
        let body = response.bytes().await;
        let body = body.map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
    }

    /// Sends `request` and returns the answer, which is a success.
    async fn call(
        &self,
        operation: &'static str,
        request: RequestBuilder,
    ) -> Result<Response, Error> {
        let failed = |reason: String| Error::Agent { operation, reason };
        let response = request.send().await;
        let response = response.map_err(|error| failed(root_cause(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let detail = said["detail"].as_str().map(str::to_owned);
        Err(failed(
            detail.unwrap_or_else(|| format!("it answers {status}")),
        ))
    }
}

/// Returns the innermost error, which says what went wrong.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
