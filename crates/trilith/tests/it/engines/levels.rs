//! What is built from what, and which tags move.

use serde_json::Value;
use trilith_testkit::{ImageOptions, Registry, RegistryOptions, busybox_image};

use super::parts::*;
use crate::support::{Trilith, on, path};

on! {
    [docker_20, docker_26, docker_with_containerd, podman_4, podman_5, buildkit]:
    three_levels,
    a_dockerfile_without_levels_has_all_tags,
    tags_that_are_skipped,
    templates_are_told_what_they_start_from,
    several_platforms_are_one_index,
}

fn three_levels(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = project(&registry, &base.reference);
    let (first_engine, trilith) = (engine(), Trilith::new());

    let first = pushed(&trilith, &first_engine, &project);
    assert_eq!((&first["action"], tags(&first)), (&"build".into(), 3));
    let before = stamps(&trilith, &first["reference"]);
    assert_eq!(before.len(), 3);
    assert_eq!(first["telemetry"]["cache_misses"], 5, "{first}");
    assert_eq!(first_engine.images(), Vec::<String>::new());

    // Nothing changed: the engine is not asked for anything, not even whether it is there.
    drop(first_engine);
    let nowhere = Engine::nowhere();
    let same = pushed(&trilith, &nowhere, &project);
    assert_eq!(same["action"], "reuse");
    assert_eq!(same["digest"], first["digest"]);
    // What no stage copies is no input.
    project.write("notes.txt", "still nothing\n");
    assert_eq!(pushed(&trilith, &nowhere, &project)["action"], "reuse");

    // The source changed: an engine with a cold cache builds on the lock image.
    let cold = engine();
    project.write("app/run", "#!/bin/sh\necho changed\n");
    let why = trilith.json(&["explain", "--project", path(&project)]);
    assert_eq!(why["changes"][0]["input"], "context//app/run", "{why}");
    assert_eq!(
        why["cost"], "source steps only, with 23 B of context",
        "{why}"
    );
    let shown = trilith.run(&["explain", "--project", path(&project)]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("  changed context/app/run\n"), "{shown}");
    let changed = pushed(&trilith, &cold, &project);
    assert_eq!(tags(&changed), 1, "{changed}");
    let after = stamps(&trilith, &changed["reference"]);
    assert_eq!(after["deps"], before["deps"]);
    assert_eq!(after["base"], before["base"]);
    assert_ne!(after["runtime"], before["runtime"]);
    assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
    assert_eq!(cold.images(), Vec::<String>::new());

    // A dependency changed: it builds on the versioned image.
    project.write("requirements.lock", "one==2\n");
    let why = trilith.json(&["explain", "--project", path(&project)]);
    let cost = "lock and source steps, with 30 B of context";
    assert_eq!(why["cost"], cost, "{why}");
    let relocked = pushed(&trilith, &cold, &project);
    assert_eq!(tags(&relocked), 2, "{relocked}");
    let after = stamps(&trilith, &relocked["reference"]);
    assert_eq!(after["base"], before["base"]);
    assert_ne!(after["deps"], before["deps"]);

    // The base changed: it builds on that.
    let other = trilith_testkit::Compression::None;
    let options = ImageOptions {
        compression: other,
        ..ImageOptions::default()
    };
    let base = busybox_image(&registry, "base:2", &options);
    project.write("trilith.toml", recipe(&registry, &base.reference));
    let rebased = pushed(&trilith, &cold, &project);
    assert_eq!(tags(&rebased), 3, "{rebased}");
    let after = stamps(&trilith, &rebased["reference"]);
    assert_ne!(after["base"], before["base"]);

    // Whoever has built nothing finds all of it.
    let elsewhere = Trilith::new();
    assert_eq!(pushed(&elsewhere, &nowhere, &project)["action"], "reuse");
    let inspected = elsewhere.json(&["inspect", rebased["reference"].as_str().unwrap()]);
    assert_eq!(
        inspected["labels"]["dev.trilith.level"], "source",
        "{inspected}"
    );
}

