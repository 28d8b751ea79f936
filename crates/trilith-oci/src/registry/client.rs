//! The client of a process: its settings, its registries and the loop around each request.
//!
//! Knows nothing of manifests and blobs; [`super::RegistryRepository`] does.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trilith_core::Repository;

use super::auth::Authorization;
use super::config::{RegistryConfig, Timeouts};
use super::credentials::{Credential, Credentials};
use super::endpoint::Endpoints;
use super::exchange::{Answer, Call};
use super::failure::{Account, Cause, Failure};
use super::host::{Host, lock};
use super::observe::{Counters, Event, Stats};
use super::repository::RegistryRepository;
use super::retry::{RetryPolicy, is_transient};
use super::transport::Transport;
use crate::error::Error;

/// How often one attempt is made: bare, with a token that has gone stale, with one that
/// another task fetched meanwhile, with a fresh one.
const AUTH_ROUNDS: u32 = 4;

/// A client of registries: one pool of connections, one cache of tokens. Cheap to clone;
/// a process needs one.
#[derive(Clone)]
pub struct RegistryClient(Arc<Inner>);

struct Inner {
    config: RegistryConfig,
    endpoints: Endpoints,
    transport: Transport,
    credentials: Credentials,
    counters: Counters,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl RegistryClient {
    /// Returns a client with the settings `config`. Opens no connection and reads no file.
    ///
    /// # Errors
    /// A setting that cannot be used: a malformed certificate, proxy or registry name.
    pub fn try_new(config: RegistryConfig) -> Result<Self, Error> {
        if config.concurrency == 0 || config.retry.attempts == 0 {
            let reason = "concurrency and attempts must be at least 1";
            return Err(Failure::config(reason.to_owned()).into());
        }
        Ok(Self(Arc::new(Inner {
            endpoints: Endpoints::try_new(&config.insecure_registries)?,
            transport: Transport::try_new(&config)?,
            credentials: Credentials::new(config.credentials.clone()),
            counters: Counters::default(),
            hosts: Mutex::new(HashMap::new()),
            config,
        })))
    }

    /// Returns the place that `repository` is.
    pub fn repository(&self, repository: &Repository) -> Result<RegistryRepository, Error> {
        let host = self.host(repository.registry())?;
        Ok(RegistryRepository::new(
            self.clone(),
            host,
            repository.clone(),
        ))
    }

    /// Returns what proves who we are to `registry` for `repository` (a path, which may be empty),
    /// for engines that fetch and push by themselves. `None` where no file knows the registry.
    ///
    /// # Errors
    /// A credential file is unreadable, or its helper fails.
    pub async fn credential(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, Error> {
        let endpoint = self.0.endpoints.of(registry)?;
        let found = self.0.credentials.lookup(&endpoint, repository).await?;
        Ok(found.credential)
    }

    /// Returns where the credentials for `registry` and `repository` are from, or where they were
    /// looked for.
    ///
    /// # Errors
    /// As [`Self::credential`].
    pub async fn account(&self, registry: &str, repository: &str) -> Result<Account, Error> {
        let endpoint = self.0.endpoints.of(registry)?;
        let found = self.0.credentials.lookup(&endpoint, repository).await?;
        Ok(found.account)
    }

    /// Returns whether `registry` is spoken to without TLS, as those on loopback are and those
    /// that the settings name.
    #[must_use]
    pub fn is_plain_http(&self, registry: &str) -> bool {
        let endpoint = self.0.endpoints.of(registry);
        endpoint.is_ok_and(|endpoint| endpoint.base.scheme() == "http")
    }

    /// Returns what the client did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.snapshot()
    }

    fn host(&self, registry: &str) -> Result<Arc<Host>, Failure> {
        let mut hosts = lock(&self.0.hosts);
        if let Some(host) = hosts.get(registry) {
            return Ok(Arc::clone(host));
        }
        let endpoint = self.0.endpoints.of(registry)?;
        let host = Arc::new(Host::new(endpoint, self.0.config.concurrency));
        hosts.insert(registry.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.0.endpoints
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.0.config.timeouts
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.0.config.retry
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        if let Some(observer) = &self.0.config.observer {
            observer(event);
        }
    }

    /// Tells that all requests to `host` wait.
    pub(crate) fn paused(&self, host: &Host, delay: Duration) {
        self.counters().pauses.add(1);
        self.observe(&Event::Paused {
            registry: &host.endpoint.registry,
            delay,
        });
    }

    /// Makes `call` until it is answered with something else than a passing failure.
    pub(crate) async fn perform(&self, host: &Host, call: &Call) -> Result<Answer, Arc<Failure>> {
        let mut attempts = Attempts::new(self, host);
        loop {
            host.ready().await;
            match self.attempt(host, call).await {
                Ok(answer) if is_transient(answer.status) => {
                    attempts.failed(answer.refused()).await?;
                }
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(failure)) => attempts.failed(failure).await?,
                Err(Stop::Final(failure)) => return Err(failure),
            }
        }
    }

    /// Does the same without authentication.
    pub(crate) async fn perform_plain(
        &self,
        host: &Host,
        call: &Call,
    ) -> Result<Answer, Arc<Failure>> {
        let mut attempts = Attempts::new(self, host);
        loop {
            host.ready().await;
            match self.exchange(host, call, &Authorization::NotAsked).await {
                Ok(answer) if is_transient(answer.status) => {
                    attempts.failed(answer.refused()).await?;
                }
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.failed(failure).await?,
            }
        }
    }

    /// Makes `call`, and again while the registry's challenge can be answered better.
    async fn attempt(&self, host: &Host, call: &Call) -> Result<Answer, Stop> {
        let mut round = 1;
        loop {
            let authorization = host
                .auth
                .authorize(self, host, &call.scopes)
                .await
                .map_err(Stop::Final)?;
            let answer = self
                .exchange(host, call, &authorization)
                .await
                .map_err(Stop::Failed)?;
            if !answer.is_challenge(call) || call.scopes.is_empty() || round == AUTH_ROUNDS {
                return Ok(answer);
            }
            let learned = host
                .auth
                .learn(self, host, &answer, &call.scopes, &authorization);
            if !learned.await.map_err(Stop::Failed)? {
                return Ok(answer);
            }
            round += 1;
        }
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryClient")
            .field(&self.0.config)
            .finish()
    }
}

/// How an attempt ends without an answer.
pub(crate) enum Stop {
    /// It failed, and may be made again if the failure is of that kind.
    Failed(Failure),
    /// It cannot be made: what it needs was tried often enough.
    Final(Arc<Failure>),
}

/// The attempts at one request.
pub(crate) struct Attempts<'a> {
    client: &'a RegistryClient,
    host: &'a Host,
    made: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(client: &'a RegistryClient, host: &'a Host) -> Self {
        Self {
            client,
            host,
            made: 0,
        }
    }

