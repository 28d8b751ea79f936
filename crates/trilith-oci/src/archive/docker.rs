//! `docker-archive`: what `docker save` writes and `docker load` reads.
//!
//! Reads the format of every Docker since 1.10 and of podman, with layers plain or
//! compressed, and takes the manifest an archive of Docker 25 and later brings along when
//! its layers can stay as they are. The image ID, which is the digest of the config, is
//! always kept; the config is never rewritten. Writing is in `docker_write.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use trilith_core::{Digest, Reference};

use super::members::{Archive, Part};
use super::oci::{blobs, digest_of};
use super::read_only::{Content, ReadOnlyStore, shared};
use crate::decompress::{Hashed, Packing};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::links::Links;
use crate::media_type;
use crate::reading::{Blamed, off_thread, read_failure, write_failure};
use crate::store::{ImageStore, Name, RawManifest};

/// The file that lists the images of an archive.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// What the layers of an image become that are not compressed where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerForm {
    /// They stay tars. Costs nothing; right for what is not going to be uploaded.
    AsStored,
    /// They are compressed with gzip, always to the same bytes, as `docker push` would.
    #[default]
    Gzip,
}

/// How an archive is read.
#[derive(Clone, Debug)]
pub struct DockerArchiveSource {
    /// Where a compressed archive is decompressed to, and layers compressed.
    pub temp_dir: PathBuf,
    /// What uncompressed layers become.
    pub layers: LayerForm,
}

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The part of a config that says what the layers are.
#[derive(Deserialize)]
pub(super) struct Config {
    pub rootfs: RootFs,
}

#[derive(Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// Opens the archive at `path` and finds the image called `reference` in it, or the only one.
///
/// # Errors
/// [`Error::Malformed`] where the file is no such archive, a hostile one, or its layers are not
/// those its config names; [`Error::Ambiguous`] where it holds several images and no reference
/// says which.
pub async fn open_docker_archive(
    path: &Path,
    reference: Option<&Reference>,
    options: &DockerArchiveSource,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let name = format!("docker-archive:{}", path.display());
    let (path, options) = (path.to_owned(), options.clone());
    let reference = reference.cloned();
    off_thread(move || {
        let archive = Archive::open(&path, name, &options.temp_dir)?;
        read_image(&archive, reference.as_ref(), &options)
    })
    .await
}

/// Does the same for an archive in an open file, which messages call `name`.
pub(super) async fn open_docker_file(
    file: File,
    name: String,
    options: &DockerArchiveSource,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let options = options.clone();
    off_thread(move || {
        let archive = Archive::of_file(file, name, &options.temp_dir)?;
        read_image(&archive, None, &options)
    })
    .await
}

fn read_image(
    archive: &Archive,
    reference: Option<&Reference>,
    options: &DockerArchiveSource,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let item = choose(archive, reference)?;
    let config = read_config(archive, &item.config)?;
    let mut contents = blobs(archive)?;
    let raw = match own_manifest(archive, &config.digest, &contents, options.layers)? {
        Some(manifest) => manifest,
        None => assemble(archive, &item, &config, &mut contents, options)?,
    };
    let digest = raw.descriptor.digest.clone();
    contents.insert(config.digest, Content::Memory(config.bytes.into()));
    contents.insert(digest.clone(), Content::Memory(raw.bytes));
    let store = ReadOnlyStore::new(archive.name.clone(), contents, vec![raw.descriptor]);
    Ok((shared(store), Name::Digest(digest)))
}

/// Finds the image called `reference` in the archive's list, or the only one.
fn choose(archive: &Archive, reference: Option<&Reference>) -> Result<Item, Error> {
    if archive.part(MANIFEST_FILE.as_bytes())?.is_none() {
        let is_layout = archive.part(b"oci-layout")?.is_some();
        return Err(Error::Unsupported {
            object: format!("`{}`", archive.name),
            reason: format!("it holds no `{MANIFEST_FILE}`, so it is no archive of `docker save`"),
            advice: if is_layout {
                "it holds an OCI layout; name it as `oci-archive:PATH`"
            } else {
                "name an archive that Docker 1.10 or later, podman or skopeo wrote"
            },
        });
    }
    let mut items: Vec<Item> = serde_json::from_slice(&archive.document(MANIFEST_FILE)?)
        .map_err(|error| archive.malformed(format!("`{MANIFEST_FILE}` in it: {error}")))?;
    let names = |item: &Item| item.repo_tags.clone().unwrap_or_default();
    let position = match reference {
        Some(wanted) => {
            let is_wanted = |name: &String| name.parse::<Reference>().as_ref() == Ok(wanted);
            let mut all = items.iter();
            all.position(|item| names(item).iter().any(is_wanted))
                .ok_or_else(|| Error::NotFound {
                    object: format!("`{wanted}` in `{}`", archive.name),
                })?
        }
        None if items.len() > 1 => {
            return Err(Error::Ambiguous {
                place: archive.name.clone(),
                choices: items.iter().flat_map(names).collect(),
            });
        }
        None => 0,
    };
    if items.is_empty() {
        return Err(Error::NotFound {
            object: format!("an image in `{}`", archive.name),
        });
    }
    Ok(items.swap_remove(position))
}

