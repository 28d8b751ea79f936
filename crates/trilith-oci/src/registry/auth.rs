//! Answers to challenges: who we are to a registry, and its tokens.
//!
//! Nothing is sent before a registry has asked for it. A token is fetched once however
//! many requests wait for it, and kept until shortly before it expires.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use tokio::time::Instant;

use super::challenge::{Challenge, choose};
use super::client::RegistryClient;
use super::credentials::{Credential, Lookup};
use super::exchange::Answer;
use super::failure::{Account, Cause, Failure};
use super::host::{Host, lock};
use super::token::{Exchange, Token, basic_header, bearer_header};

/// The most scopes a registry may add to those we ask for.
const MAX_EXTRA_SCOPES: usize = 4;

/// Access to one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) repository: String,
    pub(crate) push: bool,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions = if self.push { "pull,push" } else { "pull" };
        write!(f, "repository:{}:{actions}", self.repository)
    }
}

/// Returns whether access to `have` is access to `want`.
fn covers(have: &[Scope], want: &[Scope]) -> bool {
    want.iter().all(|want| {
        have.iter()
            .any(|have| have.repository == want.repository && have.push >= want.push)
    })
}

/// What to send with a request.
#[derive(Clone, Debug)]
pub(crate) enum Authorization {
    /// Nothing: the registry has not asked yet.
    NotAsked,
    /// Nothing, although the registry asks: there are no credentials.
    Nothing(Account),
    /// A header.
    Header(Authorized),
}

/// A header that says who we are.
#[derive(Clone, Debug)]
pub(crate) struct Authorized {
    /// The value of `Authorization`, marked sensitive.
    pub(crate) value: HeaderValue,
    pub(crate) account: Account,
    /// Which token of its slot it is; 0 for a password.
    serial: u64,
    /// Whether it was got for this very request, so that another would be no better.
    fresh: bool,
}

/// The state of authentication with one registry.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    scheme: Mutex<Option<Scheme>>,
    logins: Mutex<HashMap<String, Lookup>>,
    slots: Mutex<HashMap<Vec<Scope>, Arc<Slot>>>,
}

#[derive(Clone, Debug)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// The token for one set of scopes.
#[derive(Debug, Default)]
struct Slot {
    /// Held while a token is fetched; those who wait for it share what comes of it.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    token: Option<Token>,
    /// Counts fetches, so that a refused token is dropped only while it is the current one.
    serial: u64,
    failure: Option<Arc<Failure>>,
    /// Scopes the registry asked for beyond ours.
    extra: Vec<String>,
}

impl Auth {
    /// Returns what to send with a request that needs `scopes`, the first of which is the
    /// repository it is made to.
    pub(crate) async fn authorize(
        &self,
        client: &RegistryClient,
        host: &Host,
        scopes: &[Scope],
    ) -> Result<Authorization, Arc<Failure>> {
        let (Some(first), Some(scheme)) = (scopes.first(), lock(&self.scheme).clone()) else {
            return Ok(Authorization::NotAsked);
        };
        let Scheme::Bearer { realm, service } = scheme else {
            return self.basic(client, host, &first.repository).await;
        };
        if let Some((slot, token)) = self.held(scopes) {
            return Ok(token.authorization(slot, false));
        }
        let slot = self.slot(scopes);
        let seen = lock(&slot.state).serial;
        let _turn = slot.turn.lock().await;
        if let Some(outcome) = slot.since(seen) {
            return outcome;
        }
        let extra = lock(&slot.state).extra.clone();
        let exchange = Exchange {
            realm: &realm,
            service: service.as_deref(),
            scopes: scopes
                .iter()
                .map(ToString::to_string)
                .chain(extra)
                .collect(),
        };
        slot.keep(match self.login(client, host, &first.repository).await {
            Ok((login, _)) => exchange.fetch(client, host, &login).await,
            Err(failure) => Err(Arc::new(failure)),
        })
    }

    fn slot(&self, scopes: &[Scope]) -> Arc<Slot> {
        Arc::clone(lock(&self.slots).entry(scopes.to_vec()).or_default())
    }

