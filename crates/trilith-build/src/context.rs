//! What every operation needs of the machine: a registry client, a store, a cache.
//!
//! Reads no environment; whoever makes a [`Context`] decides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use trilith_core::{Digest, Level, Plan, Platform, Reference, StatCache};
use trilith_oci::archive::{DEFAULT_DOCKER_HOST, LayerForm};
use trilith_oci::layout::Layout;
use trilith_oci::place::Place;
use trilith_oci::registry::RegistryClient;
use trilith_oci::{ImageStore, Name, transfer};

use crate::engine::{EngineAddresses, Progress};
use crate::error::Error;
use crate::records::Records;

/// What operations work with.
pub struct Context {
    /// The registry client of this process.
    pub registry: RegistryClient,
    /// The directory of the local store, made when something is first written to it.
    pub store: PathBuf,
    /// Where hashes of unchanged files are remembered; nowhere if `None`.
    pub cache: Option<PathBuf>,
    /// Where the Docker engine listens, as `DOCKER_HOST` has it.
    pub docker_host: Option<String>,
    /// Where engines are looked for.
    pub engines: EngineAddresses,
    /// Told what happens while it happens.
    pub observer: Box<dyn Fn(Event<'_>) + Send + Sync>,
}

/// Something a user may want to see while a build runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Something that is not wrong, but may not be meant.
    Warning(&'a str),
    /// The plan was made.
    Planned(&'a Plan),
    /// Another build on this machine makes the image, and is waited for.
    Waiting {
        /// The image.
        reference: &'a Reference,
    },
    /// A layer is there, written now or before.
    Layer {
        /// Its level.
        level: Level,
        /// What it holds, as in `app to /opt/app`.
        title: &'a str,
        /// Compressed size in bytes.
        size: u64,
        /// Whether it had been written before.
        reused: bool,
    },
    /// An engine begins to build the image of a level.
    Building {
        /// The level.
        level: Level,
        /// What for.
        platform: &'a Platform,
        /// Which engine, as in `docker 20.10.24`.
        engine: &'a str,
    },
    /// Something happened in an engine.
    Engine(&'a Progress),
    /// Blobs, manifests and tags are about to be written to a place.
    Publishing {
        /// The place, as in `ghcr.io/acme/app`.
        place: &'a str,
    },
}

impl Context {
    /// Returns the same with another observer; connections, tokens and what is known of registries
    /// are shared.
    pub(crate) fn observed_by(&self, observer: Box<dyn Fn(Event<'_>) + Send + Sync>) -> Self {
        Self {
            registry: self.registry.clone(),
            store: self.store.clone(),
            cache: self.cache.clone(),
            docker_host: self.docker_host.clone(),
            engines: self.engines.clone(),
            observer,
        }
    }

    /// Returns the local store, made if it is not there.
    pub(crate) fn layout(&self) -> Result<Layout, Error> {
        Ok(Layout::open_or_create(&self.store)?)
    }

    pub(crate) fn records(&self) -> Records {
        Records::new(&self.store)
    }

    pub(crate) fn observe(&self, event: Event<'_>) {
        (self.observer)(event);
    }

    /// Returns what remembers the hashes of the files of `project`.
    pub(crate) fn stat_cache(&self, project: &Path) -> StatCache {
        stat_cache(self.cache.as_deref(), project)
    }

    /// Returns what opening `place` needs; what is said to run on nothing else runs on
    /// `platform`.
    pub(crate) fn opening(
        &self,
        place: &Place,
        platform: &Platform,
    ) -> Result<transfer::Context, Error> {
        if !matches!(
            place,
            Place::Registry(_) | Place::Layout { .. } | Place::Scratch
        ) {
            // Archives and engines may have to be kept for a while, and the store has room.
            self.layout()?;
        }
        Ok(transfer::Context {
            registry: self.registry.clone(),
            temp_dir: self.store.clone(),
            docker_host: self
                .docker_host
                .clone()
                .unwrap_or_else(|| DEFAULT_DOCKER_HOST.to_owned()),
            platform: platform.clone(),
        })
    }

    /// Opens the image at `place`, its layers in the form that can be uploaded.
    pub(crate) async fn open(
        &self,
        place: &Place,
        platform: &Platform,
    ) -> Result<(Arc<dyn ImageStore>, Name), Error> {
        let opening = self.opening(place, platform)?;
        Ok(transfer::open_source(place, &opening, LayerForm::Gzip).await?)
    }
}

/// Returns what remembers, in the cache directory `cache`, the hashes of the files of `project`.
#[must_use]
pub fn stat_cache(cache: Option<&Path>, project: &Path) -> StatCache {
    let name = Digest::of(project.as_os_str().as_encoded_bytes());
    match cache {
        Some(directory) => StatCache::load(&directory.join("files").join(name.hex())),
        None => StatCache::disabled(),
    }
}
