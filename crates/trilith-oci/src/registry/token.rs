//! The exchange of credentials for a token (distribution, `spec/auth/token.md` and `oauth.md`).
//!
//! Keeps nothing: what is done with a token is decided in `auth`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::client::RegistryClient;
use super::credentials::{Credential, Lookup};
use super::exchange::{Answer, Call};
use super::failure::{Account, Cause, Failure};
use super::host::Host;
use super::secret::Secret;

/// How long a token lives that does not say (distribution, `spec/auth/token.md`).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(10);
/// The most bytes of a token server's answer.
const MAX_TOKEN_ANSWER: u64 = 256 * 1024;
/// How token servers that ask for it know this program.
const CLIENT_ID: &str = "trilith";

/// A token, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// The value of `Authorization`, marked sensitive.
    pub(crate) value: HeaderValue,
    /// Whose credentials it was got with.
    pub(crate) account: Account,
    /// When to stop using it.
    pub(crate) expires: Instant,
}

/// One exchange of credentials for a token.
pub(crate) struct Exchange<'a> {
    pub(crate) realm: &'a Url,
    pub(crate) service: Option<&'a str>,
    /// The repository of the request comes first: some servers look at no other.
    pub(crate) scopes: Vec<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<f64>,
}

impl Exchange<'_> {
    /// Makes the exchange, as often as passing failures need.
    pub(crate) async fn fetch(
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

pub(crate) fn basic_header(username: &str, password: &Secret) -> Result<HeaderValue, Failure> {
    let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {pair}"))
}

pub(crate) fn bearer_header(token: &Secret) -> Result<HeaderValue, Failure> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Failure::config("a token or password holds characters that no header may hold".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_sensitive() {
        let header = basic_header("u", &Secret::new("hunter2")).unwrap();
        let pair = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(pair).unwrap(), b"u:hunter2");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(bearer_header(&Secret::new("a\nb")).is_err());
    }
}