    /// Returns the attempts after `made` failed ones.
    pub(crate) fn after(client: &'a RegistryClient, host: &'a Host, made: u32) -> Self {
        Self { client, host, made }
    }

    /// Returns how many attempts failed.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Counts a failed attempt and waits until the next may be made.
    ///
    /// # Errors
    /// `failure` itself, where there is no next attempt.
    pub(crate) async fn failed(&mut self, failure: Failure) -> Result<(), Arc<Failure>> {
        let retryable = failure.is_retryable();
        self.failed_if(failure, retryable).await
    }

    /// The same for a caller that knows better whether the failure is a passing one.
    pub(crate) async fn failed_if(
        &mut self,
        mut failure: Failure,
        retryable: bool,
    ) -> Result<(), Arc<Failure>> {
        self.made += 1;
        failure.attempts = self.made;
        let delay = self.delay(&failure).filter(|_| retryable);
        let Some(delay) = delay else {
            return Err(Arc::new(failure));
        };
        self.client.observe(&Event::Retrying {
            failure: &failure,
            delay,
        });
        self.client.counters().retries.add(1);
        if failure.status() == Some(429) {
            self.host.slow_down();
            self.host.pause(delay);
            self.client.paused(self.host, delay);
        } else {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    /// Returns how long to wait; `None` where there were attempts enough or the wait is too long.
    fn delay(&self, failure: &Failure) -> Option<Duration> {
        let policy = self.client.retry();
        if self.made >= policy.attempts {
            return None;
        }
        let own = policy.pause(self.made);
        match &*failure.cause {
            Cause::Status {
                retry_after: Some(asked),
                ..
            } => (*asked <= policy.max_retry_after).then(|| own.max(*asked)),
            _ => Some(own),
        }
    }
}