struct ReadConfig {
    digest: Digest,
    bytes: Vec<u8>,
    diff_ids: Vec<Digest>,
}

/// Reads the config called `name`, and checks it where its name is its digest.
fn read_config(archive: &Archive, name: &str) -> Result<ReadConfig, Error> {
    let bytes = archive.document(name)?;
    let digest = Digest::of(&bytes);
    let hex = name.rsplit('/').next().unwrap_or(name);
    let hex = hex.strip_suffix(".json").unwrap_or(hex);
    if let Ok(expected) = format!("sha256:{hex}").parse::<Digest>()
        && expected != digest
    {
        return Err(Error::DigestMismatch {
            object: format!("config `{name}` of `{}`", archive.name),
            expected,
            actual: digest,
        });
    }
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| archive.malformed(format!("config `{name}` in it: {error}")))?;
    Ok(ReadConfig {
        digest,
        bytes,
        diff_ids: config.rootfs.diff_ids,
    })
}

/// Returns the manifest the archive has for the image with `config`, as Docker 25 and later
/// write it, where all its blobs are there and are as they are wanted.
fn own_manifest(
    archive: &Archive,
    config: &Digest,
    contents: &BTreeMap<Digest, Content>,
    form: LayerForm,
) -> Result<Option<RawManifest>, Error> {
    if archive.part(b"index.json")?.is_none() {
        return Ok(None);
    }
    let index = archive.document("index.json")?;
    let mut pending = Links::parse_bytes(&index, &Digest::of(&index))?.manifests;
    // Indexes in it may name manifests for other platforms, which were not saved.
    for _ in 0..64 {
        let Some(candidate) = pending.pop() else {
            break;
        };
        let Some(Content::File(part)) = contents.get(&candidate.digest) else {
            continue;
        };
        let bytes = archive.read_document(part, candidate.digest.as_str())?;
        let links = Links::parse_bytes(&bytes, &candidate.digest)?;
        let is_wanted = |layer: &Descriptor| {
            let is_tar = matches!(
                layer.media_type.as_str(),
                media_type::OCI_LAYER_TAR | media_type::DOCKER_LAYER_TAR
            );
            contents.contains_key(&layer.digest) && !(is_tar && form == LayerForm::Gzip)
        };
        let names_config = links.config.as_ref().is_some_and(|c| &c.digest == config);
        if names_config && links.layers.iter().all(is_wanted) {
            let actual = Digest::of(&bytes);
            if actual != candidate.digest {
                return Err(Error::DigestMismatch {
                    object: format!("manifest of `{}`", archive.name),
                    expected: candidate.digest,
                    actual,
                });
            }
            let descriptor = Descriptor::of(links.media_type(), &bytes);
            let bytes = bytes.into();
            return Ok(Some(RawManifest { descriptor, bytes }));
        }
        pending.extend(links.manifests);
    }
    Ok(None)
}

