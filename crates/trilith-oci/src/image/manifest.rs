//! Image manifests: which config and layers make an image, or an artifact.
//!
//! OCI and Docker schema 2, each written back as what it was. Docker schema 1, which has neither
//! a config nor digests of its uncompressed layers, is refused. Fetches nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use trilith_core::Digest;

use super::json::{self, Object};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::media_type;
use crate::store::RawManifest;

/// The fields of a manifest in the specification's order, where new ones go.
const FIELDS: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "subject",
    "annotations",
];

/// The two families of media types an image is written in. Never mixed within one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OCI image specification 1.0 and later.
    Oci,
    /// Docker image manifest version 2, schema 2.
    Docker,
}

impl Format {
    /// Returns the media type of a manifest.
    #[must_use]
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_MANIFEST,
            Self::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    /// Returns the media type of an index.
    #[must_use]
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_INDEX,
            Self::Docker => media_type::DOCKER_INDEX,
        }
    }

    /// Returns the media type of an image configuration.
    #[must_use]
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => media_type::OCI_CONFIG,
            Self::Docker => media_type::DOCKER_CONFIG,
        }
    }

    /// Returns the media type in this format of what is a layer of type `layer` in any of them.
    ///
    /// `None` where the format has none: Docker's has no zstd.
    #[must_use]
    pub fn layer(self, layer: &str) -> Option<&'static str> {
        use media_type as m;
        match (self, layer) {
            (Self::Oci, m::OCI_LAYER_TAR | m::DOCKER_LAYER_TAR) => Some(m::OCI_LAYER_TAR),
            (Self::Oci, m::OCI_LAYER_GZIP | m::DOCKER_LAYER_GZIP) => Some(m::OCI_LAYER_GZIP),
            (Self::Oci, m::OCI_LAYER_ZSTD) => Some(m::OCI_LAYER_ZSTD),
            (Self::Docker, m::OCI_LAYER_TAR | m::DOCKER_LAYER_TAR) => Some(m::DOCKER_LAYER_TAR),
            (Self::Docker, m::OCI_LAYER_GZIP | m::DOCKER_LAYER_GZIP) => Some(m::DOCKER_LAYER_GZIP),
            _ => None,
        }
    }
}

/// A manifest (OCI image specification 1.1, `manifest.md`).
///
/// Keeps every field it was parsed with, in its order, and its bytes until it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    bytes: Bytes,
    document: Object,
    format: Format,
    config: Descriptor,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

impl Manifest {
    /// Returns the manifest of `config` and `layers`, lowest first.
    #[must_use]
    pub fn new(format: Format, config: &Descriptor, layers: &[Descriptor]) -> Self {
        let mut document = Object::new();
        let mut set = |name: &str, value: Value| document.insert(name.to_owned(), value);
        set("schemaVersion", 2.into());
        set("mediaType", format.manifest().into());
        set("config", json::write(config));
        set("layers", json::write(&layers));
        Self {
            bytes: json::print(&document).into(),
            document,
            format,
            config: config.clone(),
            layers: layers.to_vec(),
            subject: None,
        }
    }

