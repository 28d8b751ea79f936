//! The agent of a workspace, spoken to over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use reqwest::{Body, Client, Method, RequestBuilder, Response, Url};
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
/// What the agent says when it is ready, before its address.
pub(crate) const LISTENING: &str = "listening on ";
/// Bytes of input that are sent at once.
const PIECE: usize = 64 << 10;
/// How the agent begins what it says of a command whose time was over.
const TIMED_OUT: &str = "Command timed out after ";
/// What it says, last, where the kernel killed something of the container.
const OUT_OF_MEMORY: &str = "Out of memory: ";
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

/// What a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A program and its arguments; no shell is needed.
    Argv(Vec<String>),
    /// A line for the workspace's shell. Without one the exit code is 127.
    Shell(String),
}

/// A command to run.
#[derive(Clone, Debug)]
pub struct Command {
    /// What it runs.
    pub program: Program,
    /// The directory; the workspace's if `None`.
    pub cwd: Option<String>,
    /// Variables over those of the workspace.
    pub environment: BTreeMap<String, String>,
    /// How long it may run, with all that it has started; for ever if `None`.
    pub timeout: Option<Duration>,
}

impl Command {
    /// Returns the command that runs a program with its arguments, with all else as it is.
    #[must_use]
    pub fn argv<T: Into<String>>(argv: impl IntoIterator<Item = T>) -> Self {
        let argv = argv.into_iter().map(Into::into);
        Self::new(Program::Argv(argv.collect()))
    }

    /// Returns the command that has a shell run `line`, with all else as it is.
    #[must_use]
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Program::Shell(line.into()))
    }

    fn new(program: Program) -> Self {
        Self {
            program,
            cwd: None,
            environment: BTreeMap::new(),
            timeout: None,
        }
    }
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, `128 + N` after signal N; `None` where its time was over.
    pub exit_code: Option<i32>,
    /// What the agent has to say, as that the program could not be started.
    pub note: Option<String>,
}

/// A file of a git repository that has changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub status: ChangeStatus,
    /// Below the directory that was asked about.
    pub path: String,
}

/// How a file has changed. One that was renamed was deleted there and added here.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeStatus {
    /// It was not there.
    Added,
    /// It is not there any more.
    Deleted,
    /// It is another.
    Updated,
}

/// Both sides of a file of a git repository. A file that is not there is empty; both are `None`
/// where there is no repository.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Diff {
    /// As it was.
    pub original: Option<String>,
    /// As it is.
    pub modified: Option<String>,
}

#[derive(Deserialize)]
struct Stored {
    file_size: u64,
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

    /// Writes a file at the absolute path `to`, whole or not at all, and returns its length in
    /// bytes. Directories that are missing are made.
    ///
    /// # Errors
    /// The agent refuses or fails, or `from` does.
    pub async fn upload(
        &self,
        from: impl AsyncRead + Send + Unpin + 'static,
        to: &str,
    ) -> Result<u64, Error> {
        let request = self.ask(Method::PUT, "/api/file/upload", &[("path", to)])?;
        let request = request.body(body(from));
        let stored: Stored = self.document("take a file", request).await?;
        Ok(stored.file_size)
    }

    /// Writes the file at the absolute path `from` to `to`, and returns its length in bytes.
    ///
    /// # Errors
    /// The agent refuses or fails, or `to` does, which may have a part of the file then.
    pub async fn download(
        &self,
        from: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let request = self.ask(Method::GET, "/api/file/download", &[("path", from)])?;
        self.receive("hand out a file", request, "the target", to)
            .await
    }

    /// Returns what has changed in the repository at the absolute path `directory`, and in those
    /// right below it, by path; nothing where there is none.
    ///
    /// It is compared with the commit `reference`, or with what shows best what was done there.
    pub async fn git_changes(
        &self,
        directory: &str,
        reference: Option<&str>,
    ) -> Result<Vec<Change>, Error> {
        self.git("tell what has changed", "changes", directory, reference)
            .await
    }

    /// Returns both sides of the file at the absolute path `file`, compared as
    /// [`Self::git_changes`] compares. At most 1 MiB each.
    pub async fn git_diff(&self, file: &str, reference: Option<&str>) -> Result<Diff, Error> {
        self.git("show what has changed", "diff", file, reference)
            .await
    }

    async fn git<T: for<'d> Deserialize<'d>>(
        &self,
        operation: &'static str,
        route: &str,
        path: &str,
        reference: Option<&str>,
    ) -> Result<T, Error> {
        let mut query = vec![("path", path)];
        query.extend(reference.map(|reference| ("ref", reference)));
        let request = self.ask(Method::GET, &format!("/api/git/{route}"), &query)?;
        self.document(operation, request).await
    }

    async fn start(&self, command: &Command) -> Result<String, Error> {
        let timeout = command.timeout.map_or(FOREVER, |time| time.as_secs_f64());
        let mut document = json!({
            "cwd": command.cwd,
            "env": command.environment,
            "timeout": timeout,
            "stdin": true,
            "attached": true,
        });
        match &command.program {
            Program::Argv(argv) => document["argv"] = json!(argv),
            Program::Shell(line) => document["command"] = json!(line),
        }
        let request = self.request(Method::POST, "/api/bash/start_bash_command");
        let request = request
            .header("Content-Type", "application/json")
            .body(document.to_string());
        let started: Identified = self.document("start a command", request).await?;
        Ok(started.id)
    }

    /// Sends standard input, and its end.
    async fn feed(self, id: String, stdin: impl AsyncRead + Send + Unpin + 'static) {
        let path = format!("/api/bash/bash_commands/{id}/stdin?close=true");
        let request = self.request(Method::POST, &path);
        // A command that does not read is none of anybody's concern.
        let _unread = request.body(body(stdin)).send().await;
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
        let request = self.request(Method::GET, &path);
        self.receive(operation, request, stream, output).await
    }

    /// Writes the answer to `request` to `output`, which is called `name`, and returns its length.
    async fn receive(
        &self,
        operation: &'static str,
        request: RequestBuilder,
        name: &str,
        output: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let response = self.call(operation, request).await?;
        let (mut pieces, mut length) = (response.bytes_stream(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Error::Agent {
                operation,
                reason: root_cause(&error),
            })?;
            length += piece.len() as u64;
            let written = async {
                output.write_all(&piece).await?;
                output.flush().await
            };
            let written = written.await;
            written.map_err(|error| Error::system(format!("write to {name}"), error))?;
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
        let is_killed = code != 0 && said.starts_with(OUT_OF_MEMORY);
        let has_note = is_over || is_killed || shown == 0;
        Ok(Ended {
            exit_code: (!is_over).then_some(code),
            note: Some(said.to_owned()).filter(|said| has_note && !said.is_empty()),
        })
    }

    /// Returns a request with parameters of any text.
    fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, Error> {
        let url = Url::parse_with_params(&format!("{}{path}", self.url), query);
        let url = url.map_err(|error| Error::Agent {
            operation: "be spoken to",
            reason: format!("`{}` is no address: {error}", self.url),
        })?;
        Ok(self
            .client
            .request(method, url)
            .header(KEY, self.key.expose()))
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

/// Returns what is read from `input`, as it comes.
fn body(input: impl AsyncRead + Send + Unpin + 'static) -> Body {
    Body::wrap_stream(unfold(input, async |mut input| {
        let mut piece = vec![0; PIECE];
        match input.read(&mut piece).await {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some((Ok(Bytes::from(piece)), input))
            }
            Err(error) => Some((Err(error), input)),
        }
    }))
}

/// Returns the innermost error, which says what went wrong.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
