//! The layout as an image store: round trips, damage, crashes and several processes at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::print_stdout, reason = "the other process reports this way")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use trilith_core::Digest;
use trilith_oci::image::{Format, Image, Index, Manifest};
use trilith_oci::layout::{Layout, Naming};
use trilith_oci::{
    BlobSource, Descriptor, Error, ImageStore, Mount, Name, RawManifest, media_type,
};

use support::{ROLE, bare, image, layout, push, read, tag, this_program};

/// Returns the names of the files in `directory`.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn index_json(root: &Path) -> Value {
    serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap()
}

/// Checks that every blob is what its name says and every tag leads to a whole image.
async fn check_whole(root: &Path) -> usize {
    for name in names(&root.join("blobs/sha256")) {
        let content = fs::read(root.join("blobs/sha256").join(&name)).unwrap();
        assert_eq!(Digest::of(&content).hex(), name);
    }
    let repository = Layout::open(root).unwrap().repository(Naming::Tags);
    let tags = repository.tags().unwrap();
    for (tag, _) in &tags {
        let raw = repository
            .fetch_manifest(&Name::Tag(tag.clone()))
            .await
            .unwrap();
        let image = Image::fetch(&repository, Manifest::parse(&raw).unwrap())
            .await
            .unwrap();
        for layer in image.manifest().layers() {
            read(repository.fetch_blob(layer).await.unwrap())
                .await
                .unwrap();
        }
    }
    tags.len()
}

#[tokio::test]
async fn blobs_from_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(&directory.path().join("a/b"));
    let other: Arc<dyn ImageStore> = Arc::new(layout(&directory.path().join("other")));
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let path = directory.path().join("big");
    fs::write(&path, &big).unwrap();

    let blob = Descriptor::of("text/plain", &big);
    assert!(!store.has_blob(&blob).await.unwrap());
    store
        .push_blob(&blob, BlobSource::File(path))
        .await
        .unwrap();
    store
        .push_blob(&blob, BlobSource::File("/nowhere".into()))
        .await
        .unwrap();
    assert_eq!(
        read(store.fetch_blob(&blob).await.unwrap()).await.unwrap(),
        big
    );

    let store: Arc<dyn ImageStore> = Arc::new(store);
    other
        .push_blob(&blob, BlobSource::Store(store.clone()))
        .await
        .unwrap();
    assert!(other.has_blob(&blob).await.unwrap());
    let somewhere = "localhost:5000/a".parse().unwrap();
    assert_eq!(
        other.mount_blob(&blob, &somewhere).await.unwrap(),
        Mount::Mounted
    );

    let empty = push(&*store, b"").await.unwrap();
    assert!(
        read(store.fetch_blob(&empty).await.unwrap())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        other.mount_blob(&empty, &somewhere).await.unwrap(),
        Mount::Declined
    );
    let error = other.fetch_blob(&empty).await.err().unwrap();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");

    let mut digester = trilith_core::Digester::new(trilith_core::Algorithm::Sha512);
    digester.update(b"x");
    let sha512 = Descriptor::new("text/plain", digester.finish(), 1);
    store
        .push_blob(&sha512, BlobSource::Memory(Bytes::from_static(b"x")))
        .await
        .unwrap();
    assert_eq!(
        read(store.fetch_blob(&sha512).await.unwrap())
            .await
            .unwrap(),
        b"x"
    );
}

#[tokio::test]
async fn what_is_not_what_it_claims_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("layout");
    let store = layout(&root);
    let path = directory.path().join("file");
    fs::write(&path, "content").unwrap();
    let before = names(&root);

    let wrong = Descriptor::new("text/plain", Digest::of(b"other"), 7);
    let short = Descriptor::new("text/plain", Digest::of(b"content"), 8);
    let long = Descriptor::new("text/plain", Digest::of(b"content"), 6);
    for blob in [&wrong, &short, &long] {
        let memory = BlobSource::Memory(Bytes::from_static(b"content"));
        for source in [memory, BlobSource::File(path.clone())] {
            let error = store.push_blob(blob, source).await.unwrap_err();
            assert_eq!(error.kind(), trilith_oci::Kind::Corrupt, "{error}");
        }
    }
    let endless = BlobSource::File("/dev/zero".into());
    assert!(matches!(
        store.push_blob(&wrong, endless).await,
        Err(Error::SizeMismatch { actual: 8, .. })
    ));
    let missing = BlobSource::File(directory.path().join("gone"));
    assert!(store.push_blob(&wrong, missing).await.is_err());

    let mut writer = store.layout().blob_writer().unwrap();
    writer.write_all(b"half").unwrap();
    drop(writer);
    assert_eq!(names(&root), before);
    assert!(names(&root.join("blobs/sha256")).is_empty());
}

