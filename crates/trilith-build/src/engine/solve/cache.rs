//! Caches in directories of this machine: which there are, and their lists of what is in them.
//!
//! A directory is an OCI layout, as Docker's own client keeps it: `index.json` names the newest
//! cache by its tag. A cache that is not there yet is none, so that the first build can name it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Value, json};

use super::content::Stores;
use super::receive::NewFile;
use super::session::OwnFailure;
use crate::engine::{BuildRequest, CacheEntry, EngineError};

/// What caches in directories are called.
const LOCAL: &str = "local";
/// The annotation that a list names its entries by.
const TAG: &str = "org.opencontainers.image.ref.name";
/// The tag where none is given.
const DEFAULT_TAG: &str = "latest";

/// The caches of a build.
#[derive(Clone, Debug, Default)]
pub(super) struct Caches {
    /// Where cached layers come from, as BuildKit is told.
    pub(super) from: Vec<CacheEntry>,
    /// Where they are written to, as BuildKit is told.
    pub(super) to: Vec<CacheEntry>,
    /// The directories that BuildKit may ask for.
    pub(super) stores: Stores,
    /// Directories that are written, with the tag.
    written: Vec<(PathBuf, String)>,
}

impl Caches {
    /// Returns the caches of a build, and makes the directories that are written.
    pub(super) fn prepare(
        from: &[CacheEntry],
        to: &[CacheEntry],
        failure: &OwnFailure,
    ) -> Result<Self, EngineError> {
        let mut caches = Self::default();
        caches.stores.failure = failure.clone();
        for entry in from {
            if entry.kind != LOCAL {
                caches.from.push(entry.clone());
            } else if let Some(directory) = entry.options.get("src") {
                caches.read_from(entry, Path::new(directory))?;
            }
        }
        for entry in to {
            if entry.kind == LOCAL
                && let Some(directory) = entry.options.get("dest")
            {
                caches.write_to(entry, Path::new(directory))?;
            }
            caches.to.push(entry.clone());
        }
        Ok(caches)
    }

    fn read_from(&mut self, entry: &CacheEntry, directory: &Path) -> Result<(), EngineError> {
        let mut entry = entry.clone();
        if !entry.options.contains_key("digest") {
            let tag = tag_of(&entry);
            let list = load_list(directory)?;
            let Some(digest) = list
                .iter()
                .find(|item| tagged(item, &tag))
                .and_then(|item| item["digest"].as_str())
            else {
                return Ok(());
            };
            entry.options.insert("digest".to_owned(), digest.to_owned());
        }
        self.open(directory);
        self.from.push(entry);
        Ok(())
    }

    fn write_to(&mut self, entry: &CacheEntry, directory: &Path) -> Result<(), EngineError> {
        fs::create_dir_all(directory).map_err(EngineError::io("create", directory))?;
        self.open(directory);
        self.written.push((directory.to_owned(), tag_of(entry)));
        Ok(())
    }

    fn open(&mut self, directory: &Path) {
        let name = format!("local:{}", directory.display());
        self.stores.directories.insert(name, directory.to_owned());
    }

    /// Lists what was written: `manifest`, a descriptor in JSON, as the exporter said.
    pub(super) fn finish(&self, manifest: Option<&String>) -> Result<(), EngineError> {
        let manifest = manifest.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(manifest) = manifest else {
            return Ok(());
        };
        for (directory, tag) in &self.written {
            let mut list = load_list(directory)?;
            list.retain(|item| !tagged(item, tag));
            let mut item = manifest.clone();
            item["annotations"][TAG] = json!(tag);
            list.push(item);
            let index = json!({ "schemaVersion": 2, "manifests": list });
            write(
                &directory.join("oci-layout"),
                &json!({ "imageLayoutVersion": "1.0.0" }),
            )?;
            write(&directory.join("index.json"), &index)?;
        }
        Ok(())
    }
}

/// Returns what of the caches of `request` a BuildKit cannot use that has no image store of its own,
/// as in a Docker Engine with its classic one.
pub(in crate::engine) fn refused_caches(request: &BuildRequest<'_>) -> Option<&'static str> {
    let is_local = |entry: &CacheEntry| entry.kind == LOCAL;
    if request.cache_to.iter().any(|entry| entry.kind != "inline") {
        Some("write its cache elsewhere: images would have to be kept by containerd")
    } else if request.cache_from.iter().any(is_local) {
        Some("use a cache in a local directory: images would have to be kept by containerd")
    } else {
        None
    }
}

fn tag_of(entry: &CacheEntry) -> String {
    let tag = entry.options.get("tag").map_or(DEFAULT_TAG, String::as_str);
    tag.to_owned()
}

fn tagged(item: &Value, tag: &str) -> bool {
    item["annotations"][TAG].as_str() == Some(tag)
}

/// Returns what is listed in `directory`; nothing where there is no list.
fn load_list(directory: &Path) -> Result<Vec<Value>, EngineError> {
    let path = directory.join("index.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(EngineError::io("read", &path)(error)),
    };
    let index: Value = serde_json::from_slice(&text)
        .map_err(|error| EngineError::io("read", &path)(io::Error::other(error)))?;
    let list = index["manifests"].as_array();
    Ok(list.cloned().unwrap_or_default())
}

fn write(path: &Path, content: &Value) -> Result<(), EngineError> {
    let file = NewFile::beside(path)?;
    fs::write(file.path(), content.to_string()).map_err(|error| file.failed(error))?;
    file.keep()
}
