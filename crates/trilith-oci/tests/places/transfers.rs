//! One call from any place to any other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use trilith_core::Platform;
use trilith_oci::Kind;
use trilith_oci::archive::LayerForm;
use trilith_oci::image::Image;
use trilith_oci::place::Place;
use trilith_oci::registry::{RegistryClient, RegistryConfig};
use trilith_oci::transfer::{Context, TransferOptions, open_source, transfer};
use trilith_testkit::{
    Dockerd, Format, ImageOptions, Registry, RegistryOptions, assert_success, busybox_image, umoci,
};

use super::{docker_run, skopeo_digest};

fn context(temp_dir: &Path, docker_host: &str) -> Context {
    Context {
        registry: RegistryClient::try_new(RegistryConfig::default()).unwrap(),
        temp_dir: temp_dir.to_owned(),
        docker_host: docker_host.to_owned(),
        platform: "linux/amd64".parse().unwrap(),
    }
}

fn place(text: &str) -> Place {
    text.parse().unwrap()
}

async fn copy(from: &Place, to: &Place, context: &Context) {
    let copied = transfer(from, to, context, &TransferOptions::default()).await;
    copied.unwrap_or_else(|error| panic!("{from} to {to}: {error}: {error:?}"));
}

/// Returns the image at `place`.
async fn image(place: &Place, context: &Context) -> Image {
    let (store, name) = open_source(place, context, LayerForm::AsStored)
        .await
        .unwrap();
    let platform: Platform = "linux/amd64".parse().unwrap();
    Image::load(store.as_ref(), &name, &platform)
        .await
        .unwrap()
        .image
}

/// What is in a directory: mode, owner and content of each path.
fn tree(root: &Path) -> BTreeMap<String, (u32, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                pending.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, (metadata.mode(), metadata.uid(), content));
        }
    }
    found
}

#[tokio::test]
async fn every_place_to_every_other() {
    let registry = Registry::start(RegistryOptions::default());
    let dockerd = Dockerd::start();
    let directory = tempfile::tempdir().unwrap();
    let temp_dir = tempfile::tempdir().unwrap();
    let context = context(temp_dir.path(), &dockerd.host());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let base = place(&base.reference);
    let at = |kind: &str, name: &str| {
        let path = directory.path().join(name);
        let path = path.display();
        place(&match kind {
            "registry" => registry.reference(&format!("{name}:1")),
            "docker-daemon" => format!("docker-daemon:{name}:1"),
            "oci" | "oci-archive" => format!("{kind}:{path}:1"),
            "docker-archive" => format!("{kind}:{path}:{name}:1"),
            _ => format!("{kind}:{path}"),
        })
    };
    let kinds = [
        "registry",
        "oci",
        "oci-archive",
        "docker-archive",
        "docker-daemon",
    ];
    let id = image(&base, &context).await.config().digest();
    for from in kinds {
        copy(&base, &at(from, &format!("from-{from}")), &context).await;
    }
    for from in kinds {
        for to in kinds {
            let source = at(from, &format!("from-{from}"));
            let destination = at(to, &format!("{from}-{to}"));
            copy(&source, &destination, &context).await;
            let copied = image(&destination, &context).await;
            assert_eq!(copied.config().digest(), id, "{source} to {destination}");
        }
        // To a directory, and from there to the engine, where it runs.
        let source = at(from, &format!("from-{from}"));
        let root = at("dir", &format!("{from}-dir"));
        copy(&source, &root, &context).await;
        assert_eq!(
            tree(root.path().unwrap()),
            tree(at("dir", "registry-dir").path().unwrap()),
        );
        let name = format!("dir-{from}");
        copy(&root, &at("docker-daemon", &name), &context).await;
        let motd = docker_run(&dockerd, &format!("{name}:1"), &["/bin/cat", "/etc/motd"]);
        assert_eq!(motd, "welcome back");
    }
    copy(&place("scratch"), &at("oci", "scratch"), &context).await;
    let left = fs::read_dir(temp_dir.path()).unwrap().count();
    assert_eq!(left, 0, "temporary files were left");
}

