//! Manifests from servers that misbehave.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::AsyncWriteExt;
use trilith_oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use trilith_oci::registry::{Event, RegistryConfig};
use trilith_oci::{ImageStore, Kind, Name};

use super::server::{Reply, Seen, Server};
use super::{MANIFEST, chain, client, config, digest, impatient, manifest, repository, tag};

fn good(seen: &Seen) -> Reply {
    let reply = Reply::new(200)
        .header("Content-Type", OCI_MANIFEST)
        .header("Docker-Content-Digest", digest(MANIFEST).as_str());
    if seen.method == "HEAD" {
        reply.length(MANIFEST.len())
    } else {
        reply.body(MANIFEST)
    }
}

#[tokio::test]
async fn only_404_is_absent() {
    for (status, kind, requests) in [
        (401, Kind::Denied, 1),
        (403, Kind::Denied, 1),
        (400, Kind::Unavailable, 1),
        (418, Kind::Unavailable, 1),
        (408, Kind::Unavailable, 3),
        (429, Kind::Unavailable, 3),
        (500, Kind::Unavailable, 3),
        (502, Kind::Unavailable, 3),
        (503, Kind::Unavailable, 3),
        (504, Kind::Unavailable, 3),
        (204, Kind::Unavailable, 1),
        (304, Kind::Unavailable, 1),
    ] {
        let server = Server::start(move |_| Reply::new(status)).await;
        let repository = repository(&server, config());
        let error = repository.resolve(&tag("v1")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert_eq!(server.seen().len(), requests, "{status}");
        let text = error.to_string();
        assert!(text.contains(&format!("with {status}")), "{text}");
        assert!(text.contains("`HEAD /v2/a/b/manifests/v1`"), "{text}");
        assert!(repository.has_blob(&super::blob(b"x")).await.is_err());
    }
    let server = Server::start(|_| Reply::new(404)).await;
    let repository = repository(&server, config());
    assert_eq!(repository.resolve(&tag("v1")).await.unwrap(), None);
    assert!(!repository.has_blob(&super::blob(b"x")).await.unwrap());
    let error = repository.fetch_manifest(&tag("v1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_registry_that_is_not_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let name = format!("{address}/a").parse().unwrap();
    let repository = client(config()).repository(&name).unwrap();
    let error = repository.resolve(&tag("v1")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (Kind::Unavailable, true)
    );
    let text = chain(&error);
    assert!(text.contains("cannot connect to `127.0.0.1:"), "{text}");
    assert!(text.contains("(3 attempts): Connection refused"), "{text}");
    assert!(error.hint().unwrap().contains("running"));
}

#[tokio::test]
async fn servers_that_take_their_time() {
    for reply in [
        Reply::silent(),
        // The beginning of a manifest, a byte at a time.
        Reply::new(200).body("{").dribble(100_000),
        Reply::new(200).body("{").hang(MANIFEST.len()),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let repository = repository(&server, impatient());
        let error = repository.fetch_manifest(&tag("v1")).await.unwrap_err();
        assert!(error.to_string().contains("too slow"), "{error}");
        assert!(error.to_string().ends_with("(2 attempts)"), "{error}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn tls_and_plain_http_are_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    // Not loopback by its text, so it is spoken to with TLS; Linux connects it to loopback.
    let name = format!("0.0.0.0:{port}/a").parse().unwrap();
    let plain = client(config()).repository(&name).unwrap();
    let error = plain.resolve(&tag("v1")).await.unwrap_err();
    let (text, hint) = (error.to_string(), error.hint().unwrap());
    assert!(text.contains("does not speak TLS"), "{text}");
    assert!(
        hint.contains(&format!("--insecure-registry 0.0.0.0:{port}")),
        "{hint}"
    );
    assert!(!error.is_retryable());
    server.abort();

    let reply = "Client sent an HTTP request to an HTTPS server.\n";
    let server = Server::start(move |_| Reply::new(400).body(reply)).await;
    let error = repository(&server, config())
        .fetch_manifest(&tag("v1"))
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("speaks TLS"), "{error}");
}

#[tokio::test]
async fn passing_failures_are_passed_over() {
    for failing in [
        Reply::new(503),
        Reply::new(500).body("<html>"),
        Reply::new(429).header("Retry-After", "0"),
        Reply::new(429).header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"),
        Reply::hang_up(),
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        Reply::raw("SSH-2.0-OpenSSH\r\n"),
    ] {
        let count = AtomicU32::new(0);
        let shown = format!("{failing:?}");
        let server = Server::start(move |seen| match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => failing.clone(),
            _ => good(seen),
        })
        .await;
        let repository = repository(&server, config());
        let got = repository.fetch_manifest(&tag("v1")).await;
        assert_eq!(got.unwrap(), manifest(MANIFEST), "{shown}");
        let stats = repository.client().stats();
        assert_eq!((stats.requests, stats.retries), (3, 2), "{shown}");
    }
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_not_waited() {
    let server = Server::start(|_| Reply::new(429).header("Retry-After", "21600")).await;
    let error = repository(&server, config())
        .resolve(&tag("v1"))
        .await
        .unwrap_err();
    assert_eq!(server.seen().len(), 1);
    assert!(error.hint().unwrap().contains("wait 21600 s"), "{error}");
}

#[tokio::test]
async fn the_observer_hears_of_answers_retries_and_pauses() {
    let events = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&events);
    let observer = move |event: &Event<'_>| {
        log.lock().unwrap().push(match event {
            Event::Answered { status, .. } => format!("answered {status}"),
            Event::Retrying { .. } => "retrying".to_owned(),
            Event::Paused { .. } => "paused".to_owned(),
            other => format!("{other:?}"),
        });
    };
    let config = RegistryConfig {
        observer: Some(std::sync::Arc::new(observer)),
        ..config()
    };
    let count = AtomicU32::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(429).header("Retry-After", "0"),
        _ => Reply::new(404),
    })
    .await;
    let absent = repository(&server, config).resolve(&tag("v1")).await;
    assert_eq!(absent.unwrap(), None);
    let events = events.lock().unwrap().clone();
    assert_eq!(
        events,
        ["answered 429", "retrying", "paused", "answered 404"]
    );
}

