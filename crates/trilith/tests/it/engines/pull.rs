//! Bases whose tags move.

use serde_json::Value;
use trilith_testkit::{
    ImageOptions, Registry, RegistryOptions, assert_success, busybox_image, git_image,
};

use super::parts::*;
use crate::support::{Trilith, on};

on!([docker_20, docker_26, podman_4]: a_moved_base_is_noticed);
on!([docker_20, docker_with_containerd]: a_base_of_the_engine_is_not_asked_for);

/// A base whose tag moves on the registry is another base, asked for again or not.
fn a_moved_base_is_noticed(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    for flags in [&["--push"][..], &["--push", "--pull"]] {
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let project = project(&registry, &base.reference);
        let repository = registry.reference(&format!("acme/app{}", flags.len()));
        let flags = [flags, &["--repository", &repository]].concat();
        let first = built(&trilith, &engine, &project, &flags);
        assert!(!has_git(&trilith, &first), "{first}");
        let same = built(&trilith, &engine, &project, &flags);
        assert_eq!(same["action"], "reuse", "{same}");

        git_image(&registry, "base:1");
        let moved = built(&trilith, &engine, &project, &flags);
        assert_eq!((&moved["action"], tags(&moved)), (&"build".into(), 3));
        assert!(has_git(&trilith, &moved), "{moved}");
        assert_eq!(engine.images(), Vec::<String>::new());
    }
}

fn has_git(trilith: &Trilith, built: &Value) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let rootfs = directory.path().join("rootfs");
    let place = format!("dir:{}", rootfs.display());
    trilith.json(&["copy", built["reference"].as_str().unwrap(), &place]);
    rootfs.join("usr/bin/git").exists()
}

/// A base that is named as the engine's is that, whatever a registry has under its name.
fn a_base_of_the_engine_is_not_asked_for(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let base = git_image(&registry, "base:1").reference;
    assert_success(&mut engine.client_command(&["pull", &base]));
    let id = || {
        engine
            .client(&["images", "--quiet", "--no-trunc", &base])
            .stdout
    };
    let before = id();
    busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = project(&registry, &base);
    let place = format!("docker-daemon:{base}");
    for flags in [&["--push"][..], &["--push", "--pull", "--force"]] {
        let flags = [flags, &["--base-image", &place]].concat();
        let built = built(&trilith, &engine, &project, &flags);
        assert_eq!(built["action"], "build");
        assert!(has_git(&trilith, &built), "{built}");
        assert_eq!(id(), before);
    }
}
