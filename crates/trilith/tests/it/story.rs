//! The main job: build, do nothing the second time, and after a change only what it touches.

use trilith_testkit::{
    Format, ImageOptions, Project, Registry, RegistryOptions, busybox_image, debian_image,
    pypi_sdist,
};

use crate::support::{Trilith, assert_complete, lowest_layer, path, project, recipe, tag};

/// Returns `METHOD path` of every request since the last time.
fn requests(registry: &Registry) -> Vec<String> {
    let all = registry.requests();
    registry.forget_requests();
    all.iter()
        .map(|request| format!("{} {}", request.method, request.path))
        .collect()
}

#[test]
fn an_image_has_other_tags_too() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let build =
        |flags: &[&str]| trilith.json(&[&["build", "--project", path(&project)], flags].concat());
    let first = build(&["--push", "--tag", "latest", "--tag", "stable"]);
    let tags: Vec<&str> = first["tags"].as_array().unwrap().iter().map(tag).collect();
    assert_eq!(tags[3..], ["latest", "stable"]);
    let dry = build(&["--push", "--tag", "other", "--dry-run"]);
    assert_eq!(dry["tags"].as_array().unwrap().len(), 1, "{dry}");
    assert_eq!(registry.manifest("acme/app", "other"), None);

    // Neither an input nor a reason to build, and given to what is reused as well.
    let again = build(&["--push", "--tag", "other"]);
    assert_eq!(again["action"], "reuse");
    assert_complete(&registry, "acme/app");
    let digest = |name: &str| {
        let reference = registry.reference(&format!("acme/app:{name}"));
        trilith.json(&["inspect", &reference])["digest"].clone()
    };
    for name in ["latest", "stable", "other"] {
        assert_eq!(digest(name), first["digest"], "{name}");
    }
    // A tag of before is moved.
    project.write("app/main.py", "print(2)\n");
    let changed = build(&["--push", "--tag", "latest"]);
    assert_eq!(digest("latest"), changed["digest"]);
    assert_eq!(digest("stable"), first["digest"]);
    let into_store = build(&["--tag", "latest"]);
    assert_eq!(
        into_store["tags"].as_array().unwrap().len(),
        4,
        "{into_store}"
    );
}

#[test]
fn tags_that_are_skipped_change_nothing_else() {
    let layer = |level: &str, copy: &str| {
        format!("[[layer]]\nlevel = \"{level}\"\ncopy = \"{copy}\"\nto = \"/opt/{copy}\"\n")
    };
    let source = layer("source", "app");
    // The order of the recipe is not that of the image.
    for layers in [
        source.clone(),
        [source, layer("lock", "vendor"), layer("versioned", "tools")].concat(),
    ] {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let project = Project::python();
        project.write("vendor/lib.py", "VALUE = 1\n");
        project.write("tools/run", "true\n");
        let describe = |repository: &str, more: &str| {
            let repository = registry.reference(repository);
            let base = &base.reference;
            let image = format!("repository = \"{repository}\"\nbase = \"{base}\"\n{more}");
            let text = format!("[image]\nversion = \"1.0.0\"\n{image}{layers}");
            project.write("trilith.toml", text);
        };
        let build = |flags: &[&str]| {
            Trilith::new()
                .json(&[&["build", "--push", "--project", path(&project)], flags].concat())
        };
        let written = |built: &serde_json::Value| -> Vec<String> {
            let tags = built["tags"].as_array().unwrap().iter();
            tags.map(|written| tag(written).to_owned()).collect()
        };

        describe("acme/all", "");
        let all = build(&[]);
        let [versioned, lock, source] = <[String; 3]>::try_from(written(&all)).unwrap();
        for (skipped, expected) in [
            ("versioned", vec![lock.as_str(), &source]),
            ("lock", vec![versioned.as_str(), &source]),
            ("versioned,lock", vec![source.as_str()]),
        ] {
            let repository = format!("acme/{}", skipped.replace(',', "-"));
            describe(&repository, "");
            let dry = build(&["--skip-tags", skipped, "--dry-run"]);
            assert_eq!(written(&dry), expected, "{skipped}");
            let fewer = build(&["--skip-tags", skipped]);
            assert_eq!(written(&fewer), expected, "{skipped}");
            assert_eq!(fewer["digest"], all["digest"], "{skipped}");
            assert_eq!(registry.tags(&repository).len(), expected.len());
            for tag in expected {
                let [here, there] =
                    [&repository, "acme/all"].map(|name| registry.manifest(name, tag).unwrap());
                assert_eq!(here.digest, there.digest, "{skipped}: {tag}");
            }
            assert_complete(&registry, &repository);
        }

        // The file says it too, and what is skipped is built from where it is there.
        describe("acme/all", "skip_tags = [\"lock\", \"versioned\"]\n");
        project.write("app/main.py", "print('changed')\n");
        let changed = build(&[]);
        assert_eq!(written(&changed).len(), 1, "{changed}");
        let plan = build(&["--cache-strategy", "lock", "--force", "--dry-run"]);
        assert_eq!(written(&plan), written(&changed));
        assert_eq!(registry.tags("acme/all").len(), 4);
        project.write("app/main.py", "print('changed again')\n");
        let plan = build(&["--dry-run"]);
        assert_eq!(plan["level"], "lock", "{plan}");
    }
    let refused = Trilith::new().error(2, &["build", "--skip-tags", "source"]);
    assert!(
        refused.contains("possible values: versioned, lock"),
        "{refused}"
    );
}