#[tokio::test]
async fn one_head_is_enough_and_get_fills_gaps() {
    let media_type = ("Content-Type", OCI_MANIFEST);
    let digest_header = digest(MANIFEST).to_string();
    let digest_header = ("Docker-Content-Digest", digest_header.as_str());
    for (headers, length, requests) in [
        (vec![media_type, digest_header], MANIFEST.len(), 1),
        (vec![media_type], MANIFEST.len(), 2),
        (vec![digest_header], MANIFEST.len(), 2),
        (vec![media_type, digest_header], 0, 2),
        (vec![media_type, ("Docker-Content-Digest", "md5:12")], 9, 2),
        (
            vec![("Content-Type", "application/json"), digest_header],
            9,
            2,
        ),
    ] {
        let head = headers
            .iter()
            .fold(Reply::new(200).length(length), |reply, (name, value)| {
                reply.header(name, value)
            });
        let server = Server::start(move |seen| match seen.method.as_str() {
            "HEAD" => head.clone(),
            _ => good(seen),
        })
        .await;
        let repository = repository(&server, config());
        let found = repository.resolve(&tag("v1")).await.unwrap();
        assert_eq!(found, Some(manifest(MANIFEST).descriptor), "{headers:?}");
        assert_eq!(server.seen().len(), requests, "{headers:?}");
    }
    // No HEAD at all.
    let server = Server::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::new(405),
        _ => good(seen),
    })
    .await;
    let found = repository(&server, config()).resolve(&tag("v1")).await;
    assert_eq!(found.unwrap(), Some(manifest(MANIFEST).descriptor));
}

#[tokio::test]
async fn digests_are_checked() {
    let other = Name::Digest(digest("other"));
    let server = Server::start(good).await;
    let named = repository(&server, config());
    for error in [
        named.resolve(&other).await.unwrap_err(),
        named.fetch_manifest(&other).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("has digest `sha256:"), "{error}");
    }
    // By digest, what HEAD leaves out is known.
    let server = Server::start(|_| {
        Reply::new(200)
            .header("Content-Type", OCI_MANIFEST)
            .length(MANIFEST.len())
    })
    .await;
    let named = repository(&server, config());
    let found = named.resolve(&Name::Digest(digest(MANIFEST))).await;
    assert_eq!(found.unwrap(), Some(manifest(MANIFEST).descriptor));
    assert_eq!(server.seen().len(), 1);
    // By tag, the body must be what the header says.
    let server = Server::start(|_| {
        Reply::new(200)
            .header("Docker-Content-Digest", digest("other").as_str())
            .body(MANIFEST)
    })
    .await;
    let error = repository(&server, config())
        .fetch_manifest(&tag("v1"))
        .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn too_large_manifests_are_not_read() {
    let big = 5 * 1024 * 1024;
    for reply in [
        Reply::new(200).body(vec![b' '; 65536]).endless(),
        Reply::new(200).body("{").hang(50 * 1024 * 1024),
        Reply::new(200).body(vec![b' '; big]),
        Reply::new(200).body(vec![b' '; big]).without_length(),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let fetched = repository(&server, config())
            .fetch_manifest(&tag("v1"))
            .await;
        let text = fetched.unwrap_err().to_string();
        assert!(text.contains("/a/b:v1` is larger than 4 MiB"), "{text}");
    }
    let server = Server::start(move |seen| good(seen).length(big)).await;
    let resolved = repository(&server, config()).resolve(&tag("v1")).await;
    assert!(resolved.unwrap_err().to_string().contains("larger than"));
}