#[tokio::test]
async fn a_flipped_byte_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let image = image(store.layout(), b"content");
    let manifest = image.manifest().to_raw();
    store.push_manifest(&manifest).await.unwrap();
    store.tag(&tag("t"), &manifest).await.unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let load = || async {
        let resolved = Image::load(&store, &Name::Tag(tag("t")), &platform).await?;
        for layer in resolved.image.manifest().layers() {
            read(store.fetch_blob(layer).await?).await?;
        }
        Ok::<_, Error>(())
    };
    load().await.unwrap();
    let layer = &image.manifest().layers()[0].digest;
    for digest in [
        &manifest.descriptor.digest,
        &image.manifest().config().digest,
        layer,
    ] {
        let path = store.layout().blob_path(digest);
        let content = fs::read(&path).unwrap();
        let mut flipped = content.clone();
        flipped[content.len() / 2] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let error = load().await.unwrap_err();
        assert!(matches!(&error, Error::DigestMismatch { expected, .. } if expected == digest));
        fs::write(&path, &content[1..]).unwrap();
        assert!(load().await.is_err());
        fs::write(&path, &content).unwrap();
    }
    load().await.unwrap();

    // Damage is mended by writing again.
    let path = store.layout().blob_path(&manifest.descriptor.digest);
    fs::write(&path, vec![b' '; manifest.bytes.len()]).unwrap();
    store.push_manifest(&manifest).await.unwrap();
    load().await.unwrap();
}

#[tokio::test]
async fn manifests_need_what_they_point_to() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let image = image(store.layout(), b"content");
    let manifest = image.manifest().to_raw();
    let index = Index::new(&[image.descriptor()]).to_raw();

    assert!(matches!(
        store.tag(&tag("t"), &manifest).await,
        Err(Error::NotFound { .. })
    ));
    let error = store.push_manifest(&index).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(manifest.descriptor.digest.as_str()),
        "{error}"
    );
    for blob in [image.manifest().config(), &image.manifest().layers()[0]] {
        let path = store.layout().blob_path(&blob.digest);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = store.push_manifest(&manifest).await.unwrap_err();
        assert!(matches!(&error, Error::NotFound { .. }), "{error}");
        assert!(error.to_string().contains(blob.digest.as_str()), "{error}");
        fs::write(&path, content).unwrap();
    }
    store.push_manifest(&manifest).await.unwrap();
    store.push_manifest(&index).await.unwrap();
    store.tag(&tag("t"), &index).await.unwrap();
    assert_eq!(
        store
            .resolve(&Name::Tag(tag("t")))
            .await
            .unwrap()
            .unwrap()
            .digest,
        index.descriptor.digest
    );
    for raw in [&manifest, &index] {
        let name = Name::Digest(raw.descriptor.digest.clone());
        assert_eq!(store.fetch_manifest(&name).await.unwrap(), *raw);
    }
}

