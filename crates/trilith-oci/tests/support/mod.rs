//! What several of the tests need: small images, and this program again as another process.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use trilith_core::{Digest, Owner, Platform, Tag};
use trilith_oci::image::{Format, Image, ImageConfig, Manifest};
use trilith_oci::layer::{Compression, EntryKind, Layer, LayerContent, LayerEntry};
use trilith_oci::layout::{Layout, LayoutRepository, Naming};
use trilith_oci::{
    BlobSource, BlobStream, Descriptor, Error, Graft, GraftLayer, ImageStore, RawManifest, graft,
};

/// Names the part that this program plays when a test starts it again.
pub(crate) const ROLE: &str = "TRILITH_OCI_TEST_ROLE";

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub(crate) fn layout(path: &Path) -> LayoutRepository {
    Layout::open_or_create(path)
        .unwrap()
        .repository(Naming::Tags)
}

/// Returns a command that runs the test `name` of this program in the part `role`.
pub(crate) fn this_program(name: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture"])
        .env(ROLE, role);
    command
}

pub(crate) fn file(path: &str, mode: u32, content: impl Into<Bytes>) -> LayerEntry {
    let content = content.into();
    LayerEntry {
        path: path.into(),
        kind: EntryKind::File {
            mode,
            size: content.len() as u64,
            digest: Digest::of(&content),
            content: LayerContent::Bytes(content),
        },
        owner: Owner::default(),
    }
}

pub(crate) fn directory(path: &str) -> LayerEntry {
    LayerEntry {
        path: path.into(),
        kind: EntryKind::Directory { mode: 0o755 },
        owner: Owner::default(),
    }
}

pub(crate) fn symlink(path: &str, target: &str) -> LayerEntry {
    LayerEntry {
        path: path.into(),
        kind: EntryKind::Symlink {
            target: target.into(),
        },
        owner: Owner::default(),
    }
}

/// Returns the image of one layer with `content` in it, whose blobs are in `layout`.
pub(crate) fn image(layout: &Layout, content: &[u8]) -> Image {
    let entries = vec![file("content", 0o644, content.to_vec())];
    let layer = layout.write_layer(entries, Compression::Gzip(1)).unwrap();
    on_scratch(layout, &[layer])
}

/// Returns the image of `layers` on nothing, whose config is in `layout`.
pub(crate) fn on_scratch(layout: &Layout, layers: &[Layer]) -> Image {
    let layers: Vec<GraftLayer> = layers
        .iter()
        .map(|layer| GraftLayer {
            layer: layer.clone(),
            created_by: "test".to_owned(),
            comment: None,
        })
        .collect();
    let labels = std::collections::BTreeMap::new();
    let graft_ = Graft {
        layers: &layers,
        config: None,
        labels: &labels,
        base: None,
    };
    let image = graft(&Image::scratch(&"linux/amd64".parse().unwrap()), &graft_).unwrap();
    write_config(layout, &image);
    image
}

pub(crate) fn write_config(layout: &Layout, image: &Image) {
    let config = image.manifest().config();
    layout
        .write_blob(&config.media_type, &image.config().to_bytes())
        .unwrap();
}

/// Returns an image for `platform` without layers, in `layout`.
pub(crate) fn bare(layout: &Layout, platform: &str, format: Format) -> RawManifest {
    let platform: Platform = platform.parse().unwrap();
    let config = ImageConfig::new(&platform);
    let descriptor = layout
        .write_blob(format.config(), &config.to_bytes())
        .unwrap();
    Manifest::new(format, &descriptor, &[]).to_raw()
}

pub(crate) async fn read(stream: BlobStream) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

pub(crate) async fn push(
    store: &dyn ImageStore,
    content: &'static [u8],
) -> Result<Descriptor, Error> {
    let blob = Descriptor::of("text/plain", content);
    store
        .push_blob(&blob, BlobSource::Memory(Bytes::from_static(content)))
        .await?;
    Ok(blob)
}
