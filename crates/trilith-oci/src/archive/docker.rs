//! `docker-archive`: what `docker save` writes and `docker load` reads.
//!
//! Reads the format of every Docker since 1.10 and of podman, with layers plain or
//! compressed, and takes the manifest an archive of Docker 25 and later brings along when
//! its layers can stay as they are. The image ID, which is the digest of the config, is
//! always kept; the config is never rewritten. Writing is in `docker_write.rs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use trilith_core::{Digest, Reference};

use super::members::{Archive, Part};
use super::oci::{blobs, digest_of};
use super::read_only::{Content, ReadOnlyStore, shared};
use crate::decompress::{Hashed, Packing};
use crate::descriptor::Descriptor;
use crate::diff_id::DiffId;
use crate::error::Error;
use crate::image::{Format, ImageConfig, Manifest};
use crate::layer::{Compression, LayerStream};
use crate::layout::{Entry, IndexFile};
use crate::links::Links;
use crate::media_type;
use crate::reading::{Blamed, off_thread, read_failure, write_failure};
use crate::store::{ImageStore, Name, RawManifest};

/// The file that lists the images of an archive.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// How many manifests in an archive are looked at for the one of an image.
const MAX_MANIFESTS_READ: usize = 64;

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
    let raw = match own_manifest(archive, &config.digest(), &contents, options.layers)? {
        Some(manifest) => manifest,
        None => assemble(archive, &item, &config, &mut contents, options)?,
    };
    let digest = raw.descriptor.digest.clone();
    contents.insert(config.digest(), Content::Memory(config.to_bytes()));
    contents.insert(digest.clone(), Content::Memory(raw.bytes));
    let entry = Entry {
        name: None,
        descriptor: raw.descriptor,
    };
    let store = ReadOnlyStore::new(archive.name.clone(), contents, vec![entry]);
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

/// Reads the config called `name`, and checks it where its name is its digest.
fn read_config(archive: &Archive, name: &str) -> Result<ImageConfig, Error> {
    let bytes = archive.document(name)?;
    let actual = Digest::of(&bytes);
    let hex = name.rsplit('/').next().unwrap_or(name);
    let hex = hex.strip_suffix(".json").unwrap_or(hex);
    match format!("sha256:{hex}").parse::<Digest>() {
        Ok(expected) if expected != actual => Err(Error::DigestMismatch {
            object: format!("config `{name}` of `{}`", archive.name),
            expected,
            actual,
        }),
        _ => ImageConfig::parse(bytes),
    }
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
    let index = IndexFile::parse(&archive.document("index.json")?)
        .map_err(|reason| archive.malformed(format!("`index.json` in it: {reason}")))?;
    let is_wanted = |layer: &Descriptor| {
        let is_tar = matches!(
            layer.media_type.as_str(),
            media_type::OCI_LAYER_TAR | media_type::DOCKER_LAYER_TAR
        );
        contents.contains_key(&layer.digest) && !(is_tar && form == LayerForm::Gzip)
    };
    let mut pending: Vec<Descriptor> = index.entries().map(|entry| entry.descriptor).collect();
    for _ in 0..MAX_MANIFESTS_READ {
        let Some(descriptor) = pending.pop() else {
            break;
        };
        // Indexes in it may name manifests for other platforms, which were not saved.
        let Some(Content::File(part)) = contents.get(&descriptor.digest) else {
            continue;
        };
        let bytes = archive.read_document(part, descriptor.digest.as_str())?;
        let raw = RawManifest {
            descriptor,
            bytes: bytes.into(),
        };
        let links = Links::parse(&raw)?;
        let names_config = links.config.as_ref().is_some_and(|c| &c.digest == config);
        if names_config && links.layers.iter().all(is_wanted) {
            return checked(archive, raw).map(Some);
        }
        pending.extend(links.manifests);
    }
    Ok(None)
}

/// Returns `raw` if it has the digest it was found by.
fn checked(archive: &Archive, raw: RawManifest) -> Result<RawManifest, Error> {
    let actual = Digest::of(&raw.bytes);
    if actual == raw.descriptor.digest {
        return Ok(raw);
    }
    Err(Error::DigestMismatch {
        object: format!("a manifest in `{}`", archive.name),
        expected: raw.descriptor.digest,
        actual,
    })
}

