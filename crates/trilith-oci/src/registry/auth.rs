//! Answers to challenges: who we are to a registry, and its tokens.
//!
//! Nothing is sent before a registry has asked for it. A token is fetched once however
//! many requests wait for it, and kept until shortly before it expires.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::challenge::{Challenge, choose};
use super::client::RegistryClient;
use super::credentials::{Credential, Lookup};
use super::exchange::{Answer, Call};
use super::failure::{Account, Cause, Failure};
use super::host::{Host, lock};
use super::secret::Secret;

/// How long a token lives that does not say (distribution, `spec/auth/token.md`).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(10);
/// The most bytes of a token server's answer.
const MAX_TOKEN_ANSWER: u64 = 256 * 1024;
/// The most scopes a registry may add to those we ask for.
const MAX_EXTRA_SCOPES: usize = 4;
/// How token servers that ask for it know this program.
const CLIENT_ID: &str = "trilith";

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

#[derive(Clone, Debug)]
struct Token {
    value: HeaderValue,
    account: Account,
    expires: Instant,
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
        let slot = Arc::clone(lock(&self.slots).entry(scopes.to_vec()).or_default());
        let seen = lock(&slot.state).serial;
        let _turn = slot.turn.lock().await;
        let extra = {
            let state = lock(&slot.state);
            if state.serial != seen {
                // Someone else fetched while we waited.
                match (&state.token, &state.failure) {
                    (Some(token), _) => return Ok(token.authorization(state.serial, true)),
                    (None, Some(failure)) => return Err(Arc::clone(failure)),
                    (None, None) => {}
                }
            }
            state.extra.clone()
        };
        let exchange = Exchange {
            realm: &realm,
            service: service.as_deref(),
            scopes: scopes
                .iter()
                .map(ToString::to_string)
                .chain(extra)
                .collect(),
        };
        let (login, _) = self.login(client, host, &first.repository).await?;
        let fetched = exchange.fetch(client, host, &login).await;
        let mut state = lock(&slot.state);
        state.serial += 1;
        match fetched {
            Ok(token) => {
                state.failure = None;
                let authorization = token.authorization(state.serial, true);
                state.token = Some(token);
                Ok(authorization)
            }
            Err(failure) => {
                state.token = None;
                state.failure = Some(Arc::clone(&failure));
                Err(failure)
            }
        }
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
    pub(crate) fn learn(
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
        let scope = match challenge {
            Challenge::Basic => {
                *lock(&self.scheme) = Some(Scheme::Basic);
                None
            }
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let realm = client
                    .endpoints()
                    .follow(&host.endpoint.base, &realm)
                    .map_err(|reason| {
                        Failure::new(Cause::Protocol(format!(
                            "its token server cannot be asked: {reason}"
                        )))
                        .during(&answer.request)
                    })?;
                *lock(&self.scheme) = Some(Scheme::Bearer { realm, service });
                scope
            }
        };
        let asks_for_more = scope.is_some_and(|scope| self.add_scope(scopes, &scope));
        Ok(match sent {
            Authorization::NotAsked => true,
            Authorization::Nothing(_) => false,
            Authorization::Header(header) => {
                self.forget(scopes, header.serial);
                asks_for_more || !header.fresh
            }
        })
    }

    /// Notes that the registry wants `wanted` beside `scopes`; `false` where it had that already.
    fn add_scope(&self, scopes: &[Scope], wanted: &str) -> bool {
        let slot = Arc::clone(lock(&self.slots).entry(scopes.to_vec()).or_default());
        let mut state = lock(&slot.state);
        let mut added = false;
        for one in wanted.split(' ').filter(|one| !one.is_empty()) {
            let known = state.extra.iter().any(|extra| extra == one)
                || scopes.iter().any(|scope| {
                    let push = one == scope.to_string();
                    // Asking for pull and push where pull would do is all the same.
                    push || one == format!("repository:{}:pull", scope.repository)
                        || one == format!("repository:{}:push,pull", scope.repository)
                });
            if !known && state.extra.len() < MAX_EXTRA_SCOPES {
                state.extra.push(one.to_owned());
                added = true;
            }
        }
        added
    }

    /// Drops what was refused: the token with `serial`, or the credentials themselves.
    fn forget(&self, scopes: &[Scope], serial: u64) {
        if serial == 0 {
            lock(&self.logins).remove(&scopes[0].repository);
            return;
        }
        for (have, slot) in lock(&self.slots).iter() {
            let mut state = lock(&slot.state);
            if covers(have, scopes) && state.serial == serial {
                state.token = None;
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

/// One exchange of credentials for a token.
struct Exchange<'a> {
    realm: &'a Url,
    service: Option<&'a str>,
    /// The repository of the request comes first: some servers look at no other.
    scopes: Vec<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<f64>,
}

impl Exchange<'_> {
    async fn fetch(
        &self,
        client: &RegistryClient,
        host: &Host,
        login: &Lookup,
    ) -> Result<Token, Arc<Failure>> {
        let call = match &login.credential {
            Some(Credential::Bearer(token)) => {
                return Ok(Token {
                    value: bearer_header(token)?,
                    account: login.account.clone(),
                    expires: Instant::now() + DEFAULT_LIFETIME,
                });
            }
            Some(Credential::Identity(token)) => self.refresh_call(client, token),
            Some(Credential::Password { username, password }) => {
                self.basic_call(client, Some((username, password)))?
            }
            None => self.basic_call(client, None)?,
        };
        // From before the request: it is the safe side, and needs no agreement of clocks.
        let asked = Instant::now();
        client.counters().token_requests.add(1);
        let answer = client.perform_plain(host, &call).await?;
        let parsed = if answer.status == StatusCode::OK {
            parse_token(&answer)
        } else {
            Err(answer.refused())
        };
        let (token, lifetime) =
            parsed.map_err(|failure| Arc::new(failure.with_account(login.account.clone())))?;
        Ok(Token {
            value: bearer_header(&token)?,
            account: login.account.clone(),
            expires: asked + lifetime.saturating_sub(MARGIN.min(lifetime / 4)),
        })
    }

    /// The request every token server takes (distribution, `spec/auth/token.md`).
    fn basic_call(
        &self,
        client: &RegistryClient,
        user: Option<(&str, &Secret)>,
    ) -> Result<Call, Failure> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = self.service {
                query.append_pair("service", service);
            }
            for scope in &self.scopes {
                query.append_pair("scope", scope);
            }
            if let Some((username, _)) = user {
                query.append_pair("account", username);
            }
        }
        let mut call = Call::new(Method::GET, url, client.timeouts().answer);
        call.limit = MAX_TOKEN_ANSWER;
        if let Some((username, password)) = user {
            call.headers
                .insert(AUTHORIZATION, basic_header(username, password)?);
        }
        Ok(call)
    }

    /// The exchange of a refresh token (distribution, `spec/auth/oauth.md`).
    fn refresh_call(&self, client: &RegistryClient, token: &Secret) -> Call {
        let mut form = Url::clone(self.realm);
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &self.scopes.join(" "))
            .append_pair("refresh_token", token.expose());
        let body = form.query().unwrap_or_default().to_owned();
        let mut call = Call::new(Method::POST, self.realm.clone(), client.timeouts().answer);
        call.limit = MAX_TOKEN_ANSWER;
        call.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        call.body = Bytes::from(body);
        call
    }
}

fn parse_token(answer: &Answer) -> Result<(Secret, Duration), Failure> {
    let protocol =
        |reason: &str| Failure::new(Cause::Protocol(reason.to_owned())).during(&answer.request);
    // The error of the parser could quote the token.
    let parsed: TokenAnswer = serde_json::from_slice(answer.bytes())
        .map_err(|_| protocol("the token answer is malformed"))?;
    let token = [parsed.token, parsed.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.expose().is_empty())
        .ok_or_else(|| protocol("the token answer holds no token"))?;
    let lifetime = parsed
        .expires_in
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.min(86_400.0)).ok())
        .unwrap_or(DEFAULT_LIFETIME);
    Ok((token, lifetime))
}

fn basic_header(username: &str, password: &Secret) -> Result<HeaderValue, Failure> {
    let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {pair}"))
}

fn bearer_header(token: &Secret) -> Result<HeaderValue, Failure> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Failure::config("a token or password holds characters that no header may hold".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
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

    #[test]
    fn headers_are_sensitive() {
        let header = basic_header("u", &Secret::new("hunter2")).unwrap();
        assert_eq!(header.as_bytes(), b"Basic dTpodW50ZXIy");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(bearer_header(&Secret::new("a\nb")).is_err());
    }
}
