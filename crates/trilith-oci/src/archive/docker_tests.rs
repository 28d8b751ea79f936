//! Docker archives: written, read back, in every shape tools give them, and broken.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use trilith_core::{Digest, Reference, Tag};

use super::{
    DockerArchiveOptions, DockerArchiveSource, LayerForm, open_docker_archive, write_docker_archive,
};
use crate::copy::{CopyOptions, copy_image};
use crate::error::{Error, Kind};
use crate::links::Links;
use crate::media_type;
use crate::store::{ImageStore, Name, RawManifest};
use crate::testing::{MemoryStore, image, index_of};

/// A member: type as in tar, name, content or link.
type Line = (u8, String, Vec<u8>);

fn file(name: &str, content: &[u8]) -> Line {
    (b'0', name.to_owned(), content.to_vec())
}

fn link(kind: u8, name: &str, target: &str) -> Line {
    (kind, name.to_owned(), target.into())
}

fn archive(path: &Path, lines: &[Line]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, content) in lines {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        let data: &[u8] = if *kind == b'0' {
            content
        } else {
            header.set_link_name_literal(content).unwrap();
            &[]
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    fs::write(path, builder.into_inner().unwrap()).unwrap();
}

fn config(layers: &[&[u8]]) -> (String, Vec<u8>) {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let json = json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let bytes = json.to_string().into_bytes();
    (Digest::of(&bytes).hex().to_owned(), bytes)
}

fn list(items: &Value) -> Line {
    file("manifest.json", items.to_string().as_bytes())
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Reads the image of the archive at `path` whole, and returns its manifest.
async fn read(path: &Path, reference: Option<&str>, form: LayerForm) -> Result<RawManifest, Error> {
    let reference: Option<Reference> = reference.map(|text| text.parse().unwrap());
    let options = DockerArchiveSource {
        temp_dir: path.parent().unwrap().to_owned(),
        layers: form,
    };
    let (store, name) = open_docker_archive(path, reference.as_ref(), &options).await?;
    let copy = MemoryStore::default();
    copy_image(store, &name, &copy, &CopyOptions::default()).await?;
    copy.fetch_manifest(&name).await
}

fn media_types(manifest: &RawManifest) -> Vec<String> {
    let links = Links::parse(manifest).unwrap();
    links.layers.into_iter().map(|l| l.media_type).collect()
}

fn config_of(manifest: &RawManifest) -> Digest {
    Links::parse(manifest).unwrap().config.unwrap().digest
}

#[tokio::test]
async fn what_is_written_keeps_its_image_id() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let layer = b"a layer".repeat(100);
    let source = MemoryStore::default();
    let test = image(&[&layer, b"top", &layer], "linux/amd64");
    source.insert_image(&test, Some("t"));
    let source: Arc<dyn ImageStore> = Arc::new(source);
    let tag: Tag = "t".parse().unwrap();
    let options = DockerArchiveOptions {
        platform: None,
        references: vec![
            "a/b:1".parse().unwrap(),
            "localhost:5000/c".parse().unwrap(),
        ],
    };
    let write = |path: std::path::PathBuf| {
        let (source, tag, options) = (Arc::clone(&source), tag.clone(), options.clone());
        async move { write_docker_archive(source, &Name::Tag(tag), &path, &options).await }
    };
    let report = write(path.clone()).await.unwrap();
    assert_eq!(report.digest, test.manifest.descriptor.digest);
    assert_eq!(report.bytes_copied, 703 + test.config.len() as u64);
    write(directory.path().join("again.tar")).await.unwrap();
    let again = fs::read(directory.path().join("again.tar")).unwrap();
    assert!(fs::read(&path).unwrap() == again);

    for reference in [
        None,
        Some("a/b:1"),
        Some("docker.io/a/b:1"),
        Some("localhost:5000/c"),
    ] {
        for form in [LayerForm::AsStored, LayerForm::Gzip] {
            let manifest = read(&path, reference, form).await.unwrap();
            assert_eq!(config_of(&manifest), Digest::of(&test.config));
            let expected = match form {
                LayerForm::AsStored => media_type::DOCKER_LAYER_TAR,
                LayerForm::Gzip => media_type::DOCKER_LAYER_GZIP,
            };
            assert_eq!(media_types(&manifest), [expected; 3]);
            assert_eq!(manifest.descriptor.media_type, media_type::DOCKER_MANIFEST);
        }
    }
    let error = read(&path, Some("a/b:2"), LayerForm::Gzip)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn layers_in_every_shape() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let layers: [&[u8]; 4] = [b"plain", b"gzipped", b"zstd", b"linked"];
    let (hex, config) = config(&layers);
    let packed = gzip(b"gzipped");
    let blob = format!("blobs/sha256/{}", Digest::of(&packed).hex());
    archive(
        &path,
        &[
            file(&format!("{hex}.json"), &config),
            file("one/layer.tar", b"plain"),
            file(&blob, &packed),
            file("three.tar", &zstd::encode_all(&b"zstd"[..], 0).unwrap()),
            file("four/layer.tar", b"linked"),
            link(b'2', "five/layer.tar", "../four/layer.tar"),
            link(b'1', "six.tar", "five/layer.tar"),
            list(&json!([{
                "Config": format!("{hex}.json"),
                "RepoTags": null,
                "Layers": ["one/layer.tar", blob, "three.tar", "six.tar"],
            }])),
        ],
    );
    for (form, plain) in [
        (LayerForm::AsStored, media_type::OCI_LAYER_TAR),
        (LayerForm::Gzip, media_type::OCI_LAYER_GZIP),
    ] {
        let manifest = read(&path, None, form).await.unwrap();
        // A zstd layer makes it an OCI image; media types are never mixed.
        assert_eq!(manifest.descriptor.media_type, media_type::OCI_MANIFEST);
        assert_eq!(
            media_types(&manifest),
            [
                plain,
                media_type::OCI_LAYER_GZIP,
                media_type::OCI_LAYER_ZSTD,
                plain
            ]
        );
    }
    let first = read(&path, None, LayerForm::Gzip).await.unwrap();
    let second = read(&path, None, LayerForm::Gzip).await.unwrap();
    assert_eq!(first.descriptor.digest, second.descriptor.digest);
}

#[tokio::test]
async fn archives_with_a_layout_inside_keep_their_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    for (layer, form, kept) in [
        (gzip(b"layer"), LayerForm::Gzip, true),
        (gzip(b"layer"), LayerForm::AsStored, true),
        (b"layer".to_vec(), LayerForm::AsStored, true),
        (b"layer".to_vec(), LayerForm::Gzip, false),
    ] {
        let (hex, config) = config(&[b"layer"]);
        let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
        let layer_type = if layer == b"layer" {
            media_type::OCI_LAYER_TAR
        } else {
            media_type::OCI_LAYER_GZIP
        };
        let descriptor = |media_type: &str, content: &[u8]| {
            serde_json::to_value(crate::Descriptor::of(media_type, content)).unwrap()
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, &config),
            "layers": [descriptor(layer_type, &layer)],
            "annotations": { "kept": "yes" },
        });
        let manifest = manifest.to_string().into_bytes();
        // As containerd saves an index: the other platform's manifest is not there.
        let inner = json!({ "schemaVersion": 2, "manifests": [
            descriptor(media_type::OCI_MANIFEST, b"another platform"),
            descriptor(media_type::OCI_MANIFEST, &manifest),
        ]});
        let inner = inner.to_string().into_bytes();
        let index = json!({ "schemaVersion": 2, "manifests": [
            descriptor(media_type::OCI_INDEX, &inner),
        ]});
        archive(
            &path,
            &[
                file(&blob(&config), &config),
                file(&blob(&layer), &layer),
                file(&blob(&manifest), &manifest),
                file(&blob(&inner), &inner),
                file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
                file("index.json", index.to_string().as_bytes()),
                list(&json!([{
                    "Config": blob(&config),
                    "RepoTags": ["a:1"],
                    "Layers": [blob(&layer)],
                }])),
            ],
        );
        let read = read(&path, Some("a:1"), form).await.unwrap();
        assert_eq!(read.bytes == manifest, kept, "{form:?}");
        assert_eq!(config_of(&read).hex(), hex);
    }
}