#[tokio::test]
async fn a_directory_is_what_umoci_makes_of_the_image() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path(), "unix:///none");
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let layout = directory.path().join("layout");
    let root = directory.path().join("root");
    let base = place(&base.reference);
    copy(
        &base,
        &place(&format!("oci:{}", layout.display())),
        &context,
    )
    .await;
    copy(&base, &place(&format!("dir:{}", root.display())), &context).await;
    let bundle = directory.path().join("bundle");
    let mut unpack = umoci();
    // Without a tag it is `latest`, for umoci as for us.
    assert_success(unpack.args(["unpack", "--image"]).arg(&layout).arg(&bundle));
    assert_eq!(tree(&root), tree(&bundle.join("rootfs")));
}

#[tokio::test]
async fn an_index_stays_one_where_it_can_and_is_asked_about_where_not() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path(), "unix:///none");
    let options = ImageOptions::multi_platform(Format::Oci);
    let base = busybox_image(&registry, "base:1", &options);
    let digest = base.digest;
    let base = place(&base.reference);
    let path = directory.path().join("copy");
    for to in [
        format!("oci:{}:1", path.display()),
        format!("oci-archive:{}.tar:1", path.display()),
        registry.reference("copy:1"),
        registry.reference(&format!("copy@{digest}")),
    ] {
        copy(&base, &place(&to), &context).await;
        if !to.contains('@') {
            let to = if to.starts_with("oci") {
                to
            } else {
                format!("docker://{to}")
            };
            assert_eq!(skopeo_digest(&to), digest);
        }
    }
    let root = directory.path().join("root");
    for to in [
        format!("docker-archive:{}", root.display()),
        format!("dir:{}", root.display()),
    ] {
        let to = place(&to);
        let all = transfer(&base, &to, &context, &TransferOptions::default()).await;
        assert_eq!(all.unwrap_err().kind(), Kind::Usage);
        assert!(!root.exists());
        let options = TransferOptions {
            platform: Some("linux/arm64".parse().unwrap()),
            ..TransferOptions::default()
        };
        transfer(&base, &to, &context, &options).await.unwrap();
        if root.is_file() {
            fs::remove_file(&root).unwrap();
        }
    }
}

#[tokio::test]
async fn within_a_registry_no_byte_travels() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path(), "unix:///none");
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let base = place(&base.reference);
    let to = place(&registry.reference("other/copy:1"));
    let report = transfer(&base, &to, &context, &TransferOptions::default())
        .await
        .unwrap();
    assert_eq!((report.blobs_mounted, report.bytes_copied), (3, 0));
    registry.forget_requests();
    let again = transfer(&base, &to, &context, &TransferOptions::default())
        .await
        .unwrap();
    assert_eq!((again.blobs_skipped, again.bytes_copied), (3, 0));
    let blobs = registry.requests();
    assert!(
        blobs
            .iter()
            .all(|request| !format!("{request:?}").contains("/blobs/"))
    );
}

#[tokio::test]
async fn places_that_cannot_be_written_are_refused() {
    let registry = Registry::start(RegistryOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let context = context(directory.path(), "unix:///none");
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let base = place(&base.reference);
    let other = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for to in [
        "scratch".to_owned(),
        format!("docker-daemon:{other}"),
        registry.reference(&format!("copy@{other}")),
        format!("dir:{}", directory.path().parent().unwrap().display()),
        format!("oci-archive:{}", directory.path().display()),
    ] {
        let refused = transfer(&base, &place(&to), &context, &TransferOptions::default()).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Usage, "{to}");
    }
    for from in [
        "oci:/nowhere",
        "oci-archive:/nowhere",
        "docker-archive:/nowhere",
        "dir:/nowhere",
    ] {
        let to = place(&format!("oci:{}", directory.path().join("new").display()));
        let failed = transfer(&place(from), &to, &context, &TransferOptions::default()).await;
        assert!(
            failed.unwrap_err().to_string().contains("/nowhere"),
            "{from}"
        );
    }
}
