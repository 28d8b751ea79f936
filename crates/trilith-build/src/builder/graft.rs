//! The builder that needs no engine: layers put on a base, as values.
//!
//! An image of a level is a pure function of the base, the layers up to the level and the
//! configuration. What a build starts from never shows in a digest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use trilith_core::{BuildFrom, Digest, Level, Plan, Platform, Reference};
use trilith_oci::image::Image;
use trilith_oci::layer::Compression;
use trilith_oci::place::{DaemonImage, Place};
use trilith_oci::publish::{BlobOrigin, PublicationBlob};
use trilith_oci::{Graft, GraftLayer, ImageStore, Name, graft};

use super::{Builder, Built, BuiltLevel, Capabilities, Job};
use crate::build::unless_interrupted;
use crate::carried;
use crate::error::Error;
use crate::known;
use crate::labels;
use crate::layers::{ReadyLayer, ensure_layers, ensure_user_layers};
use crate::load::Loaded;
use crate::target::{self, Destination, Target};
use crate::transfer;

/// Grafts layers.
pub(crate) struct GraftBuilder;

#[async_trait(?Send)]
impl Builder for GraftBuilder {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            puts_layers: true,
            ..Capabilities::default()
        }
    }

    async fn build(&self, job: Job<'_>, plan: &Plan, from: &BuildFrom) -> Result<Built, Error> {
        let Job {
            context,
            loaded,
            target,
            options,
        } = job;
        let compression = options.compression;
        let ground = async {
            match from {
                BuildFrom::Base => {
                    let ground = base_ground(loaded, target).await?;
                    let images = &ground.images;
                    let user = ensure_user_layers(context, loaded, images, compression).await?;
                    Ok((ground, user))
                }
                BuildFrom::Level(_, digest) => {
                    let ground = level_ground(job, digest).await?;
                    Ok((ground, Vec::new()))
                }
            }
        };
        let level = match from {
            BuildFrom::Base => None,
            BuildFrom::Level(level, _) => Some(*level),
        };
        let layers = ensure_layers(context, loaded, level, compression);
        let work = Box::pin(async { tokio::try_join!(ground, layers) });
        let ((ground, mut layers), recipe) = unless_interrupted(options, work).await?;
        layers.extend(recipe);
        let levels = graft_levels(loaded, &ground, &layers, &plan.tags_to_write)?;
        let source = levels.last().map(|built| &built.images[0].1);
        let own = source
            .map(|image| target::record(loaded, Level::Source, image, &loaded.keys).layers)
            .unwrap_or_default();
        let reused = layers.iter().filter(|layer| layer.reused);
        let reused: Vec<Digest> = reused.map(|layer| layer.digest().clone()).collect();
        let below = own.iter().map(|layer| &layer.digest);
        let below = below.filter(|digest| !layers.iter().any(|layer| layer.digest() == *digest));
        Ok(Built {
            reused: reused.iter().chain(below).cloned().collect(),
            blobs: blobs(&ground, &layers, target),
            levels,
            layers: own,
            ..Built::default()
        })
    }

    async fn load(&self, job: Job<'_>, level: Level, digest: &Digest) -> Result<(), Error> {
        let reference = job.target.reference(&job.loaded.tags, level);
        let place = Place::DockerDaemon(DaemonImage::Reference(reference));
        let store = Arc::clone(&job.target.store);
        transfer::write(job.context, store, digest, &place).await
    }

    async fn name(
        &self,
        job: Job<'_>,
        digest: &Digest,
        _reference: &Reference,
        others: &[Reference],
    ) -> Result<(), Error> {
        for other in others {
            let place = Place::DockerDaemon(DaemonImage::Reference(other.clone()));
            let store = Arc::clone(&job.target.store);
            transfer::write(job.context, store, digest, &place).await?;
        }
        Ok(())
    }

    async fn write_folder(
        &self,
        job: Job<'_>,
        _plan: &Plan,
        _directory: &Path,
    ) -> Result<Vec<PathBuf>, Error> {
        Err(Error::NothingSent {
            project: job.loaded.settings.project.clone(),
        })
    }
}

/// Puts the layers of `job` on `below`, an image at the target that has all else.
///
/// # Errors
/// A layer cannot be written, or the image not be read.
pub(super) async fn put_layers(job: Job<'_>, below: &Digest) -> Result<Built, Error> {
    let ground = level_ground(job, below).await?;
    let work = Box::pin(on_images(job, &ground.images));
    let (layers, images) = unless_interrupted(job.options, work).await?;
    let reused = layers.iter().filter(|layer| layer.reused);
    Ok(Built {
        reused: reused.map(|layer| layer.digest().clone()).collect(),
        blobs: blobs(&ground, &layers, job.target),
        layers: layers.iter().map(ReadyLayer::to_record).collect(),
        levels: vec![BuiltLevel::new(Level::Source, images)],
        ..Built::default()
    })
}

