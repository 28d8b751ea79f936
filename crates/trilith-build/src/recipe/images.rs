//! The images that a Dockerfile names: what they are called, and what they are.

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::{Digest, Level, Platform, Reference};
use trilith_oci::place::{DaemonImage, Place};

use crate::context::Context;
use crate::dockerfile::{BuildArguments, Dockerfile, DockerfileError, Origin, StageGraph};
use crate::error::Error;
use crate::load::{self, ResolvedImage};
use crate::settings::Settings;

/// An image that a Dockerfile is built from or copies from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamedImage {
    pub(super) level: Level,
    /// The name of the input that holds its digest.
    pub(super) input: String,
    /// What the Dockerfile calls it.
    pub(super) reference: String,
}

/// Images, resolved.
pub(super) struct Pinned {
    /// What each name resolved to.
    pub(super) digests: BTreeMap<String, Digest>,
    /// The references by digest of those that a registry has.
    pub(super) pins: BTreeMap<String, Reference>,
}

/// Returns how instructions and templates see the base: as it is named, so that they can tell
/// one distribution from another. A base that lies in a file or directory is called by where a
/// build copies it to, as no path may reach an image.
pub(super) fn base_name(settings: &Settings, base: Option<&ResolvedImage>) -> String {
    match (&settings.base, base) {
        (Place::Registry(_), _) => {
            let text = &settings.base_text;
            text.strip_prefix("docker://").unwrap_or(text).to_owned()
        }
        (Place::DockerDaemon(DaemonImage::Reference(reference)), _) => reference.to_string(),
        (_, Some(base)) => copied_base(settings, &base.digest),
        (_, None) => "scratch".to_owned(),
    }
}

fn copied_base(settings: &Settings, digest: &Digest) -> String {
    match &settings.repository {
        Some(repository) => repository.with_digest(digest.clone()).to_string(),
        None => format!("base@{digest}"),
    }
}

/// Returns the images that building `target`, the last stage if there is none, needs.
pub(super) fn of_whole(
    dockerfile: &Dockerfile,
    args: &BTreeMap<String, String>,
    platform: &Platform,
    target: Option<&str>,
) -> Result<BTreeSet<NamedImage>, DockerfileError> {
    let arguments = BuildArguments {
        args: args.clone(),
        platform: platform.clone(),
    };
    let graph = StageGraph::new(dockerfile, &arguments);
    let last = dockerfile.stages().len() - 1;
    // A target that does not exist is the engine's to refuse.
    let target = target
        .and_then(|name| dockerfile.stage(name))
        .map_or(last, crate::dockerfile::Stage::index);
    let mut images = BTreeSet::new();
    let mut add = |input: String, reference: &str| {
        images.insert(NamedImage {
            level: Level::Versioned,
            input,
            reference: reference.to_owned(),
        });
    };
    for index in graph.needed(target, &BTreeSet::new())? {
        if let Origin::Image(reference) = graph.base(index)? {
            add(format!("dockerfile/image/{reference}"), reference);
        }
        for origin in graph.origins(index)? {
            if let Origin::Image(reference) = origin {
                add(format!("dockerfile/image/{reference}"), reference);
            }
        }
    }
    Ok(images)
}

/// Asks what `images` are. The base is known already.
pub(super) async fn resolve(
    context: &Context,
    settings: &Settings,
    images: &[NamedImage],
    base_name: &str,
    base: Option<&ResolvedImage>,
) -> Result<Pinned, Error> {
    let mut digests = BTreeMap::new();
    let mut pins = BTreeMap::new();
    let host = Platform::host();
    let platform = settings.platforms.first().unwrap_or(&host);
    for image in images {
        let name = &image.reference;
        if digests.contains_key(name) {
            continue;
        }
        let parsed: Result<Reference, _> = name.parse();
        let reference = parsed.map_err(|source| Error::ImageName {
            image: name.clone(),
            source,
        })?;
        let digest = match base {
            Some(base) if name == base_name => base.digest.clone(),
            _ => {
                let place = Place::Registry(reference.clone());
                match load::resolve(context, &place, platform).await? {
                    Some(found) => found.digest,
                    None => continue,
                }
            }
        };
        let is_in_engine = name == base_name && matches!(settings.base, Place::DockerDaemon(_));
        if reference.digest().is_none() && !is_in_engine {
            let pinned = reference.repository().with_digest(digest.clone());
            pins.insert(name.clone(), pinned);
        }
        digests.insert(name.clone(), digest);
    }
    Ok(Pinned { digests, pins })
}
