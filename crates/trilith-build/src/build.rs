//! The build: plan, then reuse or build, then publish.
//!
//! Builders make images ([`crate::builder`]); what exists, what is reused, what is written and in
//! which order is decided here, the same for all of them.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Notify;
use trilith_core::{
    Action, BuildFrom, Digest, InputList, InputsDocument, Level, Plan, PlanOptions, Reference,
};
use trilith_oci::Name;
use trilith_oci::layer::Compression;
use trilith_oci::publish::{
    DEFAULT_CONCURRENCY, Publication, PublicationBlob, PublishReport, publish_content, publish_tags,
};

use crate::ahead::Ahead;
use crate::builder::{self, Builder, BuilderChoice, Built, BuiltLevel, Engines, Job};
use crate::carried;
use crate::context::{Context, Event};
use crate::engine::{BuildSecret, CacheEntry, Network, SshAgent};
use crate::error::Error;
use crate::flight::{self, Flight};
use crate::load::{Loaded, load};
use crate::on_top;
use crate::records::{ImageRecord, LastBuild, LayerRecord};
use crate::report::{BuildReport, carried_out, other_references, planned};
use crate::settings::Settings;
use crate::target::{self, Destination, Target};

/// How to build.
#[derive(Clone)]
pub struct BuildOptions {
    /// Which existing images may serve.
    pub plan: PlanOptions,
    /// Where existing images are looked for and new ones go.
    pub destination: Destination,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Stop after the plan.
    pub dry_run: bool,
    /// What builds.
    pub builder: BuilderChoice,
    /// Where an engine is found when one is needed.
    pub engines: Arc<dyn Engines>,
    /// What an engine is told.
    pub engine: EngineOptions,
    /// Where a dry run writes what an engine would be sent.
    pub build_folder: Option<PathBuf>,
    /// Ends the build and cleans up when it is notified.
    pub interrupt: Arc<Notify>,
}

/// What an engine is told besides the recipe. None of it is an input.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// What `RUN --mount=type=secret` can ask for.
    pub secrets: Vec<BuildSecret>,
    /// What `RUN --mount=type=ssh` can ask for.
    pub ssh: Vec<SshAgent>,
    /// Lines of `/etc/hosts` of the steps: name, and address or `host-gateway`.
    pub extra_hosts: Vec<(String, String)>,
    /// Which network the steps see.
    pub network: Network,
    /// Where cached layers may come from.
    pub cache_from: Vec<CacheEntry>,
    /// Where the cache is written to.
    pub cache_to: Vec<CacheEntry>,
    /// Run every step anew.
    pub no_cache: bool,
    /// Ask for base images again where the engine has one of that name.
    pub pull: bool,
    /// Name the images in the engine too.
    pub load: bool,
}

/// Tells what would be done with images wherever they are: the local store is asked first,
/// and the registry only if the source image is not there.
///
/// # Errors
/// See [`build`].
pub async fn plan_anywhere(
    context: &Context,
    settings: &Settings,
    options: PlanOptions,
) -> Result<BuildReport, Error> {
    let repository = settings.repository()?;
    let loaded = load_with_warnings(context, settings).await?;
    if context.store.join("index.json").exists() {
        let store = Target::open(context, repository, Destination::Store)?;
        let plan = target::plan(context, &loaded, &store, options).await?;
        if matches!(plan.action, Action::Reuse { .. }) {
            return Ok(planned(context, &loaded, &store, plan));
        }
    }
    let registry = Target::open(context, repository, Destination::Registry)?;
    let plan = target::plan(context, &loaded, &registry, options).await?;
    Ok(planned(context, &loaded, &registry, plan))
}