#[tokio::test]
async fn several_images_have_to_be_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let images = [config(&[b"one"]), config(&[b"two"])];
    archive(
        &path,
        &[
            file("one.json", &images[0].1),
            file("two.json", &images[1].1),
            file("one.tar", b"one"),
            file("two.tar", b"two"),
            list(&json!([
                { "Config": "one.json", "RepoTags": ["a:1", "a:latest"], "Layers": ["one.tar"] },
                { "Config": "two.json", "RepoTags": ["ghcr.io/b:2"], "Layers": ["two.tar"] },
            ])),
        ],
    );
    for (reference, image) in [("a", 0), ("a:1", 0), ("ghcr.io/b:2", 1)] {
        let manifest = read(&path, Some(reference), LayerForm::Gzip).await.unwrap();
        assert_eq!(config_of(&manifest).hex(), images[image].0);
    }
    let error = read(&path, None, LayerForm::Gzip).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(
        error.hint().unwrap(),
        "name one of: a:1, a:latest, ghcr.io/b:2"
    );
}

#[tokio::test]
async fn damaged_and_hostile_archives_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let (hex, good) = config(&[b"layer"]);
    let name = format!("{hex}.json");
    let item = |layers: Value| list(&json!([{ "Config": name, "Layers": layers }]));
    let layer = file("l.tar", b"layer");
    let config_file = file(&name, &good);
    let mut flipped = good.clone();
    flipped.extend(b" ");
    let cases: Vec<(Vec<Line>, &str)> = vec![
        (vec![], "no `manifest.json`"),
        (vec![file("oci-layout", b"{}")], "no `manifest.json`"),
        (vec![file("manifest.json", b"{}")], "`manifest.json` in it"),
        (vec![list(&json!([]))], "an image in"),
        (vec![item(json!(["l.tar"])), layer.clone()], "holds no"),
        (
            vec![item(json!(["l.tar"])), config_file.clone()],
            "lacks the layer `l.tar`",
        ),
        (vec![item(json!([])), config_file.clone()], "lists 0 layers"),
        (
            vec![
                item(json!(["l.tar"])),
                config_file.clone(),
                file("l.tar", b"LAYER"),
            ],
            "has digest",
        ),
        (
            vec![item(json!(["l.tar"])), file(&name, &flipped), layer.clone()],
            "has digest",
        ),
        (
            vec![item(json!(["l.tar"])), file(&name, b"[]"), layer.clone()],
            "has digest",
        ),
        (
            vec![item(json!(["/etc/passwd"])), config_file.clone()],
            "lacks the layer `/etc/passwd`",
        ),
        (
            vec![item(json!(["../l.tar"])), config_file.clone()],
            "lacks the layer `../l.tar`",
        ),
        (
            vec![
                item(json!(["l.tar"])),
                config_file.clone(),
                link(b'2', "l.tar", "/etc/passwd"),
            ],
            "out of the archive",
        ),
        (
            vec![
                item(json!(["l.tar"])),
                config_file.clone(),
                link(b'2', "l.tar", "l.tar"),
            ],
            "in a circle",
        ),
        (
            vec![item(json!(["l.tar"])), config_file, layer.clone(), layer],
            "twice",
        ),
    ];
    for (lines, reason) in cases {
        archive(&path, &lines);
        for form in [LayerForm::AsStored, LayerForm::Gzip] {
            let error = read(&path, None, form).await.unwrap_err();
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                text = format!("{text}: {source}");
            }
            assert!(text.contains(reason), "{reason}: {text}");
        }
    }
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 1, "something was left beside the archive");
}

