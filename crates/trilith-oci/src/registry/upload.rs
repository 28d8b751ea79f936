//! Blobs on their way there: one request with the whole blob, streamed from where it lies.
//!
//! Never holds a blob in memory, never sends the last piece of one that turns out wrong, and
//! leaves no upload open that it gave up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode, Url};
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};
use trilith_core::Repository;

use super::auth::{Authorization, Scope, apply};
use super::client::Attempts;
use super::endpoint::same_origin;
use super::exchange::{Answer, Body, Call};
use super::failure::{Cause, Failure, RequestName};
use super::host::lock;
use super::manifests::check_digest;
use super::observe::Event;
use super::repository::RegistryRepository;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::store::{BlobSource, BlobStream, Mount, Pushed};
use crate::verified::verified;

/// How much of a file is read at a time, in bytes.
const PIECE: usize = 256 * 1024;
/// How long a registry may take to forget an upload that was given up.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
/// The reasons for which an upload is begun anew rather than given up: the registry lost
/// track of it, or bytes were lost on the way.
const RESTART_CODES: [&str; 4] = [
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "SIZE_INVALID",
];

/// Writes `blob` unless it is there, from `source` or from another repository that this process
/// has brought it to.
pub(crate) async fn push(
    repository: &RegistryRepository,
    blob: &Descriptor,
    source: &BlobSource,
) -> Result<Pushed, Error> {
    let (known, path) = (&repository.host().blobs, repository.name().path());
    let _turn = known.turn(&blob.digest).await;
    if known.has(path, &blob.digest) {
        return Ok(Pushed::Present);
    }
    // Whoever may not read the neighbour can still bring the bytes.
    if let Some(other) = known.elsewhere(path, &blob.digest)
        && let Ok(from) = format!("{}/{other}", repository.name().registry()).parse()
        && matches!(
            mount_anew(repository, blob, &from).await,
            Ok(Mount::Mounted)
        )
    {
        known.add(path, &blob.digest);
        return Ok(Pushed::Present);
    }
    let pushed = push_anew(repository, blob, source).await?;
    known.add(path, &blob.digest);
    Ok(pushed)
}

async fn push_anew(
    repository: &RegistryRepository,
    blob: &Descriptor,
    source: &BlobSource,
) -> Result<Pushed, Error> {
    let mut location = repository.take_upload(blob);
    // Whether it is there and where its bytes go if not is one question: a mount from where it
    // goes to. Large blobs are more often there than not, and an upload that is opened in vain
    // leaves something behind.
    let is_small = matches!(source, BlobSource::Memory(_));
    if location.is_none() && is_small {
        if open_or_mount(repository, blob, repository.name()).await? == Mount::Mounted {
            return Ok(Pushed::Present);
        }
        location = repository.take_upload(blob);
    }
    // A declined mount has opened an upload, and means that the blob is not there.
    if location.is_none() && repository.blob_exists(blob).await? {
        return Ok(Pushed::Present);
    }
    let mut attempts = Attempts::new(repository.client(), repository.host());
    loop {
        match once(repository, blob, source, location.take()).await {
            Ok(()) => return Ok(Pushed::Written),
            Err(Put::Final(error)) => return Err(error),
            Err(Put::Failed { failure, again }) => attempts.failed_if(failure, again).await?,
        }
        // The connection may have broken after the registry had it all.
        if repository.blob_exists(blob).await? {
            return Ok(Pushed::Written);
        }
    }
}

