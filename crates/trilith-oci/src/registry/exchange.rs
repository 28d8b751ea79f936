//! One request and its answer: redirects, size limits and time limits.
//!
//! Neither repeats a request nor authenticates it. `Authorization` is sent to the host it
//! is meant for and to no other, wherever redirects lead.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode, Url};
use tokio::time::timeout;

use super::auth::{Authorization, Scope, apply};
use super::client::RegistryClient;
use super::endpoint::same_origin;
use super::failure::{Account, Cause, Failure, RequestName, messages};
use super::host::Host;
use super::observe::Event;
use super::retry::retry_after;
use super::transport::cause;

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// The most bytes of an error answer that are read.
const MAX_ERROR_BODY: u64 = 16 * 1024;

/// A request that can be made any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The access it needs; none for requests that are not authenticated.
    pub(crate) scopes: Vec<Scope>,
    /// The most bytes of a good answer that are read.
    pub(crate) limit: u64,
    /// Whether the body of a good answer is left to be read as it comes, however long.
    pub(crate) streamed: bool,
    /// How long is waited for the answer.
    pub(crate) patience: Duration,
}

impl Call {
    /// Returns a call without headers, body and authentication, whose answer's body does not matter.
    pub(crate) fn new(method: Method, url: Url, patience: Duration) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes: Vec::new(),
            limit: MAX_ERROR_BODY,
            streamed: false,
            patience,
        }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) request: RequestName,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Where the answer came from, after redirects.
    pub(crate) url: Url,
    pub(crate) account: Account,
    pub(crate) body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it.
    Whole(Bytes),
    /// More than the call's limit.
    TooLong,
    /// Still to be read.
    Stream(Response),
}

impl Answer {
    /// Returns the body, empty where it was not read.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Whole(bytes) => bytes,
            Body::TooLong | Body::Stream(_) => &[],
        }
    }

    /// Returns header `name` as text; `None` where it is missing or no ASCII.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// Returns the failure that this answer is.
    pub(crate) fn refused(&self) -> Failure {
        Failure::new(Cause::Status {
            status: self.status,
            messages: messages(self.bytes()),
            retry_after: retry_after(&self.headers),
        })
        .during(&self.request)
        .with_account(self.account.clone())
    }

    /// Returns the failure of an answer that breaks the specification.
    pub(crate) fn nonsense(&self, reason: impl Into<String>) -> Failure {
        Failure::new(Cause::Protocol(reason.into())).during(&self.request)
    }

    /// Returns whether the answer came from another host than the request was made to.
    fn is_redirected(&self, call: &Call) -> bool {
        !same_origin(&self.url, &call.url)
    }

    /// Returns whether the registry itself asks who we are.
    pub(crate) fn is_challenge(&self, call: &Call) -> bool {
        self.status == StatusCode::UNAUTHORIZED && !self.is_redirected(call)
    }
}

impl RegistryClient {
    /// Makes `call` once, following redirects.
    pub(crate) async fn exchange(
        &self,
        host: &Host,
        call: &Call,
        authorization: &Authorization,
    ) -> Result<Answer, Failure> {
        let _permit = host.permit().await;
        let endpoint = &host.endpoint;
        let named =
            |url: &Url| RequestName::new(&endpoint.registry, &endpoint.base, &call.method, url);
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let name = named(&url);
            let request = request(call, &url, authorization);
            let response = self
                .send(request, call.patience)
                .await
                .map_err(|failure| failure.during(&name))?;
            self.observe(&Event::Answered {
                request: &name,
                status: response.status().as_u16(),
            });
            if let Some(delay) = host.learn(response.status(), response.headers()) {
                self.paused(host, delay);
            }
            if !is_redirect(response.status()) {
                return read(name, response, call, url, authorization.account()).await;
            }
            url = self.next_stop(call, &url, &response).map_err(|reason| {
                let reason = format!("its redirect cannot be followed: {reason}");
                Failure::new(Cause::Protocol(reason)).during(&name)
            })?;
        }
        let reason = format!("it redirects more than {MAX_REDIRECTS} times");
        Err(Failure::new(Cause::Protocol(reason)).during(&named(&call.url)))
    }

    /// Returns where `response` to `call` at `url` redirects to; an error with the reason
    /// where that must not be followed.
    fn next_stop(&self, call: &Call, url: &Url, response: &Response) -> Result<Url, String> {
        let is_read = matches!(call.method, Method::GET | Method::HEAD);
        if !is_read && !matches!(response.status().as_u16(), 307 | 308) {
            return Err(format!("a {} would become another request", call.method));
        }
        let location = response
            .headers()
            .get(LOCATION)
            .ok_or("it does not say where to")?;
        let location = location
            .to_str()
            .map_err(|_| "its `Location` is not ASCII")?;
        let next = self.endpoints().follow(url, location)?;
        if !call.body.is_empty() && !same_origin(&next, url) {
            // A manifest, or a refresh token, meant for this host.
            return Err("it would take the body to another host".to_owned());
        }
        Ok(next)
    }

    /// Sends `request` and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<Response, Failure> {
        self.counters().requests.add(1);
        match timeout(patience, self.transport().send(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(Cause::Timeout(patience))),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns `call` as it is made to `url`.
fn request(call: &Call, url: &Url, authorization: &Authorization) -> Request {
    let mut request = Request::new(call.method.clone(), url.clone());
    let headers = request.headers_mut();
    headers.clone_from(&call.headers);
    apply(authorization, headers);
    if !same_origin(url, &call.url) {
        headers.remove(AUTHORIZATION);
    }
    if !call.body.is_empty() {
        *request.body_mut() = Some(call.body.clone().into());
    } else if matches!(call.method, Method::POST | Method::PUT) {
        // Left out by the HTTP library, and some proxies then answer 411.
        request
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    request
}

/// Reads what of the body is wanted.
async fn read(
    name: RequestName,
    mut response: Response,
    call: &Call,
    url: Url,
    account: Account,
) -> Result<Answer, Failure> {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let body = if status.is_success() && call.streamed {
        Body::Stream(response)
    } else {
        let limit = if status.is_success() {
            call.limit
        } else {
            MAX_ERROR_BODY
        };
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let reading = async {
            if call.method != Method::HEAD && announced.is_some_and(|length| length > limit) {
                return Ok(Body::TooLong);
            }
            whole(response, limit, call.patience).await
        };
        let outcome = match timeout(call.patience, reading).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(Cause::Timeout(call.patience))),
        };
        match outcome {
            Ok(body) => body,
            // What went wrong is known already; the words for it are not worth a failure.
            Err(_) if !status.is_success() => Body::Whole(Bytes::new()),
            Err(failure) => return Err(failure.during(&name)),
        }
    };
    Ok(Answer {
        request: name,
        status,
        headers,
        url,
        account,
        body,
    })
}

/// Reads the body of an answer whose status says enough already.
pub(crate) async fn error_body(response: Response, patience: Duration) -> Bytes {
    match timeout(patience, whole(response, MAX_ERROR_BODY, patience)).await {
        Ok(Ok(Body::Whole(bytes))) => bytes,
        _ => Bytes::new(),
    }
}

async fn whole(mut response: Response, limit: u64, patience: Duration) -> Result<Body, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|error| Failure::new(cause(&error, patience)))?
    {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Ok(Body::TooLong);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Body::Whole(bytes.freeze()))
}
