//! Indexes: images for several platforms under one name, and the choice among them.
//!
//! OCI indexes and Docker manifest lists. Fetches nothing.

use bytes::Bytes;
use trilith_core::Platform;

use super::json::{self, Object};
use super::manifest::{Format, check_kind, descriptors};
use crate::descriptor::{Descriptor, DescriptorPlatform};
use crate::error::Error;
use crate::media_type;
use crate::store::RawManifest;

/// An index or manifest list (OCI image specification 1.1, `image-index.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    bytes: Bytes,
    document: Object,
    format: Format,
    manifests: Vec<Descriptor>,
}

impl Index {
    /// Returns the index of `children`, in their order.
    ///
    /// A Docker manifest list where all of them are Docker's, else an OCI index, which may hold both.
    #[must_use]
    pub fn new(children: &[Descriptor]) -> Self {
        let docker = |child: &Descriptor| {
            matches!(
                child.media_type.as_str(),
                media_type::DOCKER_MANIFEST | media_type::DOCKER_INDEX
            )
        };
        let format = if !children.is_empty() && children.iter().all(docker) {
            Format::Docker
        } else {
            Format::Oci
        };
        let mut document = Object::new();
        document.insert("schemaVersion".to_owned(), 2.into());
        document.insert("mediaType".to_owned(), format.index().into());
        document.insert("manifests".to_owned(), json::write(&children));
        Self {
            bytes: json::print(&document).into(),
            document,
            format,
            manifests: children.to_vec(),
        }
    }

    /// Returns the index that `raw` holds.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it breaks the specification or is not of the media type it was
    /// stored as.
    pub fn parse(raw: &RawManifest) -> Result<Self, Error> {
        Self::read(raw).map_err(|reason| Error::Malformed {
            object: format!("index `{}`", raw.descriptor.digest),
            reason,
        })
    }

    fn read(raw: &RawManifest) -> Result<Self, String> {
        let document = json::parse(&raw.bytes)?;
        json::check_folded(&document)?;
        check_kind(&raw.descriptor.media_type, &document, media_type::is_index)?;
        json::check_string_map(&document, "annotations")?;
        let format = match raw.descriptor.media_type.as_str() {
            media_type::DOCKER_INDEX => Format::Docker,
            _ => Format::Oci,
        };
        let manifests = descriptors(&document, "manifests")?;
        Ok(Self {
            bytes: raw.bytes.clone(),
            document,
            format,
            manifests,
        })
    }

    /// Returns the format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the descriptors of the children.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// Returns the index's bytes and what they are.
    #[must_use]
    pub fn to_raw(&self) -> RawManifest {
        RawManifest {
            descriptor: Descriptor::of(self.format.index(), &self.bytes),
            bytes: self.bytes.clone(),
        }
    }

    /// Returns the platforms the index has images for, attestations left out.
    #[must_use]
    pub fn platforms(&self) -> Vec<Platform> {
        let named = self.manifests.iter().filter_map(|m| m.platform.as_ref());
        named
            .filter(|platform| !is_attestation(platform))
            .map(DescriptorPlatform::normalized)
            .collect()
    }

    /// Returns the children that may run on `wanted`, best first.
    ///
    /// As containerd chooses, within one architecture: the same variant before older ones, among
    /// equals the first listed, for Windows the newest `os.version`. Children that name no
    /// platform come last, as only what they point to can tell. Attestations never run.
    #[must_use]
    pub fn candidates(&self, wanted: &Platform) -> Vec<&Descriptor> {
        let mut ranked: Vec<_> = self
            .manifests
            .iter()
            .filter_map(|child| {
                let Some(platform) = &child.platform else {
                    let known = media_type::is_manifest(&child.media_type)
                        || media_type::is_index(&child.media_type);
                    return known.then_some(((usize::MAX, Vec::new()), child));
                };
                if is_attestation(platform) {
                    return None;
                }
                let distance = distance(&platform.normalized(), wanted)?;
                Some(((distance, newest_first(platform)), child))
            })
            .collect();
        ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
        ranked.into_iter().map(|(_, child)| child).collect()
    }
}

/// Returns how far `offered` is from `wanted`: 0 for the same, more for older variants, `None`
/// where it does not run there.
#[must_use]
pub(super) fn distance(offered: &Platform, wanted: &Platform) -> Option<usize> {
    if offered.os() != wanted.os() || offered.architecture() != wanted.architecture() {
        return None;
    }
    if offered.variant() == wanted.variant() {
        return Some(0);
    }
    // What each variant runs: itself and the older ones. No variant is the oldest but for arm,
    // where the normal form of none is `v7`.
    let oldest = match wanted.architecture() {
        "arm" => 5,
        "arm64" => 8,
        "amd64" => 1,
        _ => return None,
    };
    let version = |platform: &Platform| match platform.variant() {
        None => Some(oldest),
        Some(variant) => variant.strip_prefix('v')?.parse::<usize>().ok(),
    };
    let (offered, wanted) = (version(offered)?, version(wanted)?);
    (oldest <= offered).then_some(())?;
    wanted.checked_sub(offered)
}

