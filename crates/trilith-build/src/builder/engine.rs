//! The builder for all engines: one request for each level and platform, then delivery.
//!
//! Engines know no levels. What is built from, under which names and in which order is decided
//! here; a build that fails or is interrupted leaves the engine with the names it had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use trilith_core::{Action, BuildFrom, Digest, Existence, Level, Plan, Platform, Reference};

use super::delivery::Made;
use super::engine_images::Session;
use super::instructions::{Grounds, Instructions, instructions};
use super::{Builder, Built, Capabilities, Engines, Job, graft, needed_features};
use crate::build::unless_interrupted;
use crate::context::Event;
use crate::engine::{
    BuildRequest, BuiltImage, Engine, EngineError, EngineIdentity, EngineKind, Export, Feature,
    Progress,
};
use crate::error::Error;
use crate::labels;
use crate::recipe::LoadedDockerfile;
use crate::target::{self, Destination};

/// Builds on an engine, which is looked for when the first thing is asked of it.
pub(crate) struct EngineBuilder {
    engines: Arc<dyn Engines>,
    kind: Option<EngineKind>,
    opened: OnceCell<(Arc<dyn Engine>, EngineIdentity)>,
}

impl EngineBuilder {
    pub(crate) fn new(engines: Arc<dyn Engines>, kind: Option<EngineKind>) -> Self {
        Self {
            engines,
            kind,
            opened: OnceCell::new(),
        }
    }

    /// Returns the engine, which can do what the options of `job` need.
    async fn open(&self, job: Job<'_>) -> Result<&(Arc<dyn Engine>, EngineIdentity), Error> {
        let open = || async {
            let engine = self.engines.open(self.kind).await?;
            let identity = engine.identity().await?;
            Ok::<_, Error>((engine, identity))
        };
        let opened = self.opened.get_or_try_init(open).await?;
        let (engine, identity) = opened;
        for (feature, what) in needed_features(job.options) {
            if !engine.can(feature).await? {
                return Err(EngineError::Unsupported {
                    engine: identity.kind,
                    address: identity.address.clone(),
                    what,
                }
                .into());
            }
        }
        let platforms = job.loaded.settings.platforms.len();
        let names = job.options.engine.load || job.target.destination == Destination::Engine;
        if names && platforms > 1 {
            return Err(Error::LoadPlatforms { count: platforms });
        }
        Ok(opened)
    }

    async fn session<'a>(&'a self, job: Job<'a>) -> Result<Session<'a>, Error> {
        let (engine, identity) = self.open(job).await?;
        Session::begin(job, &**engine, identity).await
    }
}

#[async_trait(?Send)]
impl Builder for EngineBuilder {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            runs_steps: true,
            ..Capabilities::default()
        }
    }

    async fn existence(&self, job: Job<'_>, level: Level) -> Result<Existence, Error> {
        match job.target.destination {
            Destination::Engine => self.session(job).await?.existence(level).await,
            Destination::Registry | Destination::Store => {
                target::existence(job.context, job.loaded, job.target, level).await
            }
        }
    }

    async fn build(&self, job: Job<'_>, plan: &Plan, from: &BuildFrom) -> Result<Built, Error> {
        let mut session = self.session(job).await?;
        let building = Box::pin(session.build(plan, from));
        let outcome = unless_interrupted(job.options, building).await;
        session.clean().await;
        let mut built = outcome?;
        built.telemetry = Some(session.collector.finish());
        built.archives = Some(session.into_files());
        Ok(built)
    }

    async fn put_layers(&self, job: Job<'_>, below: &Digest) -> Result<Built, Error> {
        if job.target.destination != Destination::Engine {
            return graft::put_layers(job, below).await;
        }
        let mut session = self.session(job).await?;
        let putting = Box::pin(session.put_layers(below));
        let outcome = unless_interrupted(job.options, putting).await;
        session.clean().await;
        outcome
    }

    async fn load(&self, job: Job<'_>, level: Level, digest: &Digest) -> Result<(), Error> {
        if job.target.destination == Destination::Engine {
            return Ok(());
        }
        self.session(job).await?.load(level, digest).await
    }

    async fn name(
        &self,
        job: Job<'_>,
        _digest: &Digest,
        reference: &Reference,
        others: &[Reference],
    ) -> Result<(), Error> {
        let (engine, _) = self.open(job).await?;
        if let Some(id) = engine.find(reference).await? {
            let image = BuiltImage { id };
            for other in others {
                engine.tag(&image, other).await?;
            }
        }
        Ok(())
    }

    async fn write_folder(
        &self,
        job: Job<'_>,
        plan: &Plan,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        let Action::Build { from } = &plan.action else {
            return Ok(Vec::new());
        };
        if matches!(from, BuildFrom::Level(Level::Source, _)) {
            return Ok(Vec::new());
        }
        let loaded = job.loaded.below.as_deref().unwrap_or(job.loaded);
        let mut session = self.session(Job { loaded, ..job }).await?;
        let written = session.write_folder(plan, from, directory).await;
        session.clean().await;
        written
    }
}