    /// Returns a token that is held and good for `scopes`, with its serial number.
    fn held(&self, scopes: &[Scope]) -> Option<(u64, Token)> {
        let slots = lock(&self.slots);
        let exact = slots.get_key_value(scopes);
        let wider = slots.iter().filter(|(have, _)| {
            // Another repository's credentials may be others, so the first must be the same.
            have[0].repository == scopes[0].repository && covers(have, scopes)
        });
        exact.into_iter().chain(wider).find_map(|(_, slot)| {
            let state = lock(&slot.state);
            let token = state.token.as_ref()?;
            (token.expires > Instant::now()).then(|| (state.serial, token.clone()))
        })
    }

    async fn basic(
        &self,
        client: &RegistryClient,
        host: &Host,
        repository: &str,
    ) -> Result<Authorization, Arc<Failure>> {
        let (login, fresh) = self.login(client, host, repository).await?;
        let value = match &login.credential {
            Some(Credential::Password { username, password }) => basic_header(username, password),
            Some(Credential::Bearer(token)) => bearer_header(token),
            // A refresh token is for token servers only.
            Some(Credential::Identity(_)) | None => {
                return Ok(Authorization::Nothing(login.account));
            }
        };
        Ok(Authorization::Header(Authorized {
            value: value?,
            account: login.account,
            serial: 0,
            fresh,
        }))
    }

    /// Returns the credential for `repository`, and whether it was looked up only now.
    async fn login(
        &self,
        client: &RegistryClient,
        host: &Host,
        repository: &str,
    ) -> Result<(Lookup, bool), Failure> {
        if let Some(login) = lock(&self.logins).get(repository) {
            return Ok((login.clone(), false));
        }
        let login = client
            .credentials()
            .lookup(&host.endpoint, repository)
            .await?;
        lock(&self.logins).insert(repository.to_owned(), login.clone());
        Ok((login, true))
    }

    /// Learns from the `401` in `answer` to a request that was `sent` with `scopes`.
    /// Returns whether it is worth making again.
    pub(crate) async fn learn(
        &self,
        client: &RegistryClient,
        host: &Host,
        answer: &Answer,
        scopes: &[Scope],
        sent: &Authorization,
    ) -> Result<bool, Failure> {
        let headers = answer.headers.get_all(WWW_AUTHENTICATE);
        let Some(challenge) = choose(headers.iter().map(HeaderValue::as_bytes)) else {
            return Ok(false);
        };
        let scope = self.adopt(client, host, challenge);
        let scope = scope.map_err(|failure| failure.during(&answer.request))?;
        let asks_for_more = scope.is_some_and(|scope| self.add_scope(scopes, &scope));
        Ok(match sent {
            Authorization::NotAsked => true,
            Authorization::Nothing(_) => false,
            Authorization::Header(header) if header.serial == 0 => {
                lock(&self.logins).remove(&scopes[0].repository);
                client.credentials().forget(&host.endpoint).await;
                !header.fresh
            }
            Authorization::Header(header) => {
                self.forget(scopes, header.serial);
                asks_for_more || !header.fresh
            }
        })
    }

    /// Notes how the registry wants to be told who we are. Returns the scope it names.
    fn adopt(
        &self,
        client: &RegistryClient,
        host: &Host,
        challenge: Challenge,
    ) -> Result<Option<String>, Failure> {
        let Challenge::Bearer {
            realm,
            service,
            scope,
        } = challenge
        else {
            *lock(&self.scheme) = Some(Scheme::Basic);
            return Ok(None);
        };
        let realm = client.endpoints().follow(&host.endpoint.base, &realm);
        let realm = realm.map_err(|reason| {
            let reason = format!("its token server cannot be asked: {reason}");
            Failure::new(Cause::Protocol(reason))
        })?;
        *lock(&self.scheme) = Some(Scheme::Bearer { realm, service });
        Ok(scope)
    }

