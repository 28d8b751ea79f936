//! Graft: put layers and settings on a base image, as values.
//!
//! A pure function of its arguments: no clock, no store, no layer is read. What is grafted in
//! several steps is bit for bit what is grafted at once, so that building on from an image that
//! exists gives the digest that building from the base gives.

use std::collections::BTreeMap;

use trilith_core::{ConfigRecipe, Digest};

use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::image::{Format, Image};
use crate::layer::Layer;

/// Annotation that names the base image's manifest (OCI image specification 1.1, `annotations.md`).
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// What to put on a base image.
#[derive(Clone, Copy, Debug)]
pub struct Graft<'a> {
    /// The layers, lowest first.
    pub layers: &'a [GraftLayer],
    /// What the image's configuration says anew; `None` keeps the base's.
    pub config: Option<&'a ConfigRecipe>,
    /// Labels to set, each by name; they win over those of `config`.
    pub labels: &'a BTreeMap<String, String>,
    /// Digest of the original base image, also where this graft starts from an image in between.
    /// `None` for scratch.
    pub base: Option<&'a Digest>,
}

/// A layer and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraftLayer {
    /// The layer.
    pub layer: Layer,
    /// What made it, for the history: `trilith graft: copy app to /opt/app`.
    pub created_by: String,
    /// A remark for the history.
    pub comment: Option<String>,
}

/// Returns `base` with what `graft` puts on it, in the format of `base`.
///
/// Of the base everything stays but the `subject` of its manifest. History and config take
/// their time from the base's `created`, 1970 where it has none. Layers of the base that its history
/// does not know get an entry that says so, in front of the others.
///
/// # Errors
/// [`Error::Unsupported`] where a layer cannot be in an image of the base's format: zstd in
/// Docker's.
pub fn graft(base: &Image, graft: &Graft<'_>) -> Result<Image, Error> {
    let format = base.manifest().format();
    let layers = graft.layers.iter();
    let layers: Vec<Descriptor> = layers
        .map(|layer| in_format(&layer.layer, format))
        .collect::<Result<_, _>>()?;

    let mut config = base.config().with_complete_history();
    for GraftLayer {
        layer,
        created_by,
        comment,
    } in graft.layers
    {
        config = config.with_layer(&layer.diff_id, created_by, comment.as_deref());
    }
    if let Some(recipe) = graft.config {
        config = config.apply(recipe);
    }
    config = config.with_labels(graft.labels);

    let mut annotations = BTreeMap::new();
    if let (Format::Oci, Some(digest)) = (format, graft.base) {
        annotations.insert(BASE_DIGEST, digest.to_string());
    }
    let config_descriptor = Descriptor::of(format.config(), &config.to_bytes());
    let manifest = base
        .manifest()
        .extended(&config_descriptor, &layers, &annotations);
    Image::new(manifest, config)
}

