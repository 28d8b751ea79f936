//! The build: plan, then reuse or graft, then publish.
//!
//! An image of a level is a pure function of the base, the layers up to the level and the
//! configuration. What a build starts from, and where it writes to, never shows in a digest.

use std::sync::Arc;

use trilith_core::{
    Action, BuildFrom, Digest, InputsDocument, Level, Plan, PlanOptions, Platform, Reference,
};
use trilith_oci::image::{Image, Index, Manifest};
use trilith_oci::layer::Compression;
use trilith_oci::publish::{
    BlobOrigin, BlobOutcome, DEFAULT_CONCURRENCY, Publication, PublicationBlob, PublishReport,
    publish,
};
use trilith_oci::{
    BlobSource, Descriptor, Graft, GraftLayer, ImageStore, Name, RawManifest, graft, media_type,
};

use crate::context::{Context, Event};
use crate::error::Error;
use crate::labels;
use crate::layers::{ReadyLayer, ensure_layers};
use crate::load::{Loaded, ResolvedImage, load};
use crate::records::{LastBuild, LayerRecord};
use crate::settings::Settings;
use crate::target::{self, Destination, Target};

/// How to build.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions {
    /// Which existing images may serve.
    pub plan: PlanOptions,
    /// Where existing images are looked for and new ones go.
    pub destination: Destination,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Stop after the plan.
    pub dry_run: bool,
}

/// What a build came to.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// What was done, or would be in a dry run.
    pub plan: Plan,
    /// The image: the source image, or what was reused in its place.
    pub reference: Reference,
    /// The image that is reused or built from; `None` for the base.
    pub ground: Option<Reference>,
    /// Digest of the image; `None` where a dry run would build it.
    pub digest: Option<Digest>,
    /// The tags that were written, least specific first.
    pub tags: Vec<Reference>,
    /// The layers on top of the base, bottom first.
    pub layers: Vec<ReportedLayer>,
    /// Bytes of blobs sent to the registry; 0 for a build into the local store.
    pub uploaded_bytes: u64,
}