#[tokio::test]
async fn manifests_that_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let raw = bare(store.layout(), "linux/amd64", Format::Oci);
    let other = RawManifest {
        bytes: Bytes::from_static(b"{}"),
        ..raw.clone()
    };
    assert!(matches!(
        store.push_manifest(&other).await,
        Err(Error::DigestMismatch { .. })
    ));
    let huge = Bytes::from(vec![b' '; 50 << 20]);
    let huge = RawManifest {
        descriptor: Descriptor::of(media_type::OCI_MANIFEST, &huge),
        bytes: huge,
    };
    let error = store.push_manifest(&huge).await.unwrap_err();
    assert!(matches!(error, Error::ManifestTooLarge { .. }), "{error}");

    // The same where somebody else put it there.
    fs::write(
        store.layout().blob_path(&huge.descriptor.digest),
        &huge.bytes,
    )
    .unwrap();
    let name = Name::Digest(huge.descriptor.digest);
    let error = store.fetch_manifest(&name).await.unwrap_err();
    assert!(matches!(error, Error::ManifestTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn tags_in_two_repositories() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(directory.path()).unwrap();
    let repository = |name: &str| layout.repository(Naming::References(name.parse().unwrap()));
    let (a, b) = (repository("ghcr.io/acme/a"), repository("debian"));
    let first = bare(&layout, "linux/amd64", Format::Oci);
    let second = bare(&layout, "linux/arm64", Format::Docker);
    for manifest in [&first, &second] {
        a.push_manifest(manifest).await.unwrap();
    }
    a.tag(&tag("1"), &first).await.unwrap();
    a.tag(&tag("2"), &first).await.unwrap();
    b.tag(&tag("1"), &second).await.unwrap();
    a.tag(&tag("1"), &second).await.unwrap();

    let names: Vec<String> = layout
        .names()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "ghcr.io/acme/a:1",
        "ghcr.io/acme/a:2",
        "docker.io/library/debian:1",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        a.resolve(&Name::Tag(tag("1"))).await.unwrap(),
        Some(second.descriptor.clone())
    );
    assert_eq!(a.resolve(&Name::Tag(tag("3"))).await.unwrap(), None);
    let tags: Vec<_> = a.tags().unwrap();
    assert_eq!(
        tags,
        [
            (tag("1"), second.descriptor.clone()),
            (tag("2"), first.descriptor)
        ]
    );

    let before = fs::metadata(layout.root().join("index.json")).unwrap();
    a.tag(&tag("1"), &second).await.unwrap();
    let after = fs::metadata(layout.root().join("index.json")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());

    assert!(a.remove_tag(&tag("1")).unwrap());
    assert!(!a.remove_tag(&tag("1")).unwrap());
    assert_eq!(a.resolve(&Name::Tag(tag("1"))).await.unwrap(), None);
    assert!(b.resolve(&Name::Tag(tag("1"))).await.unwrap().is_some());

    // A tag whose manifest is gone is as good as none.
    fs::remove_file(layout.blob_path(&second.descriptor.digest)).unwrap();
    assert_eq!(b.resolve(&Name::Tag(tag("1"))).await.unwrap(), None);
}

#[tokio::test]
async fn foreign_entries_stay() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let manifest = bare(store.layout(), "linux/amd64", Format::Oci);
    store.push_manifest(&manifest).await.unwrap();
    let foreign = json!({"mediaType": "x/y", "digest": "weird:1", "size": -1, "data": [1.5]});
    let index = json!({
        "x": 1,
        "manifests": [
            foreign,
            {"annotations": {"org.opencontainers.image.ref.name": "t", "k": "v"},
             "mediaType": media_type::OCI_MANIFEST, "size": 3, "digest": Digest::of(b"old")},
        ],
        "annotations": {"a": "b"},
        "schemaVersion": 2,
    });
    let path = directory.path().join("index.json");
    fs::write(&path, index.to_string()).unwrap();
    store.tag(&tag("t"), &manifest).await.unwrap();
    store.tag(&tag("u"), &manifest).await.unwrap();
    store.remove_tag(&tag("u")).unwrap();
    let mut expected = index;
    let mut entry = json!(manifest.descriptor);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "t"});
    expected["manifests"][1] = entry;
    assert_eq!(fs::read_to_string(&path).unwrap(), expected.to_string());
    assert_eq!(index_json(directory.path())["manifests"][0], foreign);
}

