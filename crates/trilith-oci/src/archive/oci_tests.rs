//! OCI archives: written, read back, and broken in every way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trilith_core::{Digest, Tag};

use super::{OciArchiveOptions, open_oci_archive, write_oci_archive};
use crate::copy::{CopyOptions, CopyReport, copy_image};
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind};
use crate::media_type;
use crate::store::{ImageStore, Name};
use crate::testing::{Call, MemoryStore, image, index_of, manifest};

/// A file in an archive: name and content.
type File<'a> = (&'a str, &'a [u8]);

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// A store with an index `t` of two images, and the list of inputs of one of them.
fn store() -> Arc<MemoryStore> {
    let store = MemoryStore::default();
    let images = [
        image(&[b"shared", b"amd64"], "linux/amd64"),
        image(&[b"shared", b"arm64"], "linux/arm64"),
    ];
    for image in &images {
        store.insert_image(image, None);
    }
    let index = index_of(&[&images[0].manifest, &images[1].manifest]);
    store.insert_manifest(&index, Some("t"));
    store.insert(b"{}");
    store.insert(b"inputs");
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": media_type::TRILITH_INPUTS,
        "config": Descriptor::of(media_type::OCI_EMPTY, b"{}"),
        "layers": [Descriptor::of(media_type::TRILITH_INPUTS, b"inputs")],
        "subject": images[0].manifest.descriptor,
    });
    store.insert_manifest(&manifest(media_type::OCI_MANIFEST, &json), None);
    Arc::new(store)
}

async fn write(store: &Arc<MemoryStore>, path: &Path, tags: &[&str]) -> Result<CopyReport, Error> {
    let options = OciArchiveOptions {
        tags: tags.iter().map(|t| tag(t)).collect(),
        ..OciArchiveOptions::default()
    };
    let store: Arc<dyn ImageStore> = Arc::<MemoryStore>::clone(store);
    write_oci_archive(store, &Name::Tag(tag("t")), path, &options).await
}

/// Copies the image out of the archive at `path` into a new store.
async fn read(path: &Path, name: Option<&str>) -> Result<MemoryStore, Error> {
    let temp_dir = path.parent().unwrap();
    let name = name.map(tag);
    let (archive, name) = open_oci_archive(path, name.as_ref(), temp_dir).await?;
    let store = MemoryStore::default();
    let options = CopyOptions {
        tags: vec![tag("copy")],
        ..CopyOptions::default()
    };
    match copy_image(archive, &name, &store, &options).await {
        Ok(_) => Ok(store),
        Err(error) => {
            assert_eq!(store.count(Call::Tag), 0);
            Err(error)
        }
    }
}

#[tokio::test]
async fn what_is_written_is_read_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let store = store();
    let report = write(&store, &path, &["v1"]).await.unwrap();
    assert_eq!(report.blobs_copied, 7);
    for name in [None, Some("v1")] {
        let copy = read(&path, name).await.unwrap();
        let copied = copy
            .resolve(&Name::Tag(tag("copy")))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(copied.digest, report.digest);
        // Five blobs of the images, the list and its empty config, four manifests.
        assert_eq!(copy.count(Call::PushBlob), 7);
        assert_eq!(copy.count(Call::PushManifest), 4);
    }
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "something was left beside the archive");
}

#[tokio::test]
async fn equal_images_give_equal_archives() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a.tar", "b.tar"].map(|name| directory.path().join(name));
    for path in &paths {
        write(&store(), path, &["v1"]).await.unwrap();
    }
    let [first, second] = paths.map(|path| fs::read(path).unwrap());
    assert!(first == second);
}

#[tokio::test]
async fn packed_archives_and_one_platform() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    let options = OciArchiveOptions {
        platform: Some("linux/arm64".parse().unwrap()),
        tags: vec![],
    };
    let report = write_oci_archive(store(), &Name::Tag(tag("t")), &path, &options).await;
    assert_eq!(report.unwrap().blobs_copied, 3);
    let plain = fs::read(&path).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    for packed in [
        gzip.finish().unwrap(),
        zstd::encode_all(&plain[..], 0).unwrap(),
    ] {
        fs::write(&path, packed).unwrap();
        let copy = read(&path, None).await.unwrap();
        assert_eq!(copy.count(Call::PushBlob), 3);
    }
}

