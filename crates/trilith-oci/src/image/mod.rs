//! Images as values: manifest and configuration, checked against each other.
//!
//! Reads a manifest and a config from a store and nothing else: no layer is ever opened here.

mod config;
mod index;
pub(crate) mod json;
mod manifest;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;
use trilith_core::{Digest, Platform};

pub use config::{History, ImageConfig};
pub use index::Index;
pub use manifest::{Format, Manifest};
pub(crate) use manifest::{descriptor as parse_descriptor, media_type_of};

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::media_type;
use crate::store::{ImageStore, Name};

/// The most bytes of a configuration that are read; larger ones are refused.
const MAX_CONFIG_SIZE: u64 = 8 * 1024 * 1024;
/// How many manifests are looked at to find the one for a platform, nested indexes included.
const MAX_MANIFESTS_READ: usize = 32;

/// An image for one platform. Its manifest and configuration belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    manifest: Manifest,
    config: ImageConfig,
}

/// An image found in a store, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The image.
    pub image: Image,
    /// What its manifest is, as the index it was found in says (with its platform), if any.
    pub manifest: Descriptor,
    /// What the name pointed to: the manifest itself, or an index.
    pub top: Descriptor,
}

impl Image {
    /// Returns the image of `manifest` and `config`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where `config` is not the one the manifest names, or says another
    /// number of layers.
    pub fn new(manifest: Manifest, config: ImageConfig) -> Result<Self, Error> {
        let (layers, diff_ids) = (manifest.layers().len(), config.diff_ids().len());
        let reason = if manifest.config().digest != config_digest(&manifest, &config) {
            "its config is another one".to_owned()
        } else if layers != diff_ids {
            format!("it has {layers} layers, but its config has {diff_ids} diff_ids")
        } else {
            return Ok(Self { manifest, config });
        };
        let object = manifest::named(&manifest.to_raw().descriptor.digest);
        Err(Error::Malformed { object, reason })
    }

    /// Returns the image without layers for `platform`, which is what `scratch` is.
    #[must_use]
    pub fn scratch(platform: &Platform) -> Self {
        let config = ImageConfig::new(platform);
        let descriptor = Descriptor::of(Format::Oci.config(), &config.to_bytes());
        Self {
            manifest: Manifest::new(Format::Oci, &descriptor, &[]),
            config,
        }
    }

    /// Returns the image with the field `name` of its configuration set, or without it. For fields
    /// that no specification knows; a place of their own is behind those that it does.
    ///
    /// # Errors
    /// None that an image that was read can come to.
    pub fn with_config_field(&self, name: &str, value: Option<Value>) -> Result<Self, Error> {
        if value.is_none() && self.config.field(name).is_none() {
            return Ok(self.clone());
        }
        let config = self.config.with_field(name, value);
        let media_type = self.manifest.format().config();
        let descriptor = Descriptor::of(media_type, &config.to_bytes());
        let manifest = self.manifest.extended(&descriptor, &[], &BTreeMap::new());
        Self::new(manifest, config)
    }

    /// Returns the image for `platform` that `name` points to in `store`.
    ///
    /// # Errors
    /// [`Error::NoSuchPlatform`] where an index has no image for the platform, or the only image
    /// is for another one; [`Error::NotFound`] where something is missing; [`Error::Malformed`].
    pub async fn load(
        store: &dyn ImageStore,
        name: &Name,
        platform: &Platform,
    ) -> Result<ResolvedImage, Error> {
        let first = store.fetch_manifest(name).await?;
        let top = first.descriptor.clone();
        let mut available = Vec::new();
        let mut pending = vec![(top.clone(), Some(first))];
        for _ in 0..MAX_MANIFESTS_READ {
            let Some((found, raw)) = pending.pop() else {
                return Err(no_such_platform(store, name, platform, available));
            };
            let is_top = raw.is_some();
            let by_digest = Name::Digest(found.digest.clone());
            let raw = match raw {
                Some(raw) => raw,
                None => store.fetch_manifest(&by_digest).await?,
            };
            if media_type::is_index(&raw.descriptor.media_type) {
                let index = Index::parse(&raw)?;
                available.extend(index.platforms());
                let candidates = index.candidates(platform).into_iter().rev();
                pending.extend(candidates.map(|candidate| (candidate.clone(), None)));
                continue;
            }
            let manifest = Manifest::parse(&raw)?;
            if !is_image(&manifest) && !is_top && found.platform.is_none() {
                continue;
            }
            let image = Self::fetch(store, manifest).await?;
            if fits(&image, &found, platform)? {
                let manifest = found;
                return Ok(ResolvedImage {
                    image,
                    manifest,
                    top,
                });
            }
            available.push(image.config.platform());
        }
        Err(Error::Malformed {
            object: format!("`{}`", named_in(store, name)),
            reason: format!("none of its first {MAX_MANIFESTS_READ} manifests is for {platform}"),
        })
    }

