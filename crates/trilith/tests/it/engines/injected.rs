//! The agent in what an engine builds: one layer more, on an image that is complete without it.

use serde_json::Value;
use trilith_testkit::{
    Fault, FaultProxy, ImageOptions, Project, Registry, RegistryOptions, Rule, assert_success,
    busybox_image,
};

use super::parts::*;
use crate::support::{Trilith, assert_complete, on, path, tag};

on! {
    [docker_20, docker_26, docker_with_containerd, podman_4, podman_5, buildkit]:
    the_agent_on_top,
}
on! {
    [docker_20, docker_26, docker_with_containerd, podman_4, podman_5]:
    the_agent_into_the_engine,
}
// It keeps no images.
on!([buildkit]: the_agent_into_the_store);
on!([docker_20, podman_5]: a_refused_agent_moves_no_tag);
on!([docker_20, podman_5, buildkit]: on_and_off);

const INJECT: &str = "\n[agent]\ninject = true\n";
const CONFIG: &str = "\n[config]\nentrypoint = [\"/.trilith/agent\"]\nuser = \"10001:10001\"\n";

/// Returns a project with the agent, which starts it.
fn injected(registry: &Registry, base: &str) -> Project {
    let project = project(registry, base);
    add(&project, &format!("{INJECT}{CONFIG}"));
    project
}

/// Adds to the recipe of `project`.
fn add(project: &Project, text: &str) {
    let recipe = project.read("trilith.toml");
    project.write("trilith.toml", recipe + text);
}

/// Returns the layer of the agent in an image of layers, and its diff ID.
fn agent(registry: &Registry, base: &str) -> (String, String) {
    let project = crate::support::project(registry, "acme/layers", base);
    add(&project, INJECT);
    let built = Trilith::new().push(&project);
    let layer = &built["layers"][0];
    assert_eq!(layer["level"], "versioned");
    let image = Image::find(registry, "acme/layers", tag(&built["reference"]));
    let digest = layer["digest"].as_str().unwrap().to_owned();
    let position = image.layers.iter().position(|layer| *layer == digest);
    (digest, image.diff_ids[position.unwrap()].clone())
}

/// An image on a registry, for one platform.
struct Image {
    layers: Vec<String>,
    diff_ids: Vec<String>,
    config: Value,
}

