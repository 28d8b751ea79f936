//! What an engine is sent to build one level: the Dockerfile's text, with the levels that exist in
//! place of their stages, the target, and the files of the build context that the level sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_core::{Level, Platform, Reference};

use crate::build_context::BuildContext;
use crate::dockerfile::{BuildArguments, StageLevels, pin_images, with_settings};
use crate::engine::NamedContext;
use crate::error::Error;
use crate::recipe::LoadedDockerfile;
use crate::template::BuildStart;

/// The images of levels that a build can start from.
#[derive(Clone, Debug, Default)]
pub(super) struct Grounds {
    pub(super) images: BTreeMap<Level, Reference>,
    /// Whether only the engine has them, under these names.
    pub(super) local: bool,
}

/// What an engine is sent.
pub(super) struct Instructions {
    pub(super) context: Arc<BuildContext>,
    pub(super) target: Option<String>,
    pub(super) named_contexts: Vec<NamedContext>,
}

/// Returns what builds `level` for `platform` on `grounds`, with the images that are keys of `pins`
/// by digest; `named` says whether the engine can be told of images that replace stages.
///
/// # Errors
/// A template cannot be rendered, or a stage not be replaced.
pub(super) fn instructions(
    recipe: &LoadedDockerfile,
    level: Level,
    platform: &Platform,
    grounds: &Grounds,
    pins: &BTreeMap<String, Reference>,
    named: bool,
) -> Result<Instructions, Error> {
    let Stages {
        text,
        target,
        named_contexts,
    } = match recipe.levels()? {
        Some(levels) => of_stages(recipe, &levels, level, grounds, named)?,
        None => Stages {
            text: whole_text(recipe, platform, grounds)?,
            target: recipe.recipe.target.clone(),
            named_contexts: Vec::new(),
        },
    };
    let (text, target) = if level == Level::Source {
        with_settings(&recipe.parse(&text)?, target.as_deref(), recipe.config())?
    } else {
        (text, target)
    };
    let text = pinned(recipe, &text, platform, pins)?;
    let context = match &recipe.context_levels {
        Some(levels) => {
            let sees = |path: &[u8]| levels.level_of(path).is_some_and(|own| own <= level);
            recipe.context.narrowed(&text, sees)?
        }
        None => recipe.context.narrowed(&text, |_| true)?,
    };
    Ok(Instructions {
        context: Arc::new(context),
        target,
        named_contexts,
    })
}

/// A text, what of it is built, and what is told besides.
struct Stages {
    text: String,
    target: Option<String>,
    named_contexts: Vec<NamedContext>,
}

fn of_stages(
    recipe: &LoadedDockerfile,
    levels: &StageLevels<'_>,
    level: Level,
    grounds: &Grounds,
    named: bool,
) -> Result<Stages, Error> {
    let images = needed(recipe, levels, level, grounds)?;
    let named_contexts = named.then(|| named_contexts(levels, &images)).flatten();
    let text = if named_contexts.is_some() || images.is_empty() {
        recipe.dockerfile.text().to_owned()
    } else {
        levels.cut(level, &images)?
    };
    Ok(Stages {
        text,
        target: Some(levels.stage(level).id()),
        named_contexts: named_contexts.unwrap_or_default(),
    })
}

/// Returns the text of a recipe without levels, on the highest of `grounds` if there is one.
fn whole_text(
    recipe: &LoadedDockerfile,
    platform: &Platform,
    grounds: &Grounds,
) -> Result<String, Error> {
    let ground = grounds.images.iter().next_back();
    let start = ground.and_then(|(level, _)| BuildStart::from_level(*level));
    match (ground, start) {
        (Some((_, image)), Some(start)) => recipe.whole_text(&image.to_string(), start, platform),
        _ => recipe.whole_text(&recipe.base_name, BuildStart::Scratch, platform),
    }
}

/// Returns the images of `grounds` that a build of `level` takes something from.
fn needed(
    recipe: &LoadedDockerfile,
    levels: &StageLevels<'_>,
    level: Level,
    grounds: &Grounds,
) -> Result<BTreeMap<Level, Reference>, Error> {
    let Some(highest) = grounds.images.keys().rfind(|ground| **ground < level) else {
        return Ok(BTreeMap::new());
    };
    let replaced = levels
        .replaced(level, *highest)
        .map_err(|source| recipe.levels_error(source))?;
    let images = replaced.into_iter().filter_map(|level| {
        let image = grounds.images.get(&level)?;
        Some((level, image.clone()))
    });
    Ok(images.collect())
}

/// Returns the images as named contexts, `None` where one of them has to be in the text.
fn named_contexts(
    levels: &StageLevels<'_>,
    images: &BTreeMap<Level, Reference>,
) -> Option<Vec<NamedContext>> {
    if images.is_empty() {
        return None;
    }
    let context = |(level, image): (&Level, &Reference)| {
        levels.named_context(*level, image).ok()?;
        Some(NamedContext {
            stage: levels.stage(*level).id(),
            image: image.clone(),
        })
    };
    images.iter().map(context).collect()
}

/// Returns `text` with the images of `pins` by digest.
fn pinned(
    recipe: &LoadedDockerfile,
    text: &str,
    platform: &Platform,
    pins: &BTreeMap<String, Reference>,
) -> Result<String, Error> {
    let arguments = BuildArguments {
        args: recipe.args.clone(),
        platform: platform.clone(),
    };
    let dockerfile = recipe.parse(text)?;
    Ok(pin_images(&dockerfile, &arguments, pins, &recipe.pins))
}