/// Returns whether the platform is that of an attestation (`BuildKit` writes `unknown/unknown`).
fn is_attestation(platform: &DescriptorPlatform) -> bool {
    platform.os == "unknown" && platform.architecture == "unknown"
}

/// Returns a key that sorts newer versions of Windows first, and is the same for all else.
fn newest_first(platform: &DescriptorPlatform) -> Vec<std::cmp::Reverse<u64>> {
    let version = platform
        .os_version
        .as_deref()
        .filter(|_| platform.os == "windows");
    let parts = version.unwrap_or_default().split('.');
    parts
        .map(|part| std::cmp::Reverse(part.parse().unwrap_or(0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilith_core::Digest;

    /// Returns a child for `os/architecture[/variant][@os.version]`, or without platform for `-`.
    fn child(position: usize, platform: &str) -> Descriptor {
        let digest = Digest::of(&position.to_le_bytes());
        let mut child = Descriptor::new(media_type::OCI_MANIFEST, digest, 1);
        let (platform, os_version) = platform.split_once('@').unwrap_or((platform, ""));
        let parts: Vec<&str> = platform.split('/').collect();
        if let [os, architecture, variant @ ..] = parts.as_slice() {
            child.platform = Some(DescriptorPlatform {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: variant.first().map(|v| (*v).to_owned()),
                os_version: (!os_version.is_empty()).then(|| os_version.to_owned()),
                os_features: Vec::new(),
            });
        }
        child
    }

    #[test]
    fn choices() {
        for (children, wanted, expected) in [
            ("linux/arm64 linux/amd64", "linux/amd64", vec![1]),
            ("linux/amd64 linux/amd64", "linux/amd64", vec![0, 1]),
            ("linux/arm/v5 linux/arm/v6", "linux/arm/v7", vec![1, 0]),
            ("linux/arm/v6 linux/arm/v7", "linux/arm", vec![1, 0]),
            ("linux/arm/v7", "linux/arm/v6", vec![]),
            ("linux/arm64/v8 linux/arm/v7", "linux/arm64", vec![0]),
            ("linux/arm64", "linux/arm64/v8", vec![0]),
            ("linux/arm64 linux/arm64/v9", "linux/arm64/v9", vec![1, 0]),
            ("linux/arm64/v9", "linux/arm64", vec![]),
            ("linux/amd64/v3 linux/amd64", "linux/amd64", vec![1]),
            (
                "linux/amd64/v2 linux/amd64 linux/amd64/v4",
                "linux/amd64/v3",
                vec![0, 1],
            ),
            ("linux/386", "linux/amd64", vec![]),
            ("linux/ppc64le/power9", "linux/ppc64le", vec![]),
            ("unknown/unknown linux/amd64", "linux/amd64", vec![1]),
            ("unknown/unknown", "unknown/unknown", vec![]),
            ("- linux/amd64", "linux/amd64", vec![1, 0]),
            ("- linux/amd64", "linux/s390x", vec![0]),
            (
                "windows/amd64@10.0.17763.999 windows/amd64@10.0.20348.1",
                "windows/amd64",
                vec![1, 0],
            ),
        ] {
            let children: Vec<Descriptor> = children
                .split(' ')
                .enumerate()
                .map(|(position, platform)| child(position, platform))
                .collect();
            let index = Index::new(&children);
            let chosen = index.candidates(&wanted.parse().unwrap());
            let chosen: Vec<usize> = chosen
                .into_iter()
                .map(|chosen| children.iter().position(|c| c == chosen).unwrap())
                .collect();
            assert_eq!(chosen, expected, "{wanted} of {children:?}");
        }
    }

    #[test]
    fn round_trip_and_format() {
        let mut children = [child(0, "linux/amd64"), child(1, "linux/arm/v7")];
        let index = Index::new(&children);
        assert_eq!(index.format(), Format::Oci);
        assert_eq!(Index::parse(&index.to_raw()).unwrap(), index);
        children[0].media_type = media_type::DOCKER_MANIFEST.to_owned();
        assert_eq!(Index::new(&children).format(), Format::Oci);
        assert_eq!(Index::new(&children[..1]).format(), Format::Docker);
        assert_eq!(Index::new(&[]).format(), Format::Oci);
    }

    #[test]
    fn hostile_documents() {
        for (text, reason) in [
            (r#"{"schemaVersion":2}"#, "`manifests` is missing"),
            (
                r#"{"schemaVersion":2,"manifests":[1]}"#,
                "in `manifests[0]`",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
                "of an index",
            ),
            (
                r#"{"schemaVersion":2,"manifests":[{"mediaType":"a","size":-5,"digest":"sha256:00"}]}"#,
                "in `manifests[0]`",
            ),
        ] {
            let bytes = Bytes::from_static(text.as_bytes());
            let descriptor = Descriptor::of(media_type::OCI_INDEX, &bytes);
            let error = Index::parse(&RawManifest { descriptor, bytes }).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
