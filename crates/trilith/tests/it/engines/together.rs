//! Two builds of one image at a time, by engines: no step runs twice, and the first keeps the tags.

use std::process::{Output, Stdio};

use serde_json::Value;
use trilith_testkit::{
    Fault, FaultProxy, ImageOptions, Registry, RegistryOptions, Rule, busybox_image,
};

use super::parts::*;
use crate::support::{Trilith, on};

// The lock knows nothing of engines: two stand for all.
on!([docker_20, podman_4]: two_at_once_build_once, the_first_keeps_the_tags);
on!([docker_20]: an_image_of_steps_is_not_rebased);

fn document(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Into the engine, where no registry could tell.
fn two_at_once_build_once(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let start = || {
        let mut command = build(&trilith, &engine, &project, &["--load"]);
        command.args(["--format", "json"]).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let builds = [start(), start()];
    let documents = builds.map(|build| document(&build.wait_with_output().unwrap()));
    let mut actions = documents.each_ref().map(|d| d["action"].as_str().unwrap());
    actions.sort_unstable();
    assert_eq!(actions, ["build", "reuse"]);
    assert_eq!(documents[0]["digest"], documents[1]["digest"]);
}

/// Two machines, whose steps leave different stamps.
fn the_first_keeps_the_tags(engine: Start) {
    // The plan of the slow one asks for three tags, and the lock makes it ask for one again.
    const BEFORE: usize = 4;
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let proxy = FaultProxy::start(registry.host());
    let (engine, slow, fast) = (engine(), Trilith::new(), Trilith::new());
    let project = project(&registry, &base.reference);
    proxy.add(Rule::new("HEAD", "acme/app/manifests/", Fault::Hold).after(BEFORE));
    let elsewhere = proxy.reference("acme/app");
    let flags = ["--push", "--no-cache", "--repository", &elsewhere];
    let mut command = build(&slow, &engine, &project, &flags);
    command.args(["--format", "json"]).stdout(Stdio::piped());
    let second = command.stderr(Stdio::piped()).spawn().unwrap();
    proxy.wait_for(BEFORE + 1, "HEAD", "acme/app/manifests/");
    let first = pushed(&fast, &engine, &project);
    assert_eq!(first["action"], "build");
    proxy.clear();
    let second = document(&second.wait_with_output().unwrap());
    assert_eq!(second["action"], "reuse");
    assert_eq!(second["digest"], first["digest"]);
    let tag = first["reference"].as_str().unwrap().rsplit_once(':');
    let kept = registry.manifest("acme/app", tag.unwrap().1).unwrap();
    assert_eq!(first["digest"], kept.digest.as_str());
    assert_eq!(engine.images(), Vec::<String>::new());
}

/// What steps have made may depend on the base they ran on.
fn an_image_of_steps_is_not_rebased(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let built = pushed(&trilith, &engine, &project);
    let image = built["reference"].as_str().unwrap();
    let before = registry.tags("acme/app");
    let rebase = [
        "rebase",
        image,
        "--new-base",
        &base.reference,
        "--tag",
        "rebased",
    ];
    let error = trilith.error(2, &rebase);
    assert!(error.contains("ran its steps on the base"), "{error}");
    assert_eq!(registry.tags("acme/app"), before);
}
