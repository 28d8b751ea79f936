//! The run: what exists of all images is asked, then what does not is built.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::Notify;
use trilith_core::{Action, BuildFrom, Digest, Level, Repository};

use super::bases::{BaseList, BatchBase};
use super::item::{Asked, Item, described, settings_for};
use super::journal::{
    BatchStatus, ImageLine, Journal, JournalError, JournalLine, RunRecord, read_journal,
};
use super::matrix::Variant;
use super::summary::BatchSummary;
use crate::build::BuildOptions;
use crate::context::Context;
use crate::error::Error;
use crate::known::KnownImages;
use crate::listing::Listing;
use crate::load::{Loaded, ProjectFiles, load_project_files};
use crate::report::BuildReport;
use crate::settings::Settings;
use crate::target::Destination;

/// The longest wait between two attempts at an image.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// How a batch runs.
#[derive(Clone)]
pub struct BatchOptions {
    /// How each image is built. Its `interrupt` ends the batch.
    pub build: BuildOptions,
    /// How many images are worked on at a time.
    pub jobs: NonZeroUsize,
    /// How often an image is tried again that failed in a way that may pass.
    pub retries: u32,
    /// The journal.
    pub manifest: PathBuf,
    /// Go on with the last run of the journal.
    pub resume: bool,
}

/// Something that happens in a batch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum BatchEvent<'a> {
    /// Something that is not wrong, but may not be meant.
    Warning(&'a str),
    /// It is known what exists of all images.
    Asked {
        /// How many will be built.
        to_build: usize,
    },
    /// An image will be tried again.
    Retrying {
        /// The base.
        base: &'a str,
        /// Why.
        error: &'a Error,
        /// After how long.
        delay: Duration,
    },
    /// An image is done with, and the journal has it.
    Finished(&'a ImageLine),
}

/// Makes sure that the image of every base and variant exists. Failures of some stop no others;
/// the summary counts them.
///
/// # Errors
/// A base, variant or setting cannot be used, or a file cannot be read: then nothing has begun. The
/// journal cannot be written, or the user ended the batch: what is in the journal is done.
pub async fn run_batch(
    context: &Context,
    settings: &Settings,
    list: &BaseList,
    variants: &[Variant],
    options: &BatchOptions,
    observe: &dyn Fn(BatchEvent<'_>),
) -> Result<BatchSummary, Error> {
    let batch = Batch::new(context, settings, list, variants, options, observe).await?;
    let work = batch.work();
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => done?,
        () = options.build.interrupt.notified() => {
            // Those under way clean up behind them.
            batch.stop();
            work.await?;
        }
    }
    if batch.stopped.get() {
        return Err(Error::BatchInterrupted {
            manifest: options.manifest.clone(),
        });
    }
    let seconds = batch.begun.elapsed().as_secs_f64();
    let summary = batch.summary.take();
    Ok(summary.finish(seconds, context.registry.stats()))
}

/// Which image of a batch: positions of its base and variant.
#[derive(Clone, Copy)]
struct Position {
    base: usize,
    variant: usize,
}

struct Batch<'a> {
    context: &'a Context,
    settings: &'a Settings,
    bases: &'a [BatchBase],
    variants: Vec<Variant>,
    options: &'a BatchOptions,
    observe: &'a dyn Fn(BatchEvent<'_>),
    /// The files of each variant, where they do not depend on the base.
    files: Vec<Option<ProjectFiles>>,
    known: KnownImages,
    /// The tags of the repositories that images go to.
    listings: HashMap<Repository, Arc<Listing>>,
    journal: Journal,
    run: String,
    /// The images that the run had done before it was resumed, and how often each was tried.
    before: HashMap<(String, usize, String), (BatchStatus, u32)>,
    begun: Instant,
    summary: RefCell<BatchSummary>,
    /// What ends each image under way.
    active: RefCell<HashMap<usize, Arc<Notify>>>,
    stopped: Cell<bool>,
}