/// Returns the layers of `job`, and `images`, which an engine has built, with those on top.
///
/// # Errors
/// A layer cannot be written.
pub(super) async fn on_images(
    job: Job<'_>,
    images: &[(Platform, Image)],
) -> Result<(Vec<ReadyLayer>, Vec<(Platform, Image)>), Error> {
    let loaded = job.loaded;
    let mut compression = job.options.compression;
    let can_have = |image: &Image| {
        let format = image.manifest().format();
        format.layer(compression.media_type()).is_some()
    };
    if !images.iter().all(|(_, image)| can_have(image)) {
        // The format is the engine's choice.
        compression = Compression::default();
    }
    let layers = ensure_layers(job.context, loaded, None, compression).await?;
    let on_top: Vec<&ReadyLayer> = layers.iter().collect();
    // The engine was told of a base, and may have built on something else.
    let grafted = graft_level(loaded, Level::Source, images, &on_top, None)?;
    Ok((layers, grafted))
}

/// What the layers are put on: an image for each platform, and where its blobs are.
struct Ground {
    images: Vec<(Platform, Image)>,
    /// Digest of the base image that all of it stands on.
    base: Option<Digest>,
    /// Where blobs of the ground come from.
    origins: Vec<BlobOrigin>,
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
            images,
            base: None,
            origins: Vec::new(),
        });
    };
    Ok(Ground {
        images: load_images(&base.store, &base.name(), platforms).await?,
        base: Some(base.digest.clone()),
        origins: base.origins(target),
    })
}

/// Returns the existing image of a level, all of whose blobs are at the target.
async fn level_ground(job: Job<'_>, digest: &Digest) -> Result<Ground, Error> {
    let loaded = job.loaded;
    let name = Name::Digest(digest.clone());
    let store = &job.target.store;
    let store = match job.target.destination {
        Destination::Registry => known::remembering(job.context, store),
        Destination::Store | Destination::Engine => Arc::clone(store),
    };
    Ok(Ground {
        images: load_images(&store, &name, &loaded.settings.platforms).await?,
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

/// Grafts the levels above the ground whose tags are to be written, each onto the one below.
fn graft_levels(
    loaded: &Loaded,
    ground: &Ground,
    layers: &[ReadyLayer],
    tags: &[Level],
) -> Result<Vec<BuiltLevel>, Error> {
    let mut built: Vec<BuiltLevel> = Vec::new();
    // Without layers at level lock, its image is the versioned one with one key more: one image
    // has both tags.
    let lock_is_bare = !layers.iter().any(|layer| layer.level == Level::Lock);
    let mut levels: Vec<Level> = tags.to_vec();
    if lock_is_bare && levels.first() == Some(&Level::Versioned) {
        levels[0] = Level::Lock;
        levels.dedup();
    }
    for level in levels {
        let below = built.last().map_or(&ground.images, |built| &built.images);
        let below_level = built.last().map(|built| built.level);
        let own = layers
            .iter()
            .filter(|layer| layer.level <= level)
            .filter(|layer| below_level.is_none_or(|below| layer.level > below));
        let own: Vec<&ReadyLayer> = own.collect();
        let images = graft_level(loaded, level, below, &own, ground.base.as_ref())?;
        built.push(BuiltLevel::new(level, images));
    }
    Ok(built)
}

/// Returns `images` as those of `level`: with those of `layers` on top that are for their platforms.
fn graft_level(
    loaded: &Loaded,
    level: Level,
    images: &[(Platform, Image)],
    layers: &[&ReadyLayer],
    base: Option<&Digest>,
) -> Result<Vec<(Platform, Image)>, Error> {
    let labels = labels::labels(&loaded.keys, level);
    let config = (level == Level::Source).then_some(&loaded.settings.config);
    let mut grafted = Vec::new();
    for (platform, image) in images {
        let own = layers.iter().filter(|layer| layer.is_for(platform));
        let own: Vec<GraftLayer> = own.map(|layer| layer.to_graft()).collect();
        let made = graft(
            image,
            &Graft {
                layers: &own,
                config,
                labels: &labels,
                base,
            },
        )?;
        let made = carried::put_into(&made, &loaded.inputs, level)?;
        grafted.push((platform.clone(), made));
    }
    Ok(grafted)
}

/// Returns every layer of the images, and where it may come from.
fn blobs(ground: &Ground, layers: &[ReadyLayer], target: &Target) -> Vec<PublicationBlob> {
    let images = ground.images.iter();
    let of_ground = images.flat_map(|(_, image)| image.manifest().layers());
    let of_ground = of_ground.map(|layer| PublicationBlob {
        descriptor: layer.clone(),
        origins: ground.origins.clone(),
    });
    of_ground
        .chain(layers.iter().map(|layer| layer.to_blob(target)))
        .collect()
}
