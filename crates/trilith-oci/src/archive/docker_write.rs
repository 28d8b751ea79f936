//! Writing `docker-archive`: one image, in the form every `docker load` and `podman load` takes.
//!
//! Layers are decompressed, for older engines read nothing else, and checked against their
//! diff IDs on the way. The config stays as it is, and with it the image ID.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::runtime::Handle;
use trilith_core::{Digest, Platform, Reference};

use super::docker::MANIFEST_FILE;
use super::output::Output;
use crate::copy::{CopyReport, only_image};
use crate::decompress::{Hashed, unpacked};
use crate::descriptor::Descriptor;
use crate::diff_id::DiffId;
use crate::error::Error;
use crate::image::Image;
use crate::reading::{Blamed, BlockingReader, off_thread, read_failure};
use crate::store::{BlobStream, ImageStore, Name};

/// How an archive is written.
#[derive(Clone, Debug, Default)]
pub struct DockerArchiveOptions {
    /// Which image of an index is meant. Without it the index must have one only.
    pub platform: Option<Platform>,
    /// What an engine shall call the image. References without a tag name nothing there.
    pub references: Vec<Reference>,
}

/// An image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image about to be written.
pub(super) struct ImageToSave(Image);

impl ImageToSave {
    /// Finds the image `from`: of an index the one for `platform`, or the only one.
    pub(super) async fn find(
        source: &dyn ImageStore,
        from: &Name,
        platform: Option<&Platform>,
    ) -> Result<Self, Error> {
        Ok(Self(only_image(source, from, platform).await?))
    }

    /// Returns the layers with their diff IDs, lowest first.
    fn layers(&self) -> impl Iterator<Item = (&Descriptor, &Digest)> {
        let diff_ids = self.0.config().diff_ids().iter().map(DiffId::as_digest);
        self.0.manifest().layers().iter().zip(diff_ids)
    }

    /// Returns the image ID.
    pub(super) fn id(&self) -> Digest {
        self.0.config().digest()
    }

    /// Returns the report for an image that did not have to be written.
    pub(super) fn skipped(&self) -> CopyReport {
        CopyReport {
            blobs_copied: 0,
            blobs_skipped: self.layers().count() + 1,
            ..self.report(0)
        }
    }

    fn report(&self, bytes: u64) -> CopyReport {
        CopyReport {
            bytes_copied: bytes,
            ..CopyReport::of_image(&self.0)
        }
    }

    /// Writes the image to an archive at `path`; engines will call it by `references`. Each layer is
    /// in one of `sources`.
    pub(super) async fn write(
        self,
        sources: Vec<Arc<dyn ImageStore>>,
        path: &Path,
        references: &[Reference],
    ) -> Result<CopyReport, Error> {
        let tags = references.iter().filter_map(|reference| {
            let tag = reference.tag()?.clone();
            Some(reference.repository().with_tag(tag).to_string())
        });
        let tags: Vec<String> = tags.collect();
        let (path, runtime) = (path.to_owned(), Handle::current());
        off_thread(move || {
            let mut output = Output::beside(&path)?;
            let bytes = self.write_members(&mut output, &sources, &runtime, tags)?;
            output.publish()?;
            Ok(self.report(bytes))
        })
        .await
    }

    fn write_members(
        &self,
        output: &mut Output,
        sources: &[Arc<dyn ImageStore>],
        runtime: &Handle,
        tags: Vec<String>,
    ) -> Result<u64, Error> {
        let item = Item {
            config: format!("{}.json", self.id().hex()),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: self.layers().map(|(_, id)| layer_name(id)).collect(),
        };
        let config = self.0.config().to_bytes();
        let mut bytes = config.len() as u64;
        output.file(&item.config, bytes, config.as_ref())?;
        let mut written = BTreeSet::new();
        for (layer, diff_id) in self.layers() {
            // An image may hold one layer twice, the empty one as a rule.
            if written.insert(diff_id) {
                let (stream, place) = runtime.block_on(fetch(sources, layer))?;
                let object = format!("layer `{}` of `{place}`", layer.digest);
                let reader = BlockingReader::new(stream, runtime.clone());
                bytes += write_layer(output, reader, diff_id, &object)?;
            }
        }
        // Texts and lists of texts always serialise.
        let list = serde_json::to_vec(&[item]).unwrap_or_default();
        output.file(MANIFEST_FILE, list.len() as u64, list.as_slice())?;
        Ok(bytes)
    }
}

/// Returns the content of `layer`, and which of `sources` it is in: the last, or one that has it.
async fn fetch(
    sources: &[Arc<dyn ImageStore>],
    layer: &Descriptor,
) -> Result<(BlobStream, String), Error> {
    let mut sources = sources.iter();
    let last = sources.next_back();
    for source in sources {
        if source.has_blob(layer).await? {
            return Ok((source.fetch_blob(layer).await?, source.describe()));
        }
    }
    let source = last.ok_or_else(|| Error::NotFound {
        object: format!("layer `{}`", layer.digest),
    })?;
    Ok((source.fetch_blob(layer).await?, source.describe()))
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// Writes the layer that `reader` gives, decompressed, and returns its size.
fn write_layer(
    output: &mut Output,
    reader: BlockingReader,
    diff_id: &Digest,
    object: &str,
) -> Result<u64, Error> {
    let (plain, _) = unpacked(reader).map_err(|error| read_failure(object, error))?;
    let mut plain = Hashed::new(Blamed::new(plain, object.to_owned()), diff_id);
    let size = output.file_of_any_size(&layer_name(diff_id), &mut plain)?;
    let (actual, _) = plain.finish().map_err(|e| read_failure(object, e))?;
    if actual == *diff_id {
        return Ok(size);
    }
    Err(Error::DigestMismatch {
        object: format!("{object}, uncompressed,"),
        expected: diff_id.clone(),
        actual,
    })
}

/// Writes the image `from` of `source` to an archive at `path`, in place of what is there.
///
/// # Errors
/// Those of `source`; [`Error::Unsupported`] where it is an index of several images and no
/// platform says which; [`Error::DigestMismatch`] where a layer has another diff ID than the
/// config says. `path` is then as before.
pub async fn write_docker_archive(
    source: Arc<dyn ImageStore>,
    from: &Name,
    path: &Path,
    options: &DockerArchiveOptions,
) -> Result<CopyReport, Error> {
    let image = ImageToSave::find(source.as_ref(), from, options.platform.as_ref()).await?;
    image.write(vec![source], path, &options.references).await
}

/// Writes `image`, each layer of which is in one of `sources`, to an archive at `path`; engines will
/// call it by `references`.
///
/// # Errors
/// As [`write_docker_archive`].
pub async fn write_docker_image(
    image: Image,
    sources: Vec<Arc<dyn ImageStore>>,
    path: &Path,
    references: &[Reference],
) -> Result<CopyReport, Error> {
    ImageToSave(image).write(sources, path, references).await
}
