//! Builds by BuildKit, wherever it listens: one solve, and the session it asks questions in.
//!
//! [`solve`] needs to know two things of an engine ([`Endpoint`]): how to reach the control API,
//! and how to open a session. Contexts are streamed file by file, and what the exporter says is
//! kept, for the digest is there.
//!
//! | file | holds |
//! | --- | --- |
//! | `connection` | HTTP/2 and gRPC over any connection |
//! | `control` | the API: solve, status, session, workers |
//! | `session` | the service that BuildKit asks |
//! | `files`, `auth`, `secrets`, `ssh`, `receive`, `content` | what it asks for |
//! | `cache` | caches in directories of this machine |
//! | `frontend` | what the Dockerfile frontend is told |
//! | `steps` | what happens meanwhile |
//! | `probe` | what the frontend can do |

mod auth;
mod cache;
mod connection;
mod content;
mod control;
mod files;
mod frontend;
mod probe;
mod receive;
mod secrets;
mod session;
mod ssh;
mod steps;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, SolveRequest};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};
use trilith_core::{Digest, Platform, hex};
use trilith_oci::Kind;
use trilith_oci::registry::RegistryClient;

use self::auth::Logins;
use self::cache::Caches;
use self::connection::Task;
use self::control::Control;
use self::files::Files;
use self::receive::Receiver;
use self::secrets::Secrets;
use self::session::{OwnFailure, Session};
use self::ssh::Agents;
use super::redact::Redactor;
use super::{BuildRequest, EngineError, EngineKind, Observer};

pub(super) use cache::refused_caches;
pub(super) use connection::AnyConnection;
pub(super) use probe::Frontend;
pub(super) use receive::NewFile;
pub(super) use steps::{LastLines, exit_code};

/// The most bytes of a message, as BuildKit has it.
const MAX_MESSAGE: usize = 16 << 20;
/// How long to wait for what needs no work.
const ANSWER: Duration = Duration::from_secs(30);
/// How long to wait for the last news of a build that is over.
const LAST_NEWS: Duration = Duration::from_secs(3);
/// Bytes of a session within another connection that are passed on at once.
const PIECE: usize = 64 * 1024;

/// Where a BuildKit is reached.
#[async_trait]
pub(super) trait Endpoint: Send + Sync {
    /// What answers there.
    fn kind(&self) -> EngineKind;

    /// Connects to the control API.
    async fn control(&self) -> Result<AnyConnection, EngineError>;

    /// Opens the connection of a session with these header fields; `None` where the control API
    /// has to carry it.
    async fn session(
        &self,
        headers: &[(&'static str, String)],
    ) -> Result<Option<AnyConnection>, EngineError>;
}

/// Where the result of a solve goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Exporter {
    /// As in `moby` or `image`; empty for nowhere.
    pub(super) kind: String,
    /// What the exporter is told.
    pub(super) attributes: HashMap<String, String>,
    /// The file that it is sent to.
    pub(super) file: Option<PathBuf>,
}

/// What the exporter said.
#[derive(Clone, Debug)]
pub(super) struct Solved(HashMap<String, String>);

impl Solved {
    /// Returns the digest of the image; for `moby` that of its config.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.0.get("containerimage.digest")?.parse().ok()
    }
}

/// Builds `request` at `endpoint`.
///
/// # Errors
/// As [`super::Engine::build`].
pub(super) async fn solve(
    endpoint: &dyn Endpoint,
    registry: &RegistryClient,
    request: &BuildRequest<'_>,
    exporter: Exporter,
    observer: Observer<'_>,
) -> Result<Solved, EngineError> {
    let redactor = redactor(request);
    let failure = OwnFailure::default();
    let caches = Caches::prepare(request.cache_from, request.cache_to, &failure)?;
    let mut solve = frontend::solve_request(request, &caches);
    solve.exporter_deprecated = exporter.kind;
    solve.exporter_attrs_deprecated = exporter.attributes;
    let file = exporter.file;
    let session = new_session(registry, request, file, &caches, &redactor, &failure);
    let mut steps = steps::Steps::new(observer, redactor.clone());
    let solved = run(endpoint, session, solve, &mut steps).await;
    if let Ok(solved) = &solved {
        caches.finish(solved.0.get("cache.manifest"))?;
    }
    solved.map_err(|error| {
        let own = failure.take();
        own.or_else(|| {
            error
                .is_said()
                .then(|| steps.failure(endpoint.kind()))
                .flatten()
        })
        .unwrap_or_else(|| error.into_error(endpoint.kind(), "build", "the image", &redactor))
    })
}