    /// Returns the image of `manifest`, whose config is in `store`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is the manifest of an artifact.
    pub async fn fetch(store: &dyn ImageStore, manifest: Manifest) -> Result<Self, Error> {
        if !is_image(&manifest) {
            return Err(Error::Unsupported {
                object: manifest::named(&manifest.to_raw().descriptor.digest),
                reason: format!("it is an artifact of type `{}`", manifest.artifact_type()),
                advice: "name an image",
            });
        }
        let config = ImageConfig::parse(fetch_config(store, manifest.config()).await?)?;
        Self::new(manifest, config)
    }

    /// Returns the manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Returns what the manifest is, with the platform, as an index names it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = self.manifest.to_raw().descriptor;
        let mut platform = crate::DescriptorPlatform::from(&self.config.platform());
        platform.os_version = self.config.os_version().map(str::to_owned);
        descriptor.platform = Some(platform);
        descriptor
    }
}

/// Returns the digest of `config` by the algorithm `manifest` names it with.
fn config_digest(manifest: &Manifest, config: &ImageConfig) -> Digest {
    let mut digester = trilith_core::Digester::new(manifest.config().digest.algorithm());
    digester.update(&config.to_bytes());
    digester.finish()
}

/// Returns whether the manifest is that of an image, not of some other artifact.
fn is_image(manifest: &Manifest) -> bool {
    // Docker's early pushes wrote `application/octet-stream`.
    matches!(
        manifest.config().media_type.as_str(),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream"
    )
}

/// Returns whether `image`, which was found as `found`, runs on `wanted`.
///
/// An index that names a platform was believed when it was chosen; many configs of arm images
/// leave out the variant, so only the architecture must agree with it.
fn fits(image: &Image, found: &Descriptor, wanted: &Platform) -> Result<bool, Error> {
    let own = image.config.platform();
    let Some(declared) = &found.platform else {
        return Ok(index::distance(&own, wanted).is_some());
    };
    let declared = declared.normalized();
    if (own.os(), own.architecture()) == (declared.os(), declared.architecture()) {
        return Ok(true);
    }
    Err(Error::Malformed {
        object: manifest::named(&found.digest),
        reason: format!("its index says it is for {declared}, its config for {own}"),
    })
}

async fn fetch_config(store: &dyn ImageStore, config: &Descriptor) -> Result<Bytes, Error> {
    if config.size > MAX_CONFIG_SIZE {
        return Err(Error::Malformed {
            object: format!("config `{}`", config.digest),
            reason: format!("it is larger than {} MiB", MAX_CONFIG_SIZE >> 20),
        });
    }
    let mut stream = store.fetch_blob(config).await?;
    let mut content = Vec::new();
    while let Some(piece) = stream.next().await {
        content.extend_from_slice(&piece?);
    }
    Ok(content.into())
}

fn no_such_platform(
    store: &dyn ImageStore,
    name: &Name,
    wanted: &Platform,
    mut available: Vec<Platform>,
) -> Error {
    available.sort_unstable();
    available.dedup();
    Error::NoSuchPlatform {
        image: named_in(store, name),
        wanted: wanted.clone(),
        available,
    }
}

fn named_in(store: &dyn ImageStore, name: &Name) -> String {
    match name {
        Name::Tag(tag) => format!("{}:{tag}", store.describe()),
        Name::Digest(digest) => format!("{}@{digest}", store.describe()),
    }
}
