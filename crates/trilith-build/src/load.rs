//! From settings to inputs, keys and tags: files are hashed while the base is resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use trilith_core::{
    Base, BaseKind, BaseName, Digest, InputList, Inputs, Keys, Platform, Reference, Repository,
    Scheme, StatCache, Tags,
};
use trilith_oci::place::{DaemonImage, Place};
use trilith_oci::publish::BlobOrigin;
use trilith_oci::{BlobSource, ImageStore, Name};

use crate::agent;
use crate::context::Context;
use crate::error::Error;
use crate::inputs::{FileInputs, OpenHandsFiles, load_files, load_openhands_files};
use crate::known::KnownImages;
use crate::recipe::{DockerfileFiles, LoadedDockerfile, load_dockerfile_files};
use crate::settings::Settings;
use crate::target::{Destination, Target};

/// Everything that decides what is built, read and resolved.
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) files: Arc<FileInputs>,
    /// Held while the layers of the files are made, so that of many builds one makes them.
    pub(crate) layers_turn: Arc<tokio::sync::Mutex<()>>,
    /// What the user should know, a sentence each.
    pub(crate) warnings: Vec<String>,
    /// The recipe that an engine builds, where there is one.
    pub(crate) dockerfile: Option<Arc<LoadedDockerfile>>,
    /// The base; `None` for scratch.
    pub(crate) base: Option<ResolvedImage>,
    /// The images that layers come from, by reference.
    pub(crate) images: BTreeMap<String, ResolvedImage>,
    pub(crate) inputs: InputList,
    pub(crate) keys: Keys,
    pub(crate) tags: Tags,
    /// What an engine builds, where layers are put on top of that. Both have the images of the levels
    /// below in common.
    pub(crate) below: Option<Box<Loaded>>,
}

/// An image that was named by a tag, pinned to what the tag pointed to when it was asked.
#[derive(Clone)]
pub(crate) struct ResolvedImage {
    pub(crate) store: Arc<dyn ImageStore>,
    pub(crate) digest: Digest,
    /// Its repository, where it is on a registry: what blobs can be mounted from.
    pub(crate) repository: Option<Repository>,
}

impl ResolvedImage {
    pub(crate) fn name(&self) -> Name {
        Name::Digest(self.digest.clone())
    }

    /// Returns where `target` can take the image's blobs from.
    pub(crate) fn origins(&self, target: &Target) -> Vec<BlobOrigin> {
        let upload = BlobOrigin::Upload(BlobSource::Store(Arc::clone(&self.store)));
        match &self.repository {
            Some(repository) if target.destination == Destination::Registry => {
                if *repository == target.repository {
                    vec![BlobOrigin::Present]
                } else if repository.registry() == target.repository.registry() {
                    vec![BlobOrigin::Mount(repository.clone()), upload]
                } else {
                    vec![upload]
                }
            }
            _ => vec![upload],
        }
    }
}

/// The tags of a project, and what the user should know.
#[derive(Clone, Debug)]
pub struct TagReport {
    /// The tags.
    pub tags: Tags,
    /// Sentences.
    pub warnings: Vec<String>,
}

/// Computes the tags of a project. The `trilith` scheme asks for the digest of a base that
/// is named by a tag; the openhands schemes ask nobody.
///
/// # Errors
/// A file cannot be read, the base cannot be resolved, or a tag would break the grammar.
pub async fn tags(context: &Context, settings: &Settings) -> Result<TagReport, Error> {
    if settings.scheme == Scheme::Trilith {
        let loaded = load(context, settings).await?;
        return Ok(TagReport {
            tags: loaded.tags,
            warnings: loaded.warnings,
        });
    }
    let cache = context.stat_cache(&settings.project);
    let for_files = settings.clone();
    let files = hashing(cache, move |cache| load_openhands_files(&for_files, cache)).await?;
    Ok(TagReport {
        tags: files.tags(settings)?,
        warnings: files.warnings,
    })
}

/// The files of a project, read and hashed: the same for every base.
pub(crate) struct ProjectFiles {
    pub(crate) files: Arc<FileInputs>,
    openhands: Option<OpenHandsFiles>,
    layers_turn: Arc<tokio::sync::Mutex<()>>,
}

/// The images that a build starts from, pinned.
#[derive(Clone)]
pub(crate) struct ResolvedImages {
    /// The base; `None` for scratch.
    pub(crate) base: Option<ResolvedImage>,
    /// Those that layers come from, by reference.
    layers: BTreeMap<String, ResolvedImage>,
}