/// Makes sure that the image of `settings` exists.
///
/// # Errors
/// Inputs cannot be read or resolved, it cannot be told what exists, a step of the recipe fails,
/// or something cannot be written. No tag then points to anything incomplete.
pub async fn build(
    context: &Context,
    settings: &Settings,
    options: &BuildOptions,
) -> Result<BuildReport, Error> {
    let repository = settings.repository()?;
    let builder = builder::choose(settings, options)?;
    let ahead = Ahead::ask(context, settings, repository, options);
    if let Some(ahead) = &ahead {
        ahead.depart().await;
    }
    let loaded = load_with_warnings(context, settings);
    let loaded = unless_interrupted(options, loaded).await?;
    let target = Target {
        ahead: ahead.map(Arc::new),
        ..Target::open(context, repository, options.destination)?
    };
    let job = Job {
        context,
        loaded: &loaded,
        target: &target,
        options,
    };
    let plan = unless_interrupted(options, plan_job(&*builder, job)).await?;
    context.observe(Event::Planned(&plan));
    if options.dry_run {
        let written = match &options.build_folder {
            Some(directory) => builder.write_folder(job, &plan, directory).await?,
            None => Vec::new(),
        };
        let report = planned(context, &loaded, &target, plan);
        return Ok(BuildReport { written, ..report });
    }
    let report = carry_out(&*builder, job, plan).await?;
    remember(context, &loaded, &target, &report);
    Ok(report)
}

/// Makes the plan for `job`.
///
/// # Errors
/// It cannot be told what exists.
pub(crate) async fn plan_job(builder: &dyn Builder, job: Job<'_>) -> Result<Plan, Error> {
    let existence =
        async |loaded: &Loaded, level| builder.existence(Job { loaded, ..job }, level).await;
    target::plan_with(job.loaded, job.target, job.options.plan, existence).await
}

/// Reuses or builds, as `plan` says once nobody else on this machine builds the same.
///
/// # Errors
/// As [`build`].
pub(crate) async fn carry_out(
    builder: &dyn Builder,
    job: Job<'_>,
    mut plan: Plan,
) -> Result<BuildReport, Error> {
    let options = job.options;
    let board = Flight::board(builder, job, &mut plan);
    let _flight = unless_interrupted(options, board).await?;
    let built = match plan.action.clone() {
        Action::Build { from } => build_and_publish(builder, job, &mut plan, &from).await?,
        Action::Reuse { .. } => None,
    };
    if let (Action::Reuse { level, digest }, true) = (&plan.action, options.engine.load) {
        builder.load(job, *level, digest).await?;
    }
    let report = built.unwrap_or_else(|| planned(job.context, job.loaded, job.target, plan));
    unless_interrupted(options, name_also(builder, job, &report)).await?;
    Ok(report)
}

/// Does `work` unless the user ends it.
pub(crate) async fn unless_interrupted<T>(
    options: &BuildOptions,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        () = options.interrupt.notified() => Err(Error::Interrupted),
    }
}

/// Builds what `plan` says. Returns nothing where somebody else has published the image meanwhile,
/// which `plan` then reuses.
async fn build_and_publish(
    builder: &dyn Builder,
    job: Job<'_>,
    plan: &mut Plan,
    from: &BuildFrom,
) -> Result<Option<BuildReport>, Error> {
    let Job {
        context,
        loaded,
        target,
        options,
    } = job;
    let (built, tags) = if let Some(below) = &loaded.below {
        let built = on_top::build(builder, job, below, plan, from).await?;
        (built, vec![Level::Source])
    } else {
        let built = builder.build(job, plan, from).await?;
        (built, plan.tags_to_write.clone())
    };
    if let Some(digest) = built.overtaken {
        flight::reuse(plan, digest);
        return Ok(None);
    }
    let published = if built.levels.is_empty() {
        PublishReport::default()
    } else {
        let publication = publication(loaded, &built, &tags);
        let place = target.store.describe();
        context.observe(Event::Publishing { place: &place });
        let publish = publish_unless_overtaken(job, &built, &publication);
        match unless_interrupted(options, publish).await? {
            Publishing::Done(report) => report,
            Publishing::Overtaken(digest) => {
                flight::reuse(plan, digest);
                return Ok(None);
            }
        }
    };
    let records = context.records();
    for level in &built.levels {
        let of_level = built
            .layers
            .iter()
            .filter(|layer| layer.level <= level.level);
        let record = ImageRecord {
            key: loaded.keys.get(level.level),
            layers: of_level.cloned().collect(),
        };
        records.remember_image(&level.top.descriptor.digest, &record);
        // The next build may start from it.
        if target.destination == Destination::Registry && level.level < Level::Source {
            records.remember_manifest(&level.top);
            for (_, image) in &level.images {
                let config = &image.manifest().config().digest;
                records.remember_manifest(&image.manifest().to_raw());
                records.remember_config(config, &image.config().to_bytes());
            }
        }
    }
    if options.engine.load && !built.loaded {
        for level in tags {
            if let Some(image) = built.image_of(level) {
                let digest = &image.top.descriptor.digest;
                builder.load(job, level, digest).await?;
            }
        }
    }
    Ok(Some(carried_out(
        loaded,
        target,
        plan.clone(),
        built,
        &published,
    )))
}

