//! Descriptors: what a blob or manifest is, how long, and its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trilith_core::{Digest, Platform};

/// A typed pointer to content (OCI image specification 1.1, `descriptor.md`).
///
/// Serialises in the order of its fields, so that equal descriptors give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
    /// Where else the content is (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Type of the artifact a manifest holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What the image runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Returns the descriptor of `size` bytes with `digest`.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Returns the descriptor of `content`.
    #[must_use]
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self::new(media_type, Digest::of(content), content.len() as u64)
    }
}

/// The `platform` of a descriptor, as it is written in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// CPU architecture, `amd64` for instance; `unknown` on attestations.
    pub architecture: String,
    /// Operating system, `linux` for instance.
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Required features of the operating system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// CPU variant, `v7` for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl DescriptorPlatform {
    /// Returns the platform in normal form.
    #[must_use]
    pub fn normalized(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

impl From<&Platform> for DescriptorPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture().to_owned(),
            os: platform.os().to_owned(),
            os_version: None,
            os_features: Vec::new(),
            variant: platform.variant().map(str::to_owned),
        }
    }
}
