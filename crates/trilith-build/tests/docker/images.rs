//! Images that the engine keeps: found, named, pushed, saved.

use std::fs;
use std::io::Read;

use trilith_build::engine::{Engine, EngineError, Progress};
use trilith_oci::Kind;
use trilith_testkit::{ImageOptions, Registry, RegistryOptions, busybox_image};

use crate::build::{Build, Told};
use crate::parts::{Parts, parts};

#[tokio::test(flavor = "multi_thread")]
async fn names_pushes_and_archives() {
    names_pushes(parts()).await;
}

pub(crate) async fn names_pushes(parts: &Parts) {
    let engine = parts.engine();
    let build = Build::new(&format!("FROM {}\nRUN echo pushed > /pushed\n", parts.base));
    let built = build.run(&engine, &Told::default()).await.unwrap();
    let reference = parts.reference("acme/app:1");
    assert_eq!(engine.find(&reference).await.unwrap(), None);
    engine.tag(&built, &reference).await.unwrap();
    assert_eq!(
        engine.find(&reference).await.unwrap().as_ref(),
        Some(&built.id)
    );

    let told = Told::default();
    let digest = engine.push(&reference, &told.observer()).await.unwrap();
    let manifest = parts.registry.manifest("acme/app", "1").unwrap();
    assert_eq!(manifest.digest, digest.to_string());
    assert_eq!(manifest.json()["config"]["digest"], built.id.as_str());
    let count = |matches: fn(&Progress) -> bool| told.all().iter().filter(|p| matches(p)).count();
    let started = count(|progress| matches!(progress, Progress::Started { .. }));
    assert_eq!(started, 3, "{:?}", told.all());
    assert_eq!(
        started,
        count(|progress| matches!(progress, Progress::Finished { .. }))
    );

    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    engine.save(&built, &archive).await.unwrap();
    let mut manifest = String::new();
    let mut tar = tar::Archive::new(fs::File::open(&archive).unwrap());
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some("manifest.json") {
            entry.read_to_string(&mut manifest).unwrap();
        }
    }
    assert!(manifest.contains(built.id.hex()), "{manifest}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

    engine.untag(&reference).await.unwrap();
    assert_eq!(engine.find(&reference).await.unwrap(), None);
    engine.untag(&reference).await.unwrap();
    let error = engine.push(&reference, &|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_for_bases_and_pushes() {
    let parts = parts();
    let (user, password) = ("agent", "planted-pa55word");
    let auth = Some((user.to_owned(), password.to_owned()));
    let registry = Registry::start(RegistryOptions {
        auth,
        ..RegistryOptions::default()
    });
    let base = busybox_image(&registry, "base:1", &ImageOptions::default()).reference;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, password: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let config = serde_json::json!({ "auths": { registry.host(): { "auth": auth } } });
        let path = directory.path().join(name);
        fs::write(&path, config.to_string()).unwrap();
        path
    };
    let right = write("right.json", password);
    let wrong = write("wrong.json", "planted-wr0ng");

    let build = Build::new(&format!("FROM {base}\nRUN echo private > /private\n"));
    let reference = registry.reference("private/app:1").parse().unwrap();
    let mut said = Vec::new();
    for files in [&[][..], &[wrong.as_path()]] {
        let told = Told::default();
        let error = build
            .run(&parts.engine_with(files), &told)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        said.push(format!("{error:?} {error} {:?}", told.all()));
    }
    let engine = parts.engine_with(&[&right]);
    let told = Told::default();
    let built = build.run(&engine, &told).await.unwrap();
    engine.tag(&built, &reference).await.unwrap();
    let error = parts
        .engine_with(&[&wrong])
        .push(&reference, &told.observer())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
    assert!(matches!(error, EngineError::Failed { .. }), "{error:?}");
    said.push(format!("{error:?} {error}"));
    let digest = engine.push(&reference, &told.observer()).await.unwrap();
    let manifest = registry.manifest("private/app", "1").unwrap();
    assert_eq!(manifest.digest, digest.to_string());
    said.push(format!("{:?}", told.all()));
    said.push(parts.docker(&["image", "inspect", built.id.as_str()]));
    let said = said.concat();
    for secret in [password, "planted-wr0ng"] {
        assert!(!said.contains(secret), "{said}");
    }
}
