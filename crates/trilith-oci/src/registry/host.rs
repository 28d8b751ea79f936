//! What a process knows of one registry: its address, its tokens, its limits.
//!
//! All requests to a registry share one [`Host`], so that one `429` holds all of them back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use trilith_core::Digest;

use super::auth::Auth;
use super::endpoint::Endpoint;
use super::known::KnownBlobs;
use super::retry::{REMAINING, exhausted};

/// One registry.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) auth: Auth,
    /// Requests under way, until their answer is there. Downloads are then out of it: an
    /// upload may read from a download, and the two must not wait for each other.
    requests: Semaphore,
    /// Uploads under way. Apart from `requests`, since what an upload reads from may need one.
    pub(crate) uploads: Semaphore,
    /// One is held while the list of an image's referrers is read, changed and written: the same
    /// for the same image.
    referrers: [tokio::sync::Mutex<()>; 16],
    /// What this process knows of its blobs.
    pub(crate) blobs: KnownBlobs,
    /// Whether it has told of a quota.
    has_quota: AtomicBool,
    pace: Mutex<Pace>,
}

/// How fast the registry may be asked.
#[derive(Debug)]
struct Pace {
    /// Nothing is asked before this.
    paused_until: Option<Instant>,
    /// Requests at a time that are allowed now, of `most`.
    allowed: usize,
    most: usize,
    /// Permits to be taken back from requests that are under way.
    owed: usize,
    /// Answers since the last change.
    answers: usize,
}

impl Host {
    pub(crate) fn new(endpoint: Endpoint, concurrency: usize) -> Self {
        Self {
            endpoint,
            auth: Auth::default(),
            requests: Semaphore::new(concurrency),
            uploads: Semaphore::new(concurrency),
            referrers: Default::default(),
            blobs: KnownBlobs::default(),
            has_quota: AtomicBool::new(false),
            pace: Mutex::new(Pace {
                paused_until: None,
                allowed: concurrency,
                most: concurrency,
                owed: 0,
                answers: 0,
            }),
        }
    }

    /// Waits until one more request may be under way.
    pub(crate) async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        loop {
            // Closed never, so an error cannot be.
            let permit = self.requests.acquire().await.ok()?;
            let mut pace = lock(&self.pace);
            if pace.owed == 0 {
                return Some(permit);
            }
            pace.owed -= 1;
            permit.forget();
        }
    }

    /// Halves how many requests are under way at a time, as the registry finds them too many.
    pub(crate) fn slow_down(&self) {
        let mut pace = lock(&self.pace);
        let allowed = (pace.allowed / 2).max(1);
        pace.owed += pace.allowed - allowed;
        pace.allowed = allowed;
        pace.answers = 0;
    }

    /// Takes note of an answer that was no refusal: after as many as may be under way, one more
    /// may be.
    fn answered(&self) {
        let mut pace = lock(&self.pace);
        if pace.allowed == pace.most {
            return;
        }
        pace.answers += 1;
        if pace.answers >= pace.allowed {
            pace.answers = 0;
            pace.allowed += 1;
            if pace.owed > 0 {
                pace.owed -= 1;
            } else {
                self.requests.add_permits(1);
            }
        }
    }

    /// Takes note of what the answer says of the registry's limits. Returns how long all requests
    /// now wait, where nothing is left of a quota that is known to come back.
    pub(crate) fn learn(&self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        if status == StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        self.answered();
        if !headers.contains_key(REMAINING) {
            return None;
        }
        self.has_quota.store(true, Ordering::Relaxed);
        let delay = exhausted(headers)?;
        self.pause(delay);
        Some(delay)
    }

    /// Returns whether the registry has told of a quota.
    pub(crate) fn counts_reads(&self) -> bool {
        self.has_quota.load(Ordering::Relaxed)
    }

    /// Waits until nobody else in this process changes the list of the referrers of `subject`.
    pub(crate) async fn referrers_turn(&self, subject: &Digest) -> tokio::sync::MutexGuard<'_, ()> {
        let digit = subject.hex().chars().next().and_then(|c| c.to_digit(16));
        self.referrers[digit.unwrap_or_default() as usize]
            .lock()
            .await
    }

    /// Holds back all requests for `delay`.
    pub(crate) fn pause(&self, delay: Duration) {
        let until = Instant::now() + delay;
        let paused = &mut lock(&self.pace).paused_until;
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    /// Waits until requests may be made.
    pub(crate) async fn ready(&self) {
        loop {
            let until = lock(&self.pace).paused_until;
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

/// Locks `mutex`. A panic elsewhere leaves these values whole, so poison means nothing here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::endpoint::Endpoints;
    use super::*;

    #[tokio::test]
    async fn fewer_requests_at_a_time_after_a_refusal_and_one_more_after_a_while() {
        let endpoint = Endpoints::default().of("localhost:5000").unwrap();
        let host = Host::new(endpoint, 4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(host.permit().await);
        }
        host.slow_down();
        held.truncate(1);
        held.push(host.permit().await);
        let third = host.permit();
        let mut third = std::pin::pin!(third);
        assert!((&mut third).now_or_never().is_none());
        for _ in 0..2 {
            assert_eq!(host.learn(StatusCode::OK, &HeaderMap::new()), None);
        }
        assert!(third.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everyone_back_until_its_latest_end() {
        let endpoint = Endpoints::default().of("localhost:5000").unwrap();
        let host = Host::new(endpoint, 1);
        let began = Instant::now();
        host.ready().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        host.pause(Duration::from_secs(60));
        host.pause(Duration::from_secs(5));
        tokio::join!(host.ready(), host.ready());
        assert!(began.elapsed() >= Duration::from_secs(60));
        host.ready().await;
        assert!(began.elapsed() < Duration::from_secs(61));
    }
}