fn a_dockerfile_without_levels_has_all_tags(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let recipe = recipe(&registry, &base.reference);
    let (plain, _levels) = recipe.split_once("levels = ").unwrap();
    let config = "[config]\nuser = \"10001:10001\"\nenv = { GREETING = \"say \\\"$HOME\\\"\" }\n";
    project.write(
        "trilith.toml",
        format!("{plain}args = {{ UNUSED = \"1\" }}\n{config}"),
    );
    let first = pushed(&trilith, &engine, &project);
    assert_eq!(tags(&first), 3);
    let digests: Vec<Value> = first["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| trilith.json(&["inspect", tag.as_str().unwrap()])["digest"].clone())
        .collect();
    assert!(digests.iter().all(|digest| *digest == first["digest"]));
    let inspected = trilith.json(&["inspect", first["reference"].as_str().unwrap()]);
    let config = inspected.to_string();
    assert!(config.contains("10001:10001"), "{config}");
    assert!(config.contains(r#"say \"$HOME\""#), "{config}");

    // What changes moves the tags of its level and above, and all of it is built again.
    for (file, content, moved) in [
        ("app/run", "other\n", 1),
        ("requirements.lock", "other==1\n", 2),
        ("Dockerfile", &DOCKERFILE.replace("/opt/app/run", "/x"), 3),
    ] {
        let before = level_tags(&registry);
        project.write(file, content);
        assert_eq!(tags(&pushed(&trilith, &engine, &project)), 3, "{file}");
        assert_eq!(level_tags(&registry) - before, moved, "{file}");
    }
    let forced = built(&trilith, &engine, &project, &["--push", "--force"]);
    assert_eq!((&forced["action"], tags(&forced)), (&"build".into(), 3));
}

fn tags_that_are_skipped(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let skip = ["--push", "--skip-tags", "versioned,lock"];
    let first = built(&trilith, &engine, &project, &skip);
    assert_eq!(tags(&first), 1, "{first}");
    assert_eq!(level_tags(&registry), 1);
    assert_eq!(stamps(&trilith, &first["reference"]).len(), 3);
    assert_eq!(engine.images(), Vec::<String>::new());

    // A lower level is one question away for a build that writes it.
    project.write("app/run", "#!/bin/sh\necho changed\n");
    let second = built(
        &trilith,
        &engine,
        &project,
        &["--push", "--skip-tags", "versioned"],
    );
    assert_eq!((tags(&second), level_tags(&registry)), (2, 3), "{second}");
    project.write("app/run", "#!/bin/sh\necho changed again\n");
    let third = built(&trilith, &engine, &project, &skip);
    assert_eq!((tags(&third), level_tags(&registry)), (1, 4), "{third}");
    let lock = stamps(&trilith, &second["tags"][0]);
    let source = stamps(&trilith, &third["reference"]);
    assert_eq!(source["deps"], lock["deps"]);
}

fn templates_are_told_what_they_start_from(engine: Start) {
    const TEMPLATE: &str = "\
FROM {{ base_image }}
{% if build_from_scratch %}RUN mkdir /stamps && cat /proc/sys/kernel/random/uuid > /stamps/base
{% endif %}{% if build_from_scratch or build_from_versioned %}COPY requirements.lock /deps/
RUN cat /proc/sys/kernel/random/uuid > /stamps/deps && echo '{{ extra_deps }}' > /deps/extra
{% endif %}COPY app /opt/app
RUN echo {{ build_from }} > /stamps/runtime
";
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let recipe = recipe(&registry, &base.reference);
    let (plain, _levels) = recipe.split_once("path = ").unwrap();
    project.write(
        "trilith.toml",
        format!("{plain}template = \"Dockerfile.j2\"\n"),
    );
    project.write("Dockerfile.j2", TEMPLATE);
    let first = pushed(&trilith, &engine, &project);
    let before = stamps(&trilith, &first["reference"]);
    assert_eq!((tags(&first), before["runtime"].as_str()), (3, "scratch\n"));
    project.write("app/run", "other\n");
    let changed = pushed(&trilith, &engine, &project);
    let after = stamps(&trilith, &changed["reference"]);
    assert_eq!((tags(&changed), after["runtime"].as_str()), (1, "lock\n"));
    assert_eq!(after["deps"], before["deps"]);
    let flags = ["--push", "--extra-deps", "git"];
    let extra = built(&trilith, &engine, &project, &flags);
    let after = stamps(&trilith, &extra["reference"]);
    assert_eq!(
        (tags(&extra), after["runtime"].as_str()),
        (2, "versioned\n")
    );
    assert_eq!(after["base"], before["base"]);
}

fn several_platforms_are_one_index(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let options = ImageOptions::multi_platform(trilith_testkit::Format::Oci);
    let base = busybox_image(&registry, "base:1", &options);
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    // Nothing runs here what is made for another machine.
    let copies: Vec<&str> = DOCKERFILE
        .lines()
        .filter(|line| !line.starts_with("RUN"))
        .collect();
    let first = "AS base\nARG TARGETARCH\nENV ARCHITECTURE=$TARGETARCH\n";
    let dockerfile = copies.join("\n").replacen("AS base\n", first, 1);
    project.write("Dockerfile", dockerfile);
    let platforms = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    let flags = [&["--push"][..], &platforms].concat();
    let first = built(&trilith, &engine, &project, &flags);
    let tag = first["reference"]
        .as_str()
        .unwrap()
        .rsplit_once(':')
        .unwrap()
        .1;
    let index = registry.manifest("acme/app", tag).unwrap().json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
    // No other tags than those of the levels, and of the lists of inputs.
    let tags = registry.tags("acme/app");
    let levels = tags.iter().filter(|tag| tag.starts_with("v1")).count();
    let lists = tags.iter().filter(|tag| tag.starts_with("sha256-")).count();
    assert_eq!((levels, tags.len()), (3, levels + lists), "{tags:?}");
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_eq!(
        built(&trilith, &engine, &project, &flags)["action"],
        "reuse"
    );
    project.write("app/run", "changed\n");
    let changed = built(&trilith, &engine, &project, &flags);
    assert_eq!(changed["tags"].as_array().unwrap().len(), 1);
    let error = refused(
        &trilith,
        &engine,
        &project,
        &[&flags[..], &["--force", "--load"]].concat(),
    );
    let reason = match engine.name {
        "buildkit" => "keep images",
        _ => "one platform",
    };
    assert!(error.contains(reason), "{error}");
}