/// Makes a manifest for the image, of Docker's schema 2 unless a layer is zstd, which only OCI has.
fn assemble(
    archive: &Archive,
    item: &Item,
    config: &ImageConfig,
    contents: &mut BTreeMap<Digest, Content>,
    options: &DockerArchiveSource,
) -> Result<RawManifest, Error> {
    let names = item.layers.as_deref().unwrap_or_default();
    if names.len() != config.diff_ids().len() {
        return Err(archive.malformed(format!(
            "it lists {} layers, but its config `{}` has {}",
            names.len(),
            item.config,
            config.diff_ids().len()
        )));
    }
    let mut layers: Vec<Descriptor> = Vec::new();
    let mut known: BTreeMap<&DiffId, Descriptor> = BTreeMap::new();
    for (name, diff_id) in names.iter().zip(config.diff_ids()) {
        if let Some(layer) = known.get(diff_id) {
            layers.push(layer.clone());
            continue;
        }
        let (layer, content) = describe(archive, name, diff_id, options)?;
        contents.insert(layer.digest.clone(), content);
        known.insert(diff_id, layer.clone());
        layers.push(layer);
    }
    Ok(manifest(config, layers))
}

/// Returns the manifest of `config` and `layers`, whose media types are OCI's.
fn manifest(config: &ImageConfig, mut layers: Vec<Descriptor>) -> RawManifest {
    let has_zstd = layers
        .iter()
        .any(|layer| layer.media_type == media_type::OCI_LAYER_ZSTD);
    let format = if has_zstd {
        Format::Oci
    } else {
        Format::Docker
    };
    for layer in &mut layers {
        if let Some(media_type) = format.layer(&layer.media_type) {
            media_type.clone_into(&mut layer.media_type);
        }
    }
    let config = Descriptor::of(format.config(), &config.to_bytes());
    Manifest::new(format, &config, &layers).to_raw()
}

/// Returns what the layer called `name` is as a blob, with OCI's media type, and where its
/// bytes are.
fn describe(
    archive: &Archive,
    name: &str,
    diff_id: &DiffId,
    options: &DockerArchiveSource,
) -> Result<(Descriptor, Content), Error> {
    let Some(part) = archive.part(name.as_bytes())? else {
        return Err(archive.malformed(format!("it lacks the layer `{name}`")));
    };
    let object = format!("layer `{name}` of `{}`", archive.name);
    let failed = |error: io::Error| read_failure(&object, error);
    let packing = part.packing().map_err(failed)?;
    if packing == Packing::Plain && options.layers == LayerForm::Gzip {
        return compress(&part, diff_id, &object, &options.temp_dir);
    }
    let digest = match digest_of(name.as_bytes()) {
        // Checked, as every blob is, when it is read.
        _ if packing == Packing::Plain => diff_id.as_digest().clone(),
        Some(digest) => digest,
        None => {
            let hashed = Hashed::new(part.reader(), diff_id.as_digest()).finish();
            hashed.map_err(failed)?.0
        }
    };
    let layer = Descriptor::new(packing.media_type(), digest, part.size());
    Ok((layer, Content::File(part)))
}

/// Compresses the layer `part` into a temporary file, and checks its diff ID on the way.
fn compress(
    part: &Part,
    diff_id: &DiffId,
    object: &str,
    temp_dir: &Path,
) -> Result<(Descriptor, Content), Error> {
    let file = tempfile::tempfile_in(temp_dir)
        .map_err(Error::io("create a temporary file in", temp_dir))?;
    let mut plain = Blamed::new(part.reader(), object.to_owned());
    let mut stream = LayerStream::new(Compression::default(), BufWriter::new(&file))?;
    io::copy(&mut plain, &mut stream).map_err(|error| write_failure(temp_dir, error))?;
    let layer = stream.finish()?;
    if layer.diff_id != *diff_id {
        return Err(Error::DigestMismatch {
            object: object.to_owned(),
            expected: diff_id.as_digest().clone(),
            actual: layer.diff_id.as_digest().clone(),
        });
    }
    let part = Part::whole(Arc::new(file), layer.descriptor.size);
    Ok((layer.descriptor, Content::File(part)))
}
