//! One image of a batch: asked about, then built.

use std::error::Error as _;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use trilith_core::{Action, Plan, Repository};
use trilith_oci::Kind;

use super::bases::BatchBase;
use super::journal::{BatchError, PhaseSeconds};
use super::matrix::Variant;
use crate::build::{BuildOptions, carry_out, plan_job, unless_interrupted};
use crate::builder::{self, Job};
use crate::context::{Context, Event};
use crate::engine::Progress;
use crate::error::Error;
use crate::known::KnownImages;
use crate::listing::Listing;
use crate::load::{Loaded, ProjectFiles, ResolvedImages, assemble, load_knowing, resolve_images};
use crate::report::BuildReport;
use crate::settings::{Settings, base_in};
use crate::target::Target;

/// Returns the settings for one base and variant.
///
/// # Errors
/// The base is no place, the repository no repository, arguments are given and nothing takes
/// them, or the agent or the user cannot be put into the image.
pub(super) fn settings_for(
    project: &Settings,
    base: &BatchBase,
    variant: &Variant,
) -> Result<Settings, Error> {
    let mut settings = project.clone();
    settings.base = base_in(&project.project, base.text.parse().map_err(Error::Base)?);
    settings.base_text.clone_from(&base.text);
    if let Some(version) = &variant.version {
        settings.version.clone_from(version);
    }
    settings.suffix.push_str(&variant.suffix);
    for platforms in [&variant.platforms, &base.platforms] {
        if !platforms.is_empty() {
            settings.platforms.clone_from(platforms);
        }
    }
    if let Some(repository) = &variant.repository {
        settings.repository = Some(repository.clone());
    }
    if let (Some(name), Some(repository)) = (&base.name, &settings.repository) {
        let named = format!("{repository}/{name}").parse();
        let named = named.map_err(|_| Error::BatchName {
            line: base.line,
            repository: Box::new(repository.clone()),
            name: name.clone(),
        })?;
        settings.repository = Some(named);
    }
    settings.other_tags.extend(base.tag.clone());
    let args = variant.args.iter().chain(&base.args);
    match &mut settings.dockerfile {
        Some(recipe) => {
            recipe
                .args
                .extend(args.map(|(name, value)| (name.clone(), value.clone())));
            if variant.target.is_some() {
                recipe.target.clone_from(&variant.target);
            }
        }
        None if args.clone().next().is_some() || variant.target.is_some() => {
            return Err(Error::Unset {
                what: "the Dockerfile that build arguments and targets are for",
                how: "set `path` under `[dockerfile]` in `trilith.toml`, or pass `--dockerfile`",
            });
        }
        None => {}
    }
    settings.check()?;
    Ok(settings)
}

/// What was learned of an image before it is built.
pub(super) struct Asked {
    pub(super) seconds: PhaseSeconds,
    pub(super) images: ResolvedImages,
    pub(super) plan: Plan,
}

/// An image of a batch while it is worked on.
pub(super) struct Item<'a> {
    context: Context,
    settings: Settings,
    options: BuildOptions,
    /// The files of a recipe of layers; those of a Dockerfile are loaded for each base, as its
    /// text may depend on it.
    files: Option<&'a ProjectFiles>,
    known: &'a KnownImages,
    watched: Arc<Mutex<Watched>>,
}

/// What is seen of an image while it is built.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) seconds: PhaseSeconds,
    published: Option<Instant>,
    /// Where what an engine writes goes.
    log: PathBuf,
    file: Option<File>,
}

impl<'a> Item<'a> {
    /// Returns an image to be worked on, which `stop` ends early. What an engine writes goes to
    /// the file `log`.
    pub(super) fn new(
        context: &Context,
        settings: Settings,
        files: Option<&'a ProjectFiles>,
        known: &'a KnownImages,
        options: &BuildOptions,
        stop: Arc<Notify>,
        log: PathBuf,
    ) -> Self {
        let watched = Arc::new(Mutex::new(Watched {
            log,
            ..Watched::default()
        }));
        let watching = Arc::clone(&watched);
        Self {
            context: context.observed_by(Box::new(move |event| lock(&watching).event(&event))),
            settings,
            options: BuildOptions {
                interrupt: stop,
                ..options.clone()
            },
            files,
            known,
            watched,
        }
    }

    /// Returns the repository that the image is to be in.
    pub(super) fn repository(&self) -> Option<&Repository> {
        self.settings.repository.as_ref()
    }

