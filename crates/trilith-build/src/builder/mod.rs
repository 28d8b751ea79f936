//! Builders: what makes the images of the levels, for whoever publishes them.
//!
//! [`Builder`] is the seam. A builder is one file here and one line in [`choose`]; engines
//! ([`crate::engine::Engine`]) share one builder. Images come out as values, with where their blobs
//! are; plans, tags and the order of publishing are not a builder's business.

mod delivery;
mod engine;
mod engine_images;
mod graft;
mod instructions;
pub(crate) mod leftovers;

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use trilith_core::{BuildFrom, Digest, Existence, Level, Plan, Platform, Reference};
use trilith_oci::image::{Image, Index};
use trilith_oci::publish::PublicationBlob;
use trilith_oci::{Descriptor, RawManifest};

use crate::build::BuildOptions;
use crate::context::Context;
use crate::engine::{Engine, EngineError, EngineKind, Feature};
use crate::error::Error;
use crate::load::Loaded;
use crate::records::LayerRecord;
use crate::report::ReportedLayer;
use crate::settings::Settings;
use crate::target::{self, Target};
use crate::telemetry::Telemetry;

pub(crate) use engine::EngineBuilder;
pub(crate) use graft::GraftBuilder;

/// What builds the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuilderChoice {
    /// Graft for recipes of layers, for Dockerfiles the first engine that answers.
    #[default]
    Auto,
    /// Layers put on the base without an engine.
    Graft,
    /// This engine.
    Engine(EngineKind),
}

/// Finds engines, when one is needed and not before.
#[async_trait]
pub trait Engines: Send + Sync {
    /// Returns the engine of this kind, or the first that answers.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] where none answers.
    async fn open(&self, kind: Option<EngineKind>) -> Result<Arc<dyn Engine>, EngineError>;
}

/// One build: what is built, of what, to where, and how.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) context: &'a Context,
    pub(crate) loaded: &'a Loaded,
    pub(crate) target: &'a Target,
    pub(crate) options: &'a BuildOptions,
}

/// What a builder can do beyond making images of one platform.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capabilities {
    /// Whether it runs the steps of a Dockerfile.
    pub(crate) runs_steps: bool,
    /// Whether it puts layers of files on a base.
    pub(crate) puts_layers: bool,
}

/// Makes the images of levels.
#[async_trait(?Send)]
pub(crate) trait Builder {
    /// Returns what it can do.
    fn capabilities(&self) -> Capabilities;

    /// Returns whether the image of `level` is where the build goes to, and is of these inputs.
    ///
    /// # Errors
    /// It cannot be told.
    async fn existence(&self, job: Job<'_>, level: Level) -> Result<Existence, Error> {
        target::existence(job.context, job.loaded, job.target, level).await
    }