#[tokio::test]
async fn manifests_of_two_kinds_are_refused() {
    for (media_type, body) in [
        (OCI_MANIFEST, r#"{"manifests":[],"layers":[]}"#),
        (OCI_INDEX, MANIFEST),
        (OCI_MANIFEST, "<html>"),
        ("text/html", MANIFEST),
    ] {
        let server = Server::start(move |_| {
            Reply::new(200)
                .header("Content-Type", media_type)
                .body(body)
        })
        .await;
        let fetched = repository(&server, config())
            .fetch_manifest(&tag("v1"))
            .await;
        let error = fetched.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{body}");
        assert!(
            error.to_string().contains("/a/b:v1` is malformed"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn redirects() {
    let elsewhere = Server::start(good).await;
    let target = format!("http://{}/else?sig=hunter2", elsewhere.address());
    let server = Server::start(move |_| Reply::new(307).header("Location", &target)).await;
    let got = repository(&server, config())
        .fetch_manifest(&tag("v1"))
        .await;
    assert_eq!(got.unwrap(), manifest(MANIFEST));
    assert_eq!(elsewhere.seen()[0].target, "/else?sig=hunter2");

    for (location, reason) in [
        (None, "does not say where to"),
        (Some("/loop"), "more than 10 times"),
        (Some("file:///etc/passwd"), "scheme `file`"),
        (Some("http://registry.invalid/x"), "without TLS"),
    ] {
        let server = Server::start(move |_| {
            let reply = Reply::new(302);
            match location {
                Some(location) => reply.header("Location", location),
                None => reply,
            }
        })
        .await;
        let fetched = repository(&server, config())
            .fetch_manifest(&tag("v1"))
            .await;
        let text = fetched.unwrap_err().to_string();
        assert!(text.contains(reason), "{text}");
    }
    // What goes wrong elsewhere is said without the signature.
    let elsewhere = Server::start(|_| Reply::new(403)).await;
    let target = format!("http://{}/else?sig=hunter2", elsewhere.address());
    let server = Server::start(move |_| Reply::new(307).header("Location", &target)).await;
    let error = repository(&server, config())
        .fetch_manifest(&tag("v1"))
        .await;
    let text = format!("{:?}", error.unwrap_err());
    assert!(
        text.contains("/else?…") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn strange_answers() {
    let mut weird = b"HTTP/1.1 404 Not Found\r\nX-Name: \xff\xfe\r\n".to_vec();
    weird.extend_from_slice(b"Docker-Content-Digest: \xff\r\nContent-Length: 0\r\n\r\n");
    let server = Server::start(move |_| Reply::raw(weird.clone())).await;
    let absent = repository(&server, config()).resolve(&tag("v1")).await;
    assert_eq!(absent.unwrap(), None);

    let huge = format!(
        "HTTP/1.1 404 Not Found\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 21)
    );
    let many = format!("HTTP/1.1 404 Not Found\r\n{}\r\n", "X: x\r\n".repeat(5000));
    for raw in [huge, many] {
        let server = Server::start(move |_| Reply::raw(raw.clone())).await;
        let error = repository(&server, config()).resolve(&tag("v1")).await;
        assert_eq!(error.unwrap_err().kind(), Kind::Unavailable);
    }
    for (body, said) in [
        (
            r#"{"errors":[{"code":"DENIED","message":"\u001b[2Jno"}]}"#,
            "DENIED ([2Jno)",
        ),
        (r#"{"errors":"#, "with 403"),
        ("no entry\nsecond line", "no entry"),
        ("<html>nginx", "with 403"),
    ] {
        let server = Server::start(move |_| Reply::new(403).body(body)).await;
        let fetched = repository(&server, config())
            .fetch_manifest(&tag("v1"))
            .await;
        let text = fetched.unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
        assert!(
            !text.contains('\u{1b}') && !text.contains("second"),
            "{text}"
        );
    }
    // An error page without end is cut, not waited for.
    let server = Server::start(|_| Reply::new(403).body("x".repeat(4096)).endless()).await;
    let error = repository(&server, config())
        .fetch_manifest(&tag("v1"))
        .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
}

#[tokio::test]
async fn pushes_are_checked() {
    let pushed = manifest(MANIFEST);
    let ok =
        |digest: String| move |_: &Seen| Reply::new(201).header("Docker-Content-Digest", &digest);
    let server = Server::start(ok(digest(MANIFEST).to_string())).await;
    let named = repository(&server, config());
    named.push_manifest(&pushed).await.unwrap();
    named.tag(&"v1".parse().unwrap(), &pushed).await.unwrap();
    let seen = server.seen();
    assert!(seen[0].is("PUT", &format!("/v2/a/b/manifests/{}", digest(MANIFEST))));
    assert!(seen[1].is("PUT", "/v2/a/b/manifests/v1"));
    for request in &seen {
        assert_eq!(request.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(request.body, MANIFEST.as_bytes());
    }
    assert_eq!(
        named.client().stats().uploaded_bytes,
        2 * MANIFEST.len() as u64
    );

    let server = Server::start(ok(digest("other").to_string())).await;
    let error = repository(&server, config()).push_manifest(&pushed).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Corrupt);

    // Bytes that are not what they say never leave.
    let mut wrong = pushed.clone();
    wrong.descriptor.digest = digest("other");
    let error = repository(&server, config()).push_manifest(&wrong).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(server.seen().len(), 1);

    let server =
        Server::start(|_| Reply::new(400).body(r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#))
            .await;
    let error = repository(&server, config()).push_manifest(&pushed).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .ends_with("MANIFEST_BLOB_UNKNOWN")
    );
}
