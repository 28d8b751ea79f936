//! The tags of a repository, read at once by a batch that finds one missing.
//!
//! A batch asks for up to three tags of each image. Where none of an image is there, as in a first
//! run, those of the others are hardly there either: a registry then tells what it has in a request or
//! two. Where all are there, nothing is listed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;
use trilith_core::Tag;
use trilith_oci::registry::RegistryRepository;

/// For how many images of a repository a page of its tags may be read.
const IMAGES_PER_PAGE: usize = 8;

/// The tags that a repository had when the first was found missing.
pub(crate) struct Listing {
    repository: RegistryRepository,
    /// How many pages may be read.
    pages: usize,
    missed: AtomicBool,
    tags: OnceCell<Option<HashSet<Tag>>>,
}

impl Listing {
    /// Returns the tags of `repository`, in which `images` images are about to be looked for.
    pub(crate) fn new(repository: RegistryRepository, images: usize) -> Self {
        Self {
            repository,
            pages: images / IMAGES_PER_PAGE,
            missed: AtomicBool::new(false),
            tags: OnceCell::new(),
        }
    }

    /// Takes note that a tag is not there.
    pub(crate) fn missed(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    /// Returns whether it is known that `tag` is not there.
    pub(crate) async fn lacks(&self, tag: &Tag) -> bool {
        if self.pages == 0 || !self.missed.load(Ordering::Relaxed) {
            return false;
        }
        let tags = self.tags.get_or_init(|| self.read()).await.as_ref();
        tags.is_some_and(|tags| !tags.contains(tag))
    }

    /// Reads the tags, if the registry lists them: else each is asked for.
    async fn read(&self) -> Option<HashSet<Tag>> {
        let tags = self.repository.tags_within(self.pages).await.ok()??;
        Some(tags.into_iter().collect())
    }
}
