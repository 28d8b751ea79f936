//! The layers of a recipe, each written once and kept in the store for the next build.
//!
//! The bytes of a layer that is written depend on its payload, destination, owner and compression alone, and those
//! are its key: a payload that was written for one base is there for every other.

use trilith_core::{Digest, FieldHasher, InputHash, Level, Platform};
use trilith_oci::image::Image;
use trilith_oci::layer::{Compression, FORMAT_VERSION, Layer, LayerEntry, layer_entries};
use trilith_oci::publish::{BlobOrigin, PublicationBlob};
use trilith_oci::{BlobSource, Descriptor, DiffId, GraftLayer};

use crate::context::{Context, Event};
use crate::error::Error;
use crate::inputs::{LoadedLayer, LoadedTree};
use crate::load::{Loaded, ResolvedImage};
use crate::records::{LayerRecord, PayloadRecord};
use crate::subtree::{Subtree, load_subtree};
use crate::target::Target;
use crate::user;

/// What the history of a layer begins with that graft put on an image.
pub(crate) const GRAFTED: &str = "trilith graft: ";

/// Where the blob of a layer is.
enum Blob {
    /// In the store, at this path.
    Store(std::path::PathBuf),
    /// Where the image is that it is a layer of.
    Image(ResolvedImage),
}

/// A layer of the recipe, to be had.
pub(crate) struct ReadyLayer {
    pub(crate) level: Level,
    /// The platform it is for; `None` for all.
    platform: Option<Platform>,
    layer: Layer,
    /// What made it, for the history.
    created_by: String,
    blob: Blob,
    /// Whether it had been written before.
    pub(crate) reused: bool,
}

impl ReadyLayer {
    pub(crate) fn digest(&self) -> &Digest {
        &self.layer.descriptor.digest
    }

    pub(crate) fn is_for(&self, platform: &Platform) -> bool {
        self.platform.as_ref().is_none_or(|own| own == platform)
    }

    pub(crate) fn to_graft(&self) -> GraftLayer {
        GraftLayer {
            layer: self.layer.clone(),
            created_by: self.created_by.clone(),
            comment: None,
        }
    }

    pub(crate) fn to_record(&self) -> LayerRecord {
        let Descriptor { digest, size, .. } = &self.layer.descriptor;
        LayerRecord {
            level: self.level,
            digest: digest.clone(),
            size: *size,
        }
    }

    pub(crate) fn to_blob(&self, target: &Target) -> PublicationBlob {
        PublicationBlob {
            descriptor: self.layer.descriptor.clone(),
            origins: match &self.blob {
                Blob::Store(path) => vec![BlobOrigin::Upload(BlobSource::File(path.clone()))],
                Blob::Image(image) => image.origins(target),
            },
        }
    }
}

/// Returns the layers of all levels above `ground`, bottom first, written if they are not in
/// the store.
pub(crate) async fn ensure_layers(
    context: &Context,
    loaded: &Loaded,
    ground: Option<Level>,
    compression: Compression,
) -> Result<Vec<ReadyLayer>, Error> {
    let _turn = loaded.layers_turn.lock().await;
    let mut ready = Vec::new();
    for layer in &loaded.files.layers {
        if ground.is_some_and(|ground| layer.recipe.level <= ground) {
            continue;
        }
        match &layer.tree {
            Some(tree) => {
                let key = tree_key(layer, tree, compression);
                ready.push(
                    if let Some(ready) = recorded(context, layer, key, None, None)? {
                        ready
                    } else {
                        let entries = tree_entries(layer, tree);
                        write_layer(context, layer, key, compression, None, entries).await?
                    },
                );
            }
            None => {
                for platform in &loaded.settings.platforms {
                    ready.push(
                        ensure_from_image(context, loaded, layer, platform, compression).await?,
                    );
                }
            }
        }
    }
    Ok(ready)
}

/// Returns the layers that give the images of a base, one for each platform, the user that is asked
/// for, written if they are not in the store.
pub(crate) async fn ensure_user_layers(
    context: &Context,
    loaded: &Loaded,
    images: &[(Platform, Image)],
    compression: Compression,
) -> Result<Vec<ReadyLayer>, Error> {
    let Some(recipe) = &loaded.settings.user else {
        return Ok(Vec::new());
    };
    let level = Level::Versioned;
    let base = loaded.base.as_ref();
    let mut ready = Vec::new();
    for (platform, image) in images {
        let made = user::ensure_layer(context, recipe, base, image, compression).await?;
        context.observe(Event::Layer {
            level,
            title: &format!("user {}", recipe.name),
            size: made.layer.descriptor.size,
            reused: made.reused,
        });
        ready.push(ReadyLayer {
            level,
            platform: Some(platform.clone()),
            layer: made.layer,
            created_by: user::created_by(recipe),
            blob: Blob::Store(made.path),
            reused: made.reused,
        });
    }
    Ok(ready)
}