#[tokio::test]
async fn several_images_have_to_be_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    write(&store(), &path, &["v1", "v1_lock"]).await.unwrap();
    // Two names of one image are no question.
    read(&path, None).await.unwrap();
    read(&path, Some("v1_lock")).await.unwrap();
    let error = read(&path, Some("v2")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let images = [b"one" as &[u8], b"two"].map(|layer| image(&[layer], "linux/amd64"));
    let entries = images.map(|image| Descriptor {
        annotations: [("org.opencontainers.image.ref.name".to_owned(), {
            format!("ghcr.io/a/b:t{}", image.manifest.descriptor.size % 7)
        })]
        .into(),
        ..image.manifest.descriptor
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    archive(
        &path,
        &[
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", index.to_string().as_bytes()),
        ],
    );
    let error = read(&path, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.hint().unwrap().contains("ghcr.io/a/b:t"));
}

/// Writes a tar of `members` to `path`.
fn archive(path: &Path, members: &[(&str, &[u8])]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    fs::write(path, builder.into_inner().unwrap()).unwrap();
}

/// Returns the archive at `path` as a list of its files.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let files = archive.entries().unwrap().map(Result::unwrap);
    let files = files.filter(|entry| entry.header().entry_type().is_file());
    files
        .map(|mut entry| {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        })
        .collect()
}

#[tokio::test]
async fn damage_is_found_and_leaves_no_tag() {
    let directory = tempfile::tempdir().unwrap();
    let good: PathBuf = directory.path().join("good.tar");
    let path = directory.path().join("bad.tar");
    write(&store(), &good, &[]).await.unwrap();
    let members = members(&good);
    // A flipped byte in any blob or manifest, or the lack of it.
    for (position, (name, content)) in members.iter().enumerate() {
        let listed = |replaced: Option<&[u8]>| -> Vec<(String, Vec<u8>)> {
            let mut members = members.clone();
            match replaced {
                Some(content) => members[position].1 = content.to_vec(),
                None => drop(members.remove(position)),
            }
            members
        };
        let mut flipped = content.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for changed in [listed(Some(&flipped)), listed(None)] {
            let changed: Vec<(&str, &[u8])> = changed.iter().map(|(n, c)| (&**n, &**c)).collect();
            archive(&path, &changed);
            assert!(read(&path, None).await.is_err(), "{name}");
        }
    }
    let whole = fs::read(&good).unwrap();
    for length in (0..whole.len() - 1024).step_by(700) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(read(&path, None).await.is_err(), "cut off at {length}");
    }
}

#[tokio::test]
async fn hostile_archives_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.tar");
    let layout: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: (&str, &[u8]) = ("index.json", br#"{"schemaVersion":2,"manifests":[]}"#);
    let large = vec![b' '; 5 << 20];
    let other: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    let cases: &[(&[File<'_>], &str)] = &[
        (&[], "no `oci-layout`"),
        (&[index], "no `oci-layout`"),
        (&[("manifest.json", b"[]")], "no `oci-layout`"),
        (&[layout], "no `index.json`"),
        (&[layout, index], "an image in"),
        (&[other, index], "version `2.0.0`"),
        (&[layout, ("index.json", b"{")], "`index.json` in it"),
        (&[layout, ("index.json", &large)], "larger than 4 MiB"),
        (&[layout, index, index], "twice"),
        (
            &[layout, index, ("../evil", b"x")],
            "leads out of the archive",
        ),
        (&[layout, index, ("/etc/evil", b"x")], "absolute name"),
        (&[layout, index, ("blobs/../../evil", b"x")], "leads out"),
    ];
    for (members, reason) in cases {
        archive(&path, members);
        let error = read(&path, None).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let hint = |members: &[(&str, &[u8])]| {
        archive(&path, members);
    };
    hint(&[("manifest.json", b"[]")]);
    let error = read(&path, None).await.unwrap_err();
    assert!(error.hint().unwrap().contains("docker-archive:"));
    let error = read(directory.path(), None).await.unwrap_err();
    assert!(error.to_string().contains("not a file"), "{error}");
}

#[tokio::test]
async fn links_lead_nowhere_but_into_the_archive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("links.tar");
    let secret = directory.path().join("secret");
    fs::write(&secret, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    let absolute = secret.display().to_string();
    for (kind, link, reason) in [
        (
            tar::EntryType::Symlink,
            absolute.as_str(),
            "out of the archive",
        ),
        (tar::EntryType::Symlink, "../secret", "out of the archive"),
        (tar::EntryType::Symlink, "secret", "not in it"),
        (tar::EntryType::Symlink, "index.json", "in a circle"),
        (tar::EntryType::Symlink, "blobs", "no file"),
        (tar::EntryType::Link, absolute.as_str(), "absolute name"),
        (tar::EntryType::Char, "", "device"),
        (tar::EntryType::Fifo, "", "device or fifo"),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(30);
        let layout = &br#"{"imageLayoutVersion":"1.0.0"}"#[..];
        builder
            .append_data(&mut header, "oci-layout", layout)
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        builder
            .append_data(&mut header, "blobs", std::io::empty())
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_link_name_literal(link).unwrap();
        builder
            .append_data(&mut header, "index.json", std::io::empty())
            .unwrap();
        fs::write(&path, builder.into_inner().unwrap()).unwrap();
        let error = read(&path, None).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{link}: {error}");
    }
}

#[tokio::test]
async fn a_failed_write_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tar");
    fs::write(&path, "before").unwrap();
    let store = store();
    store.remove(&Digest::of(b"arm64"));
    assert!(write(&store, &path, &[]).await.is_err());
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let error = write(&store, directory.path(), &[]).await.unwrap_err();
    assert!(error.to_string().contains("is a directory"), "{error}");
}
