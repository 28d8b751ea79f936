//! Reading what an image is made from: lock files, source trees, layer payloads.
//!
//! Everything that is hashed here is what is put into layers later, and the other way
//! round. No registry is asked: what an image is named by comes in resolved.

use std::fs;
use std::path::{Path, PathBuf};

use trilith_core::{
    Base, DirHash, DockerfileInput, EntryInput, Inputs, LayerInput, LayerRecipe, LockFile,
    OpenHandsInputs, Patterns, Payload, Scheme, SourceTree, StatCache, Tags, Tree, load_dirhash,
    load_tree,
};
use trilith_core::{Digest, EntryKind};
use trilith_oci::layer::LayerContent;
use trilith_oci::place::Place;

use crate::agent;
use crate::error::Error;
use crate::settings::Settings;

/// Everything of a project that is hashed, and the trees that become layers.
#[derive(Clone, Debug)]
pub(crate) struct FileInputs {
    /// The layers in the order they are put on the base: by level, then as in the recipe.
    pub(crate) layers: Vec<LoadedLayer>,
    lock_files: Vec<LockFile>,
    sources: Vec<SourceTree>,
    /// What the user should know, a sentence each.
    pub(crate) warnings: Vec<String>,
}

/// A layer of the recipe and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedLayer {
    pub(crate) recipe: LayerRecipe,
    /// The payload; `None` for a layer that comes from an image.
    pub(crate) tree: Option<LoadedTree>,
}

/// Directories below the root that are links into `/usr` where it is "merged".
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// A payload that was read.
#[derive(Clone, Debug)]
pub(crate) struct LoadedTree {
    /// The file or directory the tree was read from, or what is in its one file.
    pub(crate) content: LayerContent,
    pub(crate) tree: Tree,
}

/// Reads and hashes every file that `settings` name.
///
/// # Errors
/// A payload or source does not exist, or a file cannot be read.
pub(crate) fn load_files(settings: &Settings, cache: &StatCache) -> Result<FileInputs, Error> {
    let ignore = Patterns::parse(&settings.ignore).map_err(trilith_core::HashError::from)?;
    let (lock_files, mut warnings) = load_lock_files(settings)?;
    let mut layers = settings
        .layers
        .iter()
        .map(|recipe| load_layer(settings, recipe, &ignore, cache))
        .collect::<Result<Vec<_>, _>>()?;
    layers.sort_by_key(|layer| layer.recipe.level);
    if settings.base != Place::Scratch {
        warnings.extend(layers.iter().filter_map(hidden_link));
    }
    if settings.agent {
        // At the bottom, where it is the same for every project.
        layers.insert(0, agent::layer(settings)?);
    }
    Ok(FileInputs {
        layers,
        lock_files,
        sources: load_sources(settings, &ignore, cache)?,
        warnings,
    })
}

impl FileInputs {
    /// Returns the same without any layers.
    pub(crate) fn without_layers(&self) -> Self {
        Self {
            layers: Vec::new(),
            ..self.clone()
        }
    }

    /// Returns the inputs of the `trilith` scheme. `images` are the digests of the images that
    /// layers come from, in the order of [`FileInputs::layers`], `None` for layers from disk.
    pub(crate) fn with_images(
        &self,
        settings: &Settings,
        base: Base,
        images: &[Option<Digest>],
        dockerfile: Option<DockerfileInput>,
    ) -> Inputs {
        let layers = self
            .layers
            .iter()
            .zip(images)
            .map(|(layer, image)| LayerInput {
                recipe: layer.recipe.clone(),
                payload: match (&layer.tree, image) {
                    (_, Some(digest)) => Payload::Image(digest.clone()),
                    (Some(loaded), None) => Payload::Tree(entries(&loaded.tree)),
                    (None, None) => Payload::Tree(Vec::new()),
                },
            });
        Inputs {
            platforms: settings.platforms.clone(),
            dockerfile,
            user: settings.user.clone(),
            layers: layers.collect(),
            lock_files: self.lock_files.clone(),
            sources: self.sources.clone(),
            config: settings.config.clone(),
            ..Inputs::new(settings.version.clone(), base)
        }
    }
}

