//! Layers put on another base: the same as a build on it, or refused.

use serde_json::Value;
use trilith_testkit::{
    Compression, Format, ImageOptions, Registry, RegistryOptions, busybox_image,
};

use crate::support::{Trilith, assert_complete, path, project, tag};

/// A registry, an image on its `base:1`, and the name of another base.
struct Scene {
    registry: Registry,
    project: trilith_testkit::Project,
    trilith: Trilith,
    image: String,
}

impl Scene {
    fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let project = project(&registry, "acme/app", &base.reference);
        let trilith = Trilith::new();
        let image = trilith.push(&project)["reference"]
            .as_str()
            .unwrap()
            .to_owned();
        Self {
            registry,
            project,
            trilith,
            image,
        }
    }

    /// Pushes another base, which differs in its layers.
    fn base(&self, name: &str) -> String {
        let options = ImageOptions {
            compression: Compression::None,
            ..ImageOptions::default()
        };
        busybox_image(&self.registry, name, &options).reference
    }

    fn rebase(&self, trilith: &Trilith, flags: &[&str]) -> Value {
        let mut arguments = vec!["rebase", &self.image, "--tag", "rebased"];
        arguments.extend(flags);
        let report = trilith.json(&arguments);
        assert_complete(&self.registry, "acme/app");
        report
    }

    /// Returns what is said of a rebase that is refused, and checks that nothing has changed.
    fn refused(&self, code: i32, image: &str, flags: &[&str]) -> String {
        let before = self.registry.tags("acme/app");
        let mut arguments = vec!["rebase", image, "--tag", "rebased"];
        arguments.extend(flags);
        let error = self.trilith.error(code, &arguments);
        assert_eq!(self.registry.tags("acme/app"), before);
        error
    }
}

#[test]
fn it_is_what_a_build_on_the_new_base_is() {
    let scene = Scene::new();
    let base = scene.base("base:2");
    // A machine that has neither the project nor its layers.
    let stranger = Trilith::new();
    scene.registry.forget_requests();
    let report = scene.rebase(&stranger, &["--new-base", &base]);
    assert_eq!(
        (&report["layers"], &report["uploaded_layer_bytes"]),
        (&2.into(), &0.into())
    );
    let requests = scene.registry.requests();
    let image = stranger.json(&["inspect", &scene.image]);
    let layers = image["layers"].as_array().unwrap();
    let layers: Vec<&str> = layers
        .iter()
        .map(|l| l["digest"].as_str().unwrap())
        .collect();
    let is_read = |digest: &&str| {
        let mut read = requests.iter().filter(|request| request.method == "GET");
        read.any(|request| request.path.contains(digest))
    };
    assert!(
        !layers.iter().any(is_read),
        "layers are neither read nor written"
    );
    let inspected = stranger.json(&["inspect", report["reference"].as_str().unwrap()]);
    assert_eq!(inspected["digest"], report["digest"]);
    let key = inspected["inputs"]["key"].as_str().unwrap().to_owned();
    assert_eq!(inspected["labels"]["dev.trilith.key.source"], key.as_str());

    let flags = [
        "build",
        "--push",
        "--project",
        path(&scene.project),
        "--base-image",
        &base,
    ];
    let built = scene.trilith.json(&flags);
    assert_eq!(built["action"], "build");
    assert_eq!(built["digest"], report["digest"]);
    // Under its own tag it would have been found.
    let own = tag(&built["reference"]).to_owned();
    scene.trilith.json(&[
        "copy",
        &scene.registry.reference("acme/app:rebased"),
        &scene.registry.reference(&format!("acme/app:{own}")),
    ]);
    assert_eq!(stranger.json(&flags)["action"], "reuse");

    // And back: to where it came from.
    let back = [
        "rebase",
        &scene.registry.reference("acme/app:rebased"),
        "--tag",
        "back",
    ];
    let old = scene.registry.reference("base:1");
    let back = stranger.json(&[&back[..], &["--new-base", &old]].concat());
    let first = stranger.json(&["inspect", &scene.image]);
    assert_eq!(back["digest"], first["digest"]);
}

#[test]
fn bases_in_other_repositories_and_formats() {
    let scene = Scene::new();
    let base = scene.base("other/base:2");
    let error = scene.refused(2, &scene.image, &["--new-base", &base]);
    assert!(error.contains("--old-base"), "{error}");
    let old = scene.registry.reference("base:1");
    let report = scene.rebase(&scene.trilith, &["--new-base", &base, "--old-base", &old]);
    assert_eq!(report["uploaded_layer_bytes"], 0);
    let options = ImageOptions {
        format: Format::DockerV2s2,
        ..ImageOptions::default()
    };
    let docker = busybox_image(&scene.registry, "base:docker", &options).reference;
    let report = scene.rebase(&scene.trilith, &["--new-base", &docker]);
    let flags = [
        "build",
        "--push",
        "--project",
        path(&scene.project),
        "--base-image",
        &docker,
    ];
    assert_eq!(scene.trilith.json(&flags)["digest"], report["digest"]);
}

#[test]
fn what_graft_did_not_make_is_refused() {
    let scene = Scene::new();
    let base = scene.base("base:2");
    let foreign = scene.registry.reference("base:1");
    let error = scene.refused(1, &foreign, &["--new-base", &base]);
    assert!(error.contains("carries no list of inputs"), "{error}");
    // An image that stands on nothing.
    scene.project.write(
        "trilith.toml",
        crate::support::recipe(&scene.registry.reference("acme/app"), "scratch"),
    );
    let on_nothing = scene.trilith.push(&scene.project);
    let on_nothing = on_nothing["reference"].as_str().unwrap();
    let error = scene.refused(2, on_nothing, &["--new-base", &base]);
    assert!(
        error.contains("stands on no base") && error.contains("hint: "),
        "{error}"
    );
    // A base that is not there.
    let gone = scene.registry.reference("base:gone");
    let error = scene.refused(1, &scene.image, &["--new-base", &gone]);
    assert!(error.contains("base:gone"), "{error}");
}

#[test]
fn several_platforms_are_rebased_together() {
    let scene = Scene::new();
    let several = |name: &str, compression| {
        let options = ImageOptions {
            compression,
            ..ImageOptions::multi_platform(Format::Oci)
        };
        busybox_image(&scene.registry, name, &options).reference
    };
    let old = several("base:several", Compression::Gzip);
    let new = several("base:new", Compression::None);
    let build = |base: &str| {
        let base = ["--base-image", base, "--platform", "linux/amd64"];
        let flags = [
            "--platform",
            "linux/arm64",
            "--project",
            path(&scene.project),
        ];
        let build = [&["build", "--push"][..], &base, &flags].concat();
        scene.trilith.json(&build)
    };
    let first = build(&old);
    let image = first["reference"].as_str().unwrap();
    let rebase = ["rebase", image, "--tag", "rebased", "--new-base"];
    let report = scene.trilith.json(&[&rebase[..], &[&new]].concat());
    assert_complete(&scene.registry, "acme/app");
    assert_eq!(report["uploaded_layer_bytes"], 0);
    assert_eq!(build(&new)["digest"], report["digest"]);
    // A base that one of the platforms is missing in.
    let single = scene.registry.reference("base:1");
    let error = scene.refused(1, image, &["--new-base", &single]);
    assert!(error.contains("arm64"), "{error}");
}