#[test]
fn three_levels_on_one_registry() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);

    let layer = lowest_layer(&registry, "base", &base.digest);
    requests(&registry);
    let first = trilith.push(&project);
    let seen = requests(&registry);
    assert!(
        !seen
            .iter()
            .any(|r| r.starts_with("GET /v2/base/blobs/") && r.contains(&layer)),
        "a layer of the base was downloaded: {seen:#?}"
    );
    assert_complete(&registry, "acme/app");

    requests(&registry);

    // Nothing changed: the base is named by a tag, so what it points to is asked, then the target.
    let second = trilith.push(&project);
    let seen = requests(&registry);
    assert_eq!(second["action"], "reuse");
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert!(
        seen.iter().all(|request| request.starts_with("HEAD ")),
        "{seen:#?}"
    );
    // Both are asked at the same time, and either may be answered first.
    let base_asked = |request: &String| request.starts_with("HEAD /v2/base/manifests/1");
    assert!(seen.iter().any(base_asked), "{seen:#?}");

    // Source changed: one new layer on the lock image.
    project.write("app/main.py", "print('changed')\n");
    let third = trilith.push(&project);
    let reused = |json: &serde_json::Value| -> Vec<bool> {
        let layers = json["layers"].as_array().unwrap();
        layers
            .iter()
            .map(|layer| layer["reused"].as_bool().unwrap())
            .collect()
    };
    assert_eq!(reused(&third), [true, false]);
    assert_eq!(third["tags"].as_array().unwrap().len(), 1);
    assert_eq!(third["layers"][0]["digest"], first["layers"][0]["digest"]);
    let seen = requests(&registry);
    assert!(
        !seen
            .iter()
            .any(|request| request.contains("/v2/base/blobs/")),
        "{seen:#?}"
    );
    // What the lock image is made of is known, as it was made here.
    let read: Vec<_> = seen.iter().filter(|r| r.starts_with("GET ")).collect();
    assert!(read.is_empty(), "{read:#?}");

    // Lock changed: the versioned image serves, and its tag is left alone.
    project.write("vendor/lib.py", "VALUE = 2\n");
    let fourth = trilith.push(&project);
    assert_eq!(fourth["tags"].as_array().unwrap().len(), 2);
    let seen = requests(&registry);
    assert!(!seen.iter().any(|r| r.starts_with("GET ")), "{seen:#?}");
    assert_eq!(reused(&fourth), [false, true]);

    // Base changed: everything is tagged anew, and both layers are reused.
    let other = busybox_image(
        &registry,
        "base:2",
        &ImageOptions {
            format: Format::DockerV2s2,
            ..ImageOptions::default()
        },
    );
    project.write(
        "trilith.toml",
        recipe(&registry.reference("acme/app"), &other.reference),
    );
    let fifth = trilith.push(&project);
    assert_eq!(fifth["tags"].as_array().unwrap().len(), 3);
    assert_eq!(reused(&fifth), [true, true]);
    assert_complete(&registry, "acme/app");
}

