//! Contexts sent while they are made.

use std::fs;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream as _;
use trilith_build::build_context::{BuildContextError, ContextStream};
use trilith_oci::layer::Compression;

use crate::support::{lay_out, load, write};

async fn next(stream: &mut ContextStream) -> Option<Result<Bytes, BuildContextError>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

#[tokio::test]
async fn the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let large = "x".repeat(3_000_000);
    lay_out(
        root.path(),
        &[("Dockerfile", ""), ("large", &large), ("small", "x")],
    );
    let context = Arc::new(load(root.path()).unwrap());
    let (archive, expected) = write(&context);

    let mut stream = Arc::clone(&context).stream(Compression::None);
    let mut received = Vec::new();
    assert_eq!(stream.archive(), None);
    while let Some(piece) = next(&mut stream).await {
        let piece = piece.unwrap();
        assert!(!piece.is_empty() && piece.len() <= 128 * 1024);
        received.extend_from_slice(&piece);
    }
    assert!(received == expected);
    assert_eq!(stream.archive(), Some(&archive));
}

#[tokio::test]
async fn an_error_is_the_last_item() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), &[("Dockerfile", ""), ("a", "x"), ("z", "z")]);
    let context = Arc::new(load(root.path()).unwrap());
    fs::write(root.path().join("z"), "y").unwrap();
    let mut stream = Arc::clone(&context).stream(Compression::None);
    let mut last = None;
    while let Some(item) = next(&mut stream).await {
        assert!(!matches!(last, Some(Err(_))));
        last = Some(item);
    }
    let error = last.unwrap().unwrap_err();
    assert!(
        matches!(error, BuildContextError::Changed { .. }),
        "{error}"
    );
    assert_eq!(stream.archive(), None);
}

#[tokio::test]
async fn nobody_listens_any_more() {
    let root = tempfile::tempdir().unwrap();
    let large = "x".repeat(10_000_000);
    lay_out(root.path(), &[("Dockerfile", ""), ("large", &large)]);
    let context = Arc::new(load(root.path()).unwrap());
    let mut stream = Arc::clone(&context).stream(Compression::None);
    next(&mut stream).await.unwrap().unwrap();
    drop(stream);
    // The work ends, and with it its hold on the context.
    while Arc::strong_count(&context) > 1 {
        tokio::task::yield_now().await;
    }
}