/// What the openhands schemes hash of a project, whatever the base.
pub(crate) struct OpenHandsFiles {
    source: DirHash,
    lock_files: Vec<Vec<u8>>,
    /// What the user should know, a sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Reads and hashes what the openhands schemes hash.
///
/// # Errors
/// There is more than one source directory, or the reference fails on it too.
pub(crate) fn load_openhands_files(
    settings: &Settings,
    cache: &StatCache,
) -> Result<OpenHandsFiles, Error> {
    let source = load_source_hash(settings, cache)?;
    let mut lock_files = Vec::new();
    let mut warnings = Vec::new();
    for name in &settings.lock_files.paths {
        match read_if_there(&settings.project.join(name))? {
            Some(content) => lock_files.push(content),
            None => warnings.push(missing_lock_file(settings, name)),
        }
    }
    Ok(OpenHandsFiles {
        source,
        lock_files,
        warnings,
    })
}

impl OpenHandsFiles {
    /// Returns the tags of an openhands scheme, which need neither the base's digest nor the
    /// layers.
    ///
    /// # Errors
    /// A tag would break the grammar.
    pub(crate) fn tags(&self, settings: &Settings) -> Result<Tags, Error> {
        let inputs = OpenHandsInputs {
            version: &settings.version,
            base_image: &settings.base_text,
            browser: settings.browser,
            lock_files: self.lock_files.iter().map(Vec::as_slice).collect(),
            source_digest: &self.source.digest,
            suffix: &settings.suffix,
        };
        Ok(match settings.scheme {
            Scheme::OpenHandsV0 => inputs.tags_v0()?,
            Scheme::OpenHandsV1 | Scheme::Trilith => inputs.tags_v1()?,
        })
    }
}

/// Hashes the source directory; those of a checkout that is built in parts as one directory that
/// holds nothing else.
fn load_source_hash(settings: &Settings, cache: &StatCache) -> Result<DirHash, Error> {
    let load = |source: &Path| load_dirhash(source, &settings.ignore, cache);
    match settings.sources.as_slice() {
        [] => Ok(load(&settings.project)?),
        [source] => Ok(load(&settings.project.join(source))?),
        sources => {
            let refusal = Error::Sources {
                scheme: settings.scheme,
                count: sources.len(),
            };
            if settings.parts.is_none() {
                return Err(refusal);
            }
            let hash = |source: &PathBuf| {
                let hash = load(&settings.project.join(source))?;
                Ok((source.to_string_lossy().into_owned(), hash))
            };
            let hashes = sources
                .iter()
                .map(hash)
                .collect::<Result<Vec<_>, Error>>()?;
            let parts: Vec<_> = hashes.iter().map(|(name, hash)| (&**name, hash)).collect();
            DirHash::joined(&parts).ok_or(refusal)
        }
    }
}

fn load_layer(
    settings: &Settings,
    recipe: &LayerRecipe,
    ignore: &Patterns,
    cache: &StatCache,
) -> Result<LoadedLayer, Error> {
    let tree = if recipe.from.is_some() {
        None
    } else {
        let root = settings.project.join(&recipe.copy);
        let tree = load_existing("layer payload", &root, ignore, cache)?;
        let content = LayerContent::Path(root);
        Some(LoadedTree { content, tree })
    };
    Ok(LoadedLayer {
        recipe: recipe.clone(),
        tree,
    })
}

fn load_sources(
    settings: &Settings,
    ignore: &Patterns,
    cache: &StatCache,
) -> Result<Vec<SourceTree>, Error> {
    let load = |source: &PathBuf| {
        let root = settings.project.join(source);
        let tree = load_existing("source", &root, ignore, cache)?;
        Ok(SourceTree {
            name: name_in(&settings.project, &root),
            entries: entries(&tree),
        })
    };
    settings.sources.iter().map(load).collect()
}

fn load_lock_files(settings: &Settings) -> Result<(Vec<LockFile>, Vec<String>), Error> {
    let mut files = Vec::new();
    let mut warnings = Vec::new();
    for name in &settings.lock_files.paths {
        let path = settings.project.join(name);
        match read_if_there(&path)? {
            Some(content) => {
                files.push(LockFile::of(name_in(&settings.project, &path), &content));
            }
            None if settings.lock_files.expected => {
                warnings.push(missing_lock_file(settings, name));
            }
            None => {}
        }
    }
    Ok((files, warnings))
}

/// Returns a warning where `layer` makes a directory of what is a link in most bases: the link,
/// and with it most of the image's programs, would be gone.
fn hidden_link(layer: &LoadedLayer) -> Option<String> {
    let to = layer.recipe.to.as_str();
    let below_root = to.trim_matches('/').split('/').next().unwrap_or_default();
    let makes = |name: &&&str| match &layer.tree {
        Some(tree) if below_root.is_empty() => {
            let mut entries = tree.tree.entries().iter();
            let is_directory = |kind: &EntryKind| matches!(kind, EntryKind::Directory { .. });
            entries.any(|entry| entry.path == name.as_bytes() && is_directory(&entry.kind))
        }
        _ => **name == below_root,
    };
    let name = MERGED.iter().find(makes)?;
    Some(format!(
        "the layer of `{}` makes `/{name}` a directory, which is a link to `/usr/{name}` in \
         Debian, Fedora and others and would be hidden: copy to `/usr/{name}`",
        layer.recipe.copy
    ))
}

fn missing_lock_file(settings: &Settings, name: &Path) -> String {
    format!(
        "lock file `{}` does not exist in `{}` and is left out",
        name.display(),
        settings.project.display()
    )
}

/// Returns the tree at `root`, and a clearer error than "not found" where there is nothing.
fn load_existing(
    what: &'static str,
    root: &Path,
    ignore: &Patterns,
    cache: &StatCache,
) -> Result<Tree, Error> {
    if fs::symlink_metadata(root).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Err(Error::Missing {
            what,
            path: root.to_owned(),
        });
    }
    Ok(load_tree(root, ignore, cache)?)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trilith_oci::Error::io("read", path)(error).into()),
    }
}

/// Returns how an input at `path` is called: relative to the project, and for what lies
/// elsewhere its last component, as no absolute path may reach a key.
fn name_in(project: &Path, path: &Path) -> String {
    let name = match path.strip_prefix(project) {
        Ok(inside) if inside.as_os_str().is_empty() => Path::new("."),
        Ok(inside) => inside,
        Err(_) => path.file_name().map_or(Path::new("."), Path::new),
    };
    name.to_string_lossy().into_owned()
}

fn entries(tree: &Tree) -> Vec<EntryInput> {
    let entry = |entry: &trilith_core::TreeEntry| EntryInput {
        path: entry.path.clone(),
        hash: entry.hash(),
        size: match &entry.kind {
            EntryKind::File { size, .. } => *size,
            _ => 0,
        },
    };
    tree.entries().iter().map(entry).collect()
}