impl<'a> Batch<'a> {
    async fn new(
        context: &'a Context,
        settings: &'a Settings,
        list: &'a BaseList,
        variants: &[Variant],
        options: &'a BatchOptions,
        observe: &'a dyn Fn(BatchEvent<'_>),
    ) -> Result<Self, Error> {
        let variants = match variants {
            [] => vec![Variant::default()],
            variants => variants.to_vec(),
        };
        let mut warned = HashSet::new();
        let mut files = Vec::new();
        let mut images_in: HashMap<Repository, usize> = HashMap::new();
        for variant in &variants {
            // Whatever cannot be used is said before anything begins.
            for base in &list.bases {
                let settings = settings_for(settings, base, variant)?;
                *images_in.entry(settings.repository()?.clone()).or_default() += 1;
            }
            let first = settings_for(settings, &list.bases[0], variant)?;
            files.push(match first.dockerfile {
                Some(_) => None,
                None => Some(load_project_files(context, &first).await?),
            });
            for warning in files
                .iter()
                .flatten()
                .flat_map(|files| &files.files.warnings)
            {
                if warned.insert(warning.clone()) {
                    observe(BatchEvent::Warning(warning));
                }
            }
        }
        let images = list.bases.len() * variants.len();
        let path = &options.manifest;
        let lines = if path.exists() {
            read_journal(path)?
        } else {
            Vec::new()
        };
        let (run, before) = if options.resume {
            last_run(lines, path)?
        } else if lines.is_empty() {
            (new_run(), HashMap::new())
        } else {
            return Err(JournalError::Exists { path: path.clone() }.into());
        };
        let batch = Self {
            context,
            settings,
            bases: &list.bases,
            variants,
            options,
            observe,
            files,
            known: KnownImages::default(),
            listings: listings(context, settings, options, images_in)?,
            journal: Journal::open(path)?,
            summary: RefCell::new(BatchSummary {
                run: run.clone(),
                images,
                duplicates: list.duplicates,
                manifest: path.display().to_string(),
                ..BatchSummary::default()
            }),
            run,
            before,
            begun: Instant::now(),
            active: RefCell::default(),
            stopped: Cell::new(false),
        };
        batch
            .write(&JournalLine::Run(RunRecord {
                run: batch.run.clone(),
                started: unix_seconds(),
                images,
                trilith: env!("CARGO_PKG_VERSION").to_owned(),
            }))
            .await?;
        Ok(batch)
    }

    /// Asks about all images, then builds those that are not there.
    async fn work(&self) -> Result<(), Error> {
        let variants = self.variants.len();
        let positions = (0..self.bases.len() * variants).map(|index| Position {
            base: index / variants,
            variant: index % variants,
        });
        let jobs = self.options.jobs.get();
        let mut asked = stream::iter(positions)
            .map(|position| self.ask(position))
            .buffer_unordered(jobs);
        let mut to_build = Vec::new();
        while let Some(outcome) = asked.next().await {
            to_build.extend(outcome?);
        }
        drop(asked);
        if self.stopped.get() {
            return Ok(());
        }
        // In the order of the list, whatever the order of the answers.
        to_build.sort_by_key(|(position, _)| (position.base, position.variant));
        (self.observe)(BatchEvent::Asked {
            to_build: to_build.len(),
        });
        let mut built = stream::iter(to_build)
            .map(|(position, asked)| self.build(position, asked))
            .buffer_unordered(jobs);
        while let Some(outcome) = built.next().await {
            outcome?;
        }
        Ok(())
    }

    /// Ends what is under way and begins nothing more.
    fn stop(&self) {
        self.stopped.set(true);
        for stop in self.active.borrow().values() {
            stop.notify_one();
        }
    }

    /// Asks about an image. Returns what is needed to build it, `None` where it is done with.
    async fn ask(&self, position: Position) -> Result<Option<(Position, Option<Asked>)>, Error> {
        let attempt = self.attempt(position)?;
        let Some(attempt) = attempt else {
            return Ok(None);
        };
        let repository = attempt.item.repository();
        let listing = repository.and_then(|repository| self.listings.get(repository));
        match attempt.item.ask(listing.cloned()).await {
            Ok((asked, loaded)) => {
                let builds = matches!(asked.plan.action, Action::Build { .. });
                if builds {
                    self.known.expect_builds();
                }
                if builds || self.options.build.engine.load {
                    return Ok(Some((position, Some(asked))));
                }
                let done = attempt.item.carry_out(&loaded, asked.plan).await;
                match done {
                    Ok(report) => self.finished(&attempt, &loaded, &report, 1).await?,
                    Err(_) => return Ok(Some((position, None))),
                }
                Ok(None)
            }
            // Asked again when its turn to be built comes.
            Err(error) if error.is_retryable() => Ok(Some((position, None))),
            Err(error) => {
                self.failed(&attempt, &error, 1).await?;
                Ok(None)
            }
        }
    }

    /// Builds an image, asking again where that is needed, as often as is allowed.
    async fn build(&self, position: Position, mut asked: Option<Asked>) -> Result<(), Error> {
        let mut attempts = 0;
        loop {
            let Some(attempt) = self.attempt(position)? else {
                return Ok(());
            };
            attempts += 1;
            let error = match self.try_once(&attempt, asked.take()).await {
                Ok((loaded, report)) => {
                    return self.finished(&attempt, &loaded, &report, attempts).await;
                }
                Err(error) => error,
            };
            if self.stopped.get() {
                return Ok(());
            }
            if attempts > self.options.retries || !error.is_retryable() {
                return self.failed(&attempt, &error, attempts).await;
            }
            let delay = Duration::from_secs(1 << (attempts - 1).min(5)).min(MAX_DELAY);
            (self.observe)(BatchEvent::Retrying {
                base: &self.bases[position.base].text,
                error: &error,
                delay,
            });
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = attempt.stop.notified() => return Ok(()),
            }
        }
    }

    async fn try_once(
        &self,
        attempt: &Attempt<'_>,
        asked: Option<Asked>,
    ) -> Result<(Loaded, BuildReport), Error> {
        let item = &attempt.item;
        let (plan, loaded) = if let Some(asked) = asked {
            item.go_on(&asked);
            (asked.plan, item.load(asked.images).await?)
        } else {
            let (asked, loaded) = item.ask(None).await?;
            (asked.plan, loaded)
        };
        let report = item.carry_out(&loaded, plan).await?;
        Ok((loaded, report))
    }

    /// Returns an attempt at the image at `position`; `None` once the batch is to end.
    fn attempt(&self, position: Position) -> Result<Option<Attempt<'_>>, Error> {
        if self.stopped.get() {
            return Ok(None);
        }
        let (base, variant) = (&self.bases[position.base], &self.variants[position.variant]);
        let index = position.base * self.variants.len() + position.variant;
        let stop = Arc::new(Notify::new());
        self.active.borrow_mut().insert(index, Arc::clone(&stop));
        let item = Item::new(
            self.context,
            settings_for(self.settings, base, variant)?,
            self.files[position.variant].as_ref(),
            &self.known,
            &self.options.build,
            Arc::clone(&stop),
            self.log(base, variant),
        );
        Ok(Some(Attempt {
            item,
            base,
            variant,
            stop,
            begun: self.begun.elapsed(),
            index,
            active: &self.active,
        }))
    }

    /// Returns where what an engine writes for an image goes.
    fn log(&self, base: &BatchBase, variant: &Variant) -> PathBuf {
        let mut directory = self.options.manifest.clone().into_os_string();
        directory.push(".logs");
        let separator = if variant.name.is_empty() { "" } else { "-" };
        Path::new(&directory).join(format!("{}{separator}{}.log", base.line, variant.name))
    }

    async fn finished(
        &self,
        attempt: &Attempt<'_>,
        loaded: &Loaded,
        report: &BuildReport,
        attempts: u32,
    ) -> Result<(), Error> {
        let (status, level) = match &report.plan.action {
            Action::Reuse { level, .. } => (BatchStatus::Reused, Some(*level)),
            Action::Build {
                from: BuildFrom::Level(level, _),
            } => (BatchStatus::Built, Some(*level)),
            Action::Build {
                from: BuildFrom::Base,
            } => (BatchStatus::Built, None),
        };
        let line = ImageLine {
            base_digest: loaded.base.as_ref().map(|base| base.digest.clone()),
            reference: Some(report.reference.to_string()),
            tags: match status {
                BatchStatus::Built => report.tags.iter().map(ToString::to_string).collect(),
                BatchStatus::Reused | BatchStatus::Failed => Vec::new(),
            },
            digest: report.digest.clone(),
            key: Some(loaded.keys.get(Level::Source)),
            level,
            reason: report.plan.reasons.join("; "),
            uploaded_bytes: report.uploaded_bytes,
            ..self.line(attempt, status, attempts)
        };
        self.record(line).await
    }

    async fn failed(
        &self,
        attempt: &Attempt<'_>,
        error: &Error,
        attempts: u32,
    ) -> Result<(), Error> {
        if self.stopped.get() {
            return Ok(());
        }
        let line = ImageLine {
            error: Some(described(error)),
            ..self.line(attempt, BatchStatus::Failed, attempts)
        };
        self.record(line).await
    }

    fn line(&self, attempt: &Attempt<'_>, status: BatchStatus, attempts: u32) -> ImageLine {
        let before = self.before.get(&attempt.key());
        ImageLine {
            run: self.run.clone(),
            base: attempt.base.text.clone(),
            line: attempt.base.line,
            variant: attempt.variant.name.clone(),
            base_digest: None::<Digest>,
            reference: None,
            tags: Vec::new(),
            digest: None,
            key: None,
            status,
            level: None,
            reason: String::new(),
            attempts: attempts + before.map_or(0, |(_, attempts)| *attempts),
            at: attempt.begun.as_secs_f64(),
            seconds: attempt.item.seconds(),
            uploaded_bytes: 0,
            error: None,
            log: attempt.item.log(),
        }
    }

    /// Writes the line of an image, unless the run has one that says the same, and tells of it.
    async fn record(&self, line: ImageLine) -> Result<(), Error> {
        let key = (line.base.clone(), line.line, line.variant.clone());
        let known = self.before.get(&key).is_some_and(|(status, _)| {
            line.status == BatchStatus::Reused && *status != BatchStatus::Failed
        });
        self.summary.borrow_mut().add(&line);
        let line = JournalLine::Image(Box::new(line));
        if !known {
            self.write(&line).await?;
        }
        if let JournalLine::Image(line) = &line {
            (self.observe)(BatchEvent::Finished(line));
        }
        Ok(())
    }

    async fn write(&self, line: &JournalLine) -> Result<(), Error> {
        let written = self.journal.append(line).await;
        let failed = |source| JournalError::Io {
            action: "write",
            path: self.options.manifest.clone(),
            source,
        };
        Ok(written.map_err(failed)?)
    }
}

