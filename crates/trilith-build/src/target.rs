//! Where a build looks for images and writes them, and what is found there.

use std::sync::Arc;

use trilith_core::{
    Action, BuildFrom, Existence, Keys, Level, Plan, PlanOptions, Planner, Reference, Repository,
    Scheme, Step, Strategy, Tag, Tags,
};
use trilith_oci::image::Image;
use trilith_oci::layout::Naming;
use trilith_oci::{Descriptor, ImageStore, Kind, Name};

use crate::ahead::Ahead;
use crate::context::Context;
use crate::error::Error;
use crate::labels;
use crate::listing::Listing;
use crate::load::Loaded;
use crate::records::{ImageRecord, LayerRecord};

/// Where a build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The local store.
    Store,
    /// The registry that the repository names.
    Registry,
    /// The images that an engine keeps.
    Engine,
}

/// A repository, in the store or on a registry.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) destination: Destination,
    pub(crate) repository: Repository,
    pub(crate) store: Arc<dyn ImageStore>,
    /// What the store has been asked already.
    pub(crate) ahead: Option<Arc<Ahead>>,
    /// What the registry has told of its tags.
    pub(crate) listing: Option<Arc<Listing>>,
}

impl Target {
    pub(crate) fn open(
        context: &Context,
        repository: &Repository,
        destination: Destination,
    ) -> Result<Self, Error> {
        let store: Arc<dyn ImageStore> = match destination {
            // What an engine keeps is no store; records and temporary files are beside one.
            Destination::Store | Destination::Engine => {
                let naming = Naming::References(repository.clone());
                Arc::new(context.layout()?.repository(naming))
            }
            Destination::Registry => {
                Arc::new(context.registry.repository(repository)?.for_writing())
            }
        };
        Ok(Self {
            destination,
            repository: repository.clone(),
            store,
            ahead: None,
            listing: None,
        })
    }

    /// Returns what `tag` points to.
    async fn resolve(&self, tag: &Tag) -> Result<Option<Descriptor>, trilith_oci::Error> {
        if let Some(ahead) = &self.ahead
            && let Some(answer) = ahead.answer(tag).await
        {
            return answer;
        }
        let Some(listing) = &self.listing else {
            return self.store.resolve(&Name::Tag(tag.clone())).await;
        };
        if listing.lacks(tag).await {
            return Ok(None);
        }
        let found = self.store.resolve(&Name::Tag(tag.clone())).await?;
        if found.is_none() {
            listing.missed();
        }
        Ok(found)
    }

    pub(crate) fn reference(&self, tags: &Tags, level: Level) -> Reference {
        self.repository.with_tag(tags.get(level).clone())
    }
}

/// Makes the plan for `loaded` by asking `target` as little as the options allow.
///
/// # Errors
/// It cannot be told whether an image exists. That is never taken for absence.
pub(crate) async fn plan(
    context: &Context,
    loaded: &Loaded,
    target: &Target,
    options: PlanOptions,
) -> Result<Plan, Error> {
    let ask = async |loaded: &Loaded, level| existence(context, loaded, target, level).await;
    plan_with(loaded, target, options, ask).await
}

/// Makes the plan for `loaded` by asking `existence`.
///
/// # Errors
/// As [`plan`].
pub(crate) async fn plan_with(
    loaded: &Loaded,
    target: &Target,
    mut options: PlanOptions,
    existence: impl AsyncFn(&Loaded, Level) -> Result<Existence, Error>,
) -> Result<Plan, Error> {
    let dockerfile = loaded.dockerfile.as_ref();
    if dockerfile.is_some_and(|dockerfile| !dockerfile.can_start_from_levels()) {
        options.strategy = without_levels(options.strategy);
    }
    let mut planner = Planner::new(options, |level| {
        target.reference(&loaded.tags, level).to_string()
    });
    loop {
        let level = match planner.step()? {
            Step::Done(mut plan) => {
                let skipped = &loaded.settings.skip_tags;
                let wanted = |level: &Level| *level == Level::Source || !skipped.contains(level);
                plan.tags_to_write.retain(wanted);
                return Ok(plan);
            }
            Step::Ask(level) => level,
        };
        let answer = existence(loaded, level).await?;
        if let (Level::Source, Existence::Absent | Existence::Stale { .. }) = (level, &answer)
            && let Some(below) = &loaded.below
            && let Existence::Present(digest) = existence(below, level).await?
        {
            let reference = target.reference(&below.tags, level);
            let from = BuildFrom::Level(level, digest);
            return Ok(Plan {
                action: Action::Build { from },
                tags_to_write: vec![level],
                reasons: vec![format!(
                    "the agent and what `[config]` says are all that `{reference}` lacks"
                )],
                existence: [(level, answer)].into(),
            });
        }
        planner.answer(level, answer);
    }
}

