//! From images that an engine made to images as values, checked to be what was asked for.
//!
//! Where an engine keeps images and can push, it pushes the image of one platform by itself: its
//! layers are compressed and known to it. Everything else comes out of the engine as an archive,
//! or is at the registry by digest, and is published like any other image.

use std::sync::Arc;

use trilith_core::{BuildFrom, Digest, Level, Plan, Platform, Reference};
use trilith_oci::archive::{LayerForm, open_docker_archive, open_oci_archive, write_docker_image};
use trilith_oci::image::Image;
use trilith_oci::publish::{BlobOrigin, PublicationBlob};
use trilith_oci::{BlobSource, DiffId, ImageStore, Name};

use super::engine_images::Session;
use super::{Built, BuiltLevel, graft};
use crate::engine::{BuiltImage, Feature, Progress};
use crate::error::Error;
use crate::flight;
use crate::labels;
use crate::layers::ReadyLayer;
use crate::records::{ImageRecord, LayerRecord};
use crate::target::Destination;

/// An image that an engine made.
pub(super) struct Made {
    pub(super) level: Level,
    pub(super) platform: Platform,
    pub(super) image: BuiltImage,
    /// What the engine calls it for the time of the build, where it keeps it.
    pub(super) name: Option<Reference>,
}

/// An image as a value, and where its blobs are.
struct Delivered {
    level: Level,
    platform: Platform,
    image: Image,
    origin: BlobOrigin,
}

