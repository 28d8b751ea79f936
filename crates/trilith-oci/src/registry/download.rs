//! Blobs on their way here: streamed, watched, and taken up again where they broke off.
//!
//! Holds one piece at a time. Layers that a manifest says to fetch from elsewhere (`urls`)
//! are asked for at the registry like any other and never fetched from there: such
//! addresses are whatever the author of an image wrote.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use reqwest::header::{CONTENT_LENGTH, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::client::Attempts;
use super::exchange::{Answer, Body};
use super::failure::{Cause, Failure, RequestName};
use super::repository::RegistryRepository;
use super::transport::cause;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::store::BlobStream;
use crate::verified::verified;

/// How many bytes count as progress: fewer than these in the time for a stall are a stall.
const PROGRESS: u64 = 1024;
/// After how many bytes the attempts begin to be counted anew.
const FRESH_ATTEMPTS: u64 = 16 * 1024 * 1024;

/// A download under way.
struct Download {
    repository: RegistryRepository,
    blob: Descriptor,
    name: RequestName,
    response: Option<Response>,
    /// How many bytes were handed on.
    position: u64,
    /// How many bytes to drop: a server that ignores `Range` begins anew.
    skip: u64,
    watch: Watch,
    attempts: u32,
    /// The position at which `attempts` was last reset.
    counted_from: u64,
}

/// Opens `blob` and returns its content.
pub(crate) async fn fetch(
    repository: &RegistryRepository,
    blob: &Descriptor,
) -> Result<BlobStream, Error> {
    let (response, name, _) = open(repository, blob, 0).await?;
    let download = Download {
        repository: repository.clone(),
        blob: blob.clone(),
        name,
        response: Some(response),
        position: 0,
        skip: 0,
        watch: Watch::new(repository.client().timeouts().stall),
        attempts: 0,
        counted_from: 0,
    };
    let object = repository.blob_name(blob);
    Ok(verified(Box::pin(download.into_stream()), blob, object))
}

/// Asks for `blob` from `position` on. Returns the answer and how many bytes of it to drop.
async fn open(
    repository: &RegistryRepository,
    blob: &Descriptor,
    position: u64,
) -> Result<(Response, RequestName, u64), Error> {
    let mut call = repository.call(Method::GET, &format!("blobs/{}", blob.digest));
    call.streamed = true;
    if position > 0 {
        let range = HeaderValue::try_from(format!("bytes={position}-"))
            .map_err(|_| Failure::config(format!("position {position} is out of range")))?;
        call.headers.insert(RANGE, range);
    }
    let answer = repository.perform(&call).await?;
    let skip = match answer.status {
        StatusCode::OK => {
            check_length(repository, blob, &answer)?;
            position
        }
        StatusCode::PARTIAL_CONTENT if position > 0 => {
            check_range(&answer, position)?;
            0
        }
        StatusCode::NOT_FOUND => return Err(not_found(repository, blob)),
        _ => return Err(answer.refused().into()),
    };
    let request = answer.request.clone();
    match answer.body {
        Body::Stream(response) => Ok((response, request, skip)),
        Body::Whole(_) | Body::TooLong => Err(answer.nonsense("the body is missing").into()),
    }
}

fn check_length(
    repository: &RegistryRepository,
    blob: &Descriptor,
    answer: &Answer,
) -> Result<(), Error> {
    let announced = answer
        .header(CONTENT_LENGTH.as_str())
        .and_then(|text| text.parse().ok());
    match announced {
        Some(length) if length != blob.size => Err(Error::SizeMismatch {
            object: repository.blob_name(blob),
            expected: blob.size,
            actual: length,
        }),
        _ => Ok(()),
    }
}

/// Checks that a partial answer begins where it was asked to (RFC 9110 §14.4).
fn check_range(answer: &Answer, position: u64) -> Result<(), Failure> {
    let range = answer.header("content-range").unwrap_or_default();
    let start = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.parse::<u64>().ok());
    if start == Some(position) {
        return Ok(());
    }
    Err(answer.nonsense(format!(
        "it sent another range than from byte {position} on"
    )))
}

fn not_found(repository: &RegistryRepository, blob: &Descriptor) -> Error {
    let name = repository.blob_name(blob);
    Error::NotFound {
        object: match blob.urls.first() {
            Some(url) => format!(
                "{name} (a foreign layer, to be had only from `{}`, which is never fetched)",
                super::failure::clean(url.split('?').next().unwrap_or_default())
            ),
            None => name,
        },
    }
}

impl Download {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::unfold(Some(self), |download| async {
            let mut download = download?;
            match download.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(download))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let failure = match self.piece().await {
                Ok(Some(piece)) => match self.take(piece) {
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                },
                Ok(None) if self.position >= self.blob.size => return Ok(None),
                Ok(None) => Failure::new(Cause::Protocol(format!(
                    "the body ends after {} of {} bytes",
                    self.position, self.blob.size
                ))),
                Err(failure) => failure,
            };
            self.reopen(failure.during(&self.name)).await?;
        }
    }

    /// Reads the next piece of the answer that is open.
    async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        match self.watch.over(response.chunk()).await? {
            Ok(piece) => Ok(piece),
            Err(error) => Err(Failure::new(cause(&error, self.watch.limit))),
        }
    }

    /// Counts `piece` and returns what of it is new.
    fn take(&mut self, mut piece: Bytes) -> Option<Bytes> {
        let length = piece.len() as u64;
        self.watch.progress(length);
        self.repository
            .client()
            .counters()
            .downloaded_bytes
            .add(length);
        let dropped = self.skip.min(length);
        self.skip -= dropped;
        // Within `usize`, as it is at most the length of the piece.
        let _ = piece.split_to(usize::try_from(dropped).unwrap_or(piece.len()));
        self.position += piece.len() as u64;
        if self.position - self.counted_from >= FRESH_ATTEMPTS {
            self.counted_from = self.position;
            self.attempts = 0;
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// Waits, and asks for what is missing.
    async fn reopen(&mut self, failure: Failure) -> Result<(), Error> {
        self.response = None;
        let (client, host) = (self.repository.client(), self.repository.host());
        let mut attempts = Attempts::after(client, host, self.attempts);
        attempts.failed_if(failure, true).await?;
        self.attempts = attempts.made();
        let (response, name, skip) = open(&self.repository, &self.blob, self.position).await?;
        self.watch = Watch::new(self.watch.limit);
        self.name = name;
        self.skip = skip;
        self.response = Some(response);
        Ok(())
    }
}

/// Notices when next to nothing comes. Time the consumer takes does not count.
struct Watch {
    limit: Duration,
    waited: Duration,
    bytes: u64,
}

impl Watch {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    async fn over<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Failure> {
        let began = Instant::now();
        let left = self.limit.saturating_sub(self.waited);
        let outcome = timeout(left, future).await;
        self.waited += began.elapsed();
        outcome.map_err(|_| Failure::new(Cause::Timeout(self.limit)))
    }

    fn progress(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= PROGRESS {
            self.bytes = 0;
            self.waited = Duration::ZERO;
        }
    }
}
