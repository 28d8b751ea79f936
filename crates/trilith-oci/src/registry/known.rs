//! Blobs that this process has brought to a registry, or found there.
//!
//! So a blob of many images is asked for once and travels once, however many are published at the
//! same time and to how many of the registry's repositories.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;
use trilith_core::Digest;

use super::host::lock;

/// What is known of the blobs of one registry.
#[derive(Debug, Default)]
pub(crate) struct KnownBlobs {
    /// The paths of the repositories that have a blob.
    places: Mutex<HashMap<Digest, BTreeSet<Arc<str>>>>,
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl KnownBlobs {
    /// Waits until nobody else in this process brings the blob `digest` anywhere.
    pub(crate) async fn turn(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            let known = turns.get(digest).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                turns.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                turns.insert(digest.clone(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Returns whether the repository at `path` has the blob.
    pub(crate) fn has(&self, path: &str, digest: &Digest) -> bool {
        let places = lock(&self.places);
        places.get(digest).is_some_and(|paths| paths.contains(path))
    }

    /// Returns the path of another repository that has the blob.
    pub(crate) fn elsewhere(&self, path: &str, digest: &Digest) -> Option<Arc<str>> {
        let places = lock(&self.places);
        let mut paths = places.get(digest)?.iter();
        paths.find(|known| &***known != path).cloned()
    }

    /// Remembers that the repository at `path` has the blob.
    pub(crate) fn add(&self, path: &str, digest: &Digest) {
        let mut places = lock(&self.places);
        places
            .entry(digest.clone())
            .or_default()
            .insert(path.into());
    }

    /// Forgets what the repository at `path` has, as it turned out not to have something.
    pub(crate) fn forget(&self, path: &str) {
        lock(&self.places).retain(|_, paths| {
            paths.remove(path);
            !paths.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn blobs_are_known_by_repository() {
        let known = KnownBlobs::default();
        let digest = Digest::of(b"layer");
        known.add("a", &digest);
        assert!(known.has("a", &digest) && !known.has("b", &digest));
        assert_eq!(known.elsewhere("b", &digest).as_deref(), Some("a"));
        assert_eq!(known.elsewhere("a", &digest), None);
        known.forget("a");
        assert!(!known.has("a", &digest));
    }

    #[tokio::test]
    async fn one_blob_is_brought_by_one_task_at_a_time() {
        let known = KnownBlobs::default();
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let held = known.turn(&one).await;
        let _other = known.turn(&other).await;
        let waiting = known.turn(&one);
        let mut waiting = std::pin::pin!(waiting);
        assert!((&mut waiting).now_or_never().is_none());
        drop(held);
        waiting.await;
    }
}
