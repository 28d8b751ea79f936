//! Layers out of other images: the subtree of an image, as `COPY --from` takes it.
//!
//! The image is unpacked beside the store, whiteouts and all, and the subtree is read from
//! there like a payload of the project, unless one layer of the image is just that. Nothing of
//! the image runs.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;
use trilith_core::{LayerRecipe, Patterns, Platform, StatCache, load_tree};
use trilith_oci::Descriptor;
use trilith_oci::image::{Format, Image};
use trilith_oci::layer::{Layer, LayerContent};
use trilith_oci::rootfs::{self, UnpackOptions, unpack_image};

use crate::context::Context;
use crate::error::Error;
use crate::inputs::LoadedTree;
use crate::load::ResolvedImage;

/// How many symbolic links a path may lead through, as on Linux.
const MAX_LINKS: usize = 40;

/// A subtree of an image on disk, for as long as this lives.
pub(crate) struct UnpackedTree {
    pub(crate) loaded: LoadedTree,
    _directory: TempDir,
}

/// What a layer that copies from an image is made of.
pub(crate) enum Subtree {
    /// A layer of the image, as it is.
    Layer(Box<Layer>),
    Unpacked(UnpackedTree),
}

/// Unpacks `image` for `platform` and returns the tree at the path that `recipe` copies, or the
/// layer that is all of it.
pub(crate) async fn load_subtree(
    context: &Context,
    image: &ResolvedImage,
    platform: &Platform,
    recipe: &LayerRecipe,
) -> Result<Subtree, Error> {
    let found = Image::load(&*image.store, &image.name(), platform)
        .await?
        .image;
    let directory = tempfile::Builder::new()
        .prefix("subtree-")
        .tempdir_in(context.layout()?.root())
        .map_err(trilith_oci::Error::io(
            "create a directory in",
            &context.store,
        ))?;
    let root = directory.path().join("root");
    let options = UnpackOptions {
        find: (recipe.copy == recipe.to.as_str()).then(|| rootfs::Subtree {
            path: recipe.copy.trim_matches('/').as_bytes().to_vec(),
            owner: (recipe.owner.uid, recipe.owner.gid),
        }),
        ..UnpackOptions::default()
    };
    let unpacked = unpack_image(&image.store, &found, &root, options).await?;
    if let Some(layer) = unpacked.found.and_then(|number| layer(&found, number)) {
        return Ok(Subtree::Layer(Box::new(layer)));
    }

    let missing = || trilith_oci::Error::NotFound {
        object: format!(
            "`{}` in `{}@{}`",
            recipe.copy,
            image.store.describe(),
            image.digest
        ),
    };
    let path = resolve_in(&root, Path::new(&recipe.copy)).ok_or_else(missing)?;
    let load = move || {
        let everything = Patterns::parse(std::iter::empty::<&str>())?;
        let tree = load_tree(&path, &everything, &StatCache::disabled())?;
        Ok(LoadedTree {
            content: LayerContent::Path(path),
            tree,
        })
    };
    let loaded = match tokio::task::spawn_blocking(load).await {
        Ok(loaded) => loaded.map_err(|error: trilith_core::HashError| Error::from(error))?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    Ok(Subtree::Unpacked(UnpackedTree {
        loaded,
        _directory: directory,
    }))
}

/// Returns a layer of `image`, counted from the bottom, `None` where OCI has none of its kind.
fn layer(image: &Image, number: usize) -> Option<Layer> {
    let descriptor = image.manifest().layers().get(number)?;
    let media_type = Format::Oci.layer(&descriptor.media_type)?;
    Some(Layer {
        descriptor: Descriptor::new(media_type, descriptor.digest.clone(), descriptor.size),
        diff_id: image.config().diff_ids().get(number)?.clone(),
    })
}

/// Returns where `path` is under `root` when links mean what they mean in the image, `None`
/// where there is nothing. A link at the end of the path is not followed.
fn resolve_in(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut pending: Vec<Vec<u8>> = components(path);
    let mut resolved = PathBuf::new();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == b".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(os(&name));
        let on_disk = root.join(&next);
        let metadata = std::fs::symlink_metadata(&on_disk).ok()?;
        if !metadata.is_symlink() || pending.is_empty() {
            resolved = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let target = std::fs::read_link(on_disk).ok()?;
        if target.is_absolute() {
            resolved = PathBuf::new();
        }
        pending.extend(components(&target));
    }
    Some(root.join(resolved))
}

/// Returns the names in `path`, last first.
fn components(path: &Path) -> Vec<Vec<u8>> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.as_encoded_bytes().to_vec()),
        Component::ParentDir => Some(b"..".to_vec()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn os(name: &[u8]) -> &OsStr {
    use std::os::unix::ffi::OsStrExt as _;
    OsStr::from_bytes(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere_but_into_the_image() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::write(root.join("usr/bin/tool"), "x").unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/usr", root.join("absolute")).unwrap();
        symlink("../../../../usr", root.join("usr/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, expected) in [
            ("/usr/bin/tool", Some("usr/bin/tool")),
            ("/bin/tool", Some("usr/bin/tool")),
            ("/absolute/bin/tool", Some("usr/bin/tool")),
            ("/usr/up/bin", Some("usr/bin")),
            ("/bin", Some("bin")),
            ("/", Some("")),
            ("/loop/x", None),
            ("/etc/passwd", None),
        ] {
            let found = resolve_in(root, Path::new(path));
            assert_eq!(found, expected.map(|e| root.join(e)), "{path}");
        }
    }
}