impl Session<'_> {
    /// Brings `made` to where blobs can be published from, or to where they belong.
    pub(super) async fn deliver(
        &self,
        plan: &Plan,
        from: &BuildFrom,
        made: Vec<Made>,
    ) -> Result<Built, Error> {
        let destination = self.job.target.destination;
        if destination == Destination::Engine {
            return self.keep(plan, &made).await;
        }
        let one_platform = self.job.loaded.settings.platforms.len() == 1;
        let pushes = destination == Destination::Registry
            && one_platform
            && self.can(Feature::Load).await?
            && self.can(Feature::Push).await?;
        let mut delivered = Vec::with_capacity(made.len());
        if pushes {
            if let Some(digest) = flight::overtaken(self.job).await? {
                return Ok(Built {
                    overtaken: Some(digest),
                    ..Built::default()
                });
            }
            delivered = self.collector.time(true, self.push(plan, &made)).await?;
        } else {
            for image in &made {
                let taken = self.collector.time(false, self.take(image)).await?;
                delivered.push(taken);
            }
        }
        let loaded = self.job.options.engine.load;
        if loaded {
            self.name_all(plan, &made).await?;
        }
        let blobs = delivered.iter().flat_map(blobs).collect();
        let levels = levels(delivered);
        Ok(Built {
            layers: self.own_layers(from, &levels).await?,
            blobs,
            levels,
            tagged: pushes,
            loaded,
            ..Built::default()
        })
    }

    /// Gives the images their tags in the engine, and nothing else.
    async fn keep(&self, plan: &Plan, made: &[Made]) -> Result<Built, Error> {
        self.name_all(plan, made).await?;
        for &level in &plan.tags_to_write {
            if let Some(made) = of_level(made, level) {
                self.remember(level, &made.image.id);
            }
        }
        Ok(Built {
            kept: made.last().map(|made| made.image.id.clone()),
            tagged: true,
            loaded: true,
            ..Built::default()
        })
    }

    /// Puts the layers of the job on `below`, an image that the engine keeps, and has the engine keep
    /// what comes of it under its source tag.
    pub(super) async fn put_layers(&self, below: &Digest) -> Result<Built, Error> {
        let (loaded, target) = (self.job.loaded, self.job.target);
        let host = Platform::host();
        let platform = loaded.settings.platforms.first().unwrap_or(&host);
        let saved = self.archive_path(Level::Source, platform);
        let image = BuiltImage { id: below.clone() };
        self.engine.save(&image, &saved).await?;
        let options = self.archive_options(LayerForm::AsStored);
        let (saved, name) = open_docker_archive(&saved, None, &options).await?;
        let image = Image::load(&*saved, &name, platform).await?.image;
        let (layers, images) = graft::on_images(self.job, &[(platform.clone(), image)]).await?;

        let name = target.reference(&loaded.tags, Level::Source);
        let archive = self.files.path().join("load.tar");
        for (_, image) in images {
            let sources = vec![Arc::clone(&saved), Arc::clone(&target.store)];
            write_docker_image(image, sources, &archive, std::slice::from_ref(&name)).await?;
        }
        self.engine.load(&archive).await?;
        let found = self.engine.find(&name).await?;
        let id = found.ok_or_else(|| {
            let reason = format!("`{name}` is not there after it was loaded");
            not_as_asked(Level::Source, reason)
        })?;
        self.remember(Level::Source, &id);
        Ok(Built {
            layers: layers.iter().map(ReadyLayer::to_record).collect(),
            kept: Some(id),
            tagged: true,
            loaded: true,
            ..Built::default()
        })
    }

    /// Remembers that the image `id` in the engine is that of `level`.
    fn remember(&self, level: Level, id: &Digest) {
        let record = ImageRecord {
            key: self.job.loaded.keys.get(level),
            layers: Vec::new(),
        };
        self.job.context.records().remember_image(id, &record);
    }

    /// Gives every image its tags in the engine, least specific first.
    async fn name_all(&self, plan: &Plan, made: &[Made]) -> Result<(), Error> {
        for &level in &plan.tags_to_write {
            if let Some(made) = of_level(made, level) {
                let name = self.job.target.reference(&self.job.loaded.tags, level);
                self.engine.tag(&made.image, &name).await?;
                self.keep_name(&name);
            }
        }
        Ok(())
    }

    /// Has the engine push every tag, least specific first, and reads back what came of it.
    async fn push(&self, plan: &Plan, made: &[Made]) -> Result<Vec<Delivered>, Error> {
        let observer = |progress: Progress| self.observe(&progress);
        let mut delivered: Vec<Delivered> = Vec::new();
        for &level in &plan.tags_to_write {
            let Some(made) = of_level(made, level) else {
                continue;
            };
            let tag = self.job.loaded.tags.get(level);
            let name = self.job.target.repository.with_tag(tag.clone());
            self.borrow_name(&name, &made.image).await?;
            let pushed = self.engine.push(&name, &observer).await?;
            let store = &self.job.target.store;
            let found = store.resolve(&Name::Tag(tag.clone())).await?;
            if found.as_ref().map(|found| &found.digest) != Some(&pushed) {
                let found = found.map_or_else(|| "nothing".to_owned(), |f| f.digest.to_string());
                return Err(not_as_asked(
                    level,
                    format!("`{name}` is {found} on the registry, and was pushed as {pushed}"),
                ));
            }
            let origin = BlobOrigin::Present;
            let image = self
                .checked(made, store, &Name::Digest(pushed.clone()))
                .await?;
            let id = &made.image.id;
            if *id != pushed && *id != image.config().digest() {
                return Err(not_as_asked(
                    level,
                    format!("it was built as {id}, and `{name}` is another image"),
                ));
            }
            if delivered.iter().all(|other| other.level != made.level) {
                delivered.push(Delivered {
                    level: made.level,
                    platform: made.platform.clone(),
                    image,
                    origin,
                });
            }
        }
        Ok(delivered)
    }

    /// Takes an image out of the engine.
    async fn take(&self, made: &Made) -> Result<Delivered, Error> {
        let path = self.archive_path(made.level, &made.platform);
        let (store, name, origin) = if self.can(Feature::Load).await? {
            self.engine.save(&made.image, &path).await?;
            let options = self.archive_options(LayerForm::Gzip);
            let (store, name) = open_docker_archive(&path, None, &options).await?;
            let origin = BlobOrigin::Upload(BlobSource::Store(Arc::clone(&store)));
            (store, name, origin)
        } else if self.job.target.destination == Destination::Registry {
            let name = Name::Digest(made.image.id.clone());
            (
                Arc::clone(&self.job.target.store),
                name,
                BlobOrigin::Present,
            )
        } else {
            let temp_dir = path.parent().unwrap_or(&path).to_owned();
            let (store, name) = open_oci_archive(&path, None, &temp_dir).await?;
            let origin = BlobOrigin::Upload(BlobSource::Store(Arc::clone(&store)));
            (store, name, origin)
        };
        Ok(Delivered {
            level: made.level,
            platform: made.platform.clone(),
            image: self.checked(made, &store, &name).await?,
            origin,
        })
    }

    /// Loads the image `name`, and checks that it is what was asked for.
    async fn checked(
        &self,
        made: &Made,
        store: &Arc<dyn ImageStore>,
        name: &Name,
    ) -> Result<Image, Error> {
        let level = made.level;
        let wrong = |reason| Err(not_as_asked(level, reason));
        let image = Image::load(&**store, name, &made.platform).await?.image;
        let platform = image.config().platform();
        let asked = &made.platform;
        if platform.os() != asked.os() || platform.architecture() != asked.architecture() {
            return wrong(format!("it is for `{platform}`, not for `{asked}`"));
        }
        let key = self.job.loaded.keys.get(level).to_hex();
        match labels::key(&image, level) {
            Some(carried) if carried == key => Ok(image),
            Some(carried) => wrong(format!("its {level} key is `{carried}`, not `{key}`")),
            None => wrong(format!("it carries no {level} key")),
        }
    }

    /// Returns the layers of the source image that are not the base's, each with the level
    /// whose image it first appears in.
    async fn own_layers(
        &self,
        from: &BuildFrom,
        levels: &[BuiltLevel],
    ) -> Result<Vec<LayerRecord>, Error> {
        let loaded = self.job.loaded;
        let Some((platform, image)) = levels.last().and_then(|level| level.images.first()) else {
            return Ok(Vec::new());
        };
        let base = match &loaded.base {
            Some(base) => Some(
                Image::load(&*base.store, &base.name(), platform)
                    .await?
                    .image,
            ),
            None => None,
        };
        let ground = match from {
            BuildFrom::Base => None,
            BuildFrom::Level(level, digest) => {
                let name = Name::Digest(digest.clone());
                let store = &*self.job.target.store;
                Some((*level, Image::load(store, &name, platform).await?.image))
            }
        };
        let ground = ground.as_ref().map(|(level, image)| (*level, image));
        let built = levels
            .iter()
            .filter_map(|built| Some((built.level, &built.images.first()?.1)));
        let known: Vec<(Level, &Image)> = ground.into_iter().chain(built).collect();
        let mut layers = attributed(base.as_ref(), &known, image);
        // What is built on may have been built here, and then it is known better.
        if let BuildFrom::Level(_, digest) = from
            && let Some(record) = self.job.context.records().image(digest)
        {
            for layer in &mut layers {
                let known = record
                    .layers
                    .iter()
                    .find(|known| known.digest == layer.digest);
                layer.level = known.map_or(layer.level, |known| known.level);
            }
        }
        Ok(layers)
    }
}