    /// Builds the images of all levels that `plan` writes.
    ///
    /// # Errors
    /// A step failed, or something it needs is not there. Nothing that was there has changed.
    async fn build(&self, job: Job<'_>, plan: &Plan, from: &BuildFrom) -> Result<Built, Error>;

    /// Puts the layers of `job` on `below`, the source image of [`Loaded::below`], which is where the
    /// build goes to.
    ///
    /// # Errors
    /// A layer cannot be written, or the image not be read.
    async fn put_layers(&self, job: Job<'_>, below: &Digest) -> Result<Built, Error> {
        graft::put_layers(job, below).await
    }

    /// Makes sure that the engine has the image of `level`, which is at the target already.
    ///
    /// # Errors
    /// There is no engine, or it does not take the image.
    async fn load(&self, job: Job<'_>, level: Level, digest: &Digest) -> Result<(), Error>;

    /// Gives `others` to what the engine has as `reference`, which is `digest` at the target.
    ///
    /// # Errors
    /// There is no engine, or it does not name the image.
    async fn name(
        &self,
        job: Job<'_>,
        digest: &Digest,
        reference: &Reference,
        others: &[Reference],
    ) -> Result<(), Error>;

    /// Writes what would be sent to an engine into `directory`, and returns the files and
    /// directories it made.
    ///
    /// # Errors
    /// There is nothing to be sent, or it cannot be written.
    async fn write_folder(
        &self,
        job: Job<'_>,
        plan: &Plan,
        directory: &std::path::Path,
    ) -> Result<Vec<std::path::PathBuf>, Error>;
}

/// Images that were built, and where what they are made of is.
#[derive(Default)]
pub(crate) struct Built {
    /// The levels, least specific first.
    pub(crate) levels: Vec<BuiltLevel>,
    /// Every layer of every image.
    pub(crate) blobs: Vec<PublicationBlob>,
    /// Digests of the layers that were written by an earlier build.
    pub(crate) reused: Vec<Digest>,
    /// The layers of the source image that are not the base's.
    pub(crate) layers: Vec<LayerRecord>,
    /// Whether the images are under their tags already.
    pub(crate) tagged: bool,
    /// Whether the engine has them under their tags, too.
    pub(crate) loaded: bool,
    /// The source image where only the engine has it.
    pub(crate) kept: Option<Digest>,
    /// The source image that somebody else published meanwhile. Nothing was tagged then.
    pub(crate) overtaken: Option<Digest>,
    pub(crate) telemetry: Option<Telemetry>,
    /// The lowest of the layers, where others were put on an image that has them.
    pub(crate) below: Vec<ReportedLayer>,
    /// Bytes of blobs that were sent for that image.
    pub(crate) uploaded_below: u64,
    /// Holds archives that blobs are read from.
    pub(crate) archives: Option<TempDir>,
}

impl Built {
    /// Returns the image that has the tag of `level`: its own, or where it has none that of the
    /// next level.
    pub(crate) fn image_of(&self, level: Level) -> Option<&BuiltLevel> {
        self.levels.iter().find(|built| built.level >= level)
    }
}

/// The image of a level: one for each platform, and what its tag points to.
pub(crate) struct BuiltLevel {
    pub(crate) level: Level,
    pub(crate) images: Vec<(Platform, Image)>,
    /// The image's manifest, or the index of several.
    pub(crate) top: RawManifest,
}

impl BuiltLevel {
    pub(crate) fn new(level: Level, images: Vec<(Platform, Image)>) -> Self {
        let top = if let [(_, image)] = images.as_slice() {
            image.manifest().to_raw()
        } else {
            let children: Vec<Descriptor> =
                images.iter().map(|(_, image)| image.descriptor()).collect();
            Index::new(&children).to_raw()
        };
        Self { level, images, top }
    }
}

/// Returns the builder for `settings` that `options` ask for.
///
/// # Errors
/// The builder that is asked for cannot make this recipe.
pub(crate) fn choose(
    settings: &Settings,
    options: &BuildOptions,
) -> Result<Box<dyn Builder>, Error> {
    let engine = |kind| EngineBuilder::new(Arc::clone(&options.engines), kind);
    let builder: Box<dyn Builder> = match options.builder {
        BuilderChoice::Auto if settings.dockerfile.is_none() => Box::new(GraftBuilder),
        BuilderChoice::Auto => Box::new(engine(None)),
        BuilderChoice::Graft => Box::new(GraftBuilder),
        BuilderChoice::Engine(kind) => Box::new(engine(Some(kind))),
    };
    let can = builder.capabilities();
    let project = settings.project.clone();
    match settings.dockerfile {
        Some(_) if !can.runs_steps => Err(Error::NeedsEngine { project }),
        None if !can.puts_layers => Err(Error::NeedsGraft { project }),
        _ => Ok(builder),
    }
}

/// Returns what an engine must be able to do for `options`, each in words.
pub(crate) fn needed_features(options: &BuildOptions) -> Vec<(Feature, &'static str)> {
    let engine = &options.engine;
    let needs = [
        (
            !engine.secrets.is_empty(),
            Feature::Secrets,
            "mount build secrets",
        ),
        (!engine.ssh.is_empty(), Feature::Ssh, "mount SSH agents"),
        (
            !engine.cache_from.is_empty(),
            Feature::CacheImport,
            "import a cache",
        ),
        (
            !engine.cache_to.is_empty(),
            Feature::CacheExport,
            "export its cache",
        ),
        (
            engine.load || options.destination == target::Destination::Engine,
            Feature::Load,
            "keep images",
        ),
    ];
    needs
        .into_iter()
        .filter(|(needed, ..)| *needed)
        .map(|(_, feature, what)| (feature, what))
        .collect()
}