    /// Returns the manifest of an artifact: `content` of type `artifact_type` about `subject`.
    ///
    /// Its config is [`Self::empty_config`], which has to be in the store as well.
    #[must_use]
    pub fn artifact(artifact_type: &str, content: &Descriptor, subject: &Descriptor) -> Self {
        let (config, _) = Self::empty_config();
        let mut manifest = Self::new(Format::Oci, &config, std::slice::from_ref(content));
        let subject = Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size);
        let document = &mut manifest.document;
        let order = || json::by_schema(FIELDS);
        json::set(document, "artifactType", artifact_type.into(), order());
        json::set(document, "subject", json::write(&subject), order());
        manifest.subject = Some(subject);
        manifest.printed()
    }

    /// Returns the config of artifacts, which says nothing, and its content.
    #[must_use]
    pub fn empty_config() -> (Descriptor, Bytes) {
        let content = Bytes::from_static(b"{}");
        (Descriptor::of(media_type::OCI_EMPTY, &content), content)
    }

    /// Returns the manifest that `raw` holds.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it breaks the specification or is not of the media type it was
    /// stored as, [`Error::Unsupported`] for Docker schema 1.
    pub fn parse(raw: &RawManifest) -> Result<Self, Error> {
        let object = format!("manifest `{}`", raw.descriptor.digest);
        let document = match json::parse(&raw.bytes) {
            Ok(document) => document,
            Err(reason) => return Err(Error::Malformed { object, reason }),
        };
        if is_schema_1(&raw.descriptor.media_type, &document) {
            return Err(Error::Unsupported {
                object,
                reason: "it is of Docker's schema 1, which has no digests of its layers' content"
                    .to_owned(),
                advice: "pull it and push it again with a current tool, which converts it",
            });
        }
        Self::read(&raw.descriptor.media_type, raw.bytes.clone(), document)
            .map_err(|reason| Error::Malformed { object, reason })
    }

    fn read(stored_as: &str, bytes: Bytes, document: Object) -> Result<Self, String> {
        json::check_folded(&document)?;
        check_kind(stored_as, &document, media_type::is_manifest)?;
        let format = match stored_as {
            media_type::DOCKER_MANIFEST => Format::Docker,
            _ => Format::Oci,
        };
        let config = json::field(&document, "config").ok_or("`config` is missing")?;
        let config = descriptor(config).map_err(|reason| format!("in `config`: {reason}"))?;
        let layers = descriptors(&document, "layers")?;
        let subject = json::field(&document, "subject")
            .map(|subject| descriptor(subject).map_err(|reason| format!("in `subject`: {reason}")))
            .transpose()?;
        json::check_string_map(&document, "annotations")?;
        json::string(&document, "artifactType")?;
        Ok(Self {
            bytes,
            document,
            format,
            config,
            layers,
            subject,
        })
    }

    /// Returns the format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the descriptor of the configuration.
    #[must_use]
    pub fn config(&self) -> &Descriptor {
        &self.config
    }

    /// Returns the descriptors of the layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// Returns what the manifest is about, for artifacts.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// Returns the type of the artifact, that of its config where it says none itself.
    #[must_use]
    pub fn artifact_type(&self) -> &str {
        let own = json::string(&self.document, "artifactType").ok().flatten();
        own.unwrap_or(&self.config.media_type)
    }

    /// Returns the annotations by name.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<&str, &str> {
        let fields = self.document.get("annotations").and_then(Value::as_object);
        let pairs = fields.into_iter().flatten();
        pairs
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect()
    }

    /// Returns the manifest's bytes and what they are.
    #[must_use]
    pub fn to_raw(&self) -> RawManifest {
        let mut descriptor = Descriptor::of(self.format.manifest(), &self.bytes);
        let own = json::string(&self.document, "artifactType").ok().flatten();
        descriptor.artifact_type = own.map(str::to_owned);
        RawManifest {
            descriptor,
            bytes: self.bytes.clone(),
        }
    }

    /// Returns the manifest of an image with `config` and `layers` on top of the present ones,
    /// and with `annotations` set by name.
    ///
    /// What the present manifest is about, its `subject`, the new one is not about.
    pub(crate) fn extended(
        &self,
        config: &Descriptor,
        layers: &[Descriptor],
        annotations: &BTreeMap<&str, String>,
    ) -> Self {
        let mut manifest = self.clone();
        let document = &mut manifest.document;
        let order = || json::by_schema(FIELDS);
        document.shift_remove("subject");
        json::set(
            document,
            "mediaType",
            self.format.manifest().into(),
            order(),
        );
        json::set(document, "config", json::write(config), order());
        for layer in layers {
            json::push(document, "layers", order(), json::write(layer));
        }
        if !annotations.is_empty() {
            json::edit(document, "annotations", order(), |present| {
                for (name, value) in annotations {
                    json::set(present, name, value.as_str().into(), str::cmp);
                }
            });
        }
        manifest.config = config.clone();
        manifest.layers.extend_from_slice(layers);
        manifest.subject = None;
        manifest.printed()
    }

    fn printed(mut self) -> Self {
        self.bytes = json::print(&self.document).into();
        self
    }
}

