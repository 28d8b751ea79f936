//! Images that are kept: named, pushed, saved, taken away.

use std::fs;

use trilith_build::engine::{BuiltImage, Engine as _};
use trilith_oci::Kind;
use trilith_testkit::{Registry, RegistryOptions};

use crate::build::Build;
use crate::parts::{Parts, registry_client};

#[tokio::test(flavor = "multi_thread")]
async fn names_come_and_go() {
    for parts in [Parts::new(), Parts::trixie()] {
        let engine = parts.engine();
        let build = Build::new(&format!("FROM {}\nRUN touch /x\nLABEL a=b\n", parts.base));
        let (image, _) = build.image(&engine).await;
        let name = |tag: &str| format!("ghcr.example/acme/app:{tag}").parse().unwrap();
        let (one, two) = (name("1"), name("2"));
        assert_eq!(engine.find(&one).await.unwrap(), None);
        engine.tag(&image, &one).await.unwrap();
        engine.tag(&image, &two).await.unwrap();
        assert_eq!(engine.find(&one).await.unwrap().as_ref(), Some(&image.id));
        engine.untag(&one).await.unwrap();
        engine.untag(&one).await.unwrap();
        assert_eq!(engine.find(&one).await.unwrap(), None);
        assert_eq!(engine.find(&two).await.unwrap().as_ref(), Some(&image.id));

        // A container needs it still.
        parts.say(&["create", "--name=user", two.to_string().as_str(), "true"]);
        engine.untag(&two).await.unwrap();
        assert_eq!(engine.find(&two).await.unwrap(), None);
        parts.say(&["rm", "user"]);

        // The cache is still there, only the image may be gone.
        let (again, told) = build.image(&engine).await;
        assert!(told.is_cached("touch /x"));
        engine.tag(&again, &one).await.unwrap();
        engine.untag(&one).await.unwrap();
        let gone = engine.tag(&again, &one).await.unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushing_needs_what_the_registry_asks_for() {
    let private = Registry::start(RegistryOptions {
        auth: Some(("user".to_owned(), "planted-password".to_owned())),
        ..RegistryOptions::default()
    });
    for parts in [Parts::new(), Parts::trixie()] {
        let build = Build::new(&format!("FROM {}\nLABEL a=b\n", parts.base));
        let engine = parts.engine();
        let (image, _) = build.image(&engine).await;
        let name = private.reference("acme/app:1").parse().unwrap();
        engine.tag(&image, &name).await.unwrap();
        let denied = engine.push(&name, &|_| {}).await.unwrap_err();
        assert_eq!(denied.kind(), Kind::Denied, "{denied}");

        let config = parts.podman.dir().join("config.json");
        // base64 of `user:planted-password`.
        let auth = "dXNlcjpwbGFudGVkLXBhc3N3b3Jk";
        let auths = serde_json::json!({"auths": {private.host(): {"auth": auth}}});
        fs::write(&config, auths.to_string()).unwrap();
        let client = registry_client(vec![config]);
        let engine = trilith_build::engine::Podman::new(parts.options(), client);
        let told = std::sync::Mutex::new(Vec::new());
        let observer = |progress| told.lock().unwrap().push(progress);
        let digest = engine.push(&name, &observer).await.unwrap();
        let manifest = private.manifest("acme/app", "1").unwrap();
        assert_eq!(digest.as_str(), manifest.digest);
        assert_eq!(
            manifest.media_type,
            "application/vnd.docker.distribution.manifest.v2+json"
        );
        assert_eq!(manifest.json()["config"]["digest"], image.id.as_str());
        let told = format!("{:?}", told.into_inner().unwrap());
        assert!(!told.contains("planted") && !told.contains(auth), "{told}");

        // What is private can be built from, too.
        engine.untag(&name).await.unwrap();
        parts.say(&["rmi", "--all", "--force"]);
        let from = Build::new(&format!("FROM {name}\nRUN true\n"));
        let (error, _) = from.error(&parts.engine()).await;
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        from.image(&engine).await;
        parts.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_saved_as_docker_does() {
    let parts = Parts::new();
    let engine = parts.engine();
    let build = Build::new(&format!("FROM {}\nRUN touch /saved\n", parts.base));
    let (image, _) = build.image(&engine).await;
    let archive = parts.podman.dir().join("image.tar");
    engine.save(&image, &archive).await.unwrap();
    let mut found = None;
    let mut tar = tar::Archive::new(fs::File::open(&archive).unwrap());
    for entry in tar.entries().unwrap() {
        let entry = entry.unwrap();
        if entry.path().unwrap().to_str() == Some("manifest.json") {
            found = Some(serde_json::from_reader::<_, serde_json::Value>(entry).unwrap());
        }
    }
    let manifest = found.expect("there is a manifest");
    assert_eq!(manifest[0]["Config"], format!("{}.json", image.id.hex()));

    let missing = BuiltImage {
        id: trilith_core::Digest::of(b"missing"),
    };
    let error = engine.save(&missing, &archive).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}
