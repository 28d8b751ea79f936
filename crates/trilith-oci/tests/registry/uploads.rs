//! Uploads to registries that fail in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use trilith_oci::registry::RegistryConfig;
use trilith_oci::{BlobSource, ImageStore, Kind, Mount};

use super::server::{Reply, Seen, Server};
use super::{PASSWORD, blob, client, config, credentials, digest, impatient, repository};

const UPLOADS: &str = "/v2/a/b/blobs/uploads/";

fn memory(content: &'static [u8]) -> BlobSource {
    BlobSource::Memory(Bytes::from_static(content))
}

/// A registry without any blob that answers the `PUT`s of uploads with `put`, given their number.
async fn taking(put: impl Fn(u32, &Seen) -> Reply + Send + Sync + 'static) -> Server {
    let (posts, puts) = (AtomicU32::new(0), AtomicU32::new(0));
    Server::start(move |seen| match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => {
            let number = posts.fetch_add(1, Ordering::SeqCst) + 1;
            Reply::new(202).header("Location", &format!("/up/{number}?_state=a%2Fb%3D"))
        }
        "PUT" => put(puts.fetch_add(1, Ordering::SeqCst) + 1, seen),
        _ => Reply::new(204),
    })
    .await
}

fn requests(server: &Server) -> Vec<String> {
    let digest = blob(b"content").digest.to_string();
    server
        .seen()
        .iter()
        .map(|seen| {
            let target = seen.target.replace(&digest, "DIGEST");
            let target = target.replace(&digest.replace(':', "%3A"), "DIGEST");
            format!("{} {target}", seen.method)
        })
        .collect()
}

/// Opens an upload and asks whether the blob is there, in one.
const ASK: &str = "POST /v2/a/b/blobs/uploads/?mount=DIGEST&from=a%2Fb";
const HEAD: &str = "HEAD /v2/a/b/blobs/DIGEST";
const POST: &str = "POST /v2/a/b/blobs/uploads/";

#[tokio::test]
async fn one_post_and_one_put() {
    let server = taking(|_, _| Reply::new(201)).await;
    let repository = repository(&server, config());
    let pushed = blob(b"content");
    repository
        .push_blob(&pushed, memory(b"content"))
        .await
        .unwrap();
    let put = "PUT /up/1?_state=a%2Fb%3D&digest=DIGEST";
    assert_eq!(requests(&server), [ASK, put]);
    let seen = server.seen();
    assert_eq!(seen[0].header("content-length"), Some("0"));
    assert_eq!(seen[1].header("content-length"), Some("7"));
    assert_eq!(seen[1].header("transfer-encoding"), None);
    assert_eq!(
        seen[1].header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(seen[1].body, b"content");
    assert_eq!(repository.client().stats().uploaded_bytes, 7);
}

#[tokio::test]
async fn nothing_is_sent_that_is_there() {
    let server = Server::start(|_| Reply::new(201)).await;
    let repository = repository(&server, config());
    repository
        .push_blob(&blob(b"content"), memory(b"content"))
        .await
        .unwrap();
    assert_eq!(requests(&server), [ASK]);
    assert_eq!(repository.client().stats().uploaded_bytes, 0);
}

#[tokio::test]
async fn empty_blobs() {
    let server = taking(|_, _| Reply::new(201)).await;
    let repository = repository(&server, config());
    repository.push_blob(&blob(b""), memory(b"")).await.unwrap();
    assert_eq!(server.seen()[1].header("content-length"), Some("0"));
}

#[tokio::test]
async fn files_and_stores() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blob");
    // More than a piece, and not a multiple of it.
    let content: Vec<u8> = (0..200_001_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &content).unwrap();
    let server = taking(|_, _| Reply::new(201)).await;
    let target = repository(&server, config());
    target
        .push_blob(&blob(&content), BlobSource::File(path))
        .await
        .unwrap();
    assert!(server.seen()[2].body == content);

    // Within one registry that takes one request at a time.
    let stored = content.clone();
    let server = Server::start(move |seen| match (seen.method.as_str(), &seen.target) {
        ("GET", _) => Reply::new(200).body(stored.clone()),
        ("HEAD", _) => Reply::new(404),
        ("POST", _) => Reply::new(202).header("Location", "/up"),
        _ => Reply::new(201),
    })
    .await;
    let one = client(RegistryConfig {
        concurrency: 1,
        ..config()
    });
    let from = one.repository(&server.repository("from")).unwrap();
    let to = one.repository(&server.repository("to")).unwrap();
    let layer = blob(&content);
    let source = BlobSource::Store(Arc::new(from));
    let pushes = (0..4).map(|_| to.push_blob(&layer, source.clone()));
    futures_util::future::try_join_all(pushes).await.unwrap();
    let seen = server.seen();
    let put = seen.iter().find(|seen| seen.method == "PUT").unwrap();
    assert!(put.body == content);
}