/// Returns the media type that a manifest or index with these bytes has, `None` where it is neither.
///
/// What it says of itself, else what its fields make it: OCI allows `mediaType` to be left out.
pub(crate) fn media_type_of(bytes: &[u8]) -> Option<String> {
    let document = json::parse(bytes).ok()?;
    if let Some(own) = json::string(&document, "mediaType").ok()? {
        let known = media_type::is_manifest(own) || media_type::is_index(own);
        return known.then(|| own.to_owned());
    }
    if document.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return None;
    }
    match (
        document.contains_key("layers"),
        document.contains_key("manifests"),
    ) {
        (true, false) => Some(media_type::OCI_MANIFEST.to_owned()),
        (false, true) => Some(media_type::OCI_INDEX.to_owned()),
        _ => None,
    }
}

/// Checks the version, the media type and that the document is not both manifest and index.
///
/// A document with the fields of both is one thing to one reader and the other to another
/// (CVE-2021-41190).
pub(super) fn check_kind(
    stored_as: &str,
    document: &Object,
    is_right: fn(&str) -> bool,
) -> Result<(), String> {
    if !is_right(stored_as) {
        return Err(format!("its media type is `{stored_as}`"));
    }
    match document.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) => {}
        Some(other) => return Err(format!("`schemaVersion` is {other}, not 2")),
        None => return Err("`schemaVersion` is missing".to_owned()),
    }
    match json::string(document, "mediaType")? {
        Some(own) if own != stored_as => {
            return Err(format!(
                "`mediaType` is `{own}`, but it is stored as `{stored_as}`"
            ));
        }
        None if stored_as == media_type::DOCKER_MANIFEST
            || stored_as == media_type::DOCKER_INDEX =>
        {
            return Err("`mediaType` is missing".to_owned());
        }
        _ => {}
    }
    let is_manifest = document.contains_key("layers") || document.contains_key("config");
    if is_manifest && document.contains_key("manifests") {
        return Err("it has the fields of a manifest and of an index".to_owned());
    }
    Ok(())
}

/// Returns the descriptors in the array `name`.
pub(super) fn descriptors(document: &Object, name: &str) -> Result<Vec<Descriptor>, String> {
    let elements = json::array(document, name)?.ok_or_else(|| format!("`{name}` is missing"))?;
    let numbered = elements.iter().enumerate();
    numbered
        .map(|(position, element)| {
            descriptor(element).map_err(|reason| format!("in `{name}[{position}]`: {reason}"))
        })
        .collect()
}

/// Returns the descriptor that `value` holds.
pub(crate) fn descriptor(value: &Value) -> Result<Descriptor, String> {
    let descriptor: Descriptor = json::read(value)?;
    if descriptor.media_type.is_empty() {
        return Err("`mediaType` is empty".to_owned());
    }
    if i64::try_from(descriptor.size).is_err() {
        return Err(format!("`size` {} is beyond 63 bits", descriptor.size));
    }
    Ok(descriptor)
}

fn is_schema_1(stored_as: &str, document: &Object) -> bool {
    const PREFIX: &str = "application/vnd.docker.distribution.manifest.v1+";
    stored_as.starts_with(PREFIX)
        || document.get("schemaVersion").and_then(Value::as_u64) == Some(1)
}

