//! What is removed of a store and what is not, while others build into it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use trilith_testkit::{
    Dockerd, Fault, FaultProxy, ImageOptions, Podman, Project, Registry, RegistryOptions, Rule,
    assert_success, busybox_image, stdout_of,
};

use crate::support::{Trilith, assert_complete, path, project, recipe, tag};

/// A project on a base, built into a store.
struct Scene {
    registry: Registry,
    project: Project,
    trilith: Trilith,
}

impl Scene {
    fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let project = project(&registry, "acme/app", &base.reference);
        Self {
            registry,
            project,
            trilith: Trilith::new(),
        }
    }

    fn build(&self) -> Value {
        self.trilith
            .json(&["build", "--project", path(&self.project)])
    }

    fn prune(&self, flags: &[&str]) -> Value {
        let mut arguments = vec!["prune"];
        arguments.extend(flags);
        let report = self.trilith.json(&arguments);
        verify(&self.trilith);
        report
    }

    fn names(&self) -> Vec<String> {
        names(&self.trilith)
    }
}

/// Returns the names in the store.
fn names(trilith: &Trilith) -> Vec<String> {
    let index = fs::read(trilith.store().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let entries = index["manifests"].as_array().unwrap().iter();
    let name = |entry: &Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().map(str::to_owned)
    };
    entries.filter_map(name).collect()
}