/// One attempt at an image.
struct Attempt<'a> {
    item: Item<'a>,
    base: &'a BatchBase,
    variant: &'a Variant,
    stop: Arc<Notify>,
    begun: Duration,
    index: usize,
    active: &'a RefCell<HashMap<usize, Arc<Notify>>>,
}

impl Attempt<'_> {
    fn key(&self) -> (String, usize, String) {
        let (base, variant) = (self.base, self.variant);
        (base.text.clone(), base.line, variant.name.clone())
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.active.borrow_mut().remove(&self.index);
    }
}

/// Returns the tags of the repositories that images go to, where they can spare questions.
fn listings(
    context: &Context,
    settings: &Settings,
    options: &BatchOptions,
    images_in: HashMap<Repository, usize>,
) -> Result<HashMap<Repository, Arc<Listing>>, Error> {
    let mut listings = HashMap::new();
    // What has to run steps is worth a question.
    if options.build.destination == Destination::Registry && settings.dockerfile.is_none() {
        for (name, images) in images_in {
            let repository = context.registry.repository(&name)?.for_writing();
            listings.insert(name, Arc::new(Listing::new(repository, images)));
        }
    }
    Ok(listings)
}

type Before = HashMap<(String, usize, String), (BatchStatus, u32)>;

/// Returns the last run of a journal and how its images ended.
fn last_run(lines: Vec<JournalLine>, path: &Path) -> Result<(String, Before), JournalError> {
    let run = lines.iter().rev().find_map(|line| match line {
        JournalLine::Run(run) => Some(run.run.clone()),
        JournalLine::Image(_) => None,
    });
    let run = run.ok_or_else(|| JournalError::NoRun {
        path: path.to_owned(),
    })?;
    let mut before = HashMap::new();
    for line in lines {
        if let JournalLine::Image(line) = line
            && line.run == run
        {
            before.insert(
                (line.base, line.line, line.variant),
                (line.status, line.attempts),
            );
        }
    }
    Ok((run, before))
}

fn new_run() -> String {
    let now = unix_seconds().to_string();
    let process = std::process::id();
    Digest::of(format!("{now} {process}").as_bytes()).hex()[..16].to_owned()
}

fn unix_seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}
