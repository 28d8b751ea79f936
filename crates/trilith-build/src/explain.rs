//! Why would this rebuild? The inputs of an image against those of the working tree.

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::{Change, Digest, InputList, InputsDocument, Level, Platform, Tags, diff};
use trilith_oci::place::Place;

use crate::carried;
use crate::context::{Context, Event};
use crate::error::Error;
use crate::load::load;
use crate::settings::Settings;

/// What differs between an image and the working tree, and what that costs.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The image that was compared with.
    pub image: String,
    /// Its digest.
    pub digest: Digest,
    /// The level of the image: levels above it are not compared.
    pub level: Level,
    /// Every input that differs, by level and name.
    pub changes: Vec<Change>,
    /// The layers that have to be written anew.
    pub layers: Vec<CostlyLayer>,
    /// The levels of a Dockerfile whose steps have to be run anew, least specific first.
    pub steps: Vec<CostlySteps>,
    /// The tags of the working tree.
    pub tags: Tags,
}

/// A layer whose content differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostlyLayer {
    /// Its level.
    pub level: Level,
    /// Where it goes in the image.
    pub to: String,
    /// What it holds now, in bytes before compression.
    pub size: u64,
}

/// The steps of a level of a Dockerfile, which an engine may still find in its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostlySteps {
    /// The level.
    pub level: Level,
    /// What the build context holds for it, in bytes.
    pub size: u64,
}

impl Explanation {
    /// Returns the lowest level that differs: it and all above are built again.
    #[must_use]
    pub fn rebuilt_from(&self) -> Option<Level> {
        self.changes.iter().map(|change| change.level).min()
    }

    /// Returns the bytes that go into new layers, before compression: of files, not of what steps
    /// make.
    #[must_use]
    pub fn cost(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| layer.size);
        layers
            .chain(self.steps.iter().map(|steps| steps.size))
            .sum()
    }
}

/// Compares `image`, or what the project was last built into, with the working tree.
///
/// # Errors
/// The project cannot be read, there is nothing to compare with, or the image carries no list
/// of inputs.
pub async fn explain(
    context: &Context,
    settings: &Settings,
    image: Option<&Place>,
) -> Result<Explanation, Error> {
    let (image, digest, document) = match image {
        Some(place) => document_of(context, place).await?,
        None => last_document(context, settings)?,
    };
    let loaded = load(context, settings).await?;
    for warning in &loaded.warnings {
        context.observe(Event::Warning(warning));
    }
    let level = document.level();
    let now = loaded.inputs.up_to(level);
    let changes = diff(document.inputs(), &now);
    let layers = costly_layers(&changes, &now);
    let steps = costly_steps(&changes, &now, level);
    Ok(Explanation {
        image,
        digest,
        level,
        changes,
        layers,
        steps,
        tags: loaded.tags,
    })
}

fn last_document(
    context: &Context,
    settings: &Settings,
) -> Result<(String, Digest, InputsDocument), Error> {
    let never = || Error::NeverBuilt {
        project: settings.project.clone(),
    };
    let last = context
        .records()
        .last_build(&settings.project)
        .ok_or_else(never)?;
    let document = InputsDocument::parse(last.inputs.as_bytes()).map_err(|_| never())?;
    Ok((last.reference, last.digest, document))
}

async fn document_of(
    context: &Context,
    place: &Place,
) -> Result<(String, Digest, InputsDocument), Error> {
    let (store, name) = context.open(place, &Platform::host()).await?;
    let image = place.to_string();
    let top = store.fetch_manifest(&name).await?;
    let document = carried::load(&*store, &top, &image).await?;
    let digest = top.descriptor.digest;
    document
        .map(|document| (image.clone(), digest, document))
        .ok_or(Error::NoInputs { image })
}

/// Returns the layers among `changes` that exist now, with the size of what they hold.
fn costly_layers(changes: &[Change], now: &InputList) -> Vec<CostlyLayer> {
    let touched: BTreeSet<(Level, &str)> = changes
        .iter()
        .filter_map(|change| Some((change.level, layer_of(&change.name)?)))
        .collect();
    let mut sizes: BTreeMap<(Level, &str), u64> = BTreeMap::new();
    for input in now.as_slice() {
        if let Some(layer) = layer_of(&input.name) {
            *sizes.entry((input.level, layer)).or_default() += input.size;
        }
    }
    touched
        .into_iter()
        .filter_map(|layer| Some((layer, *sizes.get(&layer)?)))
        .map(|((level, to), size)| CostlyLayer {
            level,
            to: format!("/{to}"),
            size,
        })
        .collect()
}

/// Returns what is run anew up to `top` where the recipe is a Dockerfile: the lowest level among
/// `changes` and all above.
fn costly_steps(changes: &[Change], now: &InputList, top: Level) -> Vec<CostlySteps> {
    let inputs = now.as_slice();
    let of_dockerfile = |name: &str| name == "dockerfile" || name.starts_with("dockerfile/");
    // What is put on top of what steps make has none to run.
    let has_layers = inputs.iter().any(|input| layer_of(&input.name).is_some());
    let is_on_top = |name: &str| layer_of(name).is_some() || name.starts_with("config/");
    let of_steps = changes
        .iter()
        .filter(|change| !(has_layers && is_on_top(&change.name)));
    let lowest = of_steps.map(|change| change.level).min();
    let Some(lowest) = lowest.filter(|_| inputs.iter().any(|input| of_dockerfile(&input.name)))
    else {
        return Vec::new();
    };
    let levels = Level::ALL
        .into_iter()
        .filter(|level| (lowest..=top).contains(level));
    levels
        .map(|level| {
            let seen = inputs.iter().filter(|input| input.level == level);
            let seen = seen.filter(|input| input.name.starts_with("context//"));
            CostlySteps {
                level,
                size: seen.map(|input| input.size).sum(),
            }
        })
        .collect()
}

/// Returns the layer that an input belongs to: `TO` of `layer/TO` and `file/TO//PATH`.
fn layer_of(input: &str) -> Option<&str> {
    if let Some(to) = input.strip_prefix("layer/") {
        return Some(to);
    }
    let (to, _path) = input.strip_prefix("file/")?.split_once("//")?;
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_name_their_layer() {
        for (input, layer) in [
            ("layer/opt/app", Some("opt/app")),
            ("file/opt/app//a/b.py", Some("opt/app")),
            ("file/opt/app#2//", Some("opt/app#2")),
            ("file/////odd", Some("")),
            ("layer-order", None),
            ("source/app//a.py", None),
            ("config/env/A", None),
        ] {
            assert_eq!(layer_of(input), layer, "{input}");
        }
    }
}