#[tokio::test]
async fn passing_failures_begin_a_new_upload() {
    let code = |code: &str| format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
    for failing in [
        Reply::new(500),
        Reply::new(503),
        Reply::new(429).header("Retry-After", "0"),
        Reply::new(404).body(code("BLOB_UPLOAD_UNKNOWN")),
        Reply::new(400).body(code("BLOB_UPLOAD_INVALID")),
        Reply::new(400).body(code("DIGEST_INVALID")),
        Reply::new(416),
        Reply::hang_up(),
    ] {
        let shown = format!("{failing:?}");
        let server = taking(move |number, _| match number {
            1 => failing.clone(),
            _ => Reply::new(201),
        })
        .await;
        let repository = repository(&server, config());
        repository
            .push_blob(&blob(b"content"), memory(b"content"))
            .await
            .unwrap();
        let expected = [
            ASK,
            "PUT /up/1?_state=a%2Fb%3D&digest=DIGEST",
            "DELETE /up/1?_state=a%2Fb%3D",
            HEAD,
            POST,
            "PUT /up/2?_state=a%2Fb%3D&digest=DIGEST",
        ];
        assert_eq!(requests(&server), expected, "{shown}");
        assert_eq!(server.seen()[5].body, b"content");
    }
}

#[tokio::test]
async fn lasting_failures_are_given_up_and_cleared_away() {
    for (status, puts, kind) in [
        (500, 3, Kind::Unavailable),
        (403, 1, Kind::Denied),
        (413, 1, Kind::Unavailable),
        (401, 1, Kind::Denied),
        (202, 1, Kind::Unavailable),
        (307, 1, Kind::Unavailable),
    ] {
        let server = taking(move |_, _| Reply::new(status)).await;
        let repository = repository(&server, config());
        let pushed = repository
            .push_blob(&blob(b"content"), memory(b"content"))
            .await;
        let error = pushed.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(error.to_string().contains("`PUT /up/"), "{error}");
        assert_eq!(server.count("PUT", "/up/"), puts, "{status}");
        assert_eq!(server.count("DELETE", "/up/"), puts, "{status}");
    }
}

#[tokio::test]
async fn an_upload_that_arrived_is_not_sent_again() {
    let arrived = Arc::new(AtomicBool::new(false));
    let server = Server::start(move |seen| match seen.method.as_str() {
        "HEAD" if arrived.load(Ordering::SeqCst) => Reply::new(200),
        "POST" => Reply::new(202).header("Location", "/up"),
        "PUT" => {
            arrived.store(true, Ordering::SeqCst);
            Reply::hang_up()
        }
        _ => Reply::new(404),
    })
    .await;
    let repository = repository(&server, config());
    repository
        .push_blob(&blob(b"content"), memory(b"content"))
        .await
        .unwrap();
    assert_eq!(server.count("PUT", "/up"), 1);
}

#[tokio::test]
async fn registries_that_stop_reading_or_answering() {
    // Reads all and never answers.
    let server = taking(|_, _| Reply::silent()).await;
    let pushed = repository(&server, impatient())
        .push_blob(&blob(b"content"), memory(b"content"))
        .await;
    assert!(pushed.unwrap_err().to_string().contains("too slow"));

    // Stops reading in the middle.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/up", listener.local_addr().unwrap());
    let deaf = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let server = Server::start(move |seen| match seen.method.as_str() {
        "POST" => Reply::new(202).header("Location", &location),
        _ => Reply::new(404),
    })
    .await;
    let content: Vec<u8> = vec![7; 64 << 20];
    let pushed = repository(&server, impatient())
        .push_blob(&blob(&content), BlobSource::Memory(Bytes::from(content)))
        .await;
    let error = pushed.unwrap_err();
    assert!(error.to_string().contains("too slow"), "{error}");
    deaf.abort();
}

