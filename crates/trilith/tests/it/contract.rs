//! What scripts rely on: the documents of `hash`, `tags`, `plan` and `build`.

use trilith_testkit::{ImageOptions, Project, Registry, RegistryOptions, busybox_image};

use crate::support::{Trilith, path, project, tag};

#[test]
fn hash_answers_as_the_reference_does() {
    let trilith = Trilith::new();
    let project = Project::empty();
    project.write("a.py", "print(1)\n");
    project.write("README.md", "left out\n");
    let json = trilith.json(&["hash", path(&project), "--scheme", "openhands-v1"]);
    assert_eq!(
        json,
        serde_json::json!({
            "digest": "9f78954704acc0be322d1ed3e8c07a33",
            "short": "j02w4lbg2inwc3z6",
            "files": 1,
        })
    );
    let replaced = trilith.json(&[
        "hash",
        path(&project),
        "--scheme",
        "openhands-v1",
        "--ignore",
        "*.py",
    ]);
    assert_eq!(replaced["files"], 1);
    assert_ne!(replaced["digest"], json["digest"]);
}

#[test]
fn hash_fails_as_the_reference_does() {
    let trilith = Trilith::new();
    let project = Project::empty();
    project.write("only.md", "x");
    let error = trilith.error(1, &["hash", path(&project), "--scheme", "openhands-v1"]);
    assert!(error.contains("nothing to hash"), "{error}");

    project.write("d/f", "x");
    std::os::unix::fs::symlink("..", project.path().join("d/loop")).unwrap();
    let error = trilith.error(1, &["hash", path(&project), "--scheme", "openhands-v1"]);
    assert!(error.contains("d/loop"), "{error}");
}

#[test]
fn tags_of_the_reference_need_no_registry() {
    let trilith = Trilith::new();
    let project = Project::empty();
    project.write("pyproject.toml", "[project]\nname='x'\n");
    project.write("uv.lock", "version = 1\n");
    project.write("openhands/a.py", "print(1)\n");
    let json = trilith.json(&[
        "tags",
        "--project",
        path(&project),
        "--scheme",
        "openhands-v1",
        "--base-image",
        "ubuntu:22.04",
        "--version",
        "1.0.0",
        "--source",
        "openhands",
        "--lock-file",
        "pyproject.toml",
        "--lock-file",
        "uv.lock",
        "--suffix",
        "-dev",
        "--no-browser",
    ]);
    assert_eq!(
        json,
        serde_json::json!({
            "scheme": "openhands-v1",
            "source": "v1.0.0_f6rp5k4h8fabahau_j02w4lbg2inwc3z6-dev",
            "lock": "v1.0.0_f6rp5k4h8fabahau-dev",
            "versioned": "v1.0.0_ubuntu_tag_22.04-dev",
            "references": {"source": null, "lock": null, "versioned": null},
        })
    );
}

#[test]
fn a_tag_that_breaks_the_grammar_names_its_cause() {
    let trilith = Trilith::new();
    let project = Project::python();
    let error = trilith.error(
        2,
        &[
            "tags",
            "--project",
            path(&project),
            "--scheme",
            "openhands-v1",
            "--base-image",
            "debian",
            "--version",
            "1.0+local",
        ],
    );
    assert!(error.contains('+') && error.contains("version"), "{error}");
}

#[test]
fn plan_and_build_tell_what_they_do() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let plan = ["plan", "--project", path(&project)];

    let tags = trilith.json(&["tags", "--project", path(&project)]);
    let before = trilith.json(&plan);
    assert_eq!(before["action"], "build");
    assert_eq!(before["from"], base.reference.as_str());
    assert_eq!(
        before["existence"],
        serde_json::json!({
            "versioned": "absent", "lock": "absent", "source": "absent",
        })
    );
    let references = &tags["references"];
    assert_eq!(
        before["tags"],
        serde_json::json!([
            references["versioned"],
            references["lock"],
            references["source"],
        ])
    );
    assert!(!before["reasons"].as_array().unwrap().is_empty());

    let built = trilith.push(&project);
    assert_eq!(built["action"], "build");
    assert_eq!(built["reference"], references["source"]);
    assert_eq!(built["tags"], before["tags"]);
    let layers = built["layers"].as_array().unwrap();
    let levels: Vec<&str> = layers
        .iter()
        .map(|l| l["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels, ["lock", "source"]);
    assert!(layers.iter().all(|layer| layer["reused"] == false));
    assert!(built["uploaded_bytes"].as_u64().unwrap() > 0);
    assert!(built["seconds"].as_f64().unwrap() > 0.0);
    let manifest = registry
        .manifest("acme/app", tag(&references["source"]))
        .unwrap();
    assert_eq!(built["digest"], manifest.digest.as_str());

    let after = trilith.json(&plan);
    assert_eq!(after["action"], "reuse");
    assert_eq!(after["level"], "source");
    assert_eq!(after["from"], references["source"]);
    assert_eq!(after["tags"], serde_json::json!([]));
}

#[test]
fn a_dry_run_writes_nothing() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let json = trilith.json(&["build", "--push", "--dry-run", "--project", path(&project)]);
    assert_eq!(json["action"], "build");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert!(!trilith.store().exists());
}

#[test]
fn results_go_to_stdout_and_nothing_else_does() {
    let trilith = Trilith::new();
    let project = Project::python();
    project.write(
        "trilith.toml",
        crate::support::recipe("localhost:1/a", "scratch"),
    );
    project.write("vendor/x", "");
    let output = trilith.run(&["build", "--project", path(&project), "--format", "json"]);
    assert!(output.status.success());
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("plan: "));
    let quiet = trilith.run(&["build", "--quiet", "--project", path(&project)]);
    assert!(quiet.stderr.is_empty());
}
