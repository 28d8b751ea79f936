//! `oci-archive`: an OCI layout in a tar (OCI image specification 1.1, `image-layout.md`).
//!
//! Reads any, plain or compressed; writes plain ones whose bytes depend on the image alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use tokio::runtime::Handle;
use trilith_core::{Digest, Platform, Tag};

use super::members::Archive;
use super::output::Output;
use super::read_only::{Content, REFERRERS, ReadOnlyStore, shared};
use crate::copy::{CopyReport, ImageTree};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::layout::IndexFile;
use crate::publish::DEFAULT_CONCURRENCY;
use crate::reading::{BlockingReader, off_thread};
use crate::store::{ImageStore, Name};

/// The file that says a directory is a layout, and its content.
const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";

/// How an archive is written.
#[derive(Clone, Debug, Default)]
pub struct OciArchiveOptions {
    /// The one platform to take out of an index; all of it where there is none.
    pub platform: Option<Platform>,
    /// The tags the image has in the archive. Readers that are not told which image they
    /// should take want at most one.
    pub tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// Opens the archive at `path` and finds the image `tag` in it, or the only one.
///
/// Blobs are read from the archive where they stand; a compressed archive is decompressed
/// into `temp_dir` first. What is returned lives as long as the store.
///
/// # Errors
/// [`Error::Malformed`] where the file is no such archive, or a hostile one;
/// [`Error::Ambiguous`] where it holds several images and no tag says which.
pub async fn open_oci_archive(
    path: &Path,
    tag: Option<&Tag>,
    temp_dir: &Path,
) -> Result<(Arc<dyn ImageStore>, Name), Error> {
    let name = format!("oci-archive:{}", path.display());
    let (path, temp_dir) = (path.to_owned(), temp_dir.to_owned());
    let store = off_thread(move || read_layout(&Archive::open(&path, name, &temp_dir)?)).await?;
    let name = Name::Digest(store.image(tag)?.clone());
    Ok((shared(store), name))
}

/// Returns the layout in `archive` as a store.
fn read_layout(archive: &Archive) -> Result<ReadOnlyStore, Error> {
    if archive.part(LAYOUT_FILE.as_bytes())?.is_none() {
        let is_docker = archive.part(b"manifest.json")?.is_some();
        return Err(Error::Unsupported {
            object: format!("`{}`", archive.name),
            reason: format!("it holds no `{LAYOUT_FILE}`, so it is no OCI archive"),
            advice: if is_docker {
                "it looks like one of `docker save`; name it as `docker-archive:PATH`"
            } else {
                "name an archive with an OCI layout in it"
            },
        });
    }
    let layout: Layout = serde_json::from_slice(&archive.document(LAYOUT_FILE)?)
        .map_err(|error| archive.malformed(format!("`{LAYOUT_FILE}` in it: {error}")))?;
    if !layout.image_layout_version.starts_with("1.") {
        let reason = format!("its layout has version `{}`", layout.image_layout_version);
        return Err(archive.malformed(reason));
    }
    let index = IndexFile::parse(&archive.document(INDEX_FILE)?)
        .map_err(|reason| archive.malformed(format!("`{INDEX_FILE}` in it: {reason}")))?;
    let name = archive.name.clone();
    let entries = index.entries().collect();
    Ok(ReadOnlyStore::new(name, blobs(archive)?, entries))
}

/// Returns what lies under `blobs/` in `archive`, by digest.
pub(super) fn blobs(archive: &Archive) -> Result<BTreeMap<Digest, Content>, Error> {
    let mut blobs = BTreeMap::new();
    for name in archive.names() {
        // Names that are no digest mean nothing in a layout.
        let Some(digest) = digest_of(name) else {
            continue;
        };
        if let Some(part) = archive.part(name)? {
            blobs.insert(digest, Content::File(part));
        }
    }
    Ok(blobs)
}

/// Returns the digest in a name like `blobs/sha256/<hex>`.
pub(super) fn digest_of(name: &[u8]) -> Option<Digest> {
    let path = std::str::from_utf8(name).ok()?.strip_prefix("blobs/")?;
    let (algorithm, hex) = path.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Writes the image `from` of `source` to an archive at `path`, in place of what is there.
///
/// Members are sorted and carry no time and no owner, so equal images give equal archives.
/// Holds what the image needs and nothing else; layers that are elsewhere are left there.
///
/// # Errors
/// Those of `source`; [`Error::Io`] where the file cannot be written. `path` is then as before.
pub async fn write_oci_archive(
    source: Arc<dyn ImageStore>,
    from: &Name,
    path: &Path,
    options: &OciArchiveOptions,
) -> Result<CopyReport, Error> {
    let platform = options.platform.as_ref();
    let tree = ImageTree::fetch(source.as_ref(), from, platform, DEFAULT_CONCURRENCY).await?;
    let (layers, configs) = tree.blobs()?;
    let blobs: Vec<Descriptor> = layers.into_iter().chain(configs).collect();
    let report = CopyReport {
        digest: tree.root.descriptor.digest.clone(),
        blobs_copied: blobs.len(),
        blobs_skipped: 0,
        blobs_mounted: 0,
        bytes_copied: blobs.iter().map(|b| b.size).fold(0, u64::saturating_add),
        warnings: Vec::new(),
    };
    let index = index(&tree, &options.tags);
    let (path, runtime) = (path.to_owned(), Handle::current());
    off_thread(move || {
        let mut output = Output::beside(&path)?;
        write_layout(
            &mut output,
            &members(&tree, blobs),
            &index,
            &source,
            &runtime,
        )?;
        output.publish()
    })
    .await?;
    Ok(report)
}

/// What a member of an archive is made of.
enum Piece {
    Manifest(Bytes),
    Blob(Box<Descriptor>),
}

/// Returns all blobs and manifests by the name they have in a layout.
fn members(tree: &ImageTree, blobs: Vec<Descriptor>) -> BTreeMap<String, Piece> {
    let name = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
    let manifests = tree.manifests().map(|manifest| {
        let name = name(&manifest.descriptor.digest);
        (name, Piece::Manifest(manifest.bytes.clone()))
    });
    let blobs = blobs
        .into_iter()
        .map(|blob| (name(&blob.digest), Piece::Blob(Box::new(blob))));
    blobs.chain(manifests).collect()
}

/// Returns the content of `index.json`.
fn index(tree: &ImageTree, tags: &[Tag]) -> Vec<u8> {
    let mut entry = tree.root.descriptor.clone();
    if !tree.artifacts.is_empty() {
        let digests = tree
            .artifacts
            .iter()
            .map(|a| a.descriptor.digest.to_string());
        let digests: Vec<String> = digests.collect();
        entry
            .annotations
            .insert(REFERRERS.to_owned(), digests.join(","));
    }
    let mut index = IndexFile::default();
    if tags.is_empty() {
        index.add(&entry);
    }
    for tag in tags {
        index.set(tag.as_str(), &entry);
    }
    index.print()
}

fn write_layout(
    output: &mut Output,
    members: &BTreeMap<String, Piece>,
    index: &[u8],
    source: &Arc<dyn ImageStore>,
    runtime: &Handle,
) -> Result<(), Error> {
    let mut directory = "";
    output.directory("blobs")?;
    for (name, piece) in members {
        let parent = &name[..name.rfind('/').unwrap_or(0)];
        if parent != directory {
            output.directory(parent)?;
            directory = parent;
        }
        match piece {
            Piece::Manifest(bytes) => output.file(name, bytes.len() as u64, bytes.as_ref())?,
            Piece::Blob(blob) => {
                let stream = runtime.block_on(source.fetch_blob(blob))?;
                let reader = BlockingReader::new(stream, runtime.clone());
                output.file(name, blob.size, reader)?;
            }
        }
    }
    output.file(INDEX_FILE, index.len() as u64, index)?;
    output.file(LAYOUT_FILE, LAYOUT.len() as u64, LAYOUT.as_bytes())
}
