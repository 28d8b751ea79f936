//! Copying between any two places: each is opened or written as what it is.
//!
//! Decides nothing the places do not decide; whoever wants more than "this image, there"
//! uses [`crate::copy`], [`crate::archive`] and [`crate::rootfs`]. Environment, current
//! directory and configuration are the caller's to read.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use trilith_core::{DEFAULT_TAG, Platform, Reference, Tag};

use crate::archive::{
    Daemon, DockerArchiveOptions, DockerArchiveSource, LayerForm, OciArchiveOptions,
    open_docker_archive, open_oci_archive, write_docker_archive, write_oci_archive,
};
use crate::copy::{CopyOptions, CopyReport, copy_image, fetch_root, only_image};
use crate::error::Error;
use crate::layer::Compression;
use crate::layout::{Layout, Naming};
use crate::place::{DaemonImage, Place};
use crate::publish::DEFAULT_CONCURRENCY;
use crate::reading::off_thread;
use crate::registry::RegistryClient;
use crate::rootfs::{RootFsSource, UnpackOptions, open_rootfs, open_scratch, unpack_image};
use crate::store::{ImageStore, Name};

/// What opening places needs besides their names.
#[derive(Clone, Debug)]
pub struct Context {
    /// The client for registries.
    pub registry: RegistryClient,
    /// Where files are kept for as long as a copy takes; needs room for an image, uncompressed.
    pub temp_dir: PathBuf,
    /// Where the Docker engine listens, as in [`Daemon::try_new`].
    pub docker_host: String,
    /// What `dir:` and `scratch` are said to run on.
    pub platform: Platform,
}

/// How to copy from place to place.
#[derive(Clone, Debug)]
pub struct TransferOptions {
    /// The one platform to take out of an index. Without it, all of it goes where an index
    /// can be, and elsewhere the index must be of one image.
    pub platform: Option<Platform>,
    /// How many blobs travel at a time.
    pub concurrency: NonZeroUsize,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            platform: None,
            concurrency: DEFAULT_CONCURRENCY,
        }
    }
}

/// Copies the image at `from` to `to`.
///
/// Within one registry blobs are mounted. Layers of archives, engines and directories are
/// compressed on the way to registries and layouts.
///
/// # Errors
/// Those of [`open_source`] and [`write_destination`]. A destination on disk, but for a layout, is
/// then as before, and no tag was moved.
pub async fn transfer(
    from: &Place,
    to: &Place,
    context: &Context,
    options: &TransferOptions,
) -> Result<CopyReport, Error> {
    let layers = match to {
        Place::Registry(_) | Place::Layout { .. } | Place::OciArchive { .. } => LayerForm::Gzip,
        _ => LayerForm::AsStored,
    };
    let (source, name) = open_source(from, context, layers).await?;
    let mount_from = match (from, to) {
        (Place::Registry(from), Place::Registry(to)) if from.registry() == to.registry() => {
            Some(from.repository().clone())
        }
        _ => None,
    };
    let options = CopyOptions {
        platform: options.platform.clone(),
        tags: Vec::new(),
        mount_from,
        manifests_vouch: matches!(to, Place::Registry(_)),
        concurrency: options.concurrency,
    };
    write_destination(to, source, &name, context, options).await
}

/// Opens the image at `place` for reading; `layers` says what becomes of uncompressed ones
/// in archives, engines and directories.
///
/// # Errors
/// [`Error::NotFound`] or [`Error::Ambiguous`] where the place does not say which image is
/// meant; a registry is not asked before its image is used.
pub async fn open_source(
    place: &Place,
    context: &Context,
    layers: LayerForm,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let docker = || DockerArchiveSource {
        temp_dir: context.temp_dir.clone(),
        layers,
    };
    match place {
        Place::Registry(reference) => {
            let repository = context.registry.repository(reference.repository())?;
            Ok((Arc::new(repository), name_of(reference)?))
        }
        Place::Layout { path, tag } => {
            let (path, tag) = (path.clone(), tag.clone());
            off_thread(move || {
                let layout = Layout::open(path)?;
                let image = layout.image(tag.as_ref())?;
                let store: Arc<dyn ImageStore> = Arc::new(layout.repository(Naming::Tags));
                Ok((store, Name::Digest(image.digest)))
            })
            .await
        }
        Place::OciArchive { path, tag } => {
            open_oci_archive(path, tag.as_ref(), &context.temp_dir).await
        }
        Place::DockerArchive { path, reference } => {
            open_docker_archive(path, reference.as_ref(), &docker()).await
        }
        Place::DockerDaemon(image) => {
            let daemon = Daemon::try_new(&context.docker_host)?;
            daemon.open(image, &docker()).await
        }
        Place::RootFs(path) => {
            let options = RootFsSource {
                platform: context.platform.clone(),
                compression: match layers {
                    LayerForm::AsStored => Compression::None,
                    LayerForm::Gzip => Compression::default(),
                },
                temp_dir: context.temp_dir.clone(),
            };
            open_rootfs(path, &options).await
        }
        Place::Scratch => open_scratch(&context.platform),
    }
}

