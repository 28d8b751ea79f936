//! `trilith batch`: the images of many bases.

use std::fmt::Write as _;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use trilith_build::Settings;
use trilith_build::batch::{
    BatchOptions, BatchSummary, load_matrix, parse_bases, read_journal, report_html, run_batch,
};

use super::build::{interrupt, options};
use crate::args::{Batch, BatchCommand, BatchReport, BatchRun, Global};
use crate::batch_progress::BatchProgress;
use crate::environment::Environment;
use crate::output::{Failure, Output, bytes};
use crate::overrides::settings;

/// Images at a time without an engine: they wait for the registry most of the time.
const GRAFT_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

pub(crate) async fn run(
    environment: &Environment,
    global: &Global,
    mut args: Batch,
    output: Output,
) -> Result<(), Failure> {
    match args.command.take() {
        Some(BatchCommand::Report(args)) => report(&args),
        None => run_images(environment, global, args.run, output).await,
    }
}

async fn run_images(
    environment: &Environment,
    global: &Global,
    mut args: BatchRun,
    output: Output,
) -> Result<(), Failure> {
    if args.project.base_image.is_some() {
        return Err(Failure::usage(
            "`--base-image` is for one image; bases are in the list",
        ));
    }
    // What it is does not matter: every image has its own.
    args.project.base_image = Some("scratch".to_owned());
    let bases = args.bases.as_deref().unwrap_or(Path::new("-"));
    let list = parse_bases(&read(bases)?).map_err(trilith_build::Error::from)?;
    let variants = match &args.matrix {
        Some(path) => load_matrix(path).map_err(trilith_build::Error::from)?,
        None => Vec::new(),
    };
    let settings = settings(&args.project)?;
    let jobs = args.jobs.unwrap_or_else(|| default_jobs(&settings));
    let context = environment.batch_context(global, output, jobs.get())?;
    let options = BatchOptions {
        build: options(&context, &args.options, &settings, false)?,
        jobs,
        retries: args.retries,
        manifest: args.manifest,
        resume: args.resume,
    };
    let images = list.bases.len() * variants.len().max(1);
    let progress = BatchProgress::new(args.options.progress, output, images, &context.registry);
    let interrupting = tokio::spawn(interrupt(Arc::clone(&options.build.interrupt)));
    let observe = |event: trilith_build::batch::BatchEvent<'_>| progress.event(&event);
    let summary = run_batch(&context, &settings, &list, &variants, &options, &observe).await;
    interrupting.abort();
    progress.end();
    let summary = summary?;
    output.result(&summary, || text(&summary))?;
    if summary.failed > 0 {
        return Err(Failure::partly(summary.failed, summary.images));
    }
    Ok(())
}

/// Returns how many images are worked on at a time: those of an engine share its cores.
fn default_jobs(settings: &Settings) -> NonZeroUsize {
    if settings.dockerfile.is_none() {
        return GRAFT_JOBS;
    }
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn read(path: &Path) -> Result<String, Failure> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let what = format!("cannot read the list of bases `{}`", path.display());
    read.map_err(|error| Failure::system(&what, error))
}

fn report(args: &BatchReport) -> Result<(), Failure> {
    let lines = read_journal(&args.manifest).map_err(trilith_build::Error::from)?;
    let page = report_html(&lines).ok_or_else(|| {
        let manifest = args.manifest.display();
        Failure::usage(format!("there is no batch in `{manifest}`"))
    })?;
    let what = format!("cannot write `{}`", args.html.display());
    std::fs::write(&args.html, page).map_err(|error| Failure::system(&what, error))
}

fn text(summary: &BatchSummary) -> String {
    let BatchSummary {
        images,
        built,
        reused,
        failed,
        ..
    } = summary;
    let mut text = format!("{images} images: {built} built, {reused} reused, {failed} failed\n");
    if summary.duplicates > 0 {
        let _infallible = writeln!(text, "  {} duplicates in the list", summary.duplicates);
    }
    for group in &summary.failures {
        let more = group.count - group.bases.len();
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let bases = group.bases.join(", ");
        let _infallible = writeln!(
            text,
            "  {} failed: {}\n    {bases}{more}",
            group.count, group.cause
        );
    }
    let _infallible = writeln!(
        text,
        "  {} uploaded, {} requests, {:.1} images/s, {:.1} s\n  manifest {}",
        bytes(summary.uploaded_bytes),
        summary.requests,
        summary.images_per_second,
        summary.seconds,
        summary.manifest,
    );
    text
}