    /// Asks what the base is and what exists of the image, of which `listing` may tell something.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) async fn ask(
        &self,
        listing: Option<Arc<Listing>>,
    ) -> Result<(Asked, Loaded), Error> {
        let begun = Instant::now();
        let loaded = unless_interrupted(&self.options, self.resolve_and_load()).await?;
        let images = loaded.resolved();
        lock(&self.watched).seconds.resolve = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let target = Target {
            listing,
            ..self.target()?
        };
        let builder = builder::choose(&self.settings, &self.options)?;
        let plan = plan_job(&*builder, self.job(&loaded, &target));
        let plan = unless_interrupted(&self.options, plan).await?;
        lock(&self.watched).seconds.plan = begun.elapsed().as_secs_f64();
        let seconds = self.seconds();
        let asked = Asked {
            seconds,
            images,
            plan,
        };
        Ok((asked, loaded))
    }

    async fn resolve_and_load(&self) -> Result<Loaded, Error> {
        let (context, settings) = (&self.context, &self.settings);
        let Some(files) = self.files else {
            return load_knowing(context, settings, self.known).await;
        };
        let images = resolve_images(context, settings, self.known).await?;
        assemble(context, settings, files, None, images).await
    }

    /// Returns inputs, keys and tags for images that have been resolved.
    ///
    /// # Errors
    /// The inputs have no names, or the tags break the grammar.
    pub(super) async fn load(&self, images: ResolvedImages) -> Result<Loaded, Error> {
        let (context, settings) = (&self.context, &self.settings);
        match self.files {
            Some(files) => assemble(context, settings, files, None, images).await,
            None => load_knowing(context, settings, self.known).await,
        }
    }

    /// Reuses or builds, as `plan` says.
    ///
    /// # Errors
    /// As [`crate::build()`].
    pub(super) async fn carry_out(
        &self,
        loaded: &Loaded,
        plan: Plan,
    ) -> Result<BuildReport, Error> {
        let begun = Instant::now();
        let target = self.target()?;
        let builder = builder::choose(&self.settings, &self.options)?;
        let builds = matches!(plan.action, Action::Build { .. });
        let report = carry_out(&*builder, self.job(loaded, &target), plan).await;
        if builds {
            let mut watched = lock(&self.watched);
            let published = watched.published.take().unwrap_or_else(Instant::now);
            watched.seconds.build = published.duration_since(begun).as_secs_f64();
            watched.seconds.publish = published.elapsed().as_secs_f64();
        }
        report
    }

    /// Goes on from what was `asked` by another attempt.
    pub(super) fn go_on(&self, asked: &Asked) {
        lock(&self.watched).seconds = asked.seconds;
    }

    /// Returns how long the phases took so far.
    pub(super) fn seconds(&self) -> PhaseSeconds {
        lock(&self.watched).seconds
    }

    /// Returns where what an engine wrote is, if one wrote anything.
    pub(super) fn log(&self) -> Option<PathBuf> {
        let watched = lock(&self.watched);
        watched.file.as_ref().map(|_| watched.log.clone())
    }

    fn target(&self) -> Result<Target, Error> {
        let repository = self.settings.repository()?;
        Target::open(&self.context, repository, self.options.destination)
    }

    fn job<'b>(&'b self, loaded: &'b Loaded, target: &'b Target) -> Job<'b> {
        Job {
            context: &self.context,
            loaded,
            target,
            options: &self.options,
        }
    }
}

impl Watched {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Publishing { .. } => self.published = Some(Instant::now()),
            Event::Engine(Progress::Started { step, title }) => {
                self.write(&format!("#{step} {title}\n"));
            }
            Event::Engine(Progress::Log { text, .. }) => self.write(text),
            Event::Engine(Progress::Finished {
                step,
                error: Some(error),
                ..
            }) => self.write(&format!("#{step} failed: {error}\n")),
            _ => {}
        }
    }

    /// Writes to the log, or does not: an image is not worth less for it.
    fn write(&mut self, text: &str) {
        if self.file.is_none() {
            let directory = self.log.parent().map(std::fs::create_dir_all);
            if directory.is_none_or(|made| made.is_err()) {
                return;
            }
            self.file = File::create(&self.log).ok();
        }
        if let Some(file) = &mut self.file {
            let _best_effort = file.write_all(text.as_bytes());
        }
    }
}

/// Returns what of `error` a journal holds.
pub(super) fn described(error: &Error) -> BatchError {
    let kind = match error.kind() {
        Kind::Usage => "usage",
        Kind::NotFound => "not_found",
        Kind::Denied => "denied",
        Kind::Unavailable => "unavailable",
        Kind::Corrupt => "corrupt",
        Kind::System => "system",
    };
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    BatchError {
        kind: kind.to_owned(),
        message: error.to_string(),
        causes,
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    // A panic elsewhere leaves the values whole.
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
