//! The agent in images: one layer, the same for all, at the bottom.

use serde_json::Value;
use trilith_testkit::{
    Compression, ImageOptions, Project, Registry, RegistryOptions, busybox_image, many_bases,
};

use crate::support::{Trilith, assert_complete, path, project};

const INJECT: &str = "\n[agent]\ninject = true\n";

/// Adds to the recipe of `project`.
fn add(project: &Project, text: &str) {
    let recipe = project.read("trilith.toml");
    project.write("trilith.toml", recipe + text);
}

/// Returns the digests of the layers that were put on the base, bottom first.
fn layers(built: &Value) -> Vec<&str> {
    let layers = built["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["digest"].as_str().unwrap())
        .collect()
}

#[test]
fn one_layer_for_every_base_and_every_project() {
    let registry = Registry::start(RegistryOptions::default());
    let first = busybox_image(&registry, "base:1", &ImageOptions::default());
    let options = ImageOptions {
        compression: Compression::None,
        ..ImageOptions::default()
    };
    let second = busybox_image(&registry, "base:2", &options);
    let one = project(&registry, "acme/one", &first.reference);
    let plain = Trilith::new().push(&one);
    add(&one, INJECT);
    let trilith = Trilith::new();

    // What was built without says what is new.
    let image = plain["reference"].as_str().unwrap();
    let why = trilith.json(&["explain", image, "--project", path(&one)]);
    let added: Vec<&str> = why["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            assert_eq!(
                (&change["level"], &change["change"]),
                (&"versioned".into(), &"added".into())
            );
            change["input"].as_str().unwrap()
        })
        .collect();
    assert_eq!(added, ["file/.trilith/agent//", "layer/.trilith/agent"]);
    assert_eq!(why["layers"][0]["to"], "/.trilith/agent");

    let with = trilith.push(&one);
    assert_eq!(layers(&with)[1..], layers(&plain)[..]);
    assert_eq!(with["layers"][0]["level"], "versioned");
    let agent = layers(&with)[0];

    // Another base, another project, another machine.
    let other = Project::python();
    other.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{}\"\nversion = \"2\"\nbase = \"{}\"\n{INJECT}\
             [[layer]]\nlevel = \"versioned\"\ncopy = \"app\"\nto = \"/srv\"\n",
            registry.reference("acme/two"),
            second.reference
        ),
    );
    assert_eq!(layers(&Trilith::new().push(&other))[0], agent);
    assert_eq!(layers(&trilith.push(&other))[0], agent);

    // It stays when the source changes, and goes when it is not wanted.
    one.write("app/main.py", "print('changed')\n");
    let changed = trilith.push(&one);
    assert_eq!(changed["layers"][0]["digest"], agent);
    assert_eq!(changed["layers"][0]["reused"], true);
    assert_eq!(changed["tags"].as_array().unwrap().len(), 1);
    let without = trilith.json(&["tags", "--inject-agent=false", "--project", path(&one)]);
    let plain_lock = plain["tags"][1].as_str().unwrap();
    assert_eq!(without["references"]["lock"], plain_lock);

    // It comes along to another base.
    let image = changed["reference"].as_str().unwrap();
    let rebased = trilith.json(&[
        "rebase",
        image,
        "--new-base",
        &second.reference,
        "--tag",
        "rebased",
    ]);
    assert_eq!(rebased["layers"], 3);
    let built = trilith.json(&[
        "build",
        "--push",
        "--base-image",
        &second.reference,
        "--project",
        path(&one),
    ]);
    assert_eq!(rebased["digest"], built["digest"]);
    assert_complete(&registry, "acme/one");
    assert_complete(&registry, "acme/two");
}

#[test]
fn a_batch_shares_it() {
    let registry = Registry::start(RegistryOptions::default());
    busybox_image(&registry, "base:1", &ImageOptions::default());
    let names = many_bases(&registry, ("base", "1"), "eval", 4);
    let project = project(&registry, "acme/app", "scratch");
    add(&project, INJECT);
    let trilith = Trilith::new();
    let agent = trilith.json(&["build", "--project", path(&project)]);
    let agent = layers(&agent)[0].trim_start_matches("sha256:").to_owned();
    let references = names.iter().map(|name| registry.reference(name) + "\n");
    let list = trilith.home().join("bases.txt");
    std::fs::write(&list, references.collect::<String>()).unwrap();
    registry.forget_requests();
    let list = list.to_str().unwrap();
    let batch = ["batch", "--push", "--project", path(&project), "--bases"];
    let summary = trilith.json(&[&batch[..], &[list]].concat());
    assert_eq!(summary["built"], 4);
    let requests = registry.requests();
    let sent = requests
        .iter()
        .filter(|request| request.method == "PUT" && request.path.ends_with(&agent))
        .count();
    assert_eq!(sent, 1);

    // One line of the list is for a platform that has no agent: nothing begins.
    let wrong = trilith.home().join("wrong.txt");
    let line = format!(
        "base,platform\n{},linux/s390x\n",
        registry.reference(&names[0])
    );
    std::fs::write(&wrong, line).unwrap();
    let error = trilith.error(2, &[&batch[..], &[wrong.to_str().unwrap()]].concat());
    assert!(error.contains("no agent for `linux/s390x`"), "{error}");
}

#[test]
fn what_cannot_have_it_is_refused() {
    let project = Project::python();
    let recipe =
        "[image]\nrepository = \"localhost:1/acme/app\"\nversion = \"1\"\nbase = \"scratch\"\n";
    project.write("trilith.toml", format!("{recipe}{INJECT}"));
    project.write("Dockerfile", "FROM scratch\nCOPY app /app\n");
    let trilith = Trilith::new();
    let refused = |flags: &[&str]| {
        let build = ["build", "--project", path(&project)];
        trilith.error(2, &[&build[..], flags].concat())
    };
    let error = refused(&["--platform", "linux/amd64", "--platform", "linux/arm64"]);
    assert!(error.contains("there is no agent for `linux/"), "{error}");
    let elsewhere = ["--dockerfile", "Dockerfile", "--platform", "linux/s390x"];
    let error = refused(&elsewhere);
    assert!(error.contains("no agent for `linux/s390x`"), "{error}");
    let error = refused(&["--inject-agent=perhaps"]);
    assert!(error.contains("--inject-agent"), "{error}");
    let error = refused(&["--preset", "openhands-v1", "--inject-agent"]);
    assert!(error.contains("--inject-agent"), "{error}");
    project.write("trilith.toml", format!("{recipe}[agent]\ninject = 1\n"));
    let error = refused(&[]);
    assert!(
        error.contains("`agent.inject`") && error.contains("`true` or `false`"),
        "{error}"
    );
    project.write(
        "trilith.toml",
        format!("{recipe}[agent]\nuser = \"1000\"\n"),
    );
    let error = refused(&[]);
    assert!(error.contains("it belongs under `[config]`"), "{error}");
    assert!(!trilith.store().exists());
}
