//! Why would this rebuild?

use trilith_testkit::{ImageOptions, Project, Registry, RegistryOptions, busybox_image};

use crate::support::{Trilith, path, project, recipe, tag};

/// Returns `level change input` of every change.
fn changes(json: &serde_json::Value) -> Vec<String> {
    let changes = json["changes"].as_array().unwrap().iter();
    let line = |c: &serde_json::Value| {
        let word = |name: &str| c[name].as_str().unwrap().to_owned();
        format!("{} {} {}", word("level"), word("change"), word("input"))
    };
    changes.map(line).collect()
}

#[test]
fn names_what_changed_and_what_it_costs() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let built = trilith.push(&project);
    let reference = built["reference"].as_str().unwrap();

    let same = trilith.json(&["explain", "--project", path(&project)]);
    assert_eq!(same["rebuild"], false);
    assert_eq!(same["image"], reference);

    project.write("app/main.py", "print('changed')\n");
    project.write("app/new.py", "");
    project.remove("app/data");
    // Another machine knows the image from the registry alone.
    let elsewhere = Trilith::new();
    for json in [
        trilith.json(&["explain", "--project", path(&project)]),
        elsewhere.json(&["explain", reference, "--project", path(&project)]),
    ] {
        assert_eq!(
            changes(&json),
            [
                "source removed file/opt/app//data",
                "source removed file/opt/app//data/settings.json",
                "source changed file/opt/app//main.py",
                "source added file/opt/app//new.py",
            ]
        );
        assert_eq!(json["from_level"], "source");
        assert_eq!(json["digest"], built["digest"]);
        assert!(
            json["cost"]
                .as_str()
                .unwrap()
                .starts_with("source layer only, "),
            "{json}"
        );
    }

    // An image of a lower level is compared up to its level.
    let manifest = registry
        .manifest("acme/app", tag(&built["tags"][1]))
        .unwrap();
    let lock = registry.reference(&format!("acme/app@{}", manifest.digest));
    let json = trilith.json(&["explain", &lock, "--project", path(&project)]);
    assert_eq!(json["rebuild"], false);

    let other = busybox_image(
        &registry,
        "base:2",
        &ImageOptions::multi_platform(trilith_testkit::Format::Oci),
    );
    project.write(
        "trilith.toml",
        recipe(&registry.reference("acme/app"), &other.reference),
    );
    let json = trilith.json(&["explain", "--project", path(&project)]);
    assert_eq!(changes(&json)[0], "versioned changed base");
    assert_eq!(json["from_level"], "versioned");
}

#[test]
fn says_what_is_missing() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let error = trilith.error(1, &["explain", "--project", path(&project)]);
    assert!(error.contains("has not been built") && error.contains("trilith explain IMAGE"));
    let error = trilith.error(
        1,
        &["explain", &base.reference, "--project", path(&project)],
    );
    assert!(error.contains("carries no list of inputs"), "{error}");
}

#[test]
fn works_on_the_local_store_and_on_layouts() {
    let trilith = Trilith::new();
    let project = Project::python();
    project.write("vendor/x", "1");
    project.write("trilith.toml", recipe("localhost:1/app", "scratch"));
    let out = format!("oci:{}/out", path(&project));
    trilith.json(&["build", "--project", path(&project), "--output", &out]);
    project.write("vendor/x", "2");
    for json in [
        trilith.json(&["explain", "--project", path(&project)]),
        trilith.json(&["explain", &out, "--project", path(&project)]),
    ] {
        assert_eq!(changes(&json), ["lock changed file/opt/app/vendor//x"]);
        assert_eq!(json["cost"], "lock layer only, 1 B");
    }
}

/// Where the list is too long to be in the image, and where another tool has made something of an image
/// that has one.
#[test]
fn finds_the_list_beside_the_image_and_no_other_image_s() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let below = project(&registry, "acme/below", &base.reference);
    let below = trilith.push(&below);
    let below = below["reference"].as_str().unwrap();

    let project = project(&registry, "acme/app", below);
    for number in 0..800 {
        project.write(&format!("app/many/{number}"), "");
    }
    let built = trilith.push(&project);
    let reference = built["reference"].as_str().unwrap();
    project.remove("app/many/7");
    let json = Trilith::new().json(&["explain", reference, "--project", path(&project)]);
    assert_eq!(changes(&json), ["source removed file/opt/app//many/7"]);
    let tags = registry.tags("acme/app");
    let listed = tags.iter().filter(|tag| tag.starts_with("sha256-"));
    assert_eq!(listed.count(), 1, "{tags:?}");
    let tags = registry.tags("acme/below");
    assert!(
        !tags.iter().any(|tag| tag.starts_with("sha256-")),
        "{tags:?}"
    );
}
