//! BuildKit, spoken to directly.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use trilith_build::engine::{
    BuildkitAddress, BuildkitEngine, BuiltImage, CacheEntry, Engine, EngineAddress, EngineError,
    EngineKind, Export, Feature, NamedContext,
};
use trilith_core::Digest;
use trilith_testkit::{Dockerd, DockerdOptions, Release};

use crate::build::{Build, Told, registry_client};
use crate::parts::{Parts, is_running, until};
use crate::relay::{Passes, Relay};

/// Returns an engine that keeps images in containerd, as then its BuildKit has all exporters.
fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| Parts::start(containerd))
}

fn containerd() -> Dockerd {
    Dockerd::start_with(DockerdOptions {
        release: Release::Trixie,
        containerd_store: true,
        ..DockerdOptions::default()
    })
}

fn engine(address: &str, docker: &EngineAddress) -> BuildkitEngine {
    let address = BuildkitAddress::parse(address, None, docker).unwrap();
    BuildkitEngine::try_new(address, registry_client(&[])).unwrap()
}

fn at(relay: &Relay) -> BuildkitEngine {
    let address = format!("unix:{}", relay.socket().display());
    engine(&address, &EngineAddress::default())
}

/// Returns the files of an OCI archive.
fn members(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(File::open(archive).unwrap());
    let members = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    });
    members.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_by_digest_and_sends_archives() {
    let parts = parts();
    let relay = Relay::start(&parts.docker.host(), Passes::BuildKit);
    let engine = at(&relay);
    let build = Build::new(&format!(
        "FROM {}\nCOPY data /file\nRUN echo said && cp /file /copy\n",
        parts.base
    ))
    .label("dev.trilith.level", "source");
    build.file("data", vec![7; 300_000]);
    let told = Told::default();
    let reference = parts.reference("acme/pushed:1");
    let built = build
        .export(&engine, Export::Push(&reference), &told)
        .await
        .unwrap();
    assert_eq!(told.log("RUN"), "said\n");
    assert_eq!(parts.registry.tags("acme/pushed"), Vec::<String>::new());
    let manifest = parts
        .registry
        .manifest("acme/pushed", built.id.as_str())
        .unwrap();
    let config = manifest.json()["config"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let config = fs::read(parts.registry.blob_path(&config)).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["config"]["Labels"]["dev.trilith.level"], "source");

    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let sent = build
        .export(&engine, Export::Archive(&archive), &told)
        .await
        .unwrap();
    let members = members(&archive);
    let manifest = &members[&format!("blobs/sha256/{}", sent.id.hex())];
    assert_eq!(Digest::of(manifest), sent.id);
    let index: serde_json::Value = serde_json::from_slice(&members["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["digest"], sent.id.as_str());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_can_do_and_what_it_cannot() {
    let parts = parts();
    let relay = Relay::start(&parts.docker.host(), Passes::BuildKit);
    let engine = at(&relay);
    let info = engine.info().await.unwrap();
    assert_eq!(info.kind, EngineKind::Buildkit);
    assert!(
        info.version.starts_with("v0.") || info.version.contains('.'),
        "{info:?}"
    );
    let features = &info.capabilities.features;
    assert!(features.contains(&Feature::NamedContexts) && !features.contains(&Feature::Load));
    let build = Build::new("FROM scratch\n");
    let error = build.run(&engine, &Told::default()).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unsupported { .. }),
        "{error:?}"
    );
    let id = Digest::of(b"");
    let error = engine
        .tag(&BuiltImage { id }, &parts.reference("x:1"))
        .await
        .unwrap_err();
    assert!(error.to_string().ends_with("cannot keep images"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_replace_stages() {
    let parts = parts();
    let relay = Relay::start(&parts.docker.host(), Passes::BuildKit);
    let engine = at(&relay);
    let dockerfile = format!(
        "FROM {} AS deps\nRUN date +%s%N > /deps\nFROM deps AS runtime\nRUN cp /deps /copy\n",
        parts.base
    );
    let mut build = Build::new(&dockerfile);
    build.target = Some("deps");
    let reference = parts.reference("acme/levels:1");
    let export = Export::Push(&reference);
    let deps = build
        .export(&engine, export, &Told::default())
        .await
        .unwrap();
    build.target = None;
    build.no_cache = true;
    build.named_contexts = vec![NamedContext {
        stage: "deps".to_owned(),
        image: reference.pinned(deps.id),
    }];
    let told = Told::default();
    build.export(&engine, export, &told).await.unwrap();
    assert!(
        !format!("{:?}", told.all()).contains("RUN date"),
        "{:?}",
        told.all()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_from_a_local_directory() {
    let parts = parts();
    let relay = Relay::start(&parts.docker.host(), Passes::BuildKit);
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let entry = |option: &str, more: &[(&str, &str)]| CacheEntry {
        kind: "local".to_owned(),
        options: [(option, cache.to_str().unwrap())]
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let mut build = Build::new(&format!("FROM {}\nRUN date +%s%N > /when\n", parts.base));
    build.file("unused", "");
    // What is not there yet is no cache.
    build.cache_from = vec![entry("src", &[])];
    build.cache_to = vec![entry("dest", &[("mode", "max")])];
    let reference = parts.reference("acme/cached:1");
    let export = Export::Push(&reference);
    let first = build
        .export(&at(&relay), export, &Told::default())
        .await
        .unwrap();
    let listed = fs::read_to_string(cache.join("index.json")).unwrap();
    assert!(listed.contains("\"latest\""), "{listed}");

    // Another engine, which has built nothing yet.
    let other = Parts::start(containerd);
    build.cache_to.clear();
    let engine = other.engine();
    build.run(&engine, &Told::default()).await.unwrap();
    // What it has now it can only have from there.
    let relay = Relay::start(&other.docker.host(), Passes::BuildKit);
    let second = build
        .export(&at(&relay), export, &Told::default())
        .await
        .unwrap();
    let layers = |id: &Digest| {
        let manifest = parts.registry.manifest("acme/cached", id.as_str()).unwrap();
        manifest.json()["layers"].clone()
    };
    assert_eq!(layers(&first.id), layers(&second.id));
    assert!(
        engine
            .info()
            .await
            .unwrap()
            .capabilities
            .features
            .contains(&Feature::CacheExport)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_leave_nothing_behind() {
    let parts = parts();
    let relay = Relay::start(&parts.docker.host(), Passes::BuildKit);
    let engine = at(&relay);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let build = Build::new(&format!("FROM {}\nRUN echo words; exit 5\n", parts.base));
    let export = Export::Archive(&archive);
    let error = build
        .export(&engine, export, &Told::default())
        .await
        .unwrap_err();
    match &error {
        EngineError::Step { reason, log, .. } => {
            assert_eq!(
                (reason.as_str(), &log[..]),
                ("exit code: 5", &["words".to_owned()][..])
            );
        }
        other => panic!("{other:?}"),
    }
    let seconds = format!("99{}", std::process::id());
    let sleep = format!("sleep {seconds}");
    let build = Build::new(&format!("FROM {}\nRUN {sleep}\n", parts.base));
    let told = Told::default();
    tokio::select! {
        built = build.export(&engine, export, &told) => panic!("{built:?}"),
        () = until("the step runs", || is_running(&sleep)) => {}
    }
    until("the step is gone", || !is_running(&sleep)).await;
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(relay);
    let error = build.export(&engine, export, &told).await.unwrap_err();
    assert!(
        matches!(error, EngineError::Unreachable { .. }),
        "{error:?}"
    );
}

/// What a container of BuildKit has by that name, as far as it is used.
const BUILDCTL: &str = r#"#!/usr/bin/python3
import os, socket, sys, threading
assert sys.argv[1:] == ["dial-stdio"]
peer = socket.socket(socket.AF_UNIX)
peer.connect("/run/buildkit/buildkitd.sock")
def back():
    while piece := peer.recv(65536):
        while piece:
            piece = piece[os.write(1, piece):]
    os._exit(0)
threading.Thread(target=back, daemon=True).start()
while piece := os.read(0, 65536):
    peer.sendall(piece)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn in_a_container() {
    let parts = parts();
    let relay = Relay::start(&parts.docker.host(), Passes::BuildKit);
    let docker = EngineAddress::parse(&parts.docker.host(), None).unwrap();
    let image = Build::new(&format!(
        "FROM {}\nCOPY --chmod=755 buildctl /usr/bin/\n",
        parts.python()
    ));
    image.file("buildctl", BUILDCTL);
    let image = image.run(&parts.engine(), &Told::default()).await.unwrap();
    let volume = format!("{}:/run/buildkit", relay.directory().display());
    parts.docker(&[
        "run",
        "--detach",
        "--network=none",
        "--name=builder",
        "--volume",
        &volume,
        image.id.as_str(),
        "sleep",
        "1000000",
    ]);
    let engine = engine("docker-container:builder", &docker);
    let build = Build::new(&format!("FROM {}\nCOPY data /file\n", parts.base));
    build.file("data", vec![7; 3_000_000]);
    let reference = parts.reference("acme/contained:1");
    let built = build
        .export(&engine, Export::Push(&reference), &Told::default())
        .await
        .unwrap();
    assert!(
        parts
            .registry
            .manifest("acme/contained", built.id.as_str())
            .is_some()
    );
    parts.docker(&["rm", "--force", "builder"]);
    let error = engine.info().await.unwrap_err();
    assert!(
        error.to_string().contains("o such container: builder"),
        "{error}"
    );
}
