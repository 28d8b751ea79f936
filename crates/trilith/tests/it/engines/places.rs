//! Where images go: the store, the engine, a registry, or nowhere.

use trilith_testkit::{ImageOptions, Registry, RegistryOptions, busybox_image};

use super::parts::*;
use crate::support::{Trilith, on};

on! {
    [docker_20, docker_26, docker_with_containerd, podman_4, podman_5]:
    into_the_store_and_into_the_engine,
    a_dry_run_writes_what_would_be_sent,
}
// It keeps no images, so there is nothing to load.
on!([buildkit]: into_the_store);
on!([docker_20]: layers_into_the_engine);
on!([docker_26]: a_named_frontend_reads_of_levels);

fn into_the_store_and_into_the_engine(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (hot, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let first = built(&trilith, &hot, &project, &[]);
    assert_eq!((&first["action"], tags(&first)), (&"build".into(), 3));
    assert_eq!(hot.images(), Vec::<String>::new());
    assert_eq!(built(&trilith, &hot, &project, &[])["action"], "reuse");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    let layers = first["layers"].as_array().unwrap();
    let levels: Vec<&str> = layers
        .iter()
        .map(|l| l["level"].as_str().unwrap())
        .collect();
    let expected = ["versioned", "lock", "lock", "source", "source"];
    assert_eq!(levels, expected, "{first}");

    // The lock image is brought from the store to an engine that has never seen it.
    let cold = engine();
    project.write("app/run", "changed\n");
    let changed = built(&trilith, &cold, &project, &[]);
    assert_eq!(changed["telemetry"]["step_count"], 2, "{changed}");
    assert_eq!(tags(&changed), 1);
    assert_eq!(cold.images(), Vec::<String>::new());

    // Into the engine, and nowhere else.
    let trilith = Trilith::new();
    let loaded = built(&trilith, &hot, &project, &["--load"]);
    assert_eq!((&loaded["action"], tags(&loaded)), (&"build".into(), 3));
    assert_eq!(hot.images().len(), 3, "{:?}", hot.images());
    assert_eq!(
        built(&trilith, &hot, &project, &["--load"])["action"],
        "reuse"
    );
    let stranger = Trilith::new();
    assert_eq!(
        built(&stranger, &hot, &project, &["--load"])["action"],
        "reuse"
    );
    project.write("app/run", "changed again\n");
    let again = built(&trilith, &hot, &project, &["--load"]);
    assert_eq!(tags(&again), 1, "{again}");
    assert_eq!(hot.images().len(), 4);

    // Both, and what the registry has is brought to an engine that has it not.
    let both = built(&trilith, &cold, &project, &["--push", "--load"]);
    assert_eq!(both["action"], "build");
    assert_eq!(cold.images().len(), 3);
    assert_eq!(level_tags(&registry), 3);
    let fresh = engine();
    let reused = built(&trilith, &fresh, &project, &["--push", "--load"]);
    assert_eq!(reused["action"], "reuse");
    assert_eq!(fresh.images().len(), 1);
    assert_tidy(&trilith, &hot);
}

fn a_dry_run_writes_what_would_be_sent(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let (plan, folder) = dry_run(&trilith, &engine, &project);
    assert_eq!(plan["written"].as_array().unwrap().len(), 3, "{plan}");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    // The base is the one that was hashed.
    assert!(
        read("source/Dockerfile").contains(&base.digest),
        "{}",
        read("source/Dockerfile")
    );
    assert_eq!(read("source/context/app/run"), project.read("app/run"));
    assert!(!folder.join("lock/context/app").exists());
    assert!(!folder.join("source/context/notes.txt").exists());
    assert!(read("lock/request.json").contains("\"target\": \"deps\""));
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());

    pushed(&trilith, &engine, &project);
    project.write("app/run", "changed\n");
    std::fs::remove_dir_all(&folder).unwrap();
    let (plan, _) = dry_run(&trilith, &engine, &project);
    assert_eq!(plan["written"].as_array().unwrap().len(), 1, "{plan}");
    let sent = read("source/Dockerfile") + &read("source/request.json");
    assert!(!folder.join("source/context/requirements.lock").exists() || sent.contains("deps"));
    assert!(sent.contains("acme/app@sha256:"), "{sent}");
    std::fs::remove_dir_all(&folder).unwrap();
    assert_tidy(&trilith, &engine);
}

/// A frontend that the Dockerfile names may not know of images in place of stages, and would
/// build the stages once more: it is told in the text.
fn a_named_frontend_reads_of_levels(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, &base.reference);
    let syntax = format!("# syntax={}\n", registry.reference("frontend:1"));
    project.write("Dockerfile", format!("{syntax}{DOCKERFILE}"));
    // Podman runs no frontends.
    pushed(&trilith, &Engine::podman_4(), &project);
    project.write("app/run", "changed\n");
    let folder = project.path().with_extension("sent");
    let folder_name = folder.to_str().unwrap();
    let flags = ["--push", "--dry-run", "--build-folder", folder_name];
    built(&trilith, &engine(), &project, &flags);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let (text, request) = (read("source/Dockerfile"), read("source/request.json"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(text.starts_with(&syntax), "{text}");
    assert!(text.contains("acme/app@sha256:"), "{text}");
    assert!(request.contains("\"named_contexts\": {}"), "{request}");
}

/// An engine that keeps no images sends them as archives.
fn into_the_store(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let first = built(&trilith, &engine, &project, &[]);
    assert_eq!((&first["action"], tags(&first)), (&"build".into(), 3));
    assert_eq!(built(&trilith, &engine, &project, &[])["action"], "reuse");
    // It cannot get at the store's lock image, and finds its steps in its own cache.
    project.write("app/run", "changed\n");
    let changed = built(&trilith, &engine, &project, &[]);
    assert_eq!(tags(&changed), 1, "{changed}");
    assert_eq!(changed["telemetry"]["cache_misses"], 2, "{changed}");
    assert_tidy(&trilith, &engine);
}

/// Layers need no engine to be built, but can be named in one.
fn layers_into_the_engine(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = crate::support::project(&registry, "acme/app", &base.reference);
    let mut graft = Engine {
        name: "graft",
        ..engine
    };
    let first = built(&trilith, &graft, &project, &["--load"]);
    assert_eq!((&first["action"], tags(&first)), (&"build".into(), 3));
    assert_eq!(graft.images().len(), 3);
    project.write("app/main.py", "print('changed')\n");
    let changed = built(&trilith, &graft, &project, &["--load"]);
    assert_eq!((tags(&changed), graft.images().len()), (1, 4));
    assert_eq!(
        built(&trilith, &graft, &project, &["--load"])["action"],
        "reuse"
    );

    // No engine builds layers, and what has no recipe for one is not sent.
    graft.name = "docker";
    let error = refused(&trilith, &graft, &project, &[]);
    assert!(
        error.contains("layers") && error.contains("hint: "),
        "{error}"
    );
    graft.name = "auto";
    let flags = ["--force", "--dry-run", "--build-folder", "/nowhere"];
    let error = refused(&trilith, &graft, &project, &flags);
    assert!(error.contains("nothing is sent"), "{error}");
}