impl Image {
    fn find(registry: &Registry, repository: &str, name: &str) -> Self {
        let manifest = registry.manifest(repository, name).unwrap().json();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let config = registry.blob_path(manifest["config"]["digest"].as_str().unwrap());
        let config: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
        Self {
            layers: layers.map(|layer| text(&layer["digest"])).collect(),
            diff_ids: texts(&config["rootfs"]["diff_ids"]),
            config: config["config"].clone(),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(text).collect()
}

/// Checks that the engine runs the agent of `image`, whose entry point it is.
fn assert_runs(engine: &Engine, image: &str) {
    let run = ["run", "--rm", "--network", "none", image, "--version"];
    let output = assert_success(&mut engine.client_command(&run));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("trilith-agent "), "{said}");
}

/// Checks that `again` is `first`, and that nothing was done for it.
fn assert_same(again: &Value, first: &Value) {
    let expected = (&"reuse".into(), &first["digest"]);
    assert_eq!((&again["action"], &again["digest"]), expected);
}

fn the_agent_on_top(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (agent, diff_id) = agent(&registry, &base.reference);
    let (engine, trilith) = (engine(), Trilith::new());
    let project = injected(&registry, &base.reference);
    let find = |reference: &Value| Image::find(&registry, "acme/app", tag(reference));

    // The levels and what the engine built have tags of their own, and nothing of the agent.
    let first = pushed(&trilith, &engine, &project);
    assert_eq!((&first["action"], tags(&first)), (&"build".into(), 4));
    assert_eq!(first["tags"][3], first["reference"]);
    assert_eq!(engine.images(), Vec::<String>::new());
    let [below, image] = [&first["tags"][2], &first["reference"]].map(find);
    assert_eq!(image.layers.last(), Some(&agent));
    assert_eq!(image.diff_ids.last(), Some(&diff_id));
    assert_eq!(image.layers[..image.layers.len() - 1], below.layers);
    assert!(!below.layers.contains(&agent));
    assert_eq!(below.config["Cmd"][0], "/opt/app/run");
    assert_eq!(image.config["Entrypoint"][0], "/.trilith/agent");
    let layers = first["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 6, "{first}");
    assert_eq!(layers[5]["digest"], agent.as_str());
    assert_eq!(layers[5]["level"], "source");
    assert_complete(&registry, "acme/app");
    let before = stamps(&trilith, &first["reference"]);
    assert_eq!(before.len(), 3);
    let reference = first["reference"].as_str().unwrap();
    if let Service::Podman(podman) = &engine.service {
        podman.pull(reference);
    }
    assert_runs(&engine, reference);

    // Nothing changed: no engine is asked for anything. Nor is one where all that changes is on top.
    let nowhere = Engine::nowhere();
    let same = pushed(&trilith, &nowhere, &project);
    assert_same(&same, &first);
    add(&project, "env = { WHO = \"me\" }\n");
    let plan = trilith.json(&["plan", "--project", path(&project)]);
    assert_eq!(
        (&plan["level"], &plan["from"]),
        (&"source".into(), &first["tags"][2])
    );
    assert_eq!(plan["tags"].as_array().unwrap().len(), 1, "{plan}");
    registry.forget_requests();
    let on_top = pushed(&Trilith::new(), &nowhere, &project);
    let read = registry
        .requests()
        .into_iter()
        .filter(|r| r.method == "GET");
    let read: Vec<String> = read.map(|request| request.path).collect();
    let is_layer = |path: &String| image.layers.iter().any(|layer| path.ends_with(layer));
    assert!(!read.iter().any(is_layer), "{read:?}");
    assert_eq!((&on_top["action"], tags(&on_top)), (&"build".into(), 1));
    assert_eq!(stamps(&trilith, &on_top["reference"]), before);
    assert_eq!(find(&on_top["reference"]).layers, image.layers);

    // The source changed: its steps run on the lock image.
    project.write("app/run", "#!/bin/sh\necho changed\n");
    let changed = pushed(&trilith, &engine, &project);
    assert_eq!(tags(&changed), 2, "{changed}");
    assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
    let after = stamps(&trilith, &changed["reference"]);
    assert_eq!(
        (&after["base"], &after["deps"]),
        (&before["base"], &before["deps"])
    );
    assert_ne!(after["runtime"], before["runtime"]);
    assert_eq!(find(&changed["reference"]).layers.last(), Some(&agent));
    assert_eq!(engine.images(), vec![text(&first["reference"])]);
    assert_tidy(&trilith, &engine);
}

fn the_agent_into_the_engine(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (agent, diff_id) = agent(&registry, &base.reference);
    let (engine, trilith) = (engine(), Trilith::new());
    let project = injected(&registry, &base.reference);
    let load = |trilith: &Trilith| built(trilith, &engine, &project, &["--load"]);
    let first = load(&trilith);
    assert_eq!((&first["action"], tags(&first)), (&"build".into(), 4));
    let mut names = texts(&first["tags"]);
    names.sort();
    assert_eq!(engine.images(), names);
    let image = first["reference"].as_str().unwrap();
    assert_runs(&engine, image);
    let format = "{{json .RootFS.Layers}}";
    let layers = |image: &str| {
        let inspected = engine
            .client(&["inspect", "--format", format, image])
            .stdout;
        texts(&serde_json::from_slice(&inspected).unwrap())
    };
    let below = layers(first["tags"][2].as_str().unwrap());
    assert_eq!(layers(image), [&below[..], &[diff_id]].concat());
    for trilith in [&trilith, &Trilith::new()] {
        let same = load(trilith);
        assert_same(&same, &first);
    }
    let without = built(
        &trilith,
        &engine,
        &project,
        &["--load", "--inject-agent=false"],
    );
    assert_eq!((&without["action"], tags(&without)), (&"build".into(), 1));

    // No step runs for what is on top.
    add(&project, "env = { WHO = \"me\" }\n");
    let on_top = load(&trilith);
    assert_eq!((&on_top["action"], tags(&on_top)), (&"build".into(), 1));
    assert_eq!(on_top["telemetry"], Value::Null);
    assert_runs(&engine, on_top["reference"].as_str().unwrap());

    // What the registry has is what the engine has.
    let both = built(&trilith, &engine, &project, &["--push", "--load"]);
    assert_eq!(both["action"], "build");
    assert_complete(&registry, "acme/app");
    assert_runs(&engine, both["reference"].as_str().unwrap());
    the_store(&trilith, &engine, &project, &agent);
}

fn the_agent_into_the_store(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = injected(&registry, &base.reference);
    let (agent, _) = agent(&registry, &base.reference);
    the_store(&Trilith::new(), &engine(), &project, &agent);
}

fn the_store(trilith: &Trilith, engine: &Engine, project: &Project, agent: &str) {
    let stored = built(trilith, engine, project, &[]);
    assert_eq!((&stored["action"], tags(&stored)), (&"build".into(), 4));
    let layers = stored["layers"].as_array().unwrap();
    assert_eq!(layers.last().unwrap()["digest"], agent);
    let same = built(trilith, engine, project, &[]);
    assert_same(&same, &stored);
    assert_tidy(trilith, engine);
}

/// What the engine built stays, complete; the image with the agent is not there.
fn a_refused_agent_moves_no_tag(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let proxy = FaultProxy::start(registry.host());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = injected(&registry, &base.reference);
    let elsewhere = proxy.reference("acme/app");
    let flags = ["--push", "--repository", &elsewhere];
    let scheme = trilith.json(&["tags", "--project", path(&project)]);
    let source = scheme["source"].as_str().unwrap();

    // Neither where its manifest is refused nor where nobody says whether its layer is there.
    let manifest = format!("/manifests/{source}");
    proxy.add(Rule::new("PUT", &manifest, Fault::status(403)));
    let error = refused(&trilith, &engine, &project, &flags);
    assert!(error.contains("403"), "{error}");
    let after = registry.tags("acme/app");
    assert!(!after.iter().any(|tag| tag == source), "{after:?}");
    assert_eq!(level_tags(&registry), 3);
    assert_complete(&registry, "acme/app");
    proxy.clear();
    proxy.add(Rule::new("HEAD", "/blobs/", Fault::status(403)));
    let refusal = refused(&Trilith::new(), &engine, &project, &flags);
    assert!(refusal.contains("403"), "{refusal}");
    assert_eq!(registry.tags("acme/app"), after);
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);

    // The engine has done its part.
    proxy.clear();
    let built = built(&trilith, &Engine::nowhere(), &project, &flags);
    assert_eq!((&built["action"], tags(&built)), (&"build".into(), 1));
    assert_complete(&registry, "acme/app");
}

/// Turning it on and off, with and without levels, and what `explain` says of that.
fn on_and_off(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, nowhere, trilith) = (engine(), Engine::nowhere(), Trilith::new());
    let project = project(&registry, &base.reference);
    let recipe = recipe(&registry, &base.reference);
    let (whole, _levels) = recipe.split_once("levels = ").unwrap();
    let on = ["--push", "--inject-agent"];
    for recipe in [&recipe, whole] {
        project.write("trilith.toml", recipe);
        let plain = pushed(&trilith, &engine, &project);
        assert_eq!((&plain["action"], tags(&plain)), (&"build".into(), 3));

        // What there is without it is what it is put on.
        let explain = |built: &Value| {
            let image = built["reference"].as_str().unwrap();
            let flags = ["--inject-agent", "--project", path(&project)];
            trilith.json(&[&["explain", image], &flags[..]].concat())
        };
        let why = explain(&plain);
        let changes = why["changes"].as_array().unwrap().iter();
        let changes: Vec<String> = changes
            .map(|change| format!("{} {}", text(&change["level"]), text(&change["input"])))
            .collect();
        let expected = ["file/.trilith/agent//", "layer/.trilith/agent"];
        assert_eq!(changes, expected.map(|name| format!("source {name}")));
        assert_eq!(why["layers"][0]["to"], "/.trilith/agent");
        assert_eq!(why["steps"], Value::Array(Vec::new()));
        let with = built(&trilith, &nowhere, &project, &on);
        assert_eq!((&with["action"], tags(&with)), (&"build".into(), 1));
        assert_eq!(explain(&with)["rebuild"], false);
        let image = with["reference"].as_str().unwrap();
        let rebase = ["rebase", image, "--tag", "new", "--new-base"];
        let error = trilith.error(2, &[&rebase[..], &[&base.reference]].concat());
        assert!(error.contains("ran its steps on the base"), "{error}");
        let off = pushed(&trilith, &nowhere, &project);
        assert_same(&off, &plain);

        // Anew, and by whoever has built none of it.
        let forced = built(
            &trilith,
            &engine,
            &project,
            &[&on[..], &["--force"]].concat(),
        );
        assert_eq!((&forced["action"], tags(&forced)), (&"build".into(), 4));
        let elsewhere = built(&Trilith::new(), &nowhere, &project, &on);
        assert_same(&elsewhere, &forced);
    }
}

