//! Layers on top of what an engine builds: two images, each complete and with tags of its own.
//!
//! An engine pushes under a tag, and no tag may ever point to half an image. So what it builds is an
//! image that somebody could have asked for, and is built, reused and published as any other; the
//! second one is that, its layers, and no byte of it read. How layers get there is the builder's.

use trilith_core::{BuildFrom, Level, Plan};

use crate::build::carry_out;
use crate::builder::{Builder, Built, Job};
use crate::error::Error;
use crate::flight;
use crate::load::Loaded;
use crate::report::planned;

/// Puts the layers of `job` on `below`, which is built first unless `from` says that it is there.
///
/// # Errors
/// As [`crate::build()`].
pub(crate) async fn build(
    builder: &dyn Builder,
    job: Job<'_>,
    below: &Loaded,
    plan: &Plan,
    from: &BuildFrom,
) -> Result<Built, Error> {
    let of_below = Job {
        loaded: below,
        ..job
    };
    let report = match from {
        BuildFrom::Level(Level::Source, digest) => {
            let mut plan = plan.clone();
            flight::reuse(&mut plan, digest.clone());
            planned(job.context, below, job.target, plan)
        }
        BuildFrom::Level(..) | BuildFrom::Base => {
            Box::pin(carry_out(builder, of_below, plan.clone())).await?
        }
    };
    let digest = report.digest.clone().ok_or_else(|| Error::NotAsAsked {
        level: Level::Source,
        reason: "it is not there".to_owned(),
    })?;
    let mut built = builder.put_layers(job, &digest).await?;
    let of_below = report.layers.iter().map(|reported| reported.layer.clone());
    built.layers = of_below.chain(built.layers).collect();
    built.below = report.layers;
    built.uploaded_below = report.uploaded_bytes;
    built.telemetry = report.telemetry;
    Ok(built)
}