impl Loaded {
    /// Returns the images that were resolved.
    pub(crate) fn resolved(&self) -> ResolvedImages {
        ResolvedImages {
            base: self.base.clone(),
            layers: self.images.clone(),
        }
    }

    /// Returns what is built of the same files and images by `settings`, which make `inputs` of them
    /// and nothing but the Dockerfile.
    fn with_dockerfile_alone(
        &self,
        settings: Settings,
        inputs: &Inputs,
        project: &ProjectFiles,
    ) -> Result<Self, Error> {
        let list = inputs.list()?;
        let keys = list.keys();
        let Tags { source, .. } = tags_of(&settings, project, inputs, &keys)?;
        Ok(Self {
            settings,
            files: Arc::new(self.files.without_layers()),
            layers_turn: Arc::clone(&self.layers_turn),
            warnings: Vec::new(),
            dockerfile: self.dockerfile.clone(),
            base: self.base.clone(),
            images: self.images.clone(),
            inputs: list,
            keys,
            tags: Tags {
                source,
                ..self.tags.clone()
            },
            below: None,
        })
    }
}

/// Reads and resolves all that `settings` name.
pub(crate) async fn load(context: &Context, settings: &Settings) -> Result<Loaded, Error> {
    load_knowing(context, settings, &KnownImages::default()).await
}

/// As [`load`], where something is known of images.
pub(crate) async fn load_knowing(
    context: &Context,
    settings: &Settings,
    known: &KnownImages,
) -> Result<Loaded, Error> {
    let cache = context.stat_cache(&settings.project);
    let for_files = settings.clone();
    let files = hashing(cache, move |cache| {
        let files = project_files(&for_files, cache)?;
        Ok((files, load_dockerfile_files(&for_files, cache)?))
    });
    let images = resolve_images(context, settings, known);
    let ((files, dockerfile), images) = tokio::try_join!(files, images)?;
    assemble(context, settings, &files, dockerfile, images).await
}

/// Reads and hashes the files that `settings` name, but those of a Dockerfile.
pub(crate) async fn load_project_files(
    context: &Context,
    settings: &Settings,
) -> Result<ProjectFiles, Error> {
    let cache = context.stat_cache(&settings.project);
    let settings = settings.clone();
    hashing(cache, move |cache| project_files(&settings, cache)).await
}

fn project_files(settings: &Settings, cache: &StatCache) -> Result<ProjectFiles, Error> {
    Ok(ProjectFiles {
        files: Arc::new(load_files(settings, cache)?),
        openhands: match settings.scheme {
            Scheme::Trilith => None,
            Scheme::OpenHandsV0 | Scheme::OpenHandsV1 => {
                Some(load_openhands_files(settings, cache)?)
            }
        },
        layers_turn: Arc::default(),
    })
}

/// Asks what the images that `settings` name point to.
pub(crate) async fn resolve_images(
    context: &Context,
    settings: &Settings,
    known: &KnownImages,
) -> Result<ResolvedImages, Error> {
    let platform = settings
        .platforms
        .first()
        .cloned()
        .unwrap_or_else(Platform::host);
    let base = known.resolve(context, &settings.base, &platform).await?;
    let mut layers = BTreeMap::new();
    for reference in settings
        .layers
        .iter()
        .filter_map(|layer| layer.from.as_ref())
    {
        let place = Place::Registry(reference.clone());
        if let Some(image) = known.resolve(context, &place, &platform).await? {
            layers.insert(reference.to_string(), image);
        }
    }
    Ok(ResolvedImages { base, layers })
}

