//! Tokens, passwords and those who would like to have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use trilith_oci::registry::{CredentialSource, RegistryConfig, RegistryRepository};
use trilith_oci::{ImageStore, Kind, Mount};

use super::server::{Reply, Seen, Server};
use super::{PASSWORD, blob, chain, config, credentials, impatient, repository, tag};

/// Returns whether `seen` carries the password of [`PASSWORD`].
fn knows_password(seen: &Seen) -> bool {
    let basic = format!("Basic {}", STANDARD.encode("user:hunter2"));
    seen.header("authorization") == Some(&basic)
}

/// A registry with its token server in one: the tokens it gives are `t1`, `t2` and so on,
/// of which those that `accepts` are good for access.
async fn with_tokens(
    accepts: impl Fn(u32) -> bool + Send + Sync + 'static,
    answer: &'static str,
) -> Server {
    let given = AtomicU32::new(0);
    Server::start_with(move |address| {
        let challenge = format!(r#"Bearer realm="http://{address}/token",service="reg""#);
        move |seen: &Seen| {
            if seen.target.starts_with("/token") {
                let number = given.fetch_add(1, Ordering::SeqCst) + 1;
                return Reply::new(200).body(answer.replace('#', &number.to_string()));
            }
            let token = seen
                .header("authorization")
                .and_then(|value| value.strip_prefix("Bearer t"))
                .and_then(|number| number.parse().ok());
            match token {
                Some(number) if accepts(number) => Reply::new(404),
                _ => Reply::new(401).header("WWW-Authenticate", &challenge),
            }
        }
    })
    .await
}

async fn asks(repository: &RegistryRepository) -> Result<(), trilith_oci::Error> {
    repository
        .resolve(&tag("v1"))
        .await
        .map(|found| assert_eq!(found, None))
}

#[tokio::test]
async fn a_hundred_requests_share_one_token() {
    let server = with_tokens(|_| true, r#"{"token":"t#","expires_in":300}"#).await;
    let repository = repository(&server, config());
    join_all((0..100).map(|_| asks(&repository)))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    assert_eq!(server.count("GET", "/token"), 1);
    assert_eq!(repository.client().stats().token_requests, 1);
    let token = server
        .seen()
        .into_iter()
        .find(|seen| seen.is("GET", "/token"));
    let target = token.unwrap().target;
    assert_eq!(target, "/token?service=reg&scope=repository%3Aa%2Fb%3Apull");
}

#[tokio::test]
async fn write_access_serves_reading_too() {
    let server = with_tokens(|_| true, r#"{"access_token":"t#"}"#).await;
    let writing = repository(&server, config()).for_writing();
    asks(&writing).await.unwrap();
    let reading = writing
        .client()
        .repository(&server.repository("a/b"))
        .unwrap();
    asks(&reading).await.unwrap();
    assert_eq!(server.count("GET", "/token"), 1);
    let other = writing
        .client()
        .repository(&server.repository("other"))
        .unwrap();
    asks(&other).await.unwrap();
    assert_eq!(server.count("GET", "/token"), 2);
}

#[tokio::test]
async fn stale_tokens_are_replaced_once() {
    // The first token is refused from the third request on.
    let uses = AtomicU32::new(0);
    let server = with_tokens(
        move |number| number > 1 || uses.fetch_add(1, Ordering::SeqCst) < 2,
        r#"{"token":"t#"}"#,
    )
    .await;
    let repository = repository(&server, config());
    for _ in 0..5 {
        asks(&repository).await.unwrap();
    }
    assert_eq!(server.count("GET", "/token"), 2);
    // Bare, two with the first token, one refused, three with the second.
    assert_eq!(server.count("HEAD", "/v2/"), 7);
}

#[tokio::test]
async fn tokens_that_live_no_time_are_fetched_again() {
    let server = with_tokens(|_| true, r#"{"token":"t#","expires_in":0}"#).await;
    let repository = repository(&server, config());
    for _ in 0..3 {
        asks(&repository).await.unwrap();
    }
    assert_eq!(server.count("GET", "/token"), 3);
}

#[tokio::test]
async fn a_registry_that_takes_no_token() {
    let server = with_tokens(|_| false, r#"{"token":"t#"}"#).await;
    let error = asks(&repository(&server, config())).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Denied, false));
    assert_eq!(server.count("GET", "/token"), 1);
    assert_eq!(server.count("HEAD", "/v2/"), 2);
}

#[tokio::test]
async fn a_token_server_that_fails_is_asked_for_all_at_once() {
    for (status, tries, kind) in [(500, 3, Kind::Unavailable), (403, 1, Kind::Denied)] {
        let server = Server::start_with(|address| {
            let challenge = format!(r#"Bearer realm="http://{address}/token""#);
            move |seen: &Seen| {
                if seen.target.starts_with("/token") {
                    Reply::new(status)
                } else {
                    Reply::new(401).header("WWW-Authenticate", &challenge)
                }
            }
        })
        .await;
        let repository = repository(&server, config());
        // Learns the challenge, and that it cannot be answered.
        asks(&repository).await.unwrap_err();
        let before = server.count("GET", "/token");
        assert_eq!(before, tries);
        for result in join_all((0..20).map(|_| asks(&repository))).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("`GET /token?…`"), "{error}");
        }
        // Some may have come after the shared attempt ended, but not each by itself.
        assert_eq!(server.count("GET", "/token") - before, tries);
    }
}

#[tokio::test]
async fn bad_token_answers() {
    for (answer, reason) in [
        ("{", "malformed"),
        (r#"{"token":""}"#, "holds no token"),
        (r#"{"token":"hunter2\n"}"#, "no header may hold"),
        (r#"{"token":12}"#, "malformed"),
        ("[\"hunter2\"]", "malformed"),
    ] {
        let server = with_tokens(|_| true, answer).await;
        let error = asks(&repository(&server, config())).await.unwrap_err();
        let text = format!("{} {error:?}", chain(&error));
        assert!(text.contains(reason) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn passwords() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(|seen| {
        if knows_password(seen) {
            return Reply::new(404);
        }
        Reply::new(401)
            .header("WWW-Authenticate", "Negotiate")
            .header("WWW-Authenticate", r#"Basic realm="x""#)
    })
    .await;
    let with = |entry: &str| RegistryConfig {
        credentials: credentials(directory.path(), &server.address(), entry),
        ..config()
    };
    let known = repository(&server, with(PASSWORD));
    asks(&known).await.unwrap();
    asks(&known).await.unwrap();
    // Bare and refused, then with the password.
    assert_eq!(server.seen().len(), 3);

    for (config, hint) in [
        (config(), "no credentials were looked for"),
        (with(""), "there are no credentials for `127.0.0.1:"),
        (
            with(r#""username": "user", "password": "wrong""#),
            "` (`127.0.0.1:",
        ),
    ] {
        let error = asks(&repository(&server, config)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        let got = error.hint().unwrap();
        assert!(got.contains(hint) && got.contains("docker login"), "{got}");
    }
}

#[tokio::test]
async fn passwords_buy_tokens_and_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let server = with_tokens(|_| true, r#"{"token":"t#"}"#).await;
    let config = RegistryConfig {
        credentials: credentials(directory.path(), &server.address(), PASSWORD),
        ..config()
    };
    let repository = repository(&server, config);
    asks(&repository).await.unwrap();
    for seen in server.seen() {
        let token_request = seen.target.starts_with("/token");
        assert_eq!(knows_password(&seen), token_request);
        assert_eq!(seen.target.contains("account=user"), token_request);
    }
    let shown = format!("{:?} {repository:?}", repository.client());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn identity_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let server = with_tokens(|_| true, r#"{"access_token":"t#"}"#).await;
    let config = RegistryConfig {
        credentials: credentials(
            directory.path(),
            &server.address(),
            r#""auth": "MDA6", "identitytoken": "hunter2 &""#,
        ),
        ..config()
    };
    asks(&repository(&server, config)).await.unwrap();
    let seen = server.seen();
    let exchange = seen.iter().find(|seen| seen.is("POST", "/token")).unwrap();
    assert_eq!(exchange.target, "/token");
    assert_eq!(
        String::from_utf8_lossy(&exchange.body),
        "grant_type=refresh_token&service=reg&client_id=trilith\
         &scope=repository%3Aa%2Fb%3Apull&refresh_token=hunter2+%26"
    );
    let content_type = exchange.header("content-type");
    assert_eq!(content_type, Some("application/x-www-form-urlencoded"));
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let server = with_tokens(|_| true, r#"{"token":"t#"}"#).await;
    let repository = repository(&server, config());
    let from = server.repository("base/image");
    asks(&repository).await.unwrap();
    let mounted = repository.mount_blob(&blob(b"x"), &from).await.unwrap();
    assert_eq!(mounted, Mount::Declined);
    let seen = server.seen();
    let token = seen.iter().rfind(|seen| seen.is("GET", "/token")).unwrap();
    assert_eq!(
        token.target,
        "/token?service=reg&scope=repository%3Aa%2Fb%3Apull%2Cpush\
         &scope=repository%3Abase%2Fimage%3Apull"
    );
    let post = seen.iter().find(|seen| seen.is("POST", "/v2/")).unwrap();
    assert!(post.target.contains("from=base%2Fimage"), "{}", post.target);
}

#[tokio::test]
async fn a_registry_may_want_other_scopes() {
    let given = Arc::new(AtomicU32::new(0));
    let server = Server::start_with(|address| {
        let challenge =
            format!(r#"Bearer realm="http://{address}/token",scope="repository:proxy/a/b:pull""#);
        move |seen: &Seen| {
            if seen.target.starts_with("/token") {
                let scope = seen.target.contains("proxy%2Fa%2Fb");
                given.fetch_add(1, Ordering::SeqCst);
                return Reply::new(200).body(format!(r#"{{"token":"t{scope}"}}"#));
            }
            match seen.header("authorization") {
                Some("Bearer ttrue") => Reply::new(404),
                _ => Reply::new(401).header("WWW-Authenticate", &challenge),
            }
        }
    })
    .await;
    asks(&repository(&server, config())).await.unwrap();
    assert_eq!(server.count("GET", "/token"), 1);
}

#[tokio::test]
async fn credentials_stay_where_they_belong() {
    let directory = tempfile::tempdir().unwrap();
    // A token server that would be spoken to in the clear.
    let server = Server::start(|_| {
        Reply::new(401).header(
            "WWW-Authenticate",
            r#"Bearer realm="http://evil.invalid/t""#,
        )
    })
    .await;
    let config = || RegistryConfig {
        credentials: credentials(directory.path(), &server.address(), PASSWORD),
        ..impatient()
    };
    let error = asks(&repository(&server, config())).await.unwrap_err();
    assert!(
        error.to_string().contains("token server cannot be asked"),
        "{error}"
    );
    assert!(error.to_string().contains("without TLS"), "{error}");

    // A redirect to another host takes no header along, and its challenge is not answered.
    let elsewhere =
        Server::start(|_| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="give""#))
            .await;
    let target = format!("http://{}/x", elsewhere.address());
    let server = Server::start(move |seen| {
        if knows_password(seen) {
            return Reply::new(302).header("Location", &target);
        }
        Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#)
    })
    .await;
    let config = RegistryConfig {
        credentials: credentials(directory.path(), &server.address(), PASSWORD),
        ..config()
    };
    let error = asks(&repository(&server, config)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn credential_files_that_cannot_be_read() {
    let server =
        Server::start(|_| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#)).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, "{\"auths\": [").unwrap();
    let config = RegistryConfig {
        credentials: CredentialSource::Files(vec![path]),
        ..config()
    };
    let error = asks(&repository(&server, config)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error.to_string().contains("config.json`: it is malformed"),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}