/// Makes a manifest for the image, of Docker's schema 2 unless a layer is zstd, which only OCI has.
fn assemble(
    archive: &Archive,
    item: &Item,
    config: &ReadConfig,
    contents: &mut BTreeMap<Digest, Content>,
    options: &DockerArchiveSource,
) -> Result<RawManifest, Error> {
    let names = item.layers.as_deref().unwrap_or_default();
    if names.len() != config.diff_ids.len() {
        return Err(archive.malformed(format!(
            "it lists {} layers, but its config `{}` has {}",
            names.len(),
            item.config,
            config.diff_ids.len()
        )));
    }
    let mut layers: Vec<(Descriptor, Packing)> = Vec::new();
    let mut known: BTreeMap<&Digest, (Descriptor, Packing)> = BTreeMap::new();
    for (name, diff_id) in names.iter().zip(&config.diff_ids) {
        if let Some(layer) = known.get(diff_id) {
            layers.push(layer.clone());
            continue;
        }
        let Some(part) = archive.part(name.as_bytes())? else {
            return Err(archive.malformed(format!("it lacks the layer `{name}`")));
        };
        let (layer, packing, content) = describe(archive, name, part, diff_id, options)?;
        contents.insert(layer.digest.clone(), content);
        known.insert(diff_id, (layer.clone(), packing));
        layers.push((layer, packing));
    }
    let size = config.bytes.len() as u64;
    Ok(manifest(&config.digest, size, layers))
}

/// Returns what the layer `part` is as a blob, and where the blob's bytes are.
fn describe(
    archive: &Archive,
    name: &str,
    part: Part,
    diff_id: &Digest,
    options: &DockerArchiveSource,
) -> Result<(Descriptor, Packing, Content), Error> {
    let object = format!("layer `{name}` of `{}`", archive.name);
    let failed = |error: io::Error| read_failure(&object, error);
    let packing = part.packing().map_err(failed)?;
    let digest = match (packing, digest_of(name.as_bytes())) {
        (Packing::Plain, _) if options.layers == LayerForm::Gzip => {
            let (part, digest) = compress(&part, diff_id, &object, &options.temp_dir)?;
            let layer = Descriptor::new("", digest, part.size());
            return Ok((layer, Packing::Gzip, Content::File(part)));
        }
        // Checked, as every blob is, when it is read.
        (Packing::Plain, _) => diff_id.clone(),
        (_, Some(digest)) => digest,
        (_, None) => {
            Hashed::new(part.reader(), diff_id)
                .finish()
                .map_err(failed)?
                .0
        }
    };
    let layer = Descriptor::new("", digest, part.size());
    Ok((layer, packing, Content::File(part)))
}

/// Compresses the layer `part` into a temporary file, and checks its diff ID on the way.
fn compress(
    part: &Part,
    diff_id: &Digest,
    object: &str,
    temp_dir: &Path,
) -> Result<(Part, Digest), Error> {
    let file = tempfile::tempfile_in(temp_dir)
        .map_err(Error::io("create a temporary file in", temp_dir))?;
    let mut plain = Hashed::new(Blamed::new(part.reader(), object.to_owned()), diff_id);
    let written = |error| write_failure(temp_dir, error);
    let mut encoder = flate2::write::GzEncoder::new(&file, flate2::Compression::new(6));
    io::copy(&mut plain, &mut encoder).map_err(written)?;
    encoder.finish().map_err(written)?;
    let (actual, _) = plain.finish().map_err(written)?;
    if actual != *diff_id {
        return Err(Error::DigestMismatch {
            object: object.to_owned(),
            expected: diff_id.clone(),
            actual,
        });
    }
    let size = file.metadata().map_err(written)?.len();
    let part = Part::whole(Arc::new(file), size);
    let (digest, _) = Hashed::new(part.reader(), diff_id)
        .finish()
        .map_err(written)?;
    Ok((part, digest))
}

fn manifest(config: &Digest, size: u64, layers: Vec<(Descriptor, Packing)>) -> RawManifest {
    let is_docker = layers.iter().all(|(_, packing)| *packing != Packing::Zstd);
    let (manifest_type, config_type) = if is_docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    };
    let layers: Vec<Descriptor> = layers
        .into_iter()
        .map(|(layer, packing)| {
            let media_type = match (is_docker, packing) {
                (true, Packing::Gzip) => media_type::DOCKER_LAYER_GZIP,
                (true, _) => media_type::DOCKER_LAYER_TAR,
                (false, Packing::Gzip) => media_type::OCI_LAYER_GZIP,
                (false, Packing::Zstd) => media_type::OCI_LAYER_ZSTD,
                (false, Packing::Plain) => media_type::OCI_LAYER_TAR,
            };
            Descriptor::new(media_type, layer.digest, layer.size)
        })
        .collect();
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": Descriptor::new(config_type, config.clone(), size),
        "layers": layers,
    });
    let bytes = json.to_string();
    RawManifest {
        descriptor: Descriptor::of(manifest_type, bytes.as_bytes()),
        bytes: bytes.into(),
    }
}