/// Reads all that the names of the store lead to, which checks every digest.
fn verify(trilith: &Trilith) {
    let elsewhere = tempfile::tempdir().unwrap();
    for name in names(trilith) {
        let (_, tag) = name.rsplit_once(':').unwrap();
        let from = format!("oci:{}:{tag}", trilith.store().display());
        let to = format!("oci:{}:{tag}", elsewhere.path().display());
        trilith.json(&["copy", &from, &to]);
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn blobs(trilith: &Trilith) -> usize {
    files(&trilith.store().join("blobs")).len()
}

/// Makes all that is below `directory` look as if nobody had used it for ten days.
fn age(directory: &Path) {
    let then = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    for file in files(directory) {
        File::open(file).unwrap().set_modified(then).unwrap();
    }
}

fn count(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap()
}

#[test]
fn what_a_name_uses_stays_and_the_rest_goes() {
    let scene = Scene::new();
    let first = scene.build();
    let (before, everything) = (blobs(&scene.trilith), files(&scene.trilith.store()));
    // Left over by processes that are gone: a blob, a directory of a build, a lock.
    let store = scene.trilith.store();
    let stray = store.join("blobs/sha256").join("0".repeat(64));
    fs::write(&stray, "stray").unwrap();
    fs::create_dir(store.join("engine-gone")).unwrap();
    // What tells the next build of names in an engine is still needed; what was beside it is not.
    let noted = store.join("engine-noted");
    fs::create_dir(&noted).unwrap();
    fs::write(noted.join("names"), "unix:///nowhere.sock\n").unwrap();
    fs::write(noted.join("image.tar"), "large").unwrap();
    fs::create_dir_all(store.join("flights")).unwrap();
    fs::write(store.join("flights/gone"), "").unwrap();
    let would = scene.prune(&["--dry-run"]);
    assert!(stray.exists() && store.join("engine-gone").exists());
    let report = scene.prune(&[]);
    assert_eq!(would["dry_run"], true);
    for field in [
        "blobs",
        "freed_bytes",
        "temporary",
        "kept_bytes",
        "kept_images",
    ] {
        assert_eq!(would[field], report[field], "{field}");
    }
    assert_eq!(
        (count(&report, "blobs"), count(&report, "freed_bytes")),
        (1, 5)
    );
    assert_eq!(
        (count(&report, "temporary"), count(&report, "kept_images")),
        (2, 3)
    );
    assert_eq!(blobs(&scene.trilith), before);
    assert_eq!(files(&noted), [noted.join("names")]);
    fs::remove_dir_all(&noted).unwrap();
    assert_eq!(files(&store), everything);
    assert_eq!(scene.build()["action"], "reuse");
    let inspected = scene.trilith.json(&[
        "inspect",
        &format!("oci:{}:{}", store.display(), tag(&first["reference"])),
    ]);
    assert_eq!(inspected["inputs"]["level"], "source");
}

#[test]
fn by_age_and_level() {
    let scene = Scene::new();
    scene.build();
    age(&scene.trilith.home().join(".local"));
    age(&scene.trilith.home().join(".cache"));
    scene.project.write("app/main.py", "changed = True\n");
    let second = scene.build();
    // The new one was built on the lock image, which is in use by that; the versioned one is not.
    assert_eq!(scene.names().len(), 4);
    let kept = scene.prune(&[
        "--older-than",
        "7d",
        "--keep-level",
        "versioned",
        "--dry-run",
    ]);
    assert_eq!(kept["images"].as_array().unwrap().len(), 1);
    let report = scene.prune(&["--older-than", "7d"]);
    let gone = report["images"].as_array().unwrap();
    let levels: Vec<&str> = gone.iter().map(|i| i["level"].as_str().unwrap()).collect();
    assert!(
        levels.contains(&"source") && levels.contains(&"versioned"),
        "{report}"
    );
    assert!(
        gone.iter()
            .all(|i| i["unused_seconds"].as_u64() > Some(9 * 24 * 60 * 60))
    );
    assert!(count(&report, "records") > 0);
    assert_eq!(scene.names().len(), 2);
    assert_eq!(scene.build()["digest"], second["digest"]);
    assert_eq!(scene.build()["action"], "reuse");
    // What went can be built again, and is the same.
    assert_eq!(scene.prune(&["--older-than", "0s"])["kept_images"], 0);
    assert_eq!(blobs(&scene.trilith), 0);
    assert_eq!(scene.build()["digest"], second["digest"]);
}

#[test]
fn by_size_the_least_used_goes_first() {
    let scene = Scene::new();
    scene.build();
    age(&scene.trilith.store());
    scene.project.write("app/main.py", "changed = True\n");
    let second = scene.build();
    let report = scene.prune(&[]);
    let all = count(&report, "kept_bytes");
    assert_eq!(count(&report, "freed_bytes"), 0);
    let report = scene.prune(&["--keep-size", &(all - 1).to_string()]);
    assert!(count(&report, "kept_bytes") < all, "{report}");
    assert!(count(&report, "freed_bytes") > 0);
    assert_eq!(scene.build()["action"], "reuse");
    assert_eq!(scene.build()["digest"], second["digest"]);
    let report = scene.prune(&["--keep-size", "0"]);
    assert_eq!(
        (count(&report, "kept_bytes"), count(&report, "kept_images")),
        (0, 0)
    );
    assert_eq!(scene.prune(&["--keep-size", "1GB"])["blobs"], 0);
}

#[test]
fn layers_of_pushed_images_are_a_cache() {
    let scene = Scene::new();
    scene.trilith.push(&scene.project);
    assert_eq!(blobs(&scene.trilith), 2);
    assert_eq!(scene.prune(&[])["blobs"], 0);
    age(&scene.trilith.store());
    let report = scene.prune(&["--older-than", "7d"]);
    assert_eq!((count(&report, "layers"), count(&report, "blobs")), (2, 2));
    assert_eq!(blobs(&scene.trilith), 0);
    scene.project.write("app/main.py", "changed = True\n");
    assert_eq!(scene.trilith.push(&scene.project)["action"], "build");
    assert_complete(&scene.registry, "acme/app");
}

#[test]
fn a_push_that_runs_keeps_its_layers() {
    let scene = Scene::new();
    let proxy = FaultProxy::start(scene.registry.host());
    let through = recipe(&proxy.reference("acme/app"), &proxy.reference("base:1"));
    scene.project.write("trilith.toml", through);
    proxy.add(Rule::new("POST", "acme/app/blobs/uploads", Fault::Hold));
    let mut build = scene.trilith.command();
    build.args([
        "build",
        "--push",
        "--quiet",
        "--project",
        path(&scene.project),
    ]);
    build.stdout(std::process::Stdio::null());
    let mut running = build.spawn().unwrap();
    proxy.wait_for(1, "POST", "acme/app/blobs/uploads");
    let report = scene.prune(&["--keep-size", "0"]);
    assert_eq!(
        (count(&report, "blobs"), count(&report, "spared_blobs")),
        (0, 2)
    );
    proxy.clear();
    assert!(running.wait().unwrap().success());
    assert_complete(&scene.registry, "acme/app");
}

/// Everything that is built while everything is removed again and again is whole, or not there.
#[test]
fn builds_go_on_while_a_store_is_emptied() {
    let scene = Scene::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let prune = ["prune", "--keep-size", "0", "--older-than", "0s"];
                scene.trilith.json(&prune);
            }
        });
        let building = scope.spawn(|| {
            for round in 0..12 {
                // Source alone, then all that is above the base, on what may have just gone.
                let file = ["app/main.py", "vendor/lib.py"][round % 2];
                scene
                    .project
                    .write(file, format!("ROUND = {}\n", round / 2));
                let built = scene.build();
                assert_ne!(built["digest"], Value::Null);
            }
        });
        let outcome = building.join();
        done.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    verify(&scene.trilith);
    scene.prune(&["--keep-size", "0"]);
    assert_eq!(blobs(&scene.trilith), 0);
}