#[tokio::test]
async fn what_the_registry_says_it_stored_is_compared() {
    let other = digest("other").to_string();
    let server = taking(move |_, _| Reply::new(201).header("Docker-Content-Digest", &other)).await;
    let pushed = repository(&server, config())
        .push_blob(&blob(b"content"), memory(b"content"))
        .await;
    assert_eq!(pushed.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn wrong_content_never_arrives_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blob");
    std::fs::write(&path, "CONTENT").unwrap();
    let short = directory.path().join("short");
    std::fs::write(&short, "conte").unwrap();
    for (source, reason) in [
        (memory(b"CONTENT"), "has digest"),
        (memory(b"cont"), "has 4 bytes, not 7"),
        (memory(b"content and more"), "has 16 bytes, not 7"),
        (BlobSource::File(path), "blob` has digest"),
        (BlobSource::File(short), "short` has 5 bytes, not 7"),
        (
            BlobSource::File(directory.path().join("none")),
            "cannot open",
        ),
        (BlobSource::File(directory.path().into()), "cannot read"),
    ] {
        let server = taking(|_, _| Reply::new(201)).await;
        let pushed = repository(&server, config())
            .push_blob(&blob(b"content"), source)
            .await;
        let error = pushed.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(server.count("PUT", "/"), 0, "{reason}");
        // The upload, where one was opened, was given up.
        let opened = server.count("POST", "/");
        assert_eq!(server.count("DELETE", "/up/"), opened, "{reason}");
    }
}

#[tokio::test]
async fn locations() {
    let directory = tempfile::tempdir().unwrap();
    // Absolute, and on another host: no credentials go there.
    let elsewhere = Server::start(|_| Reply::new(201)).await;
    let location = format!("http://{}/s3?sig=x", elsewhere.address());
    let server = Server::start(move |seen| match seen.header("authorization") {
        None => Reply::new(401).header("WWW-Authenticate", "Basic"),
        Some(_) if seen.method == "POST" => Reply::new(202).header("Location", &location),
        Some(_) => Reply::new(404),
    })
    .await;
    let config = RegistryConfig {
        credentials: credentials(directory.path(), &server.address(), PASSWORD),
        ..config()
    };
    let repository_ = repository(&server, config.clone());
    repository_
        .push_blob(&blob(b"content"), memory(b"content"))
        .await
        .unwrap();
    let seen = elsewhere.seen();
    assert_eq!(seen[0].header("authorization"), None);
    assert!(
        seen[0].target.starts_with("/s3?sig=x&digest=sha256"),
        "{}",
        seen[0].target
    );
    assert_eq!(seen[0].body, b"content");

    for (location, reason) in [
        (None, "names no upload location"),
        (Some("http://registry.invalid/up"), "without TLS"),
        (Some("ftp://x/y"), "scheme `ftp`"),
    ] {
        let server = Server::start(move |seen| match (seen.method.as_str(), location) {
            ("POST", Some(location)) => Reply::new(202).header("Location", location),
            ("POST", None) => Reply::new(202),
            _ => Reply::new(404),
        })
        .await;
        let pushed = repository(&server, config.clone())
            .push_blob(&blob(b"content"), memory(b"content"))
            .await;
        let error = pushed.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn mounts() {
    for (status, expected) in [
        (201, Mount::Mounted),
        (202, Mount::Declined),
        (400, Mount::Declined),
        (401, Mount::Declined),
        (403, Mount::Declined),
        (404, Mount::Declined),
        (405, Mount::Declined),
        (500, Mount::Declined),
    ] {
        let server = Server::start(move |_| Reply::new(status)).await;
        let from = server.repository("base");
        let repository = repository(&server, config());
        let mounted = repository.mount_blob(&blob(b"content"), &from).await;
        assert_eq!(mounted.unwrap(), expected, "{status}");
        let target = &server.seen()[0].target;
        assert!(
            target.starts_with(&format!("{UPLOADS}?mount=sha256%3A")),
            "{target}"
        );
        assert!(target.ends_with("&from=base"), "{target}");
    }
    // Too many requests, and no answer, are no refusal.
    for reply in [Reply::new(429), Reply::hang_up()] {
        let server = Server::start(move |_| reply.clone()).await;
        let from = server.repository("base");
        let mounted = repository(&server, config())
            .mount_blob(&blob(b"x"), &from)
            .await;
        assert!(mounted.unwrap_err().is_retryable());
    }
    let server = Server::start(|_| Reply::new(200)).await;
    let repository = repository(&server, config());
    let elsewhere = "registry.invalid/base".parse().unwrap();
    let mounted = repository.mount_blob(&blob(b"x"), &elsewhere).await;
    assert_eq!(mounted.unwrap(), Mount::Declined);
    assert!(server.seen().is_empty());
    let mounted = repository
        .mount_blob(&blob(b"x"), &server.repository("a/b"))
        .await;
    assert_eq!(mounted.unwrap(), Mount::Mounted);
    assert_eq!(server.count("HEAD", "/v2/a/b/blobs/"), 1);
}

#[tokio::test]
async fn the_upload_of_a_declined_mount_is_used() {
    let server = taking(|_, _| Reply::new(201)).await;
    let repository = repository(&server, config());
    let pushed = blob(b"content");
    let from = server.repository("base");
    let mounted = repository.mount_blob(&pushed, &from).await.unwrap();
    assert_eq!(mounted, Mount::Declined);
    repository
        .push_blob(&pushed, memory(b"content"))
        .await
        .unwrap();
    let mount = "POST /v2/a/b/blobs/uploads/?mount=DIGEST&from=base";
    let put = "PUT /up/1?_state=a%2Fb%3D&digest=DIGEST";
    assert_eq!(requests(&server), [mount, put]);

    // One that has gone stale is replaced; one that cannot be filled is given up.
    let server = taking(|number, _| Reply::new(if number == 1 { 404 } else { 201 })).await;
    let repository = super::repository(&server, config());
    repository
        .mount_blob(&pushed, &from_of(&server))
        .await
        .unwrap();
    repository
        .push_blob(&pushed, memory(b"content"))
        .await
        .unwrap();
    assert_eq!(server.count("PUT", "/up/2"), 1);

    let other = blob(b"other");
    repository
        .mount_blob(&other, &from_of(&server))
        .await
        .unwrap();
    let missing = BlobSource::File("/nonexistent/blob".into());
    repository.push_blob(&other, missing).await.unwrap_err();
    assert_eq!(server.count("DELETE", "/up/3"), 1);

    // Nor does a second mount leave the upload of the first behind.
    for _ in 0..2 {
        repository
            .mount_blob(&other, &from_of(&server))
            .await
            .unwrap();
    }
    assert_eq!(server.count("DELETE", "/up/4"), 1);
    assert_eq!(server.count("DELETE", "/up/5"), 0);
}

fn from_of(server: &Server) -> trilith_core::Repository {
    server.repository("base")
}

#[tokio::test]
async fn a_token_that_ends_during_an_upload() {
    let tokens = AtomicU32::new(0);
    let server = Server::start_with(|address| {
        let challenge = format!(r#"Bearer realm="http://{address}/token""#);
        move |seen: &Seen| {
            if seen.target.starts_with("/token") {
                let number = tokens.fetch_add(1, Ordering::SeqCst);
                return Reply::new(200).body(format!(r#"{{"token":"t{number}"}}"#));
            }
            let token = seen.header("authorization");
            match (seen.method.as_str(), token) {
                (_, None) | ("PUT", Some("Bearer t0")) => {
                    Reply::new(401).header("WWW-Authenticate", &challenge)
                }
                ("HEAD", _) => Reply::new(404),
                ("POST", _) => Reply::new(202).header("Location", "/up"),
                _ => Reply::new(201),
            }
        }
    })
    .await;
    let repository = repository(&server, config()).for_writing();
    repository
        .push_blob(&blob(b"content"), memory(b"content"))
        .await
        .unwrap();
    assert_eq!(server.count("GET", "/token"), 2);
    assert_eq!(server.count("PUT", "/up"), 2);
}
