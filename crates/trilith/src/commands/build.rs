//! `trilith build`: the image, built or found.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::Notify;
use trilith_build::engine::EngineKind;
use trilith_build::{
    BuildOptions, BuildReport, BuilderChoice, Context, Destination, Settings, Telemetry, build,
    export,
};
use trilith_core::{Action, Digest, Level, PlanOptions};
use trilith_oci::layer::Compression;
use trilith_oci::place::Place;

use super::plan;
use crate::args::{self, Builder, Compress};
use crate::engine_flags::engine_options;
use crate::engines::LocalEngines;
use crate::interrupt::ended;
use crate::output::{Failure, Output, bytes};
use crate::overrides::settings;
use crate::progress::Progress;

#[derive(Serialize)]
struct Document {
    action: &'static str,
    reference: String,
    digest: Option<Digest>,
    tags: Vec<String>,
    layers: Vec<Layer>,
    uploaded_bytes: u64,
    seconds: f64,
    /// How an engine spent its time; `null` where none built.
    telemetry: Option<Telemetry>,
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
            telemetry: report.telemetry.clone(),
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
        if let Some(telemetry) = &self.telemetry {
            let Telemetry {
                step_count,
                cached_steps,
                ..
            } = telemetry;
            let _infallible = writeln!(text, "  {step_count} steps, {cached_steps} cached");
        }
        let sent = bytes(self.uploaded_bytes);
        let _infallible = writeln!(text, "  {sent} uploaded, {:.2} s", self.seconds);
        text
    }
}

pub(crate) async fn run(
    mut context: Context,
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
        dry_run: args.dry_run,
        build_folder: args.folder.clone(),
        ..options(&context, &args.options, &settings, args.output.is_some())?
    };
    let progress = Progress::new(args.options.progress, output);
    context.observer = Box::new(move |event| progress.event(&event));
    let interrupting = tokio::spawn(interrupt(Arc::clone(&options.interrupt)));
    let report = build(&context, &settings, &options).await;
    interrupting.abort();
    let report = report?;
    if args.dry_run {
        let document = plan::Document::new(&report, &settings.base_text);
        return output.result(&document, || document.text());
    }
    if let Some(place) = &place {
        export(&context, &report, place).await?;
    }
    let document = Document::new(&report, started.elapsed().as_secs_f64());
    output.result(&document, || document.text())
}

/// Returns how images are built. They are kept in an engine alone where the engine builds them and
/// nothing elsewhere is to have them.
pub(super) fn options(
    context: &Context,
    args: &args::BuildArgs,
    settings: &Settings,
    elsewhere: bool,
) -> Result<BuildOptions, Failure> {
    let builder = match args.builder {
        Builder::Auto => BuilderChoice::Auto,
        Builder::Graft => BuilderChoice::Graft,
        Builder::Docker => BuilderChoice::Engine(EngineKind::Docker),
        Builder::Podman => BuilderChoice::Engine(EngineKind::Podman),
        Builder::Buildkit => BuilderChoice::Engine(EngineKind::Buildkit),
    };
    let engine_keeps = args.engine.load && !elsewhere && settings.dockerfile.is_some();
    Ok(BuildOptions {
        plan: PlanOptions {
            strategy: args.cache_strategy,
            force: args.force,
        },
        destination: match (args.push, engine_keeps) {
            (true, _) => Destination::Registry,
            (false, true) => Destination::Engine,
            (false, false) => Destination::Store,
        },
        compression: match args.compression {
            Compress::Gzip => Compression::default(),
            Compress::Zstd => Compression::DEFAULT_ZSTD,
            Compress::None => Compression::None,
        },
        dry_run: false,
        builder,
        engines: Arc::new(LocalEngines::new(context)),
        engine: engine_options(&args.engine)?,
        build_folder: None,
        interrupt: Arc::new(Notify::new()),
    })
}

/// Ends the build at the first Ctrl-C or termination, and this process at the second.
pub(super) async fn interrupt(interrupted: Arc<Notify>) {
    let mut seen = false;
    while ended().await.is_ok() {
        if seen {
            std::process::exit(i32::from(Failure::INTERRUPTED));
        }
        seen = true;
        interrupted.notify_one();
    }
}