/// Makes inputs, keys and tags of what was read and resolved.
pub(crate) async fn assemble(
    context: &Context,
    settings: &Settings,
    project: &ProjectFiles,
    dockerfile: Option<DockerfileFiles>,
    ResolvedImages {
        base,
        layers: images,
    }: ResolvedImages,
) -> Result<Loaded, Error> {
    let files = &project.files;
    let below = agent::below(settings);
    let dockerfile = match dockerfile {
        Some(dockerfile) => {
            let settings = below.as_ref().unwrap_or(settings);
            let resolved = dockerfile.resolve(context, settings, base.as_ref()).await?;
            Some(Arc::new(resolved))
        }
        None => None,
    };
    let mut warnings = files.warnings.clone();
    if let Some(dockerfile) = &dockerfile {
        warnings.extend(dockerfile.warnings.iter().cloned());
    }
    let digests: Vec<Option<Digest>> = files
        .layers
        .iter()
        .map(|layer| layer.recipe.from.as_ref().map(Reference::to_string))
        .map(|reference| Some(images.get(&reference?)?.digest.clone()))
        .collect();
    let mut inputs = files.with_images(
        settings,
        base_input(&settings.base, base.as_ref()),
        &digests,
        dockerfile
            .as_ref()
            .map(|dockerfile| dockerfile.input.clone()),
    );
    let list = inputs.list()?;
    let keys = list.keys();
    let tags = tags_of(settings, project, &inputs, &keys)?;
    let mut loaded = Loaded {
        settings: settings.clone(),
        files: Arc::clone(files),
        layers_turn: Arc::clone(&project.layers_turn),
        warnings,
        dockerfile,
        base,
        images,
        inputs: list,
        keys,
        tags,
        below: None,
    };
    if let Some(settings) = below {
        inputs.layers.clear();
        inputs.config.clone_from(&settings.config);
        let below = loaded.with_dockerfile_alone(settings, &inputs, project)?;
        loaded.below = Some(Box::new(below));
    }
    Ok(loaded)
}

fn tags_of(
    settings: &Settings,
    project: &ProjectFiles,
    inputs: &Inputs,
    keys: &Keys,
) -> Result<Tags, Error> {
    match &project.openhands {
        Some(files) => files.tags(settings),
        None => Ok(inputs.tags(keys, &settings.suffix)?),
    }
}

/// Runs `work` off the asynchronous threads. What the cache learnt is saved after its result is
/// returned, since that may take longer than the work.
async fn hashing<T: Send + 'static>(
    cache: StatCache,
    work: impl FnOnce(&StatCache) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, result) = oneshot::channel();
    let task = tokio::task::spawn_blocking(move || {
        let _nobody_waits_any_more = sender.send(work(&cache));
        // A cache that cannot be written costs the next run some time and nobody anything else.
        let _saved_or_not = cache.save();
    });
    if let Ok(result) = result.await {
        return result;
    }
    match task.await {
        Ok(()) => unreachable!("a result is always sent"),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Asks what `place` points to. A digest is believed, and costs no request.
pub(crate) async fn resolve(
    context: &Context,
    place: &Place,
    platform: &Platform,
) -> Result<Option<ResolvedImage>, Error> {
    if matches!(place, Place::Scratch) {
        return Ok(None);
    }
    let (store, name) = context.open(place, platform).await?;
    let digest = find(&*store, &name).await?;
    pinned(place, store, digest).map(Some)
}

/// Returns the digest of what `name` points to, `None` where it points to nothing.
pub(crate) async fn find(store: &dyn ImageStore, name: &Name) -> Result<Option<Digest>, Error> {
    match name {
        Name::Digest(digest) => Ok(Some(digest.clone())),
        Name::Tag(_) => Ok(store.resolve(name).await?.map(|found| found.digest)),
    }
}

/// Returns the image at `place`, which is `digest` in `store`.
///
/// # Errors
/// Nothing is there.
pub(crate) fn pinned(
    place: &Place,
    store: Arc<dyn ImageStore>,
    digest: Option<Digest>,
) -> Result<ResolvedImage, Error> {
    let not_found = || trilith_oci::Error::NotFound {
        object: format!("image `{place}`"),
    };
    Ok(ResolvedImage {
        store,
        digest: digest.ok_or_else(not_found)?,
        repository: match place {
            Place::Registry(reference) => Some(reference.repository().clone()),
            _ => None,
        },
    })
}

/// Returns the base as an input. Paths are named by their kind, as none may reach a tag.
fn base_input(place: &Place, resolved: Option<&ResolvedImage>) -> Base {
    let Some(resolved) = resolved else {
        return Base::Scratch;
    };
    let name = match place {
        Place::Registry(reference) | Place::DockerDaemon(DaemonImage::Reference(reference)) => {
            BaseName::Reference(reference.clone())
        }
        Place::DockerDaemon(DaemonImage::Id(_)) => BaseName::Kind(BaseKind::DockerDaemon),
        Place::Layout { .. } => BaseName::Kind(BaseKind::Oci),
        Place::OciArchive { .. } => BaseName::Kind(BaseKind::OciArchive),
        Place::DockerArchive { .. } => BaseName::Kind(BaseKind::DockerArchive),
        Place::RootFs(_) | Place::Scratch => BaseName::Kind(BaseKind::Directory),
    };
    Base::Image {
        name,
        digest: resolved.digest.clone(),
    }
}