#[tokio::test]
async fn an_index_is_written_when_one_image_is_meant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let store = MemoryStore::default();
    let images = ["linux/amd64", "linux/arm64"].map(|p| image(&[p.as_bytes()], p));
    for image in &images {
        store.insert_image(image, None);
    }
    let both = index_of(&[&images[0].manifest, &images[1].manifest]);
    let one = index_of(&[&images[0].manifest]);
    store.insert_manifest(&both, Some("both"));
    store.insert_manifest(&one, Some("one"));
    let store: Arc<dyn ImageStore> = Arc::new(store);
    let arm = Some("linux/arm64".parse().unwrap());
    for (tag, platform, expected) in [
        ("one", None, Some(0)),
        ("both", None, None),
        ("both", arm, Some(1)),
    ] {
        let name = Name::Tag(tag.parse().unwrap());
        let options = DockerArchiveOptions {
            platform,
            references: vec![],
        };
        let written = write_docker_archive(Arc::clone(&store), &name, &path, &options).await;
        if let Some(image) = expected {
            written.unwrap();
            let manifest = read(&path, None, LayerForm::AsStored).await.unwrap();
            assert_eq!(config_of(&manifest), Digest::of(&images[image].config));
            fs::remove_file(&path).unwrap();
        } else {
            let error = written.unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(
                error.to_string().contains("linux/amd64, linux/arm64"),
                "{error}"
            );
            assert!(!path.exists());
        }
    }
}
