//! What a manifest or index points to, for walking and checking.
//!
//! [`crate::image`] reads the documents and says what is wrong with them; this only lays
//! their descriptors out the same way for both.

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::{Index, Manifest};
use crate::media_type;
use crate::store::RawManifest;

/// Media types of layers that registries may not be given (OCI image specification 1.1,
/// `layer.md#non-distributable-layers`, and Docker's foreign layers).
const NON_DISTRIBUTABLE: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
];

/// The descriptors in a manifest or index.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// The config of an image or artifact.
    pub config: Option<Descriptor>,
    /// The layers of an image, lowest first, or the blobs of an artifact.
    pub layers: Vec<Descriptor>,
    /// The manifests of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest this one is about; it need not exist.
    pub subject: Option<Descriptor>,
    /// What an artifact, or an image, is called by its type.
    pub artifact_type: Option<String>,
}

impl Links {
    /// Reads the links of `raw`.
    ///
    /// # Errors
    /// Those of [`Index::parse`] and [`Manifest::parse`].
    pub(crate) fn parse(raw: &RawManifest) -> Result<Self, Error> {
        if media_type::is_index(&raw.descriptor.media_type) {
            let manifests = Index::parse(raw)?.manifests().to_vec();
            return Ok(Self {
                manifests,
                ..Self::default()
            });
        }
        let manifest = Manifest::parse(raw)?;
        Ok(Self {
            config: Some(manifest.config().clone()),
            layers: manifest.layers().to_vec(),
            manifests: Vec::new(),
            subject: manifest.subject().cloned(),
            artifact_type: Some(manifest.artifact_type().to_owned()),
        })
    }

    /// Returns the blobs that have to be where the manifest is, the config last.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers
            .iter()
            .filter(|layer| !is_elsewhere(layer))
            .chain(&self.config)
    }
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