#[tokio::test]
async fn referrers_are_found_by_subject_and_type() {
    let directory = tempfile::tempdir().unwrap();
    let store = layout(directory.path());
    let image = bare(store.layout(), "linux/amd64", Format::Oci);
    let other = bare(store.layout(), "linux/arm64", Format::Oci);
    let content = push(&store, b"inputs").await.unwrap();
    let (empty, bytes) = Manifest::empty_config();
    store
        .push_blob(&empty, BlobSource::Memory(bytes))
        .await
        .unwrap();
    store.push_manifest(&image).await.unwrap();
    store.tag(&tag("t"), &image).await.unwrap();
    let artifacts = [
        ("application/a", &image),
        ("application/b", &image),
        ("application/a", &other),
    ]
    .map(|(kind, subject)| Manifest::artifact(kind, &content, &subject.descriptor).to_raw());
    for artifact in artifacts.iter().chain(&artifacts) {
        store.push_manifest(artifact).await.unwrap();
    }
    let found = store
        .referrers(&image.descriptor.digest, "application/a")
        .await
        .unwrap();
    assert_eq!(found, [artifacts[0].descriptor.clone()]);
    assert_eq!(found[0].artifact_type.as_deref(), Some("application/a"));
    let found = store
        .referrers(&Digest::of(b""), "application/a")
        .await
        .unwrap();
    assert!(found.is_empty());
    assert_eq!(
        index_json(directory.path())["manifests"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    assert_eq!(store.tags().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_layout() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let error = Layout::open(root).unwrap_err();
    assert!(matches!(&error, Error::NotFound { .. }), "{error}");
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(
        Layout::open_or_create(root)
            .unwrap_err()
            .to_string()
            .contains("version `2.0.0`")
    );
    fs::write(root.join("oci-layout"), "{}").unwrap();
    assert!(
        Layout::open(root)
            .unwrap_err()
            .to_string()
            .contains("`imageLayoutVersion`")
    );
    fs::remove_file(root.join("oci-layout")).unwrap();

    let store = layout(root);
    for (text, reason) in [
        ("", "EOF"),
        ("[]", "not a JSON object"),
        (r#"{"manifests":{}}"#, "must be an array"),
        (r#"{"manifests":[],"manifests":[]}"#, "stands twice"),
        ("{}", "`manifests` is missing"),
    ] {
        fs::write(root.join("index.json"), text).unwrap();
        let error = store.resolve(&Name::Tag(tag("t"))).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert!(error.to_string().contains("index.json"), "{error}");
        assert!(store.remove_tag(&tag("t")).is_err());
        assert_eq!(fs::read_to_string(root.join("index.json")).unwrap(), text);
    }
}

/// Plays the other process, if started by one of the tests below.
#[test]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (role, root) = role.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    match role.split_once(':').unwrap() {
        ("tag", process) => runtime.block_on(write_tags(Path::new(root), process, 10)),
        ("endless", process) => runtime.block_on(write_tags(Path::new(root), process, usize::MAX)),
        _ => panic!("{role}"),
    }
}

/// Writes images of half a megabyte, and says so after each.
async fn write_tags(root: &Path, process: &str, count: usize) {
    let store = layout(root);
    for round in 0..count {
        let content = format!("{process}-{round}-").repeat(50_000);
        let manifest = image(store.layout(), content.as_bytes())
            .manifest()
            .to_raw();
        store.push_manifest(&manifest).await.unwrap();
        store
            .tag(&tag(&format!("{process}-{}", round % 20)), &manifest)
            .await
            .unwrap();
        println!("wrote one");
    }
}

fn start(role: &str, root: &Path) -> Child {
    this_program("other_process", &format!("{role} {}", root.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let processes: Vec<Child> = (0..8).map(|n| start(&format!("tag:p{n}"), &root)).collect();
    for mut process in processes {
        // Read to the end, or the process may block on a full pipe.
        let output = process.stdout.take().unwrap();
        assert_eq!(
            BufReader::new(output)
                .lines()
                .map_while(Result::ok)
                .filter(|line| line == "wrote one")
                .count(),
            10
        );
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(check_whole(&root).await, 80);
    assert_eq!(
        names(&root),
        ["blobs", "index.json", "oci-layout"]
            .map(str::to_owned)
            .into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_the_layout_stays_whole() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    for round in 0..25_u64 {
        let mut process = start(&format!("endless:r{round}"), &root);
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        // Every other time, before anything may be there.
        if round % 2 == 0 {
            output.find(|line| line.as_ref().is_ok_and(|line| line == "wrote one"));
        }
        std::thread::sleep(Duration::from_micros(round * round * 700));
        process.kill().unwrap();
        process.wait().unwrap();
        if root.join("oci-layout").exists() {
            check_whole(&root).await;
            let expected = ["blobs", "index.json", "oci-layout"]
                .map(str::to_owned)
                .into();
            assert_eq!(names(&root), expected, "temporary files are gone");
        }
    }
    assert!(check_whole(&root).await >= 12);
}

#[test]
fn files_of_processes_that_live_stay() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(directory.path()).unwrap();
    let mut writer = layout.blob_writer().unwrap();
    writer.write_all(b"content").unwrap();
    Layout::open(directory.path()).unwrap();
    let blob = writer.finish("text/plain").unwrap();
    assert!(layout.has_blob(&blob));
}