#[test]
fn nothing_changed_is_one_head() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(
        &registry,
        "acme/app",
        &registry.reference(&format!("base@{}", base.digest)),
    );
    let first = trilith.push(&project);
    requests(&registry);
    trilith.push(&project);
    let source = format!("HEAD /v2/acme/app/manifests/{}", tag(&first["reference"]));
    assert_eq!(requests(&registry), [source]);

    // A machine that has never seen the image checks the key it carries before it reuses it.
    let elsewhere = Trilith::new();
    assert_eq!(elsewhere.push(&project)["action"], "reuse");
    requests(&registry);
    assert_eq!(elsewhere.push(&project)["action"], "reuse");
    assert_eq!(requests(&registry).len(), 1);
}

#[test]
fn a_tag_with_other_inputs_behind_it_is_replaced() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let first = trilith.push(&project);
    // Somebody moves the source tag to the base.
    let reference = first["reference"].as_str().unwrap();
    trilith.json(&["copy", &base.reference, reference]);
    let plan = trilith.json(&["plan", "--project", path(&project)]);
    assert_eq!(plan["existence"]["source"], "stale");
    let second = trilith.push(&project);
    assert_eq!(second["action"], "build");
    assert_eq!(second["digest"], first["digest"]);
}

#[test]
fn force_replaces_all_three_tags() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let first = trilith.push(&project);
    let forced = trilith.json(&["build", "--push", "--force", "--project", path(&project)]);
    assert_eq!(forced["action"], "build");
    assert_eq!(forced["tags"].as_array().unwrap().len(), 3);
    assert_eq!(forced["digest"], first["digest"]);
}

#[test]
fn every_base_format_is_grafted_in_kind() {
    let registry = Registry::start(RegistryOptions::default());
    let trilith = Trilith::new();
    let zstd = ImageOptions {
        compression: trilith_testkit::Compression::Zstd,
        ..ImageOptions::default()
    };
    let docker = ImageOptions {
        format: Format::DockerV2s2,
        ..ImageOptions::default()
    };
    for (name, options) in [
        ("oci", ImageOptions::default()),
        ("zstd", zstd),
        ("docker", docker),
        ("oci-index", ImageOptions::multi_platform(Format::Oci)),
        (
            "docker-index",
            ImageOptions::multi_platform(Format::DockerV2s2),
        ),
    ] {
        let base = busybox_image(&registry, &format!("{name}:1"), &options);
        let repository = format!("app/{name}");
        let project = project(&registry, &repository, &base.reference);
        let built = trilith.push(&project);
        let manifest = registry
            .manifest(&repository, tag(&built["reference"]))
            .unwrap();
        let docker = manifest.media_type.contains("docker");
        assert_eq!(docker, options.format == Format::DockerV2s2, "{name}");
        assert_eq!(
            manifest.json()["layers"].as_array().unwrap().len(),
            4,
            "{name}"
        );
        assert_complete(&registry, &repository);
    }
}

#[test]
fn several_platforms_make_an_index() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(
        &registry,
        "base:1",
        &ImageOptions::multi_platform(Format::Oci),
    );
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let built = trilith.json(&[
        "build",
        "--push",
        "--project",
        path(&project),
        "--platform",
        "linux/amd64",
        "--platform",
        "linux/arm64",
    ]);
    let manifest = registry
        .manifest("acme/app", tag(&built["reference"]))
        .unwrap()
        .json();
    let platforms: Vec<String> = manifest["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| {
            child["platform"]["architecture"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    assert_complete(&registry, "acme/app");
}

#[test]
fn the_local_store_needs_no_registry_of_its_own() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let first = trilith.json(&["build", "--project", path(&project)]);
    assert_eq!(first["action"], "build");
    let second = trilith.json(&["build", "--project", path(&project)]);
    assert_eq!(second["action"], "reuse");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    // What is pushed later is the same image.
    assert_eq!(trilith.push(&project)["digest"], first["digest"]);
}