/// Prunes all that no container uses; returns how many images containers keep.
fn prune_around(scene: &Scene, environment: &[(String, String)]) -> u64 {
    let mut command = scene.trilith.command();
    command.args(["prune", "--older-than", "0s", "--format", "json"]);
    let output = assert_success(command.envs(environment.iter().cloned()));
    verify(&scene.trilith);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["kept_images"], report["running_images"]);
    count(&report, "running_images")
}

#[test]
fn what_runs_in_docker_stays() {
    let scene = Scene::new();
    let dockerd = Dockerd::start();
    let built = scene.build();
    let reference = built["reference"].as_str().unwrap();
    let environment = [("DOCKER_HOST".to_owned(), dockerd.host())];
    let from = format!(
        "oci:{}:{}",
        scene.trilith.store().display(),
        tag(&built["reference"])
    );
    let mut copy = scene.trilith.command();
    copy.args(["copy", &from, &format!("docker-daemon:{reference}")]);
    assert_success(copy.envs(environment.iter().cloned()));
    let docker = |arguments: &[&str]| stdout_of(dockerd.docker().args(arguments));
    let run = ["run", "--detach", "--network=none", "--entrypoint=sleep"];
    let container = docker(&[&run[..], &[reference, "1000"]].concat());
    assert_eq!(prune_around(&scene, &environment), 1);
    assert_eq!(scene.names(), [reference]);
    docker(&["rm", "--force", container.trim()]);
    assert_eq!(prune_around(&scene, &environment), 0);
    assert_eq!(blobs(&scene.trilith), 0);
}

