//! What a process knows of one registry: its address, its tokens, its limits.
//!
//! All requests to a registry share one [`Host`], so that one `429` holds all of them back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use trilith_core::Digest;

use super::auth::Auth;
use super::endpoint::Endpoint;

/// One registry.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) auth: Auth,
    /// Requests under way, until their answer is there. Downloads are then out of it: an
    /// upload may read from a download, and the two must not wait for each other.
    pub(crate) requests: Semaphore,
    /// Uploads under way. Apart from `requests`, since what an upload reads from may need one.
    pub(crate) uploads: Semaphore,
    /// One is held while the list of an image's referrers is read, changed and written: the same
    /// for the same image.
    referrers: [tokio::sync::Mutex<()>; 16],
    paused_until: Mutex<Option<Instant>>,
}

impl Host {
    pub(crate) fn new(endpoint: Endpoint, concurrency: usize) -> Self {
        Self {
            endpoint,
            auth: Auth::default(),
            requests: Semaphore::new(concurrency),
            uploads: Semaphore::new(concurrency),
            referrers: Default::default(),
            paused_until: Mutex::new(None),
        }
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
        let mut paused = lock(&self.paused_until);
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    /// Waits until requests may be made.
    pub(crate) async fn ready(&self) {
        loop {
            let until = *lock(&self.paused_until);
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
    use super::super::endpoint::Endpoints;
    use super::*;

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