/// Makes one upload of `source`, at `location` where one is open already. Closes it unless
/// it succeeds.
async fn once(
    repository: &RegistryRepository,
    blob: &Descriptor,
    source: &BlobSource,
    location: Option<Url>,
) -> Result<(), Put> {
    // Before the source is opened, so that no source waits with a connection of its own.
    // Closed never, so an error cannot be.
    let _permit = repository.host().uploads.acquire().await;
    let content = match open(repository, blob, source).await {
        Ok(content) => content,
        Err(error) => {
            if let Some(url) = &location {
                cancel(repository, url).await;
            }
            return Err(Put::Final(error));
        }
    };
    let url = match location {
        Some(url) => url,
        None => start(repository).await.map_err(Put::Final)?,
    };
    let outcome = put(repository, blob, &url, content).await;
    let unreachable = matches!(&outcome, Err(Put::Failed { failure, .. })
        if matches!(*failure.cause, Cause::Connect(_)));
    if outcome.is_err() && !unreachable {
        cancel(repository, &url).await;
    }
    outcome
}

/// Asks for `blob` to be taken from `from`. An upload that the registry opens instead is
/// kept for the push that follows.
pub(crate) async fn mount(
    repository: &RegistryRepository,
    blob: &Descriptor,
    from: &Repository,
) -> Result<Mount, Error> {
    let (known, path) = (&repository.host().blobs, repository.name().path());
    let _turn = known.turn(&blob.digest).await;
    if known.has(path, &blob.digest) {
        return Ok(Mount::Mounted);
    }
    let mounted = mount_anew(repository, blob, from).await?;
    if mounted == Mount::Mounted {
        known.add(path, &blob.digest);
    }
    Ok(mounted)
}

async fn mount_anew(
    repository: &RegistryRepository,
    blob: &Descriptor,
    from: &Repository,
) -> Result<Mount, Error> {
    let to = repository.name();
    if from.registry() != to.registry() {
        return Ok(Mount::Declined);
    }
    if from == to {
        let there = repository.blob_exists(blob).await?;
        return Ok(if there {
            Mount::Mounted
        } else {
            Mount::Declined
        });
    }
    let mounted = open_or_mount(repository, blob, from).await?;
    if mounted == Mount::Mounted {
        repository.client().counters().mounted_blobs.add(1);
    }
    Ok(mounted)
}

/// Asks for `blob` to be taken from `from`, and keeps the upload that the registry opens instead.
async fn open_or_mount(
    repository: &RegistryRepository,
    blob: &Descriptor,
    from: &Repository,
) -> Result<Mount, Error> {
    let mut call = repository.write_call(Method::POST, "blobs/uploads/");
    call.url
        .query_pairs_mut()
        .append_pair("mount", blob.digest.as_str())
        .append_pair("from", from.path());
    if from != repository.name() {
        // The target first: some token servers grant the first scope only.
        call.scopes.push(Scope {
            repository: from.path().to_owned(),
            push: false,
        });
    }
    let answer = match repository.perform(&call).await {
        Ok(answer) => answer,
        // Registries refuse what they do not support in many ways. Nothing is lost: the push
        // that follows tells a registry that is down from one that does not mount.
        Err(Error::Registry(failure)) if failure.status().is_some_and(|code| code != 429) => {
            return Ok(Mount::Declined);
        }
        Err(error) => return Err(error),
    };
    match answer.status {
        StatusCode::CREATED => {
            check_digest(&answer, &blob.digest, || repository.blob_name(blob))?;
            Ok(Mount::Mounted)
        }
        StatusCode::ACCEPTED => {
            let opened = upload_location(repository, &answer).ok();
            if let Some(older) = opened.and_then(|url| repository.keep_upload(blob, url)) {
                cancel(repository, &older).await;
            }
            Ok(Mount::Declined)
        }
        _ => Ok(Mount::Declined),
    }
}

/// Opens an upload and returns where its bytes go.
async fn start(repository: &RegistryRepository) -> Result<Url, Error> {
    let call = repository.write_call(Method::POST, "blobs/uploads/");
    let answer = repository.perform(&call).await?;
    if answer.status != StatusCode::ACCEPTED {
        return Err(answer.refused().into());
    }
    upload_location(repository, &answer)
}