/// Tags that do not tell what is injected: what it is put on has another.
#[test]
fn tags_of_the_reference() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (Engine::docker_20(), Trilith::new());
    let project = injected(&registry, &base.reference);
    let flags = [
        "--push",
        "--scheme",
        "openhands-v1",
        "--source",
        "app",
        "--tag",
        "mine",
    ];
    let first = built(&trilith, &engine, &project, &flags);
    let tags = texts(&first["tags"]);
    assert_eq!(tags.len(), 5, "{tags:?}");
    assert_eq!(tags[2], format!("{}-without-agent", tags[3]));
    assert_eq!(first["reference"], tags[3].as_str());
    let digest = |tag: &str| registry.manifest("acme/app", tag).unwrap().digest;
    assert_eq!(digest("mine"), first["digest"].as_str().unwrap());
    let same = built(&trilith, &Engine::nowhere(), &project, &flags);
    assert_same(&same, &first);
    let flags = [&flags[..], &["--inject-agent=false"]].concat();
    let plan = built(
        &trilith,
        &engine,
        &project,
        &[&flags[..], &["--dry-run"]].concat(),
    );
    assert_eq!(plan["existence"]["source"], "stale", "{plan}");
}

#[test]
fn a_batch_of_dockerfiles() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (Engine::docker_20(), Trilith::new());
    let names = trilith_testkit::many_bases(&registry, ("base", "1"), "eval", 3);
    let project = injected(&registry, &base.reference);
    let list = trilith.home().join("bases.txt");
    let references = names.iter().map(|name| registry.reference(name) + "\n");
    std::fs::write(&list, references.collect::<String>()).unwrap();
    let mut command = trilith.command();
    command.args([
        "batch",
        "--push",
        "--builder",
        engine.name,
        "--network",
        "none",
    ]);
    command.args(["--project", path(&project), "--format", "json", "--bases"]);
    command.arg(&list).envs(engine.environment.iter().cloned());
    let summary = assert_success(&mut command).stdout;
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(summary["built"], 3, "{summary}");
    assert_complete(&registry, "acme/app");
    assert_eq!(engine.images(), Vec::<String>::new());
}

#[test]
fn a_dry_run_sends_what_is_built_below() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (Engine::docker_20(), Trilith::new());
    let project = injected(&registry, &base.reference);
    let (plan, folder) = dry_run(&trilith, &engine, &project);
    assert_eq!(
        (&plan["level"], plan["written"].as_array().unwrap().len()),
        (&Value::Null, 3)
    );
    assert_eq!(tags(&plan), 4, "{plan}");
    let sent = std::fs::read_to_string(folder.join("source/Dockerfile")).unwrap();
    assert!(!sent.contains("/.trilith/agent"), "{sent}");
    std::fs::remove_dir_all(&folder).unwrap();
}