/// Returns the version of the BuildKit at `endpoint`, where it tells one, and the platforms of its
/// workers, the machine's own first.
pub(super) async fn describe(
    endpoint: &dyn Endpoint,
) -> Result<(Option<String>, Vec<Platform>), EngineError> {
    let asked = async {
        let control = Control::open(endpoint.control().await?).await?;
        let workers = control.workers().await?;
        // Older ones do not know the question.
        let info = control.info().await.ok();
        let version = info.and_then(|info| info.buildkit_version);
        let platforms = workers.record.iter().flat_map(|worker| &worker.platforms);
        let platforms = platforms.map(|platform| {
            let variant = Some(platform.variant.as_str());
            Platform::new(&platform.os, &platform.architecture, variant)
        });
        Ok((version.map(|version| version.version), platforms.collect()))
    };
    timely(endpoint, asked).await
}

/// Returns the address that steps know the machine by, where the BuildKit at `endpoint` tells it.
pub(super) async fn host_gateway(endpoint: &dyn Endpoint) -> Result<Option<String>, EngineError> {
    const LABEL: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";
    let asked = async {
        let control = Control::open(endpoint.control().await?).await?;
        let workers = control.workers().await?.record;
        let mut labels = workers.into_iter().map(|worker| worker.labels);
        Ok(labels.find_map(|mut labels| labels.remove(LABEL)))
    };
    timely(endpoint, asked).await
}

/// Returns what `asked` says, which needs no work, or that the engine does not answer.
async fn timely<T>(
    endpoint: &dyn Endpoint,
    asked: impl Future<Output = Result<T, Unsolved>>,
) -> Result<T, EngineError> {
    let answer = match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer,
        Err(late) => Err(Unsolved::Broken(late.into())),
    };
    answer
        .map_err(|error| error.into_error(endpoint.kind(), "ask", "workers", &Redactor::default()))
}

/// Returns what must not show in this build, as far as it is known at its beginning.
pub(super) fn redactor(request: &BuildRequest<'_>) -> Redactor {
    let redactor = Redactor::default();
    for value in request.args.values() {
        // Proxies, and whatever else has a password in its address.
        redactor.hide_url(value);
    }
    redactor
}

fn new_session(
    registry: &RegistryClient,
    request: &BuildRequest<'_>,
    file: Option<PathBuf>,
    caches: &Caches,
    redactor: &Redactor,
    failure: &OwnFailure,
) -> Session {
    let id = random_id();
    let root = request.context.root();
    let shared_key = root.map(|root| Digest::of(root.as_os_str().as_encoded_bytes()));
    Session {
        shared_key: shared_key.map_or_else(|| id.clone(), |key| format!("trilith-{}", key.hex())),
        id,
        files: Files::new(Arc::clone(&request.context), failure.clone()),
        logins: Logins {
            registry: registry.clone(),
            redactor: redactor.clone(),
        },
        secrets: Secrets {
            known: request.secrets.to_vec(),
            redactor: redactor.clone(),
            failure: failure.clone(),
        },
        agents: Agents(request.ssh.to_vec()),
        receiver: file.map(|path| Receiver {
            path,
            failure: failure.clone(),
        }),
        stores: caches.stores.clone(),
    }
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    // Never short and never an error for as few bytes as these, on any Linux of this century.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    hex(&bytes)
}

/// Why a solve has no result.
enum Unsolved {
    /// BuildKit was not reached.
    Unreached(EngineError),
    /// The connection broke.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// BuildKit says so.
    Said(Status),
}

impl From<EngineError> for Unsolved {
    fn from(error: EngineError) -> Self {
        Self::Unreached(error)
    }
}

impl From<hyper::Error> for Unsolved {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.into())
    }
}

impl From<Status> for Unsolved {
    fn from(status: Status) -> Self {
        if is_broken(&status) {
            Self::Broken(cause_of(&status))
        } else {
            Self::Said(status)
        }
    }
}

impl Unsolved {
    fn is_said(&self) -> bool {
        matches!(self, Self::Said(_))
    }

    fn into_error(
        self,
        engine: EngineKind,
        operation: &'static str,
        object: &str,
        redactor: &Redactor,
    ) -> EngineError {
        let object = object.to_owned();
        match self {
            Self::Unreached(error) => error,
            Self::Broken(source) => EngineError::Lost {
                engine,
                operation,
                object,
                source,
            },
            Self::Said(status) => {
                let reason = redactor.clean(short(status.message()));
                EngineError::Failed {
                    engine,
                    operation,
                    object,
                    kind: kind_of(&reason),
                    reason,
                }
            }
        }
    }
}

