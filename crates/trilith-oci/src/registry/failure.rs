//! What went wrong between us and a registry, in words that name the registry, the
//! request and what to do.
//!
//! Everything a server says is bounded and stripped of control characters before it gets
//! in here; queries of URLs and credentials never do.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::endpoint::shown;
use crate::error::Kind;

/// The most messages of a registry's answer that are kept.
const MAX_MESSAGES: usize = 3;
/// The most characters of a code or message that are kept.
const MAX_TEXT: usize = 200;

/// A request that failed, or one that could not be made.
#[derive(Debug)]
pub struct Failure {
    pub(crate) request: Option<Box<RequestName>>,
    pub(crate) cause: Box<Cause>,
    pub(crate) attempts: u32,
    pub(crate) account: Account,
}

/// A request as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestName {
    /// The registry as references write it.
    pub registry: String,
    /// The HTTP method.
    pub method: Method,
    /// The path, with its host where that is not the registry's; never a query.
    pub path: String,
}

impl RequestName {
    pub(crate) fn new(registry: &str, home: &Url, method: &Method, url: &Url) -> Self {
        Self {
            registry: registry.to_owned(),
            method: method.clone(),
            path: shown(url, home),
        }
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{} {}`", self.method, self.path)
    }
}

/// Why a request failed.
#[derive(Debug)]
pub enum Cause {
    /// The client's configuration cannot be used.
    Config(String),
    /// Credentials are stored somewhere, but could not be read.
    Credentials {
        /// The file or helper, in words.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry answered with a status that is no answer to the question.
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// What the registry said about it.
        messages: Vec<ServerMessage>,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// No connection came about.
    Connect(RootCause),
    /// The server's certificate is not to be trusted, or TLS failed otherwise.
    Tls(RootCause),
    /// The server does not speak TLS.
    NotTls(RootCause),
    /// The server was too slow: no answer, or next to no data, for this long.
    Timeout(Duration),
    /// The connection broke.
    Broken(RootCause),
    /// The answer breaks the distribution specification.
    Protocol(String),
}

/// The last link of a chain of errors, which says most.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RootCause(String);

impl RootCause {
    /// Returns the deepest source of `error`.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut deepest = error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        Self(clean(&deepest.to_string()))
    }
}

/// One entry of the `errors` a registry answers with (distribution specification, "Error codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// The code, `MANIFEST_UNKNOWN` for instance; empty where there is none.
    pub code: String,
    /// The message; empty where there is none.
    pub message: String,
}

/// Whose credentials a request carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Account {
    /// The request needed none, or it is not known yet.
    #[default]
    Unknown,
    /// None were found in these files.
    NoneIn(Vec<String>),
    /// Those from this file or helper.
    From(String),
}

impl Failure {
    pub(crate) fn new(cause: Cause) -> Self {
        Self {
            request: None,
            cause: Box::new(cause),
            attempts: 1,
            account: Account::Unknown,
        }
    }

    /// Returns the failure of a configuration that cannot be used.
    pub(crate) fn config(reason: String) -> Self {
        Self::new(Cause::Config(reason))
    }

    /// Returns the same failure of `request`.
    pub(crate) fn during(mut self, request: &RequestName) -> Self {
        self.request
            .get_or_insert_with(|| Box::new(request.clone()));
        self
    }

    /// Returns the same failure with whose credentials were sent.
    pub(crate) fn with_account(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// Returns why the request failed.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Returns the request that failed; none where none was made.
    #[must_use]
    pub fn request(&self) -> Option<&RequestName> {
        self.request.as_deref()
    }

    /// Returns the HTTP status, where one came.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &*self.cause {
            Cause::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// Returns whether the registry gave `code` as a reason.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        matches!(&*self.cause, Cause::Status { messages, .. }
            if messages.iter().any(|message| message.code == code))
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &*self.cause {
            Cause::Config(_) => Kind::Usage,
            Cause::Credentials { .. } => Kind::Denied,
            Cause::Status { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
                StatusCode::NOT_FOUND => Kind::NotFound,
                _ => Kind::Unavailable,
            },
            _ => Kind::Unavailable,
        }
    }

    /// Returns whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match &*self.cause {
            Cause::Connect(_) | Cause::Timeout(_) | Cause::Broken(_) => true,
            Cause::Status { status, .. } => super::retry::is_transient(*status),
            _ => false,
        }
    }

    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let registry = &self.request.as_ref()?.registry;
        match &*self.cause {
            Cause::Status { status, .. } if self.kind() == Kind::Denied => {
                self.account_hint(registry, *status)
            }
            Cause::Status {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after,
                ..
            } => Some(match retry_after {
                Some(wait) => format!(
                    "the registry limits the rate of requests and asks to wait {} s",
                    wait.as_secs()
                ),
                None => "the registry limits the rate of requests; try again later, or log in \
                         for a higher limit"
                    .to_owned(),
            }),
            Cause::Status {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                ..
            } => Some(
                "the registry, or a proxy in front of it, limits the size of uploads (nginx: \
                 `client_max_body_size`)"
                    .to_owned(),
            ),
            Cause::Status { messages, .. }
                if messages.iter().any(|m| m.message.contains("HTTPS server")) =>
            {
                Some(format!(
                    "`{registry}` speaks TLS; do not name it with `--insecure-registry`"
                ))
            }
            Cause::NotTls(_) => Some(format!(
                "if `{registry}` is to be spoken to in plain HTTP, name it with \
                 `--insecure-registry {registry}`"
            )),
            Cause::Tls(_) => Some(
                "where the certificate comes from a private authority, that authority's \
                 certificate has to be given"
                    .to_owned(),
            ),
            Cause::Connect(_) => Some(format!(
                "check that `{registry}` is spelled right, running and reachable from here"
            )),
            _ => None,
        }
    }

    fn account_hint(&self, registry: &str, status: StatusCode) -> Option<String> {
        match &self.account {
            Account::Unknown => None,
            Account::NoneIn(files) if files.is_empty() => Some(format!(
                "no credentials were looked for; `docker login {registry}` stores some"
            )),
            Account::NoneIn(files) => Some(format!(
                "there are no credentials for `{registry}` in {}; `docker login {registry}` \
                 stores some",
                files.join(", ")
            )),
            Account::From(origin) if status == StatusCode::UNAUTHORIZED => Some(format!(
                "the credentials from {origin} were refused; `docker login {registry}` \
                 replaces them"
            )),
            Account::From(origin) => {
                Some(format!("the credentials from {origin} do not allow this"))
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, request) = match &self.request {
            Some(request) => (request.registry.as_str(), request.to_string()),
            None => ("the registry", "a request".to_owned()),
        };
        match &*self.cause {
            Cause::Config(reason) => f.write_str(reason),
            Cause::Credentials { origin, reason } => {
                write!(f, "cannot get credentials from {origin}: {reason}")
            }
            Cause::Status {
                status, messages, ..
            } => {
                write!(f, "`{registry}` answered {request} with {status}")?;
                for (position, message) in messages.iter().enumerate() {
                    f.write_str(if position == 0 { ": " } else { "; " })?;
                    message.fmt(f)?;
                }
                Ok(())
            }
            Cause::Connect(_) => write!(f, "cannot connect to `{registry}` for {request}"),
            Cause::Tls(_) => write!(f, "cannot trust `{registry}` with {request}"),
            Cause::NotTls(_) => write!(f, "`{registry}` does not speak TLS ({request})"),
            Cause::Timeout(after) => write!(
                f,
                "`{registry}` was too slow for {request}: next to nothing came in {} s",
                after.as_secs_f32()
            ),
            Cause::Broken(_) => {
                write!(f, "the connection to `{registry}` broke during {request}")
            }
            Cause::Protocol(reason) => write!(
                f,
                "`{registry}` answered {request} against the specification: {reason}"
            ),
        }?;
        match self.attempts {
            0 | 1 => Ok(()),
            attempts => write!(f, " ({attempts} attempts)"),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.cause {
            Cause::Connect(root) | Cause::Tls(root) | Cause::NotTls(root) | Cause::Broken(root) => {
                Some(root)
            }
            _ => None,
        }
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => f.write_str(message),
            (code, "") => f.write_str(code),
            (code, message) => write!(f, "{code} ({message})"),
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: serde_json::Value,
}

/// Returns what the body of an error answer says: its `errors`, or its first line of plain text.
pub(crate) fn messages(body: &[u8]) -> Vec<ServerMessage> {
    if let Ok(parsed) = serde_json::from_slice::<ErrorBody>(body) {
        return parsed
            .errors
            .iter()
            .take(MAX_MESSAGES)
            .map(|entry| ServerMessage {
                code: text(&entry.code),
                message: text(&entry.message),
            })
            .filter(|message| !(message.code.is_empty() && message.message.is_empty()))
            .collect();
    }
    let text = String::from_utf8_lossy(body);
    let line = clean(text.lines().next().unwrap_or_default());
    // Pages of proxies and load balancers say nothing worth a line of an error.
    if line.is_empty() || line.starts_with(['<', '{', '[']) {
        return Vec::new();
    }
    vec![ServerMessage {
        code: String::new(),
        message: line,
    }]
}

fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => clean(text),
        serde_json::Value::Null => String::new(),
        other => clean(&other.to_string()),
    }
}

/// Returns the beginning of `text` without control characters, so that a server can
/// neither flood a message nor drive a terminal.
pub(crate) fn clean(text: &str) -> String {
    let mut kept: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_TEXT + 1)
        .collect();
    if let Some((end, _)) = kept.char_indices().nth(MAX_TEXT) {
        kept.truncate(end);
        kept.push('…');
    }
    kept.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_messages_are_bounded_and_clean() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m access"}]}"#,
                vec!["DENIED (no[31m access)"],
            ),
            (r#"{"errors":[{"code":"X","detail":{}}]}"#, vec!["X"]),
            (r#"{"errors":[{"message":"m"},{}]}"#, vec!["m"]),
            (
                r#"{"errors":[{"code":7,"message":["a"]}]}"#,
                vec![r#"7 (["a"])"#],
            ),
            (
                r#"{"errors":[{"code":"A"},{"code":"B"},{"code":"C"},{"code":"D"}]}"#,
                vec!["A", "B", "C"],
            ),
            ("no such host\nmore", vec!["no such host"]),
            ("<html>", vec![]),
            (r#"{"errors":"#, vec![]),
            (r#"{"errors":null}"#, vec![]),
            ("", vec![]),
        ] {
            let got: Vec<String> = messages(body.as_bytes())
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(got, expected, "{body}");
        }
        assert_eq!(clean(&"é".repeat(500)).chars().count(), MAX_TEXT + 1);
        assert_eq!(
            messages(&[0xff, 0xfe, b'a'])[0].message.chars().last(),
            Some('a')
        );
    }

    fn failure(cause: Cause) -> Failure {
        let home = Url::parse("https://ghcr.io/").unwrap();
        let url = Url::parse("https://ghcr.io/v2/a/manifests/v1?token=secret").unwrap();
        Failure::new(cause).during(&RequestName::new("ghcr.io", &home, &Method::HEAD, &url))
    }

    fn status(status: u16) -> Cause {
        Cause::Status {
            status: StatusCode::from_u16(status).unwrap(),
            messages: vec![ServerMessage {
                code: "X".to_owned(),
                message: "y".to_owned(),
            }],
            retry_after: None,
        }
    }

    #[test]
    fn messages_kinds_and_hints() {
        let mut tried = failure(status(503));
        tried.attempts = 4;
        assert_eq!(
            tried.to_string(),
            "`ghcr.io` answered `HEAD /v2/a/manifests/v1?…` with 503 Service Unavailable: X (y) \
             (4 attempts)"
        );
        let root = || RootCause("refused".to_owned());
        for (cause, kind, retryable, hint) in [
            (status(401), Kind::Denied, false, ""),
            (status(404), Kind::NotFound, false, ""),
            (status(429), Kind::Unavailable, true, "limits the rate"),
            (status(500), Kind::Unavailable, true, ""),
            (status(400), Kind::Unavailable, false, ""),
            (
                status(413),
                Kind::Unavailable,
                false,
                "client_max_body_size",
            ),
            (Cause::Connect(root()), Kind::Unavailable, true, "reachable"),
            (Cause::Tls(root()), Kind::Unavailable, false, "authority"),
            (
                Cause::NotTls(root()),
                Kind::Unavailable,
                false,
                "--insecure-registry ghcr.io",
            ),
            (
                Cause::Timeout(Duration::from_secs(1)),
                Kind::Unavailable,
                true,
                "",
            ),
            (Cause::Protocol(String::new()), Kind::Unavailable, false, ""),
            (Cause::Config(String::new()), Kind::Usage, false, ""),
        ] {
            let failure = failure(cause);
            assert_eq!(
                (failure.kind(), failure.is_retryable()),
                (kind, retryable),
                "{failure}"
            );
            assert!(
                failure.hint().unwrap_or_default().contains(hint),
                "{failure}"
            );
        }
    }

    #[test]
    fn denials_say_where_credentials_were_looked_for() {
        for (code, account, hint) in [
            (
                401,
                Account::NoneIn(vec!["`/a`".to_owned()]),
                "in `/a`; `docker login ghcr.io`",
            ),
            (
                401,
                Account::NoneIn(Vec::new()),
                "no credentials were looked for",
            ),
            (
                401,
                Account::From("`/a`".to_owned()),
                "from `/a` were refused",
            ),
            (
                403,
                Account::From("`/a`".to_owned()),
                "from `/a` do not allow this",
            ),
        ] {
            let hint_got = failure(status(code)).with_account(account).hint().unwrap();
            assert!(hint_got.contains(hint), "{hint_got}");
        }
    }
}