#[test]
fn a_real_project_on_a_real_debian() {
    let registry = Registry::start(RegistryOptions::default());
    let base = debian_image(&registry, "debian:bookworm", Format::Oci, true);
    let trilith = Trilith::new();
    let project = Project::copy_of(&pypi_sdist("flask", "3.1.2"));
    project.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{}\"\nbase = \"{}\"\n\
             [inputs]\nlock = [\"pyproject.toml\", \"uv.lock\"]\n\
             [[layer]]\nlevel = \"source\"\ncopy = \"src\"\nto = \"/opt/flask\"\n\
             [config]\nentrypoint = [\"/usr/bin/python3\"]\nenv = {{ PYTHONPATH = \"/opt/flask\" }}\n",
            registry.reference("acme/flask"),
            base.reference
        ),
    );
    let first = trilith.push(&project);
    assert!(tag(&first["reference"]).starts_with("v3.1.2_"), "{first}");
    assert_eq!(trilith.push(&project)["action"], "reuse");
    project.write("src/flask/extra.py", "x = 1\n");
    let changed = trilith.push(&project);
    assert_eq!(changed["tags"].as_array().unwrap().len(), 1);
    assert_complete(&registry, "acme/flask");
}

#[test]
fn a_layer_out_of_another_image() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let tool = project(&registry, "acme/tool", &base.reference);
    let built = trilith.push(&tool);
    let user = Project::empty();
    user.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{}\"\nversion = \"1\"\nbase = \"scratch\"\n\
             [[layer]]\nlevel = \"lock\"\nfrom = {}\ncopy = \"/opt/app/data\"\nto = \"/data\"\n",
            registry.reference("acme/user"),
            built["reference"],
        ),
    );
    let first = trilith.push(&user);
    assert_eq!(first["layers"].as_array().unwrap().len(), 1);
    let rootfs = user.path().join("rootfs");
    let reference = first["reference"].as_str().unwrap();
    trilith.json(&["copy", reference, &format!("dir:{}", rootfs.display())]);
    let copied = std::fs::read_to_string(rootfs.join("data/settings.json")).unwrap();
    assert_eq!(copied, tool.read("app/data/settings.json"));
    assert_eq!(trilith.push(&user)["action"], "reuse");

    // The other image is an input: when its tag moves, the layer is made anew.
    let moved = Trilith::new().json(&["build", "--push", "--project", path(&user)]);
    assert_eq!(moved["digest"], first["digest"]);
    let missing = user
        .read("trilith.toml")
        .replace("/opt/app/data", "/opt/none");
    user.write("trilith.toml", missing);
    let error = trilith.error(1, &["build", "--push", "--project", path(&user)]);
    assert!(error.contains("/opt/none"), "{error}");
}

#[test]
fn a_layer_that_is_all_of_what_is_copied_is_mounted() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let tool = project(&registry, "acme/tool", &base.reference);
    let built = Trilith::new().push(&tool);
    let layers = built["layers"].as_array().unwrap();
    let of_vendor = layers.iter().find(|layer| layer["level"] == "lock");
    let of_vendor = of_vendor.unwrap()["digest"].as_str().unwrap();
    let user = Project::empty();
    user.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{}\"\nversion = \"1\"\nbase = \"scratch\"\n\
             [[layer]]\nlevel = \"lock\"\nfrom = {}\ncopy = \"/opt/app/vendor\"\nto = \"/opt/app/vendor\"\n",
            registry.reference("acme/user"),
            built["reference"],
        ),
    );
    let trilith = Trilith::new();
    registry.forget_requests();
    let first = trilith.push(&user);
    assert_eq!(first["layers"][0]["digest"], of_vendor, "{first}");
    assert_eq!(first["layers"][0]["reused"], true, "{first}");
    let uploads = registry.requests();
    let uploads = uploads
        .iter()
        .filter(|r| r.method == "PUT" && r.path.contains(of_vendor));
    assert_eq!(uploads.count(), 0, "the blob is mounted");
    // The store has it copied, and another registry gets it sent.
    let stored = trilith.json(&["build", "--project", path(&user)]);
    assert_eq!(stored["digest"], first["digest"]);
    let elsewhere = Registry::start(RegistryOptions::default());
    let other = elsewhere.reference("acme/user");
    let sent = trilith.json(&[
        "build",
        "--push",
        "--project",
        path(&user),
        "--repository",
        &other,
    ]);
    assert_eq!(sent["digest"], first["digest"]);
    assert_complete(&elsewhere, "acme/user");
}