/// Returns whether it is the connection that failed, not what was asked for.
fn is_broken(status: &Status) -> bool {
    if matches!(status.code(), Code::Unavailable | Code::Cancelled) {
        return true;
    }
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<hyper::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Returns what went wrong with a connection, without what is said around it.
fn cause_of(status: &Status) -> Box<dyn std::error::Error + Send + Sync> {
    let outer = std::error::Error::source(status);
    let innermost = std::iter::successors(outer, |error| error.source()).last();
    let cause = innermost.map_or_else(|| status.message().to_owned(), ToString::to_string);
    cause.into()
}

/// Returns `message` without what BuildKit says before everything.
fn short(message: &str) -> &str {
    let mut rest = message;
    let prefixes = [
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve: ",
        "failed to create LLB definition: ",
        "rpc error: code = Unknown desc = ",
    ];
    while let Some(shorter) = prefixes.iter().find_map(|p| rest.strip_prefix(p)) {
        rest = shorter;
    }
    rest
}

/// Returns the kind of a failure that an engine has only words for.
pub(super) fn kind_of(message: &str) -> Kind {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "unauthorized",
        "denied",
        "forbidden",
        "authentication required",
        "authorization failed",
        "no basic auth credentials",
    ]) {
        Kind::Denied
    } else if says(&[
        "not found",
        "no such",
        "does not exist",
        "no match for",
        "manifest unknown",
    ]) {
        Kind::NotFound
    } else if says(&["no space left"]) {
        Kind::System
    } else if says(&[
        "dockerfile parse error",
        "unknown flag",
        "invalid",
        "unsupported",
    ]) {
        Kind::Usage
    } else {
        Kind::Unavailable
    }
}

/// Solves `request` in `session`, and tells `steps` what happens.
async fn run(
    endpoint: &dyn Endpoint,
    session: Session,
    mut request: SolveRequest,
    steps: &mut steps::Steps<'_>,
) -> Result<Solved, Unsolved> {
    let control = Control::open(endpoint.control().await?).await?;
    request.r#ref = random_id();
    request.session.clone_from(&session.id);
    // Ends when the build does, or when nobody waits for it any more.
    let _session = open_session(endpoint, &control, session).await?;
    let reference = request.r#ref.clone();
    let news = async {
        let mut news = control.status(reference).await?;
        while let Some(some) = news.message().await? {
            steps.take(some);
        }
        Ok::<(), Status>(())
    };
    let mut news = std::pin::pin!(news);
    let mut solve = std::pin::pin!(control.solve(request));
    let mut told = false;
    let solved = loop {
        tokio::select! {
            solved = &mut solve => break solved,
            // That there is no news does not mean that there is no result.
            _ = &mut news, if !told => told = true,
        }
    };
    if !told && !solved.as_ref().is_err_and(is_broken) {
        // Late news are those of the failing step.
        drop(tokio::time::timeout(LAST_NEWS, news).await);
    }
    Ok(Solved(solved?.exporter_response))
}

/// Opens a session at `endpoint`, which lasts as long as the task.
async fn open_session(
    endpoint: &dyn Endpoint,
    control: &Control,
    session: Session,
) -> Result<Vec<Task>, Unsolved> {
    let session = Arc::new(session);
    if let Some(connection) = endpoint.session(&session.headers()).await? {
        return Ok(vec![Task::spawn(session.serve(connection))]);
    }
    let (ours, theirs) = tokio::io::duplex(4 * PIECE);
    let (from_us, mut to_us) = tokio::io::split(theirs);
    let pieces = futures_util::stream::unfold(from_us, |mut from_us| async {
        let mut data = Vec::with_capacity(PIECE);
        match from_us.read_buf(&mut data).await {
            Ok(read) if read > 0 => Some((BytesMessage { data }, from_us)),
            _ => None,
        }
    });
    // Before the answer comes: BuildKit sends none before it has heard from us.
    let serving = Task::spawn(Arc::clone(&session).serve(Box::new(ours)));
    let mut incoming = control.session(session.metadata(), pieces.boxed()).await?;
    let passing = Task::spawn(async move {
        while let Ok(Some(piece)) = incoming.message().await {
            if to_us.write_all(&piece.data).await.is_err() {
                break;
            }
        }
    });
    Ok(vec![serving, passing])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failures_in_words() {
        for (message, kind) in [
            (
                "pull access denied, repository does not exist",
                Kind::Denied,
            ),
            ("unexpected status: 401 Unauthorized", Kind::Denied),
            ("127.0.0.1:5000/a:1: not found", Kind::NotFound),
            ("write /x: no space left on device", Kind::System),
            ("dockerfile parse error on line 1", Kind::Usage),
            ("something happened", Kind::Unavailable),
        ] {
            assert_eq!(kind_of(message), kind, "{message}");
        }
    }

    #[test]
    fn messages_without_what_is_always_said() {
        let long = "failed to solve with frontend dockerfile.v0: failed to create LLB definition: \
            dockerfile parse error";
        assert_eq!(short(long), "dockerfile parse error");
        assert_eq!(short("other"), "other");
    }
}
