//! What a build came to, or would come to.

use std::path::PathBuf;

use trilith_core::{Action, BuildFrom, Digest, Level, Plan, Reference};
use trilith_oci::publish::{BlobOutcome, PublishReport};

use crate::builder::Built;
use crate::context::Context;
use crate::load::Loaded;
use crate::records::LayerRecord;
use crate::target::{Destination, Target};
use crate::telemetry::Telemetry;

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
    /// How an engine spent its time, where one built.
    pub telemetry: Option<Telemetry>,
    /// What a dry run wrote of what an engine would be sent.
    pub written: Vec<PathBuf>,
}

/// One layer of the image.
#[derive(Clone, Debug)]
pub struct ReportedLayer {
    /// The layer.
    pub layer: LayerRecord,
    /// Whether it was there before, so that no byte of it had to be made or sent.
    pub reused: bool,
}

/// Returns the report of a plan that is not carried out: reuse, or a dry run.
pub(crate) fn planned(
    context: &Context,
    loaded: &Loaded,
    target: &Target,
    plan: Plan,
) -> BuildReport {
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
        tags: references(loaded, target, &plan),
        layers: layers
            .into_iter()
            .map(|layer| ReportedLayer {
                layer,
                reused: true,
            })
            .collect(),
        uploaded_bytes: 0,
        telemetry: None,
        written: Vec::new(),
        plan,
    }
}

/// Returns the image that `plan` reuses or builds from, where it is not the base.
fn ground(loaded: &Loaded, target: &Target, plan: &Plan) -> Option<Reference> {
    match &plan.action {
        Action::Reuse { level, .. } => Some(target.reference(&loaded.tags, *level)),
        Action::Build {
            from: BuildFrom::Level(level, _),
        } => {
            let built = loaded.below.as_deref().unwrap_or(loaded);
            Some(target.reference(&built.tags, *level))
        }
        Action::Build {
            from: BuildFrom::Base,
        } => None,
    }
}

/// Returns the report of `built`, which `published` brought to `target`.
pub(crate) fn carried_out(
    loaded: &Loaded,
    target: &Target,
    plan: Plan,
    built: Built,
    published: &PublishReport,
) -> BuildReport {
    let reused = |layer: &LayerRecord| match target.destination {
        Destination::Registry => published.outcome(&layer.digest) != Some(BlobOutcome::Uploaded),
        Destination::Store | Destination::Engine => built.reused.contains(&layer.digest),
    };
    let source = built.levels.last();
    let digest = source.map(|level| level.top.descriptor.digest.clone());
    let own = built.layers.iter().skip(built.below.len());
    let own = own.map(|layer| ReportedLayer {
        reused: reused(layer),
        layer: layer.clone(),
    });
    BuildReport {
        reference: target.reference(&loaded.tags, Level::Source),
        ground: ground(loaded, target, &plan),
        digest: digest.or(built.kept),
        tags: references(loaded, target, &plan),
        layers: built.below.iter().cloned().chain(own).collect(),
        uploaded_bytes: match target.destination {
            Destination::Registry => built.uploaded_below + published.uploaded_bytes(),
            Destination::Store | Destination::Engine => 0,
        },
        telemetry: built.telemetry,
        written: Vec::new(),
        plan,
    }
}

/// Returns the tags besides those of the levels.
pub(crate) fn other_references(
    loaded: &Loaded,
    target: &Target,
) -> impl Iterator<Item = Reference> {
    let tags = loaded.settings.other_tags.iter();
    tags.map(|tag| target.repository.with_tag(tag.clone()))
}

/// Returns the tags that `plan` writes, least specific first, and then those besides.
fn references(loaded: &Loaded, target: &Target, plan: &Plan) -> Vec<Reference> {
    let levels = plan.tags_to_write.iter();
    let mut references: Vec<Reference> = levels
        .map(|&level| target.reference(&loaded.tags, level))
        .collect();
    let on_source = |from: &BuildFrom| matches!(from, BuildFrom::Level(Level::Source, _));
    if let (Some(below), Action::Build { from }) = (&loaded.below, &plan.action)
        && !on_source(from)
        && let Some(own) = references.pop()
    {
        references.extend([target.reference(&below.tags, Level::Source), own]);
    }
    references.extend(other_references(loaded, target));
    references
}