/// Writes the image `from` of `source` to `place`, under the tag it names and those of
/// `options`. A layout that is named without a tag gets `latest`.
///
/// # Errors
/// [`Error::Unsupported`] for places that cannot be written: `scratch`, an image ID, the digest
/// of another image, a directory that is not empty, an index where one image can be.
pub async fn write_destination(
    place: &Place,
    source: Arc<dyn ImageStore>,
    from: &Name,
    context: &Context,
    options: CopyOptions,
) -> Result<CopyReport, Error> {
    match place {
        Place::Registry(reference) => {
            check_digest(reference, source.as_ref(), from, &options).await?;
            let repository = context.registry.repository(reference.repository())?;
            let options = tagged(options, reference.tag().cloned());
            copy_image(source, from, &repository.for_writing(), &options).await
        }
        Place::Layout { path, tag } => {
            let path = path.clone();
            let layout = off_thread(move || Layout::open_or_create(path)).await?;
            let tag = tag.clone().or_else(|| DEFAULT_TAG.parse().ok());
            let options = tagged(options, tag);
            copy_image(source, from, &layout.repository(Naming::Tags), &options).await
        }
        Place::OciArchive { path, tag } => {
            let CopyOptions { platform, tags, .. } = tagged(options, tag.clone());
            let options = OciArchiveOptions { platform, tags };
            write_oci_archive(source, from, path, &options).await
        }
        Place::DockerArchive { path, reference } => {
            let options = docker(options, reference.as_ref());
            write_docker_archive(source, from, path, &options).await
        }
        Place::DockerDaemon(DaemonImage::Reference(reference)) => {
            let daemon = Daemon::try_new(&context.docker_host)?;
            let options = docker(options, Some(reference));
            daemon.load(source, from, &options, &context.temp_dir).await
        }
        Place::RootFs(path) => {
            let image = only_image(source.as_ref(), from, options.platform.as_ref()).await?;
            let unpacked = unpack_image(&source, &image, path, UnpackOptions::default()).await?;
            Ok(CopyReport {
                warnings: unpacked.warnings,
                ..CopyReport::of_image(&image)
            })
        }
        Place::DockerDaemon(DaemonImage::Id(_)) | Place::Scratch => Err(Error::Unsupported {
            object: format!("`{place}` as a destination"),
            reason: "it names what an image is, not where it goes".to_owned(),
            advice: "name a reference, an archive, a layout or a directory",
        }),
    }
}

fn name_of(reference: &Reference) -> Result<Name, Error> {
    let digest = reference.digest().cloned().map(Name::Digest);
    let tag = || reference.tag().cloned().map(Name::Tag);
    digest.or_else(tag).ok_or_else(|| Error::NotFound {
        object: format!("an image in `{reference}`"),
    })
}

fn docker(options: CopyOptions, reference: Option<&Reference>) -> DockerArchiveOptions {
    DockerArchiveOptions {
        platform: options.platform,
        references: reference.into_iter().cloned().collect(),
    }
}

fn tagged(mut options: CopyOptions, tag: Option<Tag>) -> CopyOptions {
    options.tags.extend(tag);
    options
}

/// Checks that a destination that names a digest names that of the image.
async fn check_digest(
    reference: &Reference,
    source: &dyn ImageStore,
    from: &Name,
    options: &CopyOptions,
) -> Result<(), Error> {
    let Some(wanted) = reference.digest() else {
        return Ok(());
    };
    let root = fetch_root(source, from, options.platform.as_ref()).await?;
    let actual = &root.descriptor.digest;
    if actual == wanted {
        return Ok(());
    }
    Err(Error::Unsupported {
        object: format!("`{reference}` as a destination"),
        reason: format!("the image has the digest `{actual}`, which no copy changes"),
        advice: "name a tag",
    })
}