fn upload_location(repository: &RegistryRepository, answer: &Answer) -> Result<Url, Error> {
    let location = answer
        .header("location")
        .ok_or_else(|| answer.nonsense("it names no upload location"))?;
    let endpoints = repository.client().endpoints();
    endpoints.follow(&answer.url, location).map_err(|reason| {
        let reason = format!("its upload location cannot be used: {reason}");
        answer.nonsense(reason).into()
    })
}

/// Gives up the upload at `url`. What comes of it does not matter: registries clear up after a while.
async fn cancel(repository: &RegistryRepository, url: &Url) {
    let host = repository.host();
    let mut call = repository.write_call(Method::DELETE, "");
    call.url = url.clone();
    let client = repository.client();
    let patience = CANCEL_PATIENCE.min(client.timeouts().answer);
    let cancelling = async {
        if let Ok(authorization) = host.auth.authorize(client, host, &call.scopes).await {
            let authorization = for_url(repository, url, authorization);
            let _ = client.exchange(host, &call, &authorization).await;
        }
    };
    let _ = timeout(patience, cancelling).await;
}

/// Returns `authorization` where `url` is the registry's own, else nothing.
fn for_url(
    repository: &RegistryRepository,
    url: &Url,
    authorization: Authorization,
) -> Authorization {
    if same_origin(url, &repository.host().endpoint.base) {
        authorization
    } else {
        Authorization::NotAsked
    }
}

/// How the one request of an upload fails.
enum Put {
    /// In a way that another upload would not change: above all, where the bytes come from
    /// failed, or they are not what they should be.
    Final(Error),
    /// The registry or the way there failed.
    Failed {
        failure: Failure,
        /// Whether another upload may succeed.
        again: bool,
    },
}

impl From<Failure> for Put {
    fn from(failure: Failure) -> Self {
        let again = failure.is_retryable()
            || matches!(failure.status(), Some(404 | 416))
            || RESTART_CODES.iter().any(|code| failure.has_code(code));
        Self::Failed { failure, again }
    }
}

/// Sends all of `content` to `location` (distribution specification, "POST then PUT").
async fn put(
    repository: &RegistryRepository,
    blob: &Descriptor,
    location: &Url,
    content: BlobStream,
) -> Result<(), Put> {
    let (client, host) = (repository.client(), repository.host());
    let mut url = location.clone();
    url.query_pairs_mut()
        .append_pair("digest", blob.digest.as_str());
    let endpoint = &host.endpoint;
    let name = RequestName::new(&endpoint.registry, &endpoint.base, &Method::PUT, &url);
    let call = Call {
        scopes: repository.write_scopes(),
        ..Call::new(Method::PUT, url.clone(), client.timeouts().commit)
    };
    let authorized = host.auth.authorize(client, host, &call.scopes).await;
    let sent = for_url(
        repository,
        &url,
        authorized.map_err(|f| Put::Final(f.into()))?,
    );
    host.ready().await;
    let gauge = Arc::new(Gauge::default());
    let request = request(&call, &sent, blob, body(repository, content, &gauge));
    client.counters().requests.add(1);
    let sending = client.transport().send(request);
    let outcome = watch(sending, &gauge, repository, blob.size).await;
    if let Some(error) = lock(&gauge.failure).take() {
        return Err(Put::Final(error));
    }
    let response = outcome.map_err(|failure| failure.during(&name))?;
    client.observe(&Event::Answered {
        request: &name,
        status: response.status().as_u16(),
    });
    let answer = answer(response, name, url, &sent, client.timeouts().answer).await;
    match answer.status {
        StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => {
            check_digest(&answer, &blob.digest, || repository.blob_name(blob)).map_err(Put::Final)
        }
        StatusCode::UNAUTHORIZED if answer.is_challenge(&call) => {
            let learned = host.auth.learn(client, host, &answer, &call.scopes, &sent);
            let again = learned.await?;
            Err(Put::Failed {
                failure: answer.refused(),
                again,
            })
        }
        _ => Err(answer.refused().into()),
    }
}