/// One layer of the image.
#[derive(Clone, Debug)]
pub struct ReportedLayer {
    /// The layer.
    pub layer: LayerRecord,
    /// Whether it was there before, so that no byte of it had to be made or sent.
    pub reused: bool,
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
/// Inputs cannot be read or resolved, it cannot be told what exists, the recipe needs an
/// engine, or something cannot be written. No tag then points to anything incomplete.
pub async fn build(
    context: &Context,
    settings: &Settings,
    options: &BuildOptions,
) -> Result<BuildReport, Error> {
    let repository = settings.repository()?;
    if settings.dockerfile.is_some() {
        return Err(Error::NeedsEngine {
            project: settings.project.clone(),
        });
    }
    let loaded = load_with_warnings(context, settings).await?;
    let target = Target::open(context, repository, options.destination)?;
    let plan = target::plan(context, &loaded, &target, options.plan).await?;
    context.observe(Event::Planned(&plan));
    if options.dry_run {
        return Ok(planned(context, &loaded, &target, plan));
    }
    let Action::Build { from } = plan.action.clone() else {
        let report = planned(context, &loaded, &target, plan);
        remember(context, &loaded, &report);
        return Ok(report);
    };
    let report = graft_onto(context, &loaded, &target, plan, &from, options.compression).await?;
    remember(context, &loaded, &report);
    Ok(report)
}

async fn load_with_warnings(context: &Context, settings: &Settings) -> Result<Loaded, Error> {
    let loaded = load(context, settings).await?;
    for warning in &loaded.files.warnings {
        context.observe(Event::Warning(warning));
    }
    Ok(loaded)
}

/// Returns the report of a plan that is not carried out: reuse, or a dry run.
fn planned(context: &Context, loaded: &Loaded, target: &Target, plan: Plan) -> BuildReport {
    let (level, digest) = match &plan.action {
        Action::Reuse { level, digest } => (*level, Some(digest.clone())),
        Action::Build { .. } => (Level::Source, None),
    };
    let record = digest
        .as_ref()
        .and_then(|digest| context.records().image(digest));
    let layers = record.map(|record| record.layers).unwrap_or_default();
    BuildReport {
        reference: target.reference(&loaded.tags, level),
        ground: ground(loaded, target, &plan),
        digest,
        tags: plan
            .tags_to_write
            .iter()
            .map(|&l| target.reference(&loaded.tags, l))
            .collect(),
        layers: layers
            .into_iter()
            .map(|layer| ReportedLayer {
                layer,
                reused: true,
            })
            .collect(),
        uploaded_bytes: 0,
        plan,
    }
}

/// Returns the image that `plan` reuses or builds from, where it is not the base.
fn ground(loaded: &Loaded, target: &Target, plan: &Plan) -> Option<Reference> {
    match &plan.action {
        Action::Reuse { level, .. }
        | Action::Build {
            from: BuildFrom::Level(level, _),
        } => Some(target.reference(&loaded.tags, *level)),
        Action::Build {
            from: BuildFrom::Base,
        } => None,
    }
}

/// Remembers the image for `explain` without an image to compare with.
fn remember(context: &Context, loaded: &Loaded, report: &BuildReport) {
    let Some(digest) = report.digest.clone() else {
        return;
    };
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

/// What the layers are put on: an image for each platform, and where its blobs are.
struct Ground {
    /// The level of the image, `None` for the base.
    level: Option<Level>,
    images: Vec<(Platform, Image)>,
    /// Digest of the base image that all of it stands on.
    base: Option<Digest>,
    /// Where blobs of the ground come from.
    origins: Vec<BlobOrigin>,
}

async fn graft_onto(
    context: &Context,
    loaded: &Loaded,
    target: &Target,
    plan: Plan,
    from: &BuildFrom,
    compression: Compression,
) -> Result<BuildReport, Error> {
    let ground = match from {
        BuildFrom::Base => base_ground(loaded, target).await?,
        BuildFrom::Level(level, digest) => level_ground(loaded, target, *level, digest).await?,
    };
    let layers = ensure_layers(context, loaded, ground.level, compression).await?;
    let images = graft_levels(loaded, &ground, &layers)?;
    let publication = publication(loaded, &ground, &layers, &images, &plan.tags_to_write);
    let place = target.store.describe();
    context.observe(Event::Publishing { place: &place });
    let published = publish(&*target.store, &publication, DEFAULT_CONCURRENCY).await?;

    let records = context.records();
    for built in &images {
        let (_, image) = &built.images[0];
        let record = target::record(loaded, built.level, image, &loaded.keys);
        records.remember_image(&built.top.descriptor.digest, &record);
    }
    Ok(report(loaded, target, plan, &images, &layers, &published))
}

/// Returns the base image, whose blobs are mounted where base and target share a registry.
async fn base_ground(loaded: &Loaded, target: &Target) -> Result<Ground, Error> {
    let platforms = &loaded.settings.platforms;
    let Some(base) = &loaded.base else {
        let images = platforms
            .iter()
            .map(|p| (p.clone(), Image::scratch(p)))
            .collect();
        return Ok(Ground {
            level: None,
            images,
            base: None,
            origins: Vec::new(),
        });
    };
    Ok(Ground {
        level: None,
        images: load_images(&base.store, &base.name(), platforms).await?,
        base: Some(base.digest.clone()),
        origins: base_origins(base, target),
    })
}

fn base_origins(base: &ResolvedImage, target: &Target) -> Vec<BlobOrigin> {
    let upload = BlobOrigin::Upload(BlobSource::Store(Arc::clone(&base.store)));
    match &base.repository {
        Some(repository) if target.destination == Destination::Registry => {
            if *repository == target.repository {
                vec![BlobOrigin::Present]
            } else if repository.registry() == target.repository.registry() {
                vec![BlobOrigin::Mount(repository.clone()), upload]
            } else {
                vec![upload]
            }
        }
        _ => vec![upload],
    }
}

/// Returns the existing image of a level, all of whose blobs are at the target.
async fn level_ground(
    loaded: &Loaded,
    target: &Target,
    level: Level,
    digest: &Digest,
) -> Result<Ground, Error> {
    let name = Name::Digest(digest.clone());
    Ok(Ground {
        level: Some(level),
        images: load_images(&target.store, &name, &loaded.settings.platforms).await?,
        base: loaded.base.as_ref().map(|base| base.digest.clone()),
        origins: vec![BlobOrigin::Present],
    })
}

async fn load_images(
    store: &Arc<dyn ImageStore>,
    name: &Name,
    platforms: impl IntoIterator<Item = &Platform>,
) -> Result<Vec<(Platform, Image)>, Error> {
    let mut images = Vec::new();
    for platform in platforms {
        let resolved = Image::load(&**store, name, platform).await?;
        images.push((platform.clone(), resolved.image));
    }
    Ok(images)
}

/// The image of a level: one for each platform, and what its tag points to.
struct BuiltLevel {
    level: Level,
    images: Vec<(Platform, Image)>,
    /// The image's manifest, or the index of several.
    top: RawManifest,
}

/// Grafts the levels above the ground, each onto the one below.
fn graft_levels(
    loaded: &Loaded,
    ground: &Ground,
    layers: &[ReadyLayer],
) -> Result<Vec<BuiltLevel>, Error> {
    let mut built: Vec<BuiltLevel> = Vec::new();
    for level in Level::ALL
        .into_iter()
        .filter(|&level| ground.level.is_none_or(|g| level > g))
    {
        let below = built.last().map_or(&ground.images, |built| &built.images);
        let labels = labels::labels(&loaded.keys, level);
        let config = (level == Level::Source).then_some(&loaded.settings.config);
        let mut images = Vec::new();
        for (platform, image) in below {
            let own: Vec<GraftLayer> = layers
                .iter()
                .filter(|layer| layer.level == level && layer.is_for(platform))
                .map(ReadyLayer::to_graft)
                .collect();
            let base = ground.base.as_ref();
            let grafted = graft(
                image,
                &Graft {
                    layers: &own,
                    config,
                    labels: &labels,
                    base,
                },
            )?;
            images.push((platform.clone(), grafted));
        }
        let top = top_manifest(&images);
        built.push(BuiltLevel { level, images, top });
    }
    Ok(built)
}

fn top_manifest(images: &[(Platform, Image)]) -> RawManifest {
    if let [(_, image)] = images {
        return image.manifest().to_raw();
    }
    let children: Vec<Descriptor> = images.iter().map(|(_, image)| image.descriptor()).collect();
    Index::new(&children).to_raw()
}

/// Collects everything that has to be at the target before the tags are.
fn publication(
    loaded: &Loaded,
    ground: &Ground,
    layers: &[ReadyLayer],
    built: &[BuiltLevel],
    tags: &[Level],
) -> Publication {
    let mut publication = Publication::default();
    for (_, image) in &ground.images {
        for layer in image.manifest().layers() {
            publication.layers.push(PublicationBlob {
                descriptor: layer.clone(),
                origins: ground.origins.clone(),
            });
        }
    }
    publication
        .layers
        .extend(layers.iter().map(ReadyLayer::to_blob));
    for level in built {
        add_level(&mut publication, loaded, level);
    }
    for &level in tags {
        if let Some(built) = built.iter().find(|built| built.level == level) {
            let tag = loaded.tags.get(level).clone();
            publication
                .tags
                .push((tag, built.top.descriptor.digest.clone()));
        }
    }
    publication
}

/// Adds the images of `level`, their index, and the list of their inputs to `publication`.
fn add_level(publication: &mut Publication, loaded: &Loaded, level: &BuiltLevel) {
    let memory = |media_type: &str, bytes: bytes::Bytes| PublicationBlob {
        descriptor: Descriptor::of(media_type, &bytes),
        origins: vec![BlobOrigin::Upload(BlobSource::Memory(bytes))],
    };
    for (_, image) in &level.images {
        let media_type = &image.manifest().config().media_type;
        publication
            .configs
            .push(memory(media_type, image.config().to_bytes()));
        publication.manifests.push(image.manifest().to_raw());
    }
    if level.images.len() > 1 {
        publication.manifests.push(level.top.clone());
    }
    let document = InputsDocument::new(&loaded.inputs, level.level).to_json();
    let document = memory(media_type::TRILITH_INPUTS, document.into());
    let (empty, bytes) = Manifest::empty_config();
    let artifact = Manifest::artifact(
        media_type::TRILITH_INPUTS,
        &document.descriptor,
        &level.top.descriptor,
    );
    publication.configs.push(memory(&empty.media_type, bytes));
    publication.layers.push(document);
    publication.manifests.push(artifact.to_raw());
}

fn report(
    loaded: &Loaded,
    target: &Target,
    plan: Plan,
    built: &[BuiltLevel],
    ready: &[ReadyLayer],
    published: &PublishReport,
) -> BuildReport {
    let source = built.last().map(|built| (&built.images[0].1, &built.top));
    let layers =
        source.map(|(image, _)| target::record(loaded, Level::Source, image, &loaded.keys).layers);
    let reused = |layer: &LayerRecord| match target.destination {
        Destination::Registry => published.outcome(&layer.digest) != Some(BlobOutcome::Uploaded),
        Destination::Store => ready
            .iter()
            .find(|r| r.digest() == &layer.digest)
            .is_none_or(|r| r.reused),
    };
    BuildReport {
        reference: target.reference(&loaded.tags, Level::Source),
        ground: ground(loaded, target, &plan),
        digest: source.map(|(_, top)| top.descriptor.digest.clone()),
        tags: plan
            .tags_to_write
            .iter()
            .map(|&l| target.reference(&loaded.tags, l))
            .collect(),
        layers: layers
            .unwrap_or_default()
            .into_iter()
            .map(|layer| ReportedLayer {
                reused: reused(&layer),
                layer,
            })
            .collect(),
        uploaded_bytes: match target.destination {
            Destination::Registry => published.uploaded_bytes(),
            Destination::Store => 0,
        },
        plan,
    }
}