    /// Notes that the registry wants `wanted` beside `scopes`; `false` where it had that already.
    fn add_scope(&self, scopes: &[Scope], wanted: &str) -> bool {
        let slot = self.slot(scopes);
        let mut state = lock(&slot.state);
        let mut added = false;
        for one in wanted.split(' ').filter(|one| !one.is_empty()) {
            let known = state.extra.iter().any(|extra| extra == one)
                || scopes.iter().any(|scope| {
                    // Ours, or part of it, or the same in another order.
                    one == scope.to_string()
                        || one == format!("repository:{}:pull", scope.repository)
                        || (scope.push
                            && one == format!("repository:{}:push,pull", scope.repository))
                });
            if !known && state.extra.len() < MAX_EXTRA_SCOPES {
                state.extra.push(one.to_owned());
                added = true;
            }
        }
        added
    }

    /// Drops the token with `serial`, which was refused.
    fn forget(&self, scopes: &[Scope], serial: u64) {
        for (have, slot) in lock(&self.slots).iter() {
            let mut state = lock(&slot.state);
            if covers(have, scopes) && state.serial == serial {
                state.token = None;
            }
        }
    }
}

impl Slot {
    /// Returns what came of a fetch that another request made since the serial number was `seen`.
    fn since(&self, seen: u64) -> Option<Result<Authorization, Arc<Failure>>> {
        let state = lock(&self.state);
        if state.serial == seen {
            return None;
        }
        match (&state.token, &state.failure) {
            (Some(token), _) => Some(Ok(token.authorization(state.serial, true))),
            (None, Some(failure)) => Some(Err(Arc::clone(failure))),
            (None, None) => None,
        }
    }

    /// Keeps what came of a fetch, and returns it.
    fn keep(&self, fetched: Result<Token, Arc<Failure>>) -> Result<Authorization, Arc<Failure>> {
        let mut state = lock(&self.state);
        state.serial += 1;
        match fetched {
            Ok(token) => {
                state.failure = None;
                let token = state.token.insert(token).clone();
                Ok(token.authorization(state.serial, true))
            }
            Err(failure) => {
                state.token = None;
                state.failure = Some(Arc::clone(&failure));
                Err(failure)
            }
        }
    }
}

impl Token {
    fn authorization(&self, serial: u64, fresh: bool) -> Authorization {
        Authorization::Header(Authorized {
            value: self.value.clone(),
            account: self.account.clone(),
            serial,
            fresh,
        })
    }
}

/// Adds `authorization` to `headers`, where there is something to add.
pub(crate) fn apply(authorization: &Authorization, headers: &mut HeaderMap) {
    if let Authorization::Header(header) = authorization {
        headers.insert(AUTHORIZATION, header.value.clone());
    }
}

impl Authorization {
    /// Returns whose credentials these are.
    pub(crate) fn account(&self) -> Account {
        match self {
            Self::NotAsked => Account::Unknown,
            Self::Nothing(account) => account.clone(),
            Self::Header(header) => header.account.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(repository: &str, push: bool) -> Scope {
        Scope {
            repository: repository.to_owned(),
            push,
        }
    }

    #[test]
    fn scopes() {
        assert_eq!(scope("a/b", true).to_string(), "repository:a/b:pull,push");
        assert_eq!(scope("a", false).to_string(), "repository:a:pull");
        for (have, want, expected) in [
            (vec![scope("a", true)], vec![scope("a", false)], true),
            (vec![scope("a", false)], vec![scope("a", true)], false),
            (
                vec![scope("a", true), scope("b", false)],
                vec![scope("a", true)],
                true,
            ),
            (
                vec![scope("a", true)],
                vec![scope("a", true), scope("b", false)],
                false,
            ),
        ] {
            assert_eq!(covers(&have, &want), expected);
        }
    }

    #[test]
    fn extra_scopes_are_few_and_new() {
        let auth = Auth::default();
        let own = [scope("a", true)];
        for (wanted, added) in [
            ("repository:a:pull,push", false),
            ("repository:a:pull", false),
            ("repository:proxy/a:pull", true),
            ("repository:proxy/a:pull", false),
            ("b c d e f", true),
            ("g", false),
            ("", false),
        ] {
            assert_eq!(auth.add_scope(&own, wanted), added, "{wanted}");
        }
    }
}
