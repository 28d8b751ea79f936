//! The question that a build is about to ask, asked while it still reads its files.
//!
//! Most builds find that nothing has changed since the last one on this machine. The tag that they
//! will look up is then known before anything is hashed, and the registry's answer travels
//! meanwhile. Where something has changed, the answer is thrown away.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;
use trilith_core::{Digest, Reference, Repository, Strategy, Tag};
use trilith_oci::{Descriptor, Error, ImageStore, Name};

use crate::build::BuildOptions;
use crate::context::Context;
use crate::records::LastBuild;
use crate::settings::Settings;
use crate::target::Destination;

type Answer = Result<Option<Descriptor>, Error>;

/// How often others have to be given their turn until a request is on its way: it is begun, its
/// connection is there, it is written.
const TURNS: usize = 4;

/// One tag of a registry, asked for before it is known to matter.
pub(crate) struct Ahead {
    last: LastBuild,
    tag: Tag,
    asking: Mutex<Option<JoinHandle<Answer>>>,
}

impl Ahead {
    /// Asks for the tag of the last build of the project, where this one goes to the same
    /// repository and may reuse what is there.
    pub(crate) fn ask(
        context: &Context,
        settings: &Settings,
        repository: &Repository,
        options: &BuildOptions,
    ) -> Option<Self> {
        let may_reuse = !options.plan.force && options.plan.strategy != Strategy::Scratch;
        if options.destination != Destination::Registry || !may_reuse {
            return None;
        }
        let last = context.records().last_build(&settings.project)?;
        let reference: Reference = last.reference.parse().ok()?;
        let tag = reference.tag();
        let tag = tag.filter(|_| reference.repository() == repository)?;
        let store = context.registry.repository(repository).ok()?.for_writing();
        let name = Name::Tag(tag.clone());
        let asking = tokio::spawn(async move { store.resolve(&name).await });
        Some(Self {
            tag: tag.clone(),
            last,
            asking: Mutex::new(Some(asking)),
        })
    }

    /// Lets the question go out before its thread is kept busy.
    pub(crate) async fn depart(&self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    /// Returns whether the last build came to the image `digest` at `reference` too.
    pub(crate) fn was(&self, reference: &Reference, digest: &Digest) -> bool {
        self.last.digest == *digest && self.last.reference == reference.to_string()
    }

    /// Returns the answer, once, if `tag` was asked for.
    pub(crate) async fn answer(&self, tag: &Tag) -> Option<Answer> {
        if *tag != self.tag {
            return None;
        }
        let asking = self.taken()?;
        match asking.await {
            Ok(answer) => Some(answer),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn taken(&self) -> Option<JoinHandle<Answer>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.take()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(asking) = self.taken() {
            asking.abort();
        }
    }
}
