//! The check every blob goes through while it is read.
//!
//! Holds at most one piece; never the blob.

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use trilith_core::Digester;

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::store::BlobStream;

struct Verified<S> {
    /// What is still to be read; gone once it has ended.
    inner: Option<S>,
    blob: Descriptor,
    object: String,
    digester: Digester,
    seen: u64,
    /// The last piece so far. It is let go once there is another after it, or once length
    /// and digest are known to be right.
    held: Option<Bytes>,
}

/// Returns `inner` with length and digest checked against `blob`: instead of the last piece
/// there comes an error that calls the content `object`.
pub(crate) fn verified<S>(inner: S, blob: &Descriptor, object: String) -> BlobStream
where
    S: Stream<Item = Result<Bytes, Error>> + Send + Unpin + 'static,
{
    let state = Verified {
        inner: Some(inner),
        blob: blob.clone(),
        object,
        digester: Digester::new(blob.digest.algorithm()),
        seen: 0,
        held: None,
    };
    Box::pin(stream::unfold(Some(state), |state| async {
        let mut state = state?;
        match state.next().await {
            Some(Ok(piece)) => Some((Ok(piece), Some(state))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    }))
}

impl<S> Verified<S>
where
    S: Stream<Item = Result<Bytes, Error>> + Unpin,
{
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        while let Some(piece) = self.inner.as_mut()?.next().await {
            let piece = match piece {
                Ok(piece) if piece.is_empty() => continue,
                Ok(piece) => piece,
                Err(error) => return Some(Err(error)),
            };
            self.seen += piece.len() as u64;
            if self.seen > self.blob.size {
                return Some(Err(self.wrong_size()));
            }
            // Pieces are small (a few hundred KiB at most): hashing one does not hold up the
            // other tasks of the thread.
            self.digester.update(&piece);
            if let Some(previous) = self.held.replace(piece) {
                return Some(Ok(previous));
            }
        }
        self.inner = None;
        if self.seen != self.blob.size {
            return Some(Err(self.wrong_size()));
        }
        let actual = std::mem::take(&mut self.digester).finish();
        if actual == self.blob.digest {
            return self.held.take().map(Ok);
        }
        Some(Err(Error::DigestMismatch {
            object: self.object.clone(),
            expected: self.blob.digest.clone(),
            actual,
        }))
    }

    fn wrong_size(&self) -> Error {
        Error::SizeMismatch {
            object: self.object.clone(),
            expected: self.blob.size,
            actual: self.seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use trilith_core::Digest;

    use super::*;

    async fn read(pieces: &[&'static str], blob: &Descriptor) -> (Vec<u8>, Option<String>) {
        let pieces: Vec<Result<Bytes, Error>> = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .collect();
        let mut stream = verified(stream::iter(pieces), blob, "blob".to_owned());
        let mut read = Vec::new();
        loop {
            match stream.try_next().await {
                Ok(Some(piece)) => read.extend_from_slice(&piece),
                Ok(None) => return (read, None),
                Err(error) => {
                    assert!(stream.next().await.is_none());
                    return (read, Some(error.to_string()));
                }
            }
        }
    }

    #[tokio::test]
    async fn content_is_checked_before_its_last_piece() {
        let abc = Descriptor::of("x", b"abc");
        let nothing = Descriptor::of("x", b"");
        for (pieces, blob, expected, error) in [
            (&["abc"][..], &abc, "abc", None),
            (&["a", "", "b", "c", ""], &abc, "abc", None),
            (&[], &nothing, "", None),
            (&[""], &nothing, "", None),
            (&["a", "b"], &abc, "a", Some("blob has 2 bytes, not 3")),
            (&["ab", "cd"], &abc, "", Some("blob has 4 bytes, not 3")),
            (&["abc", "d"], &abc, "", Some("blob has 4 bytes, not 3")),
            (&[], &abc, "", Some("blob has 0 bytes, not 3")),
            (&["a", "bd"], &abc, "a", Some("blob has digest")),
            (&["x"], &nothing, "", Some("blob has 1 bytes, not 0")),
        ] {
            let (read, got) = read(pieces, blob).await;
            assert_eq!(read, expected.as_bytes(), "{pieces:?}");
            assert_eq!(got.is_some(), error.is_some(), "{pieces:?}");
            assert!(got.unwrap_or_default().contains(error.unwrap_or_default()));
        }
    }

    #[tokio::test]
    async fn other_algorithms() {
        let mut digester = Digester::new(trilith_core::Algorithm::Sha512);
        digester.update(b"abc");
        let blob = Descriptor::new("x", digester.finish(), 3);
        assert_eq!(read(&["abc"], &blob).await.1, None);
        let empty = Descriptor::new("x", Digest::of(b"y"), 0);
        assert!(read(&[], &empty).await.1.is_some());
    }
}