/// Returns what is left of `strategy` where nothing can be built on the image of a level.
fn without_levels(strategy: Strategy) -> Strategy {
    match strategy {
        Strategy::Incremental | Strategy::Lock | Strategy::Versioned => Strategy::Exact,
        Strategy::Any | Strategy::Exact | Strategy::Scratch => strategy,
    }
}

/// Returns whether the image of `level` is at `target` and of these inputs.
pub(crate) async fn existence(
    context: &Context,
    loaded: &Loaded,
    target: &Target,
    level: Level,
) -> Result<Existence, Error> {
    let resolved = target
        .resolve(loaded.tags.get(level))
        .await
        .map_err(|source| Error::Existence {
            level,
            reference: Box::new(target.reference(&loaded.tags, level)),
            source: Box::new(source),
        })?;
    match resolved {
        None => Ok(Existence::Absent),
        Some(descriptor) => {
            let existence = check(context, loaded, target, level, &descriptor).await?;
            if target.destination == Destination::Store
                && matches!(existence, Existence::Present(_))
            {
                // What is found is in use, and is not pruned for its age.
                let _there = context.layout()?.find_blob(&descriptor);
            }
            Ok(existence)
        }
    }
}

/// Tells whether the image behind a tag is of these inputs: the tag holds a shortened hash,
/// or under the openhands schemes one that does not cover everything.
///
/// An image that has been checked or built here before is known by its digest, so the usual
/// case costs no request beyond the one that found the tag.
async fn check(
    context: &Context,
    loaded: &Loaded,
    target: &Target,
    level: Level,
    found: &Descriptor,
) -> Result<Existence, Error> {
    let records = context.records();
    let key = loaded.keys.get(level);
    let digest = found.digest.clone();
    if records
        .image(&digest)
        .is_some_and(|record| record.key == key)
    {
        records.mark_used(&digest);
        return Ok(Existence::Present(digest));
    }
    let stale = |reason| {
        Ok(Existence::Stale {
            digest: digest.clone(),
            reason,
        })
    };
    let mut checked = None;
    for platform in &loaded.settings.platforms {
        let name = Name::Digest(digest.clone());
        let image = match Image::load(&*target.store, &name, platform).await {
            Ok(resolved) => resolved.image,
            Err(error @ trilith_oci::Error::NoSuchPlatform { .. }) => {
                return stale(error.to_string());
            }
            Err(error) if error.kind() == Kind::Corrupt => return stale(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        match labels::key(&image, level) {
            Some(found) if found == key.to_hex() => {}
            Some(found) => {
                return stale(format!("its {level} key is `{found}`, not `{key}`"));
            }
            // Images of the reference carry no key, and its tags are all there is to go by.
            None if loaded.settings.scheme != Scheme::Trilith => {}
            None => return stale(format!("it carries no {level} key")),
        }
        checked = Some(image);
    }
    if let Some(image) = checked {
        records.remember_image(&digest, &record(loaded, level, &image, &loaded.keys));
    }
    Ok(Existence::Present(digest))
}

/// Returns what is to be remembered of `image`, whose topmost layers are those of the recipe.
pub(crate) fn record(loaded: &Loaded, level: Level, image: &Image, keys: &Keys) -> ImageRecord {
    let user = loaded.settings.user.iter().map(|_| Level::Versioned);
    let recipe = loaded.files.layers.iter().map(|l| l.recipe.level);
    let levels: Vec<Level> = user.chain(recipe).filter(|&l| l <= level).collect();
    let layers = image.manifest().layers();
    let own = &layers[layers.len().saturating_sub(levels.len())..];
    let layers = own.iter().zip(levels).map(|(layer, level)| LayerRecord {
        level,
        digest: layer.digest.clone(),
        size: layer.size,
    });
    ImageRecord {
        key: keys.get(level),
        layers: layers.collect(),
    }
}
