//! One build on one engine: the names and files it uses there and takes away again, what it can
//! start from, and what the engine has already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use trilith_core::{BuildFrom, Digest, Existence, Level, Platform, Reference, Repository};
use trilith_oci::archive::{
    DockerArchiveOptions, DockerArchiveSource, LayerForm, open_docker_archive, write_docker_archive,
};
use trilith_oci::copy::{CopyOptions, copy_image};
use trilith_oci::image::Image;
use trilith_oci::place::{DaemonImage, Place};
use trilith_oci::{ImageStore, Name};

use super::Job;
use super::instructions::Grounds;
use super::leftovers::{self, Note};
use crate::context::Event;
use crate::dockerfile::StageLevels;
use crate::engine::{
    BuiltImage, Engine, EngineError, EngineIdentity, EngineKind, Feature, Progress,
};
use crate::error::Error;
use crate::labels;
use crate::recipe::LoadedDockerfile;
use crate::records::ImageRecord;
use crate::target::{self, Destination};
use crate::telemetry::Collector;

/// Where images are named that nobody is to see.
const SCRATCH_REPOSITORY: &str = "localhost/trilith-build";

/// A build on an engine.
pub(super) struct Session<'a> {
    pub(super) job: Job<'a>,
    pub(super) engine: &'a dyn Engine,
    pub(super) identity: &'a EngineIdentity,
    pub(super) collector: Collector,
    pub(super) files: TempDir,
    names: Mutex<Vec<Borrowed>>,
    _note: Note,
}

/// A name that is used for a while.
struct Borrowed {
    name: Reference,
    /// The image it is given back to.
    before: Option<Digest>,
}

impl<'a> Session<'a> {
    /// Begins a build, after what dead ones have left is gone.
    pub(super) async fn begin(
        job: Job<'a>,
        engine: &'a dyn Engine,
        identity: &'a EngineIdentity,
    ) -> Result<Self, Error> {
        let root = job.context.layout()?.root().to_owned();
        leftovers::sweep(&root, engine, identity).await;
        let files = tempfile::Builder::new()
            .prefix(leftovers::PREFIX)
            .tempdir_in(&root)
            .map_err(trilith_oci::Error::io("create a directory in", &root))?;
        let platforms = &job.loaded.settings.platforms;
        let names = platforms.iter().flat_map(|platform| {
            Level::ALL.map(|level| scratch_name(files.path(), level, platform))
        });
        let note = Note::write(files.path(), identity, names)
            .map_err(trilith_oci::Error::io("write in", files.path()))?;
        Ok(Self {
            job,
            engine,
            identity,
            collector: Collector::default(),
            files,
            names: Mutex::default(),
            _note: note,
        })
    }