/// Returns the digest of a manifest in words, for messages.
pub(super) fn named(digest: &Digest) -> String {
    format!("manifest `{digest}`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(media_type: &str, text: impl Into<Bytes>) -> RawManifest {
        let bytes = text.into();
        RawManifest {
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "size": 2, "digest": Digest::of(b"{}").to_string()})
    }

    fn oci() -> serde_json::Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG),
            "layers": [descriptor(media_type::OCI_LAYER_GZIP)],
        })
    }

    #[test]
    fn foreign_fields_stay() {
        let mut document = oci();
        document["layers"][0]["data"] = "e30=".into();
        document["layers"][0]["urls"] = json!(null);
        document["x"] = json!({"b": 1, "a": 2});
        let text = format!("{document:#}");
        let manifest = Manifest::parse(&raw(media_type::OCI_MANIFEST, text.clone())).unwrap();
        assert_eq!(manifest.to_raw().bytes, text);
        let config = Descriptor::of(media_type::OCI_CONFIG, b"new");
        let extended = manifest.extended(&config, &[], &BTreeMap::new());
        let printed: serde_json::Value = serde_json::from_slice(&extended.to_raw().bytes).unwrap();
        document["config"] = json::write(&config);
        assert_eq!(printed.to_string(), document.to_string());
    }

    #[test]
    fn artifacts() {
        let content = Descriptor::of("text/plain", b"x");
        let mut subject = Descriptor::of(media_type::OCI_MANIFEST, b"y");
        subject.annotations.insert("a".to_owned(), "b".to_owned());
        let artifact = Manifest::artifact("application/x", &content, &subject);
        let again = Manifest::parse(&artifact.to_raw()).unwrap();
        assert_eq!(again.artifact_type(), "application/x");
        assert_eq!(again.subject().unwrap().digest, subject.digest);
        assert_eq!(again.to_raw(), artifact.to_raw());
        assert_eq!(
            artifact.to_raw().descriptor.artifact_type.as_deref(),
            Some("application/x")
        );
    }

    #[test]
    fn schema_1_is_refused() {
        let text = r#"{"schemaVersion":1,"name":"a","fsLayers":[],"signatures":[]}"#;
        for stored_as in [
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/vnd.docker.distribution.manifest.v1+json",
            media_type::OCI_MANIFEST,
        ] {
            let error = Manifest::parse(&raw(stored_as, text)).unwrap_err();
            assert!(error.to_string().contains("schema 1"), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn hostile_documents() {
        type Change = fn(&mut serde_json::Value);
        let cases: [(Change, &str); 14] = [
            (|m| m["schemaVersion"] = 3.into(), "`schemaVersion` is 3"),
            (
                |m| m["schemaVersion"] = "2".into(),
                "`schemaVersion` is missing",
            ),
            (
                |m| m["mediaType"] = media_type::OCI_INDEX.into(),
                "but it is stored as",
            ),
            (
                |m| m["manifests"] = json!([]),
                "of a manifest and of an index",
            ),
            (|m| m["config"] = json!(null), "`config` is missing"),
            (|m| m["layers"] = json!({}), "`layers` must be an array"),
            (|m| m["layers"] = json!(null), "`layers` is missing"),
            (
                |m| m["layers"][0]["size"] = (-1).into(),
                "in `layers[0]`: invalid value",
            ),
            (
                |m| m["layers"][0]["size"] = 1.5.into(),
                "in `layers[0]`: invalid type",
            ),
            (
                |m| m["layers"][0]["size"] = u64::MAX.into(),
                "beyond 63 bits",
            ),
            (
                |m| m["config"]["digest"] = "md5:00".into(),
                "in `config`: digest `md5:00`",
            ),
            (|m| m["config"]["Digest"] = "x".into(), "two spellings"),
            (
                |m| m["annotations"] = json!({"a": null}),
                "an object of strings",
            ),
            (|m| m["subject"] = json!({}), "in `subject`: missing field"),
        ];
        for (change, reason) in cases {
            let mut document = oci();
            change(&mut document);
            let raw = raw(media_type::OCI_MANIFEST, document.to_string());
            let error = Manifest::parse(&raw).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{reason}");
            assert!(error.to_string().contains(reason), "{reason}: {error}");
        }
        let mut document = oci();
        document.as_object_mut().unwrap().remove("mediaType");
        let text = document.to_string();
        assert!(Manifest::parse(&raw(media_type::OCI_MANIFEST, text.clone())).is_ok());
        assert!(Manifest::parse(&raw(media_type::DOCKER_MANIFEST, text)).is_err());
    }

    #[test]
    fn kinds_without_a_media_type() {
        for (text, expected) in [
            (oci().to_string(), Some(media_type::OCI_MANIFEST)),
            (
                r#"{"schemaVersion":2,"layers":[]}"#.to_owned(),
                Some(media_type::OCI_MANIFEST),
            ),
            (
                r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(),
                Some(media_type::OCI_INDEX),
            ),
            (
                r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_owned(),
                None,
            ),
            (r#"{"mediaType":"text/plain","layers":[]}"#.to_owned(), None),
            ("{}".to_owned(), None),
            ("\x1f\u{8b}".to_owned(), None),
        ] {
            assert_eq!(
                media_type_of(text.as_bytes()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