/// Returns the layer that holds the subtree of another image.
async fn ensure_from_image(
    context: &Context,
    loaded: &Loaded,
    layer: &LoadedLayer,
    platform: &Platform,
    compression: Compression,
) -> Result<ReadyLayer, Error> {
    let recipe = &layer.recipe;
    let reference = recipe
        .from
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let image = loaded
        .images
        .get(&reference)
        .ok_or_else(|| trilith_oci::Error::NotFound {
            object: format!("image `{reference}`"),
        })?;
    let mut key = layer_key(layer, compression);
    key.field("image", image.digest.as_str());
    key.field("platform", platform.to_string());
    key.field("copy", &recipe.copy);
    let key = key.finish();
    let platform_only = Some(platform.clone());
    if let Some(ready) = recorded(context, layer, key, platform_only.clone(), Some(image))? {
        return Ok(ready);
    }
    match load_subtree(context, image, platform, recipe).await? {
        Subtree::Layer(found) => {
            remember(context, key, &found, true);
            let blob = Blob::Image(image.clone());
            Ok(ready(context, blob, layer, *found, platform_only, true))
        }
        Subtree::Unpacked(subtree) => {
            let entries = tree_entries(layer, &subtree.loaded);
            write_layer(context, layer, key, compression, platform_only, entries).await
        }
    }
}

/// Writes the layer of `entries` into the store, to be found by `key` from now on.
async fn write_layer(
    context: &Context,
    layer: &LoadedLayer,
    key: InputHash,
    compression: Compression,
    platform: Option<Platform>,
    entries: Vec<LayerEntry>,
) -> Result<ReadyLayer, Error> {
    let layout = context.layout()?;
    let for_writing = layout.clone();
    let write = move || for_writing.write_layer(entries, compression);
    let written = match tokio::task::spawn_blocking(write).await {
        Ok(written) => written?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    remember(context, key, &written, false);
    let blob = Blob::Store(layout.blob_path(&written.descriptor.digest));
    Ok(ready(context, blob, layer, written, platform, false))
}

fn remember(context: &Context, key: InputHash, layer: &Layer, foreign: bool) {
    let record = PayloadRecord {
        descriptor: layer.descriptor.clone(),
        diff_id: layer.diff_id.as_digest().clone(),
        foreign,
    };
    context.records().remember_payload(key, &record);
}

/// Returns the layer with `key` if it is known, and in the store or in `image`.
fn recorded(
    context: &Context,
    layer: &LoadedLayer,
    key: InputHash,
    platform: Option<Platform>,
    image: Option<&ResolvedImage>,
) -> Result<Option<ReadyLayer>, Error> {
    let Some(record) = context.records().payload(key) else {
        return Ok(None);
    };
    let blob = match image {
        Some(image) if record.foreign => Blob::Image(image.clone()),
        _ => {
            let layout = context.layout()?;
            if !layout.find_blob(&record.descriptor) {
                return Ok(None);
            }
            Blob::Store(layout.blob_path(&record.descriptor.digest))
        }
    };
    let known = Layer {
        descriptor: record.descriptor,
        diff_id: DiffId::from(record.diff_id),
    };
    Ok(Some(ready(context, blob, layer, known, platform, true)))
}

fn ready(
    context: &Context,
    blob: Blob,
    layer: &LoadedLayer,
    written: Layer,
    platform: Option<Platform>,
    reused: bool,
) -> ReadyLayer {
    let recipe = &layer.recipe;
    let title = match &recipe.from {
        Some(_) => format!("{} of another image to {}", recipe.copy, recipe.to),
        None => format!("{} to {}", recipe.copy, recipe.to),
    };
    let size = written.descriptor.size;
    context.observe(Event::Layer {
        level: recipe.level,
        title: &title,
        size,
        reused,
    });
    ReadyLayer {
        level: recipe.level,
        platform,
        blob,
        layer: written,
        created_by: format!("{GRAFTED}copy {title}"),
        reused,
    }
}

fn tree_key(layer: &LoadedLayer, tree: &LoadedTree, compression: Compression) -> InputHash {
    let mut key = layer_key(layer, compression);
    key.field("tree", tree.tree.hash().as_bytes());
    key.finish()
}

fn layer_key(layer: &LoadedLayer, compression: Compression) -> FieldHasher {
    let mut key = FieldHasher::new("trilith/layer/v1");
    key.field("format", FORMAT_VERSION.to_le_bytes())
        .field("compression", compression.to_string())
        .field("to", layer.recipe.to.as_str())
        .field("owner", layer.recipe.owner.to_string());
    key
}

/// Returns the entries of a payload at their places in the image.
fn tree_entries(layer: &LoadedLayer, loaded: &LoadedTree) -> Vec<LayerEntry> {
    layer_entries(
        &loaded.tree,
        &loaded.content,
        &layer.recipe.to,
        layer.recipe.owner,
    )
}