    pub(super) fn recipe(&self) -> Result<&'a LoadedDockerfile, Error> {
        let recipe = self.job.loaded.dockerfile.as_deref();
        recipe.ok_or_else(|| Error::NeedsGraft {
            project: self.job.loaded.settings.project.clone(),
        })
    }

    pub(super) async fn can(&self, feature: Feature) -> Result<bool, Error> {
        Ok(self.engine.can(feature).await?)
    }

    /// Returns whether the engine can be told of `grounds` by name; it is asked only where there
    /// is something to tell. A frontend that does not know of names would pass over them.
    pub(super) async fn names_grounds(
        &self,
        recipe: &LoadedDockerfile,
        grounds: &Grounds,
    ) -> Result<bool, Error> {
        let told = !grounds.images.is_empty() && !grounds.local && !recipe.names_frontend();
        Ok(told && self.can(Feature::NamedContexts).await?)
    }

    pub(super) fn observe(&self, progress: &Progress) {
        self.collector.observe(progress);
        self.job.context.observe(Event::Engine(progress));
    }

    /// Returns the directory of the build's files, which are gone when it is dropped.
    pub(super) fn into_files(self) -> TempDir {
        self.files
    }

    /// Returns where the archive of an image is.
    pub(super) fn archive_path(&self, level: Level, platform: &Platform) -> PathBuf {
        let platform = platform.to_string().replace('/', "-");
        self.files.path().join(format!("{level}-{platform}.tar"))
    }

    pub(super) fn archive_options(&self, layers: LayerForm) -> DockerArchiveSource {
        DockerArchiveSource {
            temp_dir: self.files.path().to_owned(),
            layers,
        }
    }

    /// Names an image that has no name, so that it can be taken away again.
    pub(super) async fn name_for_now(
        &self,
        image: &BuiltImage,
        level: Level,
        platform: &Platform,
    ) -> Result<Reference, Error> {
        let name: Reference = scratch_name(self.files.path(), level, platform)
            .parse()
            .map_err(|source| Error::ImageName {
                image: SCRATCH_REPOSITORY.to_owned(),
                source,
            })?;
        self.borrow_name(&name, image).await?;
        Ok(name)
    }

    /// Gives `name` to `image` until the build is over.
    pub(super) async fn borrow_name(
        &self,
        name: &Reference,
        image: &BuiltImage,
    ) -> Result<(), Error> {
        let before = self.engine.find(name).await?;
        let borrowed = Borrowed {
            name: name.clone(),
            before,
        };
        self.lock_names().push(borrowed);
        Ok(self.engine.tag(image, name).await?)
    }

    /// Keeps a name where it is.
    pub(super) fn keep_name(&self, name: &Reference) {
        self.lock_names().retain(|borrowed| borrowed.name != *name);
    }

    fn lock_names(&self) -> std::sync::MutexGuard<'_, Vec<Borrowed>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every name back that was used for a while. What cannot be taken away is told, and
    /// left to the next build.
    pub(super) async fn clean(&mut self) {
        let mut all_given_back = true;
        let names = std::mem::take(&mut *self.lock_names());
        for Borrowed { name, before } in names.into_iter().rev() {
            let given_back = match before {
                Some(id) => self.engine.tag(&BuiltImage { id }, &name).await,
                None => self.engine.untag(&name).await,
            };
            if let Err(error) = given_back {
                all_given_back = false;
                let text = format!("`{name}` stays behind in {}: {error}", self.identity.kind);
                self.job.context.observe(Event::Warning(&text));
            }
        }
        if !all_given_back {
            leftovers::leave_only_note(self.files.path());
            self.files.disable_cleanup(true);
        }
    }

    /// Returns whether the base is what a Docker Engine has by its name.
    pub(super) fn has_base_by_name(&self) -> bool {
        matches!(
            self.job.loaded.settings.base,
            Place::DockerDaemon(DaemonImage::Reference(_))
        )
    }

    /// Copies a base that no engine can get at to the registry that is pushed to.
    pub(super) async fn bring_base(&self) -> Result<(), Error> {
        let settings = &self.job.loaded.settings;
        let Some(base) = &self.job.loaded.base else {
            return Ok(());
        };
        let in_engine = self.has_base_by_name();
        if matches!(settings.base, Place::Registry(_))
            || in_engine && self.identity.kind == EngineKind::Docker
        {
            return Ok(());
        }
        if in_engine || self.job.target.destination != Destination::Registry {
            return Err(Error::BaseOutOfReach {
                base: settings.base_text.clone(),
            });
        }
        let options = CopyOptions::default();
        let (from, to) = (Arc::clone(&base.store), &self.job.target.store);
        copy_image(from, &base.name(), &**to, &options).await?;
        Ok(())
    }

    /// Returns the images that a build from `from` starts with.
    pub(super) async fn grounds(
        &self,
        recipe: &LoadedDockerfile,
        from: &BuildFrom,
    ) -> Result<Grounds, Error> {
        let BuildFrom::Level(level, digest) = from else {
            return Ok(Grounds::default());
        };
        let repository = &self.job.target.repository;
        let mut grounds = Grounds {
            local: self.job.target.destination != Destination::Registry,
            ..Grounds::default()
        };
        match self.ground(repository, *level, digest).await? {
            Some(image) => grounds.images.insert(*level, image),
            None => return Ok(Grounds::default()),
        };
        // A stage may take something from a level below the one that is built on.
        let levels = recipe.levels()?;
        for below in Level::ALL.into_iter().filter(|below| below < level) {
            let levels = levels.as_ref();
            if !levels.is_some_and(|levels| is_needed(levels, below, *level)) {
                continue;
            }
            let existence = if self.job.target.destination == Destination::Engine {
                self.existence(below).await?
            } else {
                let Job {
                    context,
                    loaded,
                    target,
                    ..
                } = self.job;
                target::existence(context, loaded, target, below).await?
            };
            if let Existence::Present(digest) = existence
                && let Some(image) = self.ground(repository, below, &digest).await?
            {
                grounds.images.insert(below, image);
            }
        }
        Ok(grounds)
    }

    /// Returns the images to build on, and those the Dockerfile names, as they are for
    /// `platform`.
    ///
    /// An engine that has an index's image for one platform may take it for that of another.
    pub(super) async fn for_platform(
        &self,
        recipe: &LoadedDockerfile,
        grounds: &Grounds,
        platform: &Platform,
    ) -> Result<(Grounds, BTreeMap<String, Reference>), Error> {
        let (mut grounds, mut pins) = (grounds.clone(), recipe.pins.clone());
        let platforms = &self.job.loaded.settings.platforms;
        if platforms.len() > 1 || *platform != Platform::host() {
            for pin in pins.values_mut() {
                *pin = self.of_platform(pin, platform).await?;
            }
            if !grounds.local {
                for image in grounds.images.values_mut() {
                    *image = self.of_platform(image, platform).await?;
                }
            }
        }
        Ok((grounds, pins))
    }

    async fn of_platform(
        &self,
        image: &Reference,
        platform: &Platform,
    ) -> Result<Reference, Error> {
        let place = Place::Registry(image.clone());
        let (store, name) = self.job.context.open(&place, platform).await?;
        let resolved = Image::load(&*store, &name, platform).await?;
        Ok(image.repository().with_digest(resolved.manifest.digest))
    }

    /// Returns the reference by which the engine can get at the image of `level`, `None` where
    /// it cannot.
    async fn ground(
        &self,
        repository: &Repository,
        level: Level,
        digest: &Digest,
    ) -> Result<Option<Reference>, Error> {
        let name = self.job.target.reference(&self.job.loaded.tags, level);
        match self.job.target.destination {
            Destination::Registry => Ok(Some(repository.with_digest(digest.clone()))),
            Destination::Engine => Ok(Some(name)),
            Destination::Store => {
                if !self.can(Feature::Load).await? {
                    self.out_of_reach(level, &name);
                    return Ok(None);
                }
                match self.bring(level, digest).await {
                    Ok(()) => Ok(Some(name)),
                    Err(Error::Engine(EngineError::Unsupported { .. })) => {
                        self.out_of_reach(level, &name);
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn out_of_reach(&self, level: Level, name: &Reference) {
        let text = format!(
            "{} cannot get at the {level} image `{name}` of the local store: steps below it may \
             run again; with `--push` or `--load` they do not",
            self.identity.kind
        );
        self.job.context.observe(Event::Warning(&text));
    }

    /// Makes sure that the engine has the store's image of `level` under its tag, for the time
    /// of the build.
    async fn bring(&self, level: Level, digest: &Digest) -> Result<(), Error> {
        let name = self.job.target.reference(&self.job.loaded.tags, level);
        let before = self.engine.find(&name).await?;
        if let Some(id) = &before
            && self.is_image(id, digest).await?
        {
            return Ok(());
        }
        self.lock_names().push(Borrowed {
            name: name.clone(),
            before,
        });
        self.send(&name, digest).await
    }

    /// Makes sure that the engine has the image of `level`, and leaves it there.
    pub(super) async fn load(&mut self, level: Level, digest: &Digest) -> Result<(), Error> {
        let loaded = self.bring(level, digest).await;
        if loaded.is_ok() {
            let name = self.job.target.reference(&self.job.loaded.tags, level);
            self.keep_name(&name);
        }
        self.clean().await;
        loaded
    }

    /// Returns whether `id` is what an engine calls the image `digest` at the target.
    async fn is_image(&self, id: &Digest, digest: &Digest) -> Result<bool, Error> {
        if id == digest {
            return Ok(true);
        }
        let image = self.image_at_target(digest).await?;
        Ok(*id == image.config().digest() || *id == image.descriptor().digest)
    }

    async fn image_at_target(&self, digest: &Digest) -> Result<Image, Error> {
        let host = Platform::host();
        let platform = self.job.loaded.settings.platforms.first().unwrap_or(&host);
        let name = Name::Digest(digest.clone());
        let resolved = Image::load(&*self.job.target.store, &name, platform).await?;
        Ok(resolved.image)
    }

    async fn send(&self, name: &Reference, digest: &Digest) -> Result<(), Error> {
        let path = self.files.path().join("load.tar");
        let options = DockerArchiveOptions {
            platform: self.job.loaded.settings.platforms.first().cloned(),
            references: vec![name.clone()],
        };
        let store: Arc<dyn ImageStore> = Arc::clone(&self.job.target.store);
        let from = Name::Digest(digest.clone());
        write_docker_archive(store, &from, &path, &options).await?;
        let sent = self.engine.load(&path).await;
        // A build that goes on should not keep two copies.
        let _gone_with_the_directory = std::fs::remove_file(&path);
        Ok(sent?)
    }

    /// Returns whether the engine keeps the image of `level`, of these inputs.
    pub(super) async fn existence(&self, level: Level) -> Result<Existence, Error> {
        let Job {
            context, loaded, ..
        } = self.job;
        let name = self.job.target.reference(&loaded.tags, level);
        let Some(id) = self.engine.find(&name).await? else {
            return Ok(Existence::Absent);
        };
        let key = loaded.keys.get(level);
        let known = context.records().image(&id);
        if known.is_some_and(|record| record.key == key) {
            return Ok(Existence::Present(id));
        }
        // Nobody here has built or checked it: what it carries says what it is.
        let path = self.files.path().join("found.tar");
        let image = BuiltImage { id: id.clone() };
        self.engine.save(&image, &path).await?;
        let options = self.archive_options(LayerForm::AsStored);
        let (store, found) = open_docker_archive(&path, None, &options).await?;
        let host = Platform::host();
        let platform = loaded.settings.platforms.first().unwrap_or(&host);
        let image = Image::load(&*store, &found, platform).await?.image;
        let carried = labels::key(&image, level);
        if carried.as_deref() == Some(key.to_hex().as_str()) {
            let layers = Vec::new();
            let record = ImageRecord { key, layers };
            context.records().remember_image(&id, &record);
            return Ok(Existence::Present(id));
        }
        let reason = match carried {
            Some(carried) => format!("its {level} key is `{carried}`, not `{key}`"),
            None => format!("it carries no {level} key"),
        };
        Ok(Existence::Stale { digest: id, reason })
    }
}

/// Returns what an image is called for the time of the build whose directory is `files`.
fn scratch_name(files: &Path, level: Level, platform: &Platform) -> String {
    let nonce = files.file_name().unwrap_or_default();
    let nonce = nonce.to_string_lossy().to_lowercase().replace('.', "");
    let platform = platform.to_string().replace('/', "-");
    format!("{SCRATCH_REPOSITORY}:{nonce}-{level}-{platform}")
}

/// Returns whether a level above `ground` takes something from `below` that `ground` has not.
fn is_needed(levels: &StageLevels<'_>, below: Level, ground: Level) -> bool {
    let above = Level::ALL.into_iter().filter(|above| *above > ground);
    above
        .map(|above| levels.replaced(above, ground))
        .any(|needed| needed.is_ok_and(|needed| needed.contains(&below)))
}
