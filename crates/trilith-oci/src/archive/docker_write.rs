//! Writing `docker-archive`: one image, in the form every `docker load` and `podman load` takes.
//!
//! Layers are decompressed, for older engines read nothing else, and checked against their
//! diff IDs on the way. The config stays as it is, and with it the image ID.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::runtime::Handle;
use trilith_core::{Digest, Platform, Reference};

use super::docker::{Config, MANIFEST_FILE};
use super::output::Output;
use crate::copy::{CopyReport, fetch_root, read_document};
use crate::decompress::{Hashed, unpacked};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::links::Links;
use crate::media_type;
use crate::reading::{Blamed, BlockingReader, off_thread, read_failure};
use crate::store::{ImageStore, Name, RawManifest};

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
pub(super) struct ImageToSave {
    manifest: Digest,
    config: Bytes,
    /// Layers with their diff IDs, lowest first.
    layers: Vec<(Descriptor, Digest)>,
}

impl ImageToSave {
    /// Finds the image `from`, of `platform` where one is given.
    pub(super) async fn find(
        source: &dyn ImageStore,
        from: &Name,
        platform: Option<&Platform>,
    ) -> Result<Self, Error> {
        let root = only_image(source, from, platform).await?;
        let digest = &root.descriptor.digest;
        let malformed = |reason: String| Error::Malformed {
            object: format!("manifest `{digest}` of `{}`", source.describe()),
            reason,
        };
        let links = Links::parse(&root)?;
        let Some(config) = links.config else {
            return Err(malformed("it has no config".to_owned()));
        };
        let config = read_document(source, &config).await?;
        let parsed: Config = serde_json::from_slice(&config)
            .map_err(|error| malformed(format!("its config: {error}")))?;
        let diff_ids = parsed.rootfs.diff_ids;
        if diff_ids.len() != links.layers.len() {
            let (layers, diff_ids) = (links.layers.len(), diff_ids.len());
            let reason = format!("it has {layers} layers, but its config has {diff_ids} diff_ids");
            return Err(malformed(reason));
        }
        Ok(Self {
            manifest: digest.clone(),
            config,
            layers: links.layers.into_iter().zip(diff_ids).collect(),
        })
    }

    /// Returns the image ID.
    pub(super) fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// Returns the report for an image that did not have to be written.
    pub(super) fn skipped(&self) -> CopyReport {
        CopyReport {
            blobs_copied: 0,
            blobs_skipped: self.layers.len() + 1,
            ..self.report(0)
        }
    }

    fn report(&self, bytes: u64) -> CopyReport {
        CopyReport {
            digest: self.manifest.clone(),
            blobs_copied: self.layers.len() + 1,
            blobs_skipped: 0,
            blobs_mounted: 0,
            bytes_copied: bytes,
        }
    }

    /// Writes the image to an archive at `path`; engines will call it by `references`.
    pub(super) async fn write(
        self,
        source: Arc<dyn ImageStore>,
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
            let bytes = self.write_members(&mut output, &source, &runtime, tags)?;
            output.publish()?;
            Ok(self.report(bytes))
        })
        .await
    }

    fn write_members(
        &self,
        output: &mut Output,
        source: &Arc<dyn ImageStore>,
        runtime: &Handle,
        tags: Vec<String>,
    ) -> Result<u64, Error> {
        let item = Item {
            config: format!("{}.json", self.id().hex()),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: self.layers.iter().map(|(_, id)| layer_name(id)).collect(),
        };
        let mut bytes = self.config.len() as u64;
        output.file(&item.config, bytes, self.config.as_ref())?;
        let mut written = BTreeSet::new();
        for (layer, diff_id) in &self.layers {
            // An image may hold one layer twice, the empty one as a rule.
            if written.insert(diff_id) {
                let stream = runtime.block_on(source.fetch_blob(layer))?;
                let object = format!("layer `{}` of `{}`", layer.digest, source.describe());
                let reader = BlockingReader::new(stream, runtime.clone());
                bytes += write_layer(output, reader, diff_id, object)?;
            }
        }
        // Texts and lists of texts always serialise.
        let list = serde_json::to_vec(&[item]).unwrap_or_default();
        output.file(MANIFEST_FILE, list.len() as u64, list.as_slice())?;
        Ok(bytes)
    }
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// Writes the layer that `reader` gives, decompressed, and returns its size.
fn write_layer(
    output: &mut Output,
    reader: BlockingReader,
    diff_id: &Digest,
    object: String,
) -> Result<u64, Error> {
    let (plain, _) = unpacked(reader).map_err(|error| read_failure(&object, error))?;
    let mut plain = Hashed::new(Blamed::new(plain, object.clone()), diff_id);
    let size = output.file_of_any_size(&layer_name(diff_id), &mut plain)?;
    let (actual, _) = plain.finish().map_err(|e| read_failure(&object, e))?;
    if actual == *diff_id {
        return Ok(size);
    }
    Err(Error::DigestMismatch {
        object: format!("{object}, uncompressed,"),
        expected: diff_id.clone(),
        actual,
    })
}

/// Returns the image `from`: of an index the one for `platform`, or the only one.
async fn only_image(
    source: &dyn ImageStore,
    from: &Name,
    platform: Option<&Platform>,
) -> Result<RawManifest, Error> {
    let root = fetch_root(source, from, platform).await?;
    if !media_type::is_index(&root.descriptor.media_type) {
        return Ok(root);
    }
    let platforms = Links::parse(&root)?.platforms();
    match platforms.as_slice() {
        [only] => fetch_root(source, from, Some(only)).await,
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Error::Unsupported {
                object: format!("an index as a docker archive (of {})", names.join(", ")),
                reason: "an archive holds an image for one platform".to_owned(),
                advice: "name the platform",
            })
        }
    }
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
    image.write(source, path, &options.references).await
}