fn request(
    call: &Call,
    authorization: &Authorization,
    blob: &Descriptor,
    body: reqwest::Body,
) -> Request {
    let mut request = Request::new(call.method.clone(), call.url.clone());
    let headers = request.headers_mut();
    apply(authorization, headers);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
    *request.body_mut() = Some(body);
    request
}

/// Reads the answer's body as far as it says what went wrong.
async fn answer(
    mut response: Response,
    request: RequestName,
    url: Url,
    sent: &Authorization,
    patience: Duration,
) -> Answer {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let body = super::exchange::error_body(response, patience).await;
    Answer {
        request,
        status,
        headers,
        url,
        account: sent.account(),
        body: Body::Whole(body),
    }
}

/// What an upload's body tells the task that sends it.
#[derive(Default)]
struct Gauge {
    sent: AtomicU64,
    /// Why the body ended early.
    failure: Mutex<Option<Error>>,
}

fn body(repository: &RegistryRepository, content: BlobStream, gauge: &Arc<Gauge>) -> reqwest::Body {
    let gauge = Arc::clone(gauge);
    let client = repository.client().clone();
    reqwest::Body::wrap_stream(content.map(move |piece| match piece {
        Ok(piece) => {
            let length = piece.len() as u64;
            gauge.sent.fetch_add(length, Ordering::Relaxed);
            client.counters().uploaded_bytes.add(length);
            Ok(piece)
        }
        Err(error) => {
            *lock(&gauge.failure) = Some(error);
            Err(std::io::Error::other("the source of the upload failed"))
        }
    }))
}

/// Waits for `sending` as long as bytes go out, and once all are out until the registry has
/// had time to store them.
async fn watch(
    sending: impl Future<Output = Result<Response, Failure>>,
    gauge: &Gauge,
    repository: &RegistryRepository,
    size: u64,
) -> Result<Response, Failure> {
    let timeouts = repository.client().timeouts();
    let mut sending = std::pin::pin!(sending);
    let mut seen = 0;
    loop {
        let all_out = seen >= size;
        let limit = if all_out {
            timeouts.commit
        } else {
            timeouts.stall
        };
        tokio::select! {
            biased;
            outcome = &mut sending => return outcome,
            () = sleep(limit) => {
                let sent = gauge.sent.load(Ordering::Relaxed);
                if sent == seen {
                    return Err(Failure::new(Cause::Timeout(limit)));
                }
                seen = sent;
            }
        }
    }
}

/// Opens `source` and returns its content, checked while it is read.
async fn open(
    repository: &RegistryRepository,
    blob: &Descriptor,
    source: &BlobSource,
) -> Result<BlobStream, Error> {
    match source {
        BlobSource::Memory(bytes) => {
            let pieces = pieces(bytes.clone());
            Ok(verified(pieces, blob, repository.blob_name(blob)))
        }
        BlobSource::File(path) => {
            let file = tokio::fs::File::open(path)
                .await
                .map_err(Error::io("open", path))?;
            let object = format!("`{}`", path.display());
            Ok(verified(Box::pin(read(file, path.clone())), blob, object))
        }
        BlobSource::Store(store) => store.fetch_blob(blob).await,
    }
}

fn pieces(mut bytes: Bytes) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
    stream::iter(std::iter::from_fn(move || {
        let length = bytes.len().min(PIECE);
        (length > 0).then(|| Ok(bytes.split_to(length)))
    }))
}

fn read(
    file: tokio::fs::File,
    path: std::path::PathBuf,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    stream::unfold(Some((file, path)), |state| async {
        let (mut file, path) = state?;
        let mut buffer = BytesMut::with_capacity(PIECE);
        match file.read_buf(&mut buffer).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(buffer.freeze()), Some((file, path)))),
            Err(error) => Some((Err(Error::io("read", &path)(error)), None)),
        }
    })
}
