//! What a client counts and tells while it works. Prints nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::failure::{Failure, RequestName};

/// Something that happened between a client and a registry.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A request was answered.
    Answered {
        /// The request.
        request: &'a RequestName,
        /// The HTTP status.
        status: u16,
    },
    /// An attempt failed and another will be made.
    Retrying {
        /// Why the attempt failed.
        failure: &'a Failure,
        /// How long is waited before the next attempt.
        delay: Duration,
    },
    /// A registry limits the rate of requests: all requests to it wait.
    Paused {
        /// The registry.
        registry: &'a str,
        /// How long.
        delay: Duration,
    },
}

/// What a client did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// HTTP requests sent, those for tokens and repeated ones included.
    pub requests: u64,
    /// Requests among them that repeated a failed one.
    pub retries: u64,
    /// How often all requests to a registry had to wait because it limits their rate.
    pub pauses: u64,
    /// Requests among them that asked for a token.
    pub token_requests: u64,
    /// Bytes of blobs and manifests sent, those of failed attempts included.
    pub uploaded_bytes: u64,
    /// Bytes of blobs received.
    pub downloaded_bytes: u64,
    /// Blobs mounted from another repository instead of uploaded.
    pub mounted_blobs: u64,
}

/// The counters behind [`Stats`]. They order nothing, so relaxed access is enough.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) retries: Counter,
    pub(crate) pauses: Counter,
    pub(crate) token_requests: Counter,
    pub(crate) uploaded_bytes: Counter,
    pub(crate) downloaded_bytes: Counter,
    pub(crate) mounted_blobs: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            requests: self.requests.get(),
            retries: self.retries.get(),
            pauses: self.pauses.get(),
            token_requests: self.token_requests.get(),
            uploaded_bytes: self.uploaded_bytes.get(),
            downloaded_bytes: self.downloaded_bytes.get(),
            mounted_blobs: self.mounted_blobs.get(),
        }
    }
}
