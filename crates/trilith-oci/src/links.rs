//! What a manifest points to, whatever kind it is.
//!
//! A view for walking and checking: it keeps nothing of a manifest but its descriptors,
//! and never writes one.

use serde::Deserialize;
use trilith_core::{Digest, Platform};

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::media_type;
use crate::store::RawManifest;

/// Media types of layers that registries may not be given (OCI image specification 1.1,
/// `layer.md#non-distributable-layers`, and Docker's foreign layers).
const NON_DISTRIBUTABLE: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
];

/// The descriptors in a manifest or index.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Links {
    /// The type the document gives itself.
    media_type: Option<String>,
    /// What an artifact says it is.
    artifact_type: Option<String>,
    /// The config of an image or artifact.
    pub config: Option<Descriptor>,
    /// The layers of an image, lowest first, or the blobs of an artifact.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifests of an index.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest this one is about; it need not exist.
    pub subject: Option<Descriptor>,
}

impl Links {
    /// Reads the links of `manifest`.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is not JSON or a descriptor is not one.
    pub(crate) fn parse(manifest: &RawManifest) -> Result<Self, Error> {
        Self::parse_bytes(&manifest.bytes, &manifest.descriptor.digest)
    }

    /// Reads the links of the manifest with `digest` from its `bytes`.
    pub(crate) fn parse_bytes(bytes: &[u8], digest: &Digest) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|source| Error::Malformed {
            object: format!("manifest `{digest}`"),
            reason: source.to_string(),
        })
    }

    /// Returns the media type of the document, a guess by its shape where it gives none
    /// (OCI makes `mediaType` optional).
    pub(crate) fn media_type(&self) -> &str {
        match &self.media_type {
            Some(media_type) => media_type,
            None if self.config.is_some() => media_type::OCI_MANIFEST,
            None => media_type::OCI_INDEX,
        }
    }

    /// Returns the type of an artifact: what it says, else the type of its config.
    pub(crate) fn artifact_type(&self) -> Option<&str> {
        let config = self
            .config
            .as_ref()
            .map(|config| config.media_type.as_str());
        self.artifact_type.as_deref().or(config)
    }

    /// Returns the manifest for `platform` in an index; `image` is its name for messages.
    ///
    /// The first that fits wins. Attestations, whose platform is `unknown`, fit nothing.
    pub(crate) fn for_platform(
        &self,
        platform: &Platform,
        image: &str,
    ) -> Result<&Descriptor, Error> {
        let fits = |child: &&Descriptor| platform_of(child).as_ref() == Some(platform);
        self.manifests
            .iter()
            .find(fits)
            .ok_or_else(|| Error::NoSuchPlatform {
                image: image.to_owned(),
                wanted: platform.clone(),
                available: self.platforms(),
            })
    }

    /// Returns the platforms of an index, without those of attestations.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        let platforms = self.manifests.iter().filter_map(platform_of);
        platforms
            .filter(|p| p.architecture() != "unknown")
            .collect()
    }

    /// Returns the blobs that have to be where the manifest is, the config last.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers
            .iter()
            .filter(|layer| !is_elsewhere(layer))
            .chain(&self.config)
    }
}

fn platform_of(child: &Descriptor) -> Option<Platform> {
    Some(child.platform.as_ref()?.normalized())
}

/// Returns whether `layer` is not kept with its image: it may not be distributed and
/// says where to get it.
///
/// Such a layer is left where it is when its image is copied; the manifest, which stays
/// as it is, goes on naming its URLs. One without URLs is copied like any other.
pub(crate) fn is_elsewhere(layer: &Descriptor) -> bool {
    !layer.urls.is_empty()
        && NON_DISTRIBUTABLE
            .iter()
            .any(|prefix| layer.media_type.starts_with(prefix))
}