/// What came of publishing.
enum Publishing {
    Done(PublishReport),
    /// Somebody else's image was there before the tags were written, and keeps them.
    Overtaken(Digest),
}

async fn publish_unless_overtaken(
    job: Job<'_>,
    built: &Built,
    publication: &Publication,
) -> Result<Publishing, Error> {
    let store = &*job.target.store;
    let report = publish_content(store, publication, DEFAULT_CONCURRENCY).await?;
    if publication.tags.is_empty() {
        return Ok(Publishing::Done(report));
    }
    // What is put together from layers that were there is published before anybody could be faster.
    let is_new = |layer: &LayerRecord| !built.reused.contains(&layer.digest);
    let took_long = flight::has_steps(job) || built.layers.iter().any(is_new);
    if took_long && let Some(digest) = flight::overtaken(job).await? {
        return Ok(Publishing::Overtaken(digest));
    }
    publish_tags(store, publication).await?;
    Ok(Publishing::Done(report))
}

/// Gives the image the tags that it has besides those of its levels.
async fn name_also(builder: &dyn Builder, job: Job<'_>, report: &BuildReport) -> Result<(), Error> {
    let tags = &job.loaded.settings.other_tags;
    let (Some(digest), false) = (&report.digest, tags.is_empty()) else {
        return Ok(());
    };
    let destination = job.target.destination;
    if destination != Destination::Engine {
        let store = &job.target.store;
        let manifest = store.fetch_manifest(&Name::Digest(digest.clone())).await?;
        for tag in tags {
            store.tag(tag, &manifest).await?;
        }
    }
    if destination == Destination::Engine || job.options.engine.load {
        let names = other_references(job.loaded, job.target);
        let names: Vec<Reference> = names.collect();
        builder.name(job, digest, &report.reference, &names).await?;
    }
    Ok(())
}

async fn load_with_warnings(context: &Context, settings: &Settings) -> Result<Loaded, Error> {
    let loaded = load(context, settings).await?;
    for warning in &loaded.warnings {
        context.observe(Event::Warning(warning));
    }
    Ok(loaded)
}

/// Remembers the image for `explain` without an image to compare with.
fn remember(context: &Context, loaded: &Loaded, target: &Target, report: &BuildReport) {
    let Some(digest) = report.digest.clone() else {
        return;
    };
    let ahead = target.ahead.as_ref();
    if ahead.is_some_and(|ahead| ahead.was(&report.reference, &digest)) {
        return;
    }
    let level = match report.plan.action {
        Action::Reuse { level, .. } => level,
        Action::Build { .. } => Level::Source,
    };
    let record = LastBuild {
        reference: report.reference.to_string(),
        digest,
        inputs: InputsDocument::new(&loaded.inputs, level).to_json(),
    };
    context
        .records()
        .remember_last_build(&loaded.settings.project, &record);
}

/// Collects everything that has to be at the target before the tags are.
fn publication(loaded: &Loaded, built: &Built, tags: &[Level]) -> Publication {
    let mut publication = Publication {
        blobs: built.blobs.clone(),
        ..Publication::default()
    };
    for level in &built.levels {
        add_level(&mut publication, &loaded.inputs, level);
    }
    if built.tagged {
        return publication;
    }
    for &level in tags {
        if let Some(image) = built.image_of(level) {
            let tag = loaded.tags.get(level).clone();
            let digest = image.top.descriptor.digest.clone();
            publication.tags.push((tag, digest));
        }
    }
    publication
}

/// Adds the images of `level`, their index, and the list of their inputs to `publication`.
pub(crate) fn add_level(publication: &mut Publication, inputs: &InputList, level: &BuiltLevel) {
    for (_, image) in &level.images {
        let media_type = &image.manifest().config().media_type;
        let config = PublicationBlob::of(media_type, image.config().to_bytes());
        publication.blobs.push(config);
        publication.manifests.push(image.manifest().to_raw());
    }
    if level.images.len() > 1 {
        publication.manifests.push(level.top.clone());
    }
    let images = level.images.iter().map(|(_, image)| image);
    carried::attach(publication, inputs, level.level, images, &level.top);
}