/// Returns the descriptor of `layer` with the media type it has in `format`.
fn in_format(layer: &Layer, format: Format) -> Result<Descriptor, Error> {
    let media_type = &layer.descriptor.media_type;
    let Some(media_type) = format.layer(media_type) else {
        return Err(Error::Unsupported {
            object: format!("a layer of type `{media_type}` on this base"),
            reason: "images of Docker's format have gzip or uncompressed layers".to_owned(),
            advice: "compress layers with gzip, or convert the base to OCI",
        });
    };
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        ..layer.descriptor.clone()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::image::{ImageConfig, Manifest};
    use crate::media_type;

    fn layer(content: u8) -> GraftLayer {
        let digest = Digest::of(&[content]);
        GraftLayer {
            layer: Layer {
                descriptor: Descriptor::new(media_type::OCI_LAYER_GZIP, digest, 1),
                diff_id: Digest::of(&[content, 0]).into(),
            },
            created_by: format!("trilith graft: copy {content} to /opt"),
            comment: content.is_multiple_of(2).then(|| "even".to_owned()),
        }
    }

    /// Returns a base with `layers` layers from a config document that lacks `rootfs`.
    fn base(format: Format, mut config: serde_json::Value, layers: u8, pretty: bool) -> Image {
        let ids: Vec<String> = (0..layers)
            .map(|n| Digest::of(&[n, 9]).to_string())
            .collect();
        config["os"] = "linux".into();
        config["rootfs"] = json!({"type": "layers", "diff_ids": ids});
        config["architecture"] = "arm64".into();
        let text = if pretty {
            format!("{config:#}")
        } else {
            config.to_string()
        };
        let config = ImageConfig::parse(text).unwrap();
        let descriptor = Descriptor::of(format.config(), &config.to_bytes());
        let media_type = format.layer(media_type::OCI_LAYER_GZIP).unwrap();
        let layers: Vec<Descriptor> = (0..layers)
            .map(|n| Descriptor::of(media_type, &[n]))
            .collect();
        Image::new(Manifest::new(format, &descriptor, &layers), config).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn recipe() -> ConfigRecipe {
        ConfigRecipe {
            entrypoint: Some(vec!["/run".to_owned()]),
            env: labels(&[("LANG", "C.UTF-8"), ("B", "x=y")]),
            labels: labels(&[("own", "1"), ("dev.trilith.level", "mine")]),
            user: Some("1:1".to_owned()),
            expose: vec!["8000".to_owned()],
            ..ConfigRecipe::default()
        }
    }

    #[test]
    fn on_scratch() {
        let (layers, labels) = ([layer(1)], labels(&[("l", "v")]));
        let image = graft(
            &Image::scratch(&"linux/amd64".parse().unwrap()),
            &Graft {
                layers: &layers,
                config: None,
                labels: &labels,
                base: None,
            },
        )
        .unwrap();
        assert_eq!(image.manifest().format(), Format::Oci);
        assert!(image.manifest().annotations().is_empty());
        let config = String::from_utf8(image.config().to_bytes().to_vec()).unwrap();
        let expected = concat!(
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","#,
            r#""config":{"Labels":{"l":"v"}},"rootfs":{"type":"layers","diff_ids":["#,
            r#""sha256:47dc540c94ceb704a23875c11273e16bb0b8a87aed84de911f2133568115f254"]},"#,
            r#""history":[{"created":"1970-01-01T00:00:00Z","#,
            r#""created_by":"trilith graft: copy 1 to /opt"}]}"#,
        );
        assert_eq!(config, expected);
    }

    #[test]
    fn docker_stays_docker_and_takes_no_zstd() {
        let base = base(Format::Docker, json!({"config": null}), 1, false);
        let digest = Digest::of(b"base");
        let mut layers = [layer(1)];
        let labels = BTreeMap::new();
        let put = |layers: &[GraftLayer]| {
            graft(
                &base,
                &Graft {
                    layers,
                    config: None,
                    labels: &labels,
                    base: Some(&digest),
                },
            )
        };
        let image = put(&layers).unwrap();
        let manifest = image.manifest();
        assert_eq!(manifest.config().media_type, media_type::DOCKER_CONFIG);
        assert_eq!(
            manifest.layers()[1].media_type,
            media_type::DOCKER_LAYER_GZIP
        );
        assert!(manifest.annotations().is_empty());
        layers[0].layer.descriptor.media_type = media_type::OCI_LAYER_ZSTD.to_owned();
        assert!(
            put(&layers)
                .unwrap_err()
                .to_string()
                .contains("gzip or uncompressed")
        );
    }

    #[test]
    fn history_accounts_for_every_layer() {
        for (history, expected) in [
            (json!(null), vec![false, false, false]),
            (json!([]), vec![false, false, false]),
            (
                json!([{"empty_layer": true}, {"created_by": "x"}]),
                vec![false, true, false, false],
            ),
            (
                json!([{}, {"empty_layer": true}, {}]),
                vec![false, true, false, false],
            ),
        ] {
            let created = "2020-02-02T02:02:02Z";
            let config = json!({"created": created, "history": history});
            let base = base(Format::Oci, config, 2, false);
            let (layers, labels) = ([layer(3)], BTreeMap::new());
            let graft_ = Graft {
                layers: &layers,
                config: None,
                labels: &labels,
                base: None,
            };
            let image = graft(&base, &graft_).unwrap();
            let history = image.config().history();
            let empty: Vec<bool> = history.iter().map(|h| h.empty_layer).collect();
            assert_eq!(empty, expected);
            assert_eq!(history.last().unwrap().created.as_deref(), Some(created));
        }
    }

    #[test]
    fn the_base_s_subject_is_not_inherited() {
        let base = base(Format::Oci, json!({}), 0, false);
        let mut text: serde_json::Value =
            serde_json::from_slice(&base.manifest().to_raw().bytes).unwrap();
        text["subject"] = json!(Descriptor::of(media_type::OCI_MANIFEST, b""));
        text["annotations"] = json!({"z": "kept"});
        let raw = crate::RawManifest {
            descriptor: Descriptor::of(media_type::OCI_MANIFEST, text.to_string().as_bytes()),
            bytes: text.to_string().into(),
        };
        let base = Image::new(Manifest::parse(&raw).unwrap(), base.config().clone()).unwrap();
        let (labels, digest) = (BTreeMap::new(), Digest::of(b"b"));
        let graft_ = Graft {
            layers: &[],
            config: None,
            labels: &labels,
            base: Some(&digest),
        };
        let image = graft(&base, &graft_).unwrap();
        assert_eq!(image.manifest().subject(), None);
        let annotations: Vec<_> = image.manifest().annotations().into_keys().collect();
        assert_eq!(annotations, [BASE_DIGEST, "z"]);
    }

    /// Configs as builders write them, and as none does.
    fn configs() -> impl Strategy<Value = serde_json::Value> {
        prop_oneof![
            Just(json!({})),
            Just(json!({"config": null, "history": null, "created": null})),
            Just(json!({"history": [{"empty_layer": true}], "config": {"Cmd": ["sh"]}})),
            Just(json!({
                "rootfs": null,
                "config": {
                    "Labels": {"z": "1", "dev.trilith.level": "source", "a": "0"},
                    "StopSignal": "TERM",
                    "Cmd": ["sh"],
                    "Env": ["PATH=/bin", "LANG=C", "LANG=D"],
                    "Healthcheck": {"Interval": 1.5},
                    "User": "",
                },
                "created": "2024-01-01T00:00:00Z",
                "docker_version": "x",
            })),
            Just(json!({"config": {"ExposedPorts": {"9/tcp": {}, "1/tcp": {}}, "Labels": null}})),
        ]
    }

    proptest! {
        /// Level by level or at once, through the bytes each time: the same image.
        #[test]
        fn the_way_does_not_matter(
            config in configs(),
            base_layers in 0_u8..3,
            pretty: bool,
            docker: bool,
            contents in proptest::collection::vec(0_u8..9, 0..5),
            (first, second) in (0_usize..6, 0_usize..6),
            with_recipe: bool,
        ) {
            let format = if docker { Format::Docker } else { Format::Oci };
            let base = base(format, config, base_layers, pretty);
            let layers: Vec<GraftLayer> = contents.into_iter().map(layer).collect();
            let (first, second) = (first.min(second).min(layers.len()), second.max(first).min(layers.len()));
            let digest = Digest::of(b"base");
            let recipe = recipe();
            let config = with_recipe.then_some(&recipe);
            let all = labels(&[
                ("dev.trilith.key.lock", "l"), ("dev.trilith.key.source", "s"),
                ("dev.trilith.key.versioned", "v"), ("dev.trilith.level", "source"),
                ("dev.trilith.scheme", "trilith/v1"),
            ]);
            let versioned = labels(&[
                ("dev.trilith.key.versioned", "v"), ("dev.trilith.level", "versioned"),
                ("dev.trilith.scheme", "trilith/v1"),
            ]);
            let lock = labels(&[
                ("dev.trilith.key.lock", "l"), ("dev.trilith.key.versioned", "v"),
                ("dev.trilith.level", "lock"), ("dev.trilith.scheme", "trilith/v1"),
            ]);
            let put = |on: &Image, layers: &[GraftLayer], config, labels| {
                let image = graft(on, &Graft { layers, config, labels, base: Some(&digest) }).unwrap();
                let manifest = Manifest::parse(&image.manifest().to_raw()).unwrap();
                let config = ImageConfig::parse(image.config().to_bytes()).unwrap();
                let again = Image::new(manifest, config).unwrap();
                assert_eq!(again, image);
                again
            };
            let at_once = put(&base, &layers, config, &all);
            let image = put(&base, &layers[..first], None, &versioned);
            let image = put(&image, &layers[first..second], None, &lock);
            let image = put(&image, &layers[second..], config, &all);
            prop_assert_eq!(&image, &at_once);
            prop_assert_eq!(image.manifest().to_raw(), at_once.manifest().to_raw());
            prop_assert_eq!(put(&image, &[], config, &all), image);
        }
    }
}
