//! `trilith build`: the image, built or found.

use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;
use trilith_build::{BuildOptions, BuildReport, Context, Destination, build, export};
use trilith_core::{Action, Digest, Level, PlanOptions};
use trilith_oci::layer::Compression;
use trilith_oci::place::Place;

use super::plan;
use crate::args::{self, Compress};
use crate::output::{Failure, Output, bytes};
use crate::overrides::settings;

#[derive(Serialize)]
struct Document {
    action: &'static str,
    reference: String,
    digest: Option<Digest>,
    tags: Vec<String>,
    layers: Vec<Layer>,
    uploaded_bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Layer {
    level: Level,
    digest: Digest,
    size: u64,
    reused: bool,
}

impl Document {
    fn new(report: &BuildReport, seconds: f64) -> Self {
        let layer = |reported: &trilith_build::ReportedLayer| Layer {
            level: reported.layer.level,
            digest: reported.layer.digest.clone(),
            size: reported.layer.size,
            reused: reported.reused,
        };
        Self {
            action: match report.plan.action {
                Action::Reuse { .. } => "reuse",
                Action::Build { .. } => "build",
            },
            reference: report.reference.to_string(),
            digest: report.digest.clone(),
            tags: report.tags.iter().map(ToString::to_string).collect(),
            layers: report.layers.iter().map(layer).collect(),
            uploaded_bytes: report.uploaded_bytes,
            seconds,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let verb = if self.action == "reuse" {
            "reused"
        } else {
            "built"
        };
        let digest = self
            .digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _infallible = writeln!(text, "{verb} {}\n  digest {digest}", self.reference);
        for layer in &self.layers {
            let Layer {
                level,
                digest,
                size,
                reused,
            } = layer;
            let reused = if *reused { ", reused" } else { "" };
            let short = &digest.hex()[..12];
            let _infallible = writeln!(text, "  {level:<9} layer {short} {}{reused}", bytes(*size));
        }
        for tag in &self.tags {
            let _infallible = writeln!(text, "  tagged {tag}");
        }
        let sent = bytes(self.uploaded_bytes);
        let _infallible = writeln!(text, "  {sent} uploaded, {:.2} s", self.seconds);
        text
    }
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Build,
    output: Output,
) -> Result<(), Failure> {
    let started = Instant::now();
    let settings = settings(&args.project)?;
    let place: Option<Place> = args
        .output
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(Failure::usage)?;
    let options = BuildOptions {
        plan: PlanOptions {
            strategy: args.cache_strategy,
            force: args.force,
        },
        destination: if args.push {
            Destination::Registry
        } else {
            Destination::Store
        },
        compression: match args.compression {
            Compress::Gzip => Compression::default(),
            Compress::Zstd => Compression::Zstd(3),
            Compress::None => Compression::None,
        },
        dry_run: args.dry_run,
    };
    let report = build(context, &settings, &options).await?;
    if args.dry_run {
        let document = plan::Document::new(&report, &settings.base_text);
        return output.result(&document, || document.text());
    }
    if let Some(place) = &place {
        export(context, &report, place).await?;
    }
    let document = Document::new(&report, started.elapsed().as_secs_f64());
    output.result(&document, || document.text())
}
