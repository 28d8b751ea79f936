//! Downloads that break off, lie or never end.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use trilith_oci::{Descriptor, ImageStore, Kind};

use super::server::{Reply, Seen, Server};
use super::{blob, config, content, impatient, repository};

fn text() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_be_bytes).collect()
}

/// Returns where a request's `Range` begins.
fn start(seen: &Seen) -> Option<usize> {
    let range = seen.header("range")?.strip_prefix("bytes=")?;
    range.strip_suffix('-')?.parse().ok()
}

#[tokio::test]
async fn content_is_checked() {
    let text = text();
    let mut flipped = text.clone();
    flipped[0] ^= 1;
    let longer = [text.clone(), b"x".to_vec()].concat();
    for (reply, expected) in [
        (Reply::new(200).body(text.clone()), None),
        (Reply::new(200).body(text.clone()).without_length(), None),
        (
            Reply::new(200).body(flipped.clone()),
            Some("has digest `sha256:"),
        ),
        (
            Reply::new(200).body(longer.clone()),
            Some("has 400001 bytes, not 400000"),
        ),
        (
            Reply::new(200).body(longer).without_length(),
            Some("bytes, not 400000"),
        ),
        (
            Reply::new(200).body("short"),
            Some("has 5 bytes, not 400000"),
        ),
        (
            Reply::new(200).body(vec![0; 4096]).endless(),
            Some("bytes, not 400000"),
        ),
        (Reply::new(404), Some("` does not exist")),
        (Reply::new(403), Some("with 403")),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let repository = repository(&server, config());
        let got = match repository.fetch_blob(&blob(&text)).await {
            Ok(stream) => content(stream).await,
            Err(error) => Err(error),
        };
        match (got, expected) {
            (Ok(got), None) => assert_eq!(got, text),
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (got, _) => panic!("{expected:?}: {:?}", got.map(|got| got.len())),
        }
    }
}

#[tokio::test]
async fn a_wrong_digest_comes_instead_of_the_last_piece() {
    let text = text();
    let mut flipped = text.clone();
    flipped[399_999] ^= 1;
    let server = Server::start(move |_| Reply::new(200).body(flipped.clone())).await;
    let repository = repository(&server, config());
    let mut stream = repository.fetch_blob(&blob(&text)).await.unwrap();
    let mut received = 0;
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(piece) => received += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(received < text.len());
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn cut_downloads_are_taken_up_where_they_broke() {
    for ranges in [true, false] {
        let whole = text();
        let stored = whole.clone();
        let count = AtomicU32::new(0);
        let server = Server::start(move |seen| {
            let from = start(seen).filter(|_| ranges).unwrap_or(0);
            let rest = &stored[from..];
            let reply = Reply::new(if from > 0 { 206 } else { 200 })
                .header("Content-Range", &format!("bytes {from}-399999/400000"));
            // Twice a third of what is left, then all of it.
            match count.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => reply.body(&rest[..rest.len() / 3]).cut(rest.len()),
                _ => reply.body(rest),
            }
        })
        .await;
        let repository = repository(&server, config());
        let stream = repository.fetch_blob(&blob(&whole)).await.unwrap();
        assert_eq!(content(stream).await.unwrap(), whole, "ranges: {ranges}");
        let seen = server.seen();
        assert_eq!(seen.len(), 3);
        assert_eq!(start(&seen[1]), Some(133_333));
        assert_eq!(repository.client().stats().retries, 2);
    }
}

#[tokio::test]
async fn downloads_that_cannot_be_taken_up() {
    let text = text();
    for (second, expected) in [
        (Reply::hang_up(), "(3 attempts)"),
        (Reply::new(200).cut(400_000), "(3 attempts)"),
        (
            Reply::new(206).header("Content-Range", "bytes 0-9/10"),
            "another range than from byte 1000 on",
        ),
        (Reply::new(206), "another range"),
        (Reply::new(416), "with 416"),
        (Reply::new(404), "does not exist"),
    ] {
        let first = Reply::new(200).body(&text[..1000]).cut(400_000);
        let count = AtomicU32::new(0);
        let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => first.clone(),
            _ => second.clone(),
        })
        .await;
        let repository = repository(&server, config());
        let stream = repository.fetch_blob(&blob(&text)).await.unwrap();
        let error = content(stream).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn downloads_that_stall() {
    let text = text();
    for reply in [
        Reply::new(200).body("x").dribble(400_000),
        Reply::new(200).body("x").hang(400_000),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let repository = repository(&server, impatient());
        let stream = repository.fetch_blob(&blob(&text)).await.unwrap();
        let error = content(stream).await.unwrap_err();
        assert!(
            error.to_string().contains("next to nothing came"),
            "{error}"
        );
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn signed_addresses_get_no_authorization() {
    let text = text();
    let stored = text.clone();
    let elsewhere = Server::start(move |_| Reply::new(200).body(stored.clone())).await;
    let target = format!("http://{}/blob?X-Amz-Signature=s", elsewhere.address());
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some(_) => Reply::new(307).header("Location", &target),
        None => Reply::new(401).header("WWW-Authenticate", "Basic"),
    })
    .await;
    let config = trilith_oci::registry::RegistryConfig {
        credentials: super::credentials(directory.path(), &server.address(), super::PASSWORD),
        ..config()
    };
    let stream = repository(&server, config).fetch_blob(&blob(&text)).await;
    assert_eq!(content(stream.unwrap()).await.unwrap(), text);
    assert_eq!(elsewhere.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn foreign_layers_are_named_and_not_fetched() {
    let elsewhere = Server::start(|_| Reply::new(200).body("layer")).await;
    let foreign = Descriptor {
        urls: vec![format!("http://{}/layer?key=hunter2", elsewhere.address())],
        ..blob(b"layer")
    };
    let server = Server::start(|_| Reply::new(404)).await;
    let fetched = repository(&server, config()).fetch_blob(&foreign).await;
    let error = fetched.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    let text = error.to_string();
    assert!(
        text.contains("foreign layer") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(elsewhere.seen().is_empty());
    // A registry that has it serves it.
    let server = Server::start(|_| Reply::new(200).body("layer")).await;
    let stream = repository(&server, config()).fetch_blob(&foreign).await;
    assert_eq!(content(stream.unwrap()).await.unwrap(), b"layer");
}