/// Returns the layers of `image` above those of `base`, each at the lowest level that has it.
fn attributed(base: Option<&Image>, levels: &[(Level, &Image)], image: &Image) -> Vec<LayerRecord> {
    let diff_ids = image.config().diff_ids();
    let shared = |other: &Image| common(other.config().diff_ids(), diff_ids);
    let of_base = base.map_or(0, shared);
    let layers = image.manifest().layers().iter().enumerate().skip(of_base);
    layers
        .map(|(at, layer)| {
            let mut having = levels.iter().filter(|(_, other)| shared(other) > at);
            LayerRecord {
                level: having.next().map_or(Level::Source, |(level, _)| *level),
                digest: layer.digest.clone(),
                size: layer.size,
            }
        })
        .collect()
}

fn common(one: &[DiffId], other: &[DiffId]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Returns the image of `level`, or the one that has all tags.
fn of_level(made: &[Made], level: Level) -> Option<&Made> {
    made.iter().find(|made| made.level == level).or(made.last())
}

fn blobs(delivered: &Delivered) -> Vec<PublicationBlob> {
    let layers = delivered.image.manifest().layers().iter();
    layers
        .map(|layer| PublicationBlob {
            descriptor: layer.clone(),
            origins: vec![delivered.origin.clone()],
        })
        .collect()
}

/// Returns the levels, least specific first, each with its images of all platforms.
fn levels(delivered: Vec<Delivered>) -> Vec<BuiltLevel> {
    let mut by_level: std::collections::BTreeMap<Level, Vec<(Platform, Image)>> =
        std::collections::BTreeMap::new();
    for Delivered {
        level,
        platform,
        image,
        ..
    } in delivered
    {
        by_level.entry(level).or_default().push((platform, image));
    }
    by_level
        .into_iter()
        .map(|(level, images)| BuiltLevel::new(level, images))
        .collect()
}

fn not_as_asked(level: Level, reason: String) -> Error {
    Error::NotAsAsked { level, reason }
}