impl Session<'_> {
    async fn build(&self, plan: &Plan, from: &BuildFrom) -> Result<Built, Error> {
        let recipe = self.recipe()?;
        self.bring_base().await?;
        let grounds = self.grounds(recipe, from).await?;
        let mut made = Vec::new();
        for platform in &self.job.loaded.settings.platforms {
            let (mut grounds, pins) = self.for_platform(recipe, &grounds, platform).await?;
            for level in levels_to_build(recipe, plan) {
                let built = self.build_one(recipe, level, platform, &grounds, &pins);
                let built = built.await?;
                if self.job.options.engine.no_cache
                    && let Some(name) = &built.name
                {
                    // Else the levels above would run its steps once more.
                    grounds.images.insert(level, name.clone());
                    grounds.local = true;
                }
                made.push(built);
            }
        }
        self.deliver(plan, from, made).await
    }

    /// Builds the image of `level` for `platform`.
    async fn build_one(
        &self,
        recipe: &LoadedDockerfile,
        level: Level,
        platform: &Platform,
        grounds: &Grounds,
        pins: &BTreeMap<String, Reference>,
    ) -> Result<Made, Error> {
        let Instructions {
            context,
            target,
            named_contexts,
            ..
        } = instructions(
            recipe,
            level,
            platform,
            grounds,
            pins,
            self.names_grounds(recipe, grounds).await?,
        )?;
        let identity = self.identity;
        self.job.context.observe(Event::Building {
            level,
            platform,
            engine: &format!("{} {}", identity.kind, identity.version),
        });
        let options = &self.job.options.engine;
        let labels = labels::labels(&self.job.loaded.keys, level);
        let request = BuildRequest {
            context,
            target: target.as_deref(),
            args: &recipe.args,
            platform,
            labels: &labels,
            named_contexts: &named_contexts,
            secrets: &options.secrets,
            ssh: &options.ssh,
            extra_hosts: &options.extra_hosts,
            network: options.network,
            cache_from: &options.cache_from,
            cache_to: &options.cache_to,
            no_cache: options.no_cache,
            // What is the engine's is not asked for anywhere else, where it may be something else.
            pull: options.pull && !grounds.local && !self.has_base_by_name(),
        };
        let observer = |progress: Progress| self.observe(&progress);
        let reference = self.job.target.reference(&self.job.loaded.tags, level);
        let archive = self.archive_path(level, platform);
        let export = if self.can(Feature::Load).await? {
            Export::Keep
        } else if self.job.target.destination == Destination::Registry {
            Export::Push(&reference)
        } else {
            Export::Archive(&archive)
        };
        let image = self.engine.build(&request, export, &observer).await?;
        let name = match export {
            Export::Keep => Some(self.name_for_now(&image, level, platform).await?),
            Export::Push(_) | Export::Archive(_) => None,
        };
        Ok(Made {
            level,
            platform: platform.clone(),
            image,
            name,
        })
    }

    async fn write_folder(
        &self,
        plan: &Plan,
        from: &BuildFrom,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        let recipe = self.recipe()?;
        let grounds = self.grounds(recipe, from).await?;
        let platforms = &self.job.loaded.settings.platforms;
        let mut written = Vec::new();
        for platform in platforms {
            let (grounds, pins) = self.for_platform(recipe, &grounds, platform).await?;
            for level in levels_to_build(recipe, plan) {
                let named = self.names_grounds(recipe, &grounds).await?;
                let sent = instructions(recipe, level, platform, &grounds, &pins, named)?;
                let mut name = level.to_string();
                if platforms.len() > 1 {
                    name = format!("{name}-{}", platform.to_string().replace('/', "-"));
                }
                let place = directory.join(name);
                let document = self.request_document(recipe, level, platform, &sent);
                let into = place.clone();
                let writing = move || write_sent(&sent, &document, &into);
                match tokio::task::spawn_blocking(writing).await {
                    Ok(done) => done?,
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                }
                written.push(place);
            }
        }
        Ok(written)
    }

    /// Returns what an engine is told besides the context, as JSON. Secrets are named, not told.
    fn request_document(
        &self,
        recipe: &LoadedDockerfile,
        level: Level,
        platform: &Platform,
        sent: &Instructions,
    ) -> String {
        let contexts: BTreeMap<&str, String> = sent
            .named_contexts
            .iter()
            .map(|context| (context.stage.as_str(), context.image.to_string()))
            .collect();
        let options = &self.job.options.engine;
        let secrets: Vec<&str> = options.secrets.iter().map(|s| s.id.as_str()).collect();
        let document = serde_json::json!({
            "target": sent.target,
            "platform": platform.to_string(),
            "args": recipe.args,
            "labels": labels::labels(&self.job.loaded.keys, level),
            "named_contexts": contexts,
            "secrets": secrets,
        });
        format!("{document:#}\n")
    }
}

/// Returns the levels whose images are built: without levels in the recipe, one has all tags.
fn levels_to_build(recipe: &LoadedDockerfile, plan: &Plan) -> Vec<Level> {
    if recipe.recipe.levels.is_empty() {
        vec![Level::Source]
    } else {
        plan.tags_to_write.clone()
    }
}

/// Writes what an engine would be sent into `directory`, which must not exist: the Dockerfile, the
/// build context, and in `request.json` the rest.
fn write_sent(sent: &Instructions, document: &str, directory: &Path) -> Result<(), Error> {
    let context = directory.join("context");
    let create =
        |path: &Path| std::fs::create_dir_all(path).map_err(trilith_oci::Error::io("create", path));
    if let Some(parent) = directory.parent() {
        create(parent)?;
    }
    std::fs::create_dir(directory).map_err(trilith_oci::Error::io("create", directory))?;
    create(&context)?;
    sent.context.write_directory(&context)?;
    sent.context
        .write_dockerfile(&directory.join("Dockerfile"))?;
    let request = directory.join("request.json");
    std::fs::write(&request, document).map_err(trilith_oci::Error::io("write", &request))?;
    Ok(())
}