#[test]
fn what_runs_in_podman_stays() {
    let scene = Scene::new();
    let podman = Podman::new();
    let built = scene.build();
    let reference = built["reference"].as_str().unwrap();
    let archive = scene.trilith.home().join("image.tar");
    let from = format!(
        "oci:{}:{}",
        scene.trilith.store().display(),
        tag(&built["reference"])
    );
    let to = format!("docker-archive:{}", archive.display());
    scene.trilith.json(&["copy", &from, &to]);
    let call = |arguments: &[&str]| -> String {
        let mut command: Command = podman.podman();
        stdout_of(command.args(arguments))
    };
    let loaded = call(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
    let image = loaded.trim().rsplit(' ').next().unwrap();
    let run = ["run", "--detach", "--network=none", "--entrypoint=sleep"];
    let container = call(&[&run[..], &[image, "1000"]].concat());
    let environment: Vec<(String, String)> = podman
        .environment()
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    assert_eq!(prune_around(&scene, &environment), 1);
    assert_eq!(scene.names(), [reference]);
    call(&["rm", "--force", "--time=0", container.trim()]);
    assert_eq!(prune_around(&scene, &environment), 0);
}

#[test]
fn wrong_quantities_and_empty_stores() {
    let trilith = Trilith::new();
    let error = trilith.error(2, &["prune", "--older-than", "7"]);
    assert!(error.contains("as in 7d"), "{error}");
    let error = trilith.error(2, &["prune", "--keep-size", "10 GB"]);
    assert!(error.contains("as in 10GB"), "{error}");
    assert_eq!(trilith.json(&["prune", "--older-than", "7d"])["blobs"], 0);
    assert!(!trilith.store().exists());
}

/// A registry that deletes, and two sources of so many `files` more pushed to it, the first ten days
/// ago.
fn pushed_twice(files: usize) -> (Scene, Value, Value) {
    pushed_twice_to(RegistryOptions::default(), files)
}

fn pushed_twice_to(options: RegistryOptions, files: usize) -> (Scene, Value, Value) {
    let registry = Registry::start(RegistryOptions {
        delete: true,
        ..options
    });
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let project = project(&registry, "acme/app", &base.reference);
    for number in 0..files {
        project.write(&format!("app/many/{number}"), "");
    }
    let scene = Scene {
        registry,
        project,
        trilith: Trilith::new(),
    };
    scene.trilith.log_in(&scene.registry);
    let first = scene.trilith.push(&scene.project);
    age(&scene.trilith.store().join("records"));
    scene.project.write("app/main.py", "changed = True\n");
    let second = scene.trilith.push(&scene.project);
    (scene, first, second)
}

fn prune_registry(scene: &Scene, flags: &[&str]) -> Value {
    let repository = scene.registry.reference("acme/app");
    let mut arguments = vec!["prune", "--registry", &repository, "--older-than", "7d"];
    arguments.extend(flags);
    let report = scene.trilith.json(&arguments);
    assert_complete(&scene.registry, "acme/app");
    report
}

fn pruned(report: &Value) -> Vec<&str> {
    let images = report["images"].as_array().unwrap().iter();
    let mut levels: Vec<&str> = images.map(|i| i["level"].as_str().unwrap()).collect();
    levels.sort_unstable();
    levels
}

#[test]
fn a_repository_on_a_registry() {
    let (scene, first, second) = pushed_twice(0);
    let before = scene.registry.tags("acme/app");
    assert_eq!(before.len(), 4);
    for flags in [&[] as &[&str], &["--dry-run"]] {
        let report = prune_registry(&scene, flags);
        assert_eq!(
            (&report["dry_run"], pruned(&report)),
            (&true.into(), vec!["source", "versioned"])
        );
        assert_eq!(scene.registry.tags("acme/app"), before);
    }
    let report = prune_registry(&scene, &["--yes", "--keep-level", "versioned"]);
    assert_eq!(
        (&report["dry_run"], pruned(&report)),
        (&false.into(), vec!["source"])
    );
    assert_eq!(report["images"][0]["digest"], first["digest"]);
    assert_eq!(
        (count(&report, "manifests"), count(&report, "kept_images")),
        (1, 3)
    );
    let after = scene.registry.tags("acme/app");
    assert_eq!(after.len(), 3);
    assert!(!after.iter().any(|name| name == tag(&first["reference"])));
    assert_eq!(scene.trilith.push(&scene.project)["action"], "reuse");
    let inspected = scene
        .trilith
        .json(&["inspect", second["reference"].as_str().unwrap()]);
    assert_eq!(inspected["inputs"]["level"], "source");
    // A machine that has built none of it knows no age.
    let stranger = Scene {
        trilith: Trilith::new(),
        ..scene
    };
    let report = prune_registry(&stranger, &["--yes"]);
    assert_eq!(
        (
            count(&report, "unknown_images"),
            count(&report, "manifests")
        ),
        (3, 0)
    );
}

#[test]
fn a_registry_that_wants_tokens() {
    let options = RegistryOptions {
        auth: Some(("ann".to_owned(), "t0ken-passw0rd".to_owned())),
        tokens: true,
        ..RegistryOptions::default()
    };
    let (scene, first, _second) = pushed_twice_to(options, 0);
    // A token for both repositories was asked for.
    let requests = scene.registry.requests().into_iter();
    let mounts = requests.filter(|request| request.path.contains("from=base"));
    let mounted: Vec<_> = mounts.map(|mount| mount.status).collect();
    assert_eq!(mounted, [Some(201); 2], "of a base of two layers");
    let name = tag(&first["reference"]).to_owned();
    assert!(scene.registry.tags("acme/app").contains(&name));
    // And one to delete, which no build asks for.
    let report = prune_registry(&scene, &["--yes", "--keep-level", "versioned"]);
    assert_eq!(
        (&report["dry_run"], pruned(&report)),
        (&false.into(), vec!["source"])
    );
    let after = scene.registry.tags("acme/app");
    assert_eq!(after.len(), 3);
    assert!(!after.contains(&name));
}

#[test]
fn lists_of_inputs_go_with_their_images() {
    // Too many files for a list that is in the image.
    let (scene, first, second) = pushed_twice(800);
    let before = scene.registry.tags("acme/app");
    // Two images with a list of referrers each, and two without.
    assert_eq!(before.len(), 6);
    let report = prune_registry(&scene, &["--yes", "--keep-level", "versioned"]);
    // The image, its list of inputs, and the list of that.
    assert_eq!(
        (count(&report, "manifests"), count(&report, "kept_images")),
        (3, 3)
    );
    let after = scene.registry.tags("acme/app");
    assert_eq!(after.len(), 4);
    let hex = first["digest"].as_str().unwrap().replace(':', "-");
    assert!(!after.contains(&hex) && before.contains(&hex));
    let inspected = scene
        .trilith
        .json(&["inspect", second["reference"].as_str().unwrap()]);
    assert_eq!(inspected["inputs"]["level"], "source");
}

#[test]
fn what_a_person_or_an_index_names_stays() {
    let (scene, first, _second) = pushed_twice(0);
    let digest = first["digest"].as_str().unwrap();
    let manifest = scene.registry.manifest("acme/app", digest).unwrap();
    let put = |name: &str, media_type: &str, body: &[u8]| {
        use std::io::{Read as _, Write as _};
        let host = scene.registry.host();
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let head = format!(
            "PUT /v2/acme/app/manifests/{name} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [{
            "mediaType": manifest.media_type, "digest": digest, "size": manifest.bytes.len(),
        }],
    });
    put("several", media_type, index.to_string().as_bytes());
    assert_eq!(pruned(&prune_registry(&scene, &[])), ["versioned"]);
    let report = prune_registry(&scene, &["--yes", "--keep-level", "versioned"]);
    assert_eq!(count(&report, "manifests"), 0);
    assert!(scene.registry.manifest("acme/app", digest).is_some());

    let (scene, first, _second) = pushed_twice(0);
    let name = first["reference"].as_str().unwrap();
    let stable = scene.registry.reference("acme/app:stable");
    scene.trilith.json(&["copy", name, &stable]);
    assert_eq!(pruned(&prune_registry(&scene, &["--yes"])), ["versioned"]);
    assert!(scene.registry.manifest("acme/app", "stable").is_some());
}

#[test]
fn a_registry_that_deletes_nothing() {
    let scene = Scene::new();
    scene.trilith.push(&scene.project);
    age(&scene.trilith.store());
    let repository = scene.registry.reference("acme/app");
    let prune = [
        "prune",
        "--registry",
        &repository,
        "--older-than",
        "7d",
        "--yes",
    ];
    let error = scene.trilith.error(2, &prune);
    assert!(
        error.contains("deletes nothing") && error.contains("storage.delete"),
        "{error}"
    );
    assert_complete(&scene.registry, "acme/app");
    assert_eq!(scene.trilith.push(&scene.project)["action"], "reuse");
    let error = scene.trilith.error(2, &["prune", "--yes"]);
    assert!(error.contains("--registry"), "{error}");
}
