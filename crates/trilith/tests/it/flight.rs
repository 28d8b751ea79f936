//! Several processes that want the same image: one builds it, the others wait and find it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use trilith_testkit::{
    Fault, FaultProxy, ImageOptions, Project, Registry, RegistryOptions, Rule, assert_success,
    busybox_image,
};

use crate::support::{Trilith, assert_complete, path, project, recipe};

/// A build that runs, and what it says.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(trilith: &Trilith, project: &Project, flags: &[&str]) -> Self {
        let mut command = trilith.command();
        command
            .args(["build", "--project", path(project), "--format", "json"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Returns once the build says that it waits for another.
    fn until_it_waits(&mut self) {
        let mut said = String::new();
        while self.stderr.read_line(&mut said).unwrap() > 0 {
            if said.contains("waiting for another build of ") {
                return;
            }
        }
        panic!("it did not wait:\n{said}");
    }

    fn signal(&self, signal: &str) {
        assert_success(Command::new("kill").args([signal, &self.child.id().to_string()]));
    }

    /// Returns the document of a build that succeeds.
    fn document(mut self) -> Value {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns exit code and message of a build that fails.
    fn failure(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

/// A registry behind a proxy that can make a build slow, and a project that is pushed through it.
struct Scene {
    registry: Registry,
    proxy: FaultProxy,
    project: Project,
}

impl Scene {
    fn new() -> Self {
        let registry = Registry::start(RegistryOptions::default());
        let base = busybox_image(&registry, "base:1", &ImageOptions::default());
        let proxy = FaultProxy::start(registry.host());
        let project = project(&registry, "acme/app", &base.reference);
        let recipe = recipe(&proxy.reference("acme/app"), &proxy.reference("base:1"));
        project.write("trilith.toml", recipe);
        Self {
            registry,
            proxy,
            project,
        }
    }

    /// Starts a build that gets no further than its first blob until the proxy is cleared.
    fn start_and_hold(&self, trilith: &Trilith, flags: &[&str]) -> Running {
        self.proxy
            .add(Rule::new("PUT", "acme/app/blobs/", Fault::Hold));
        let running = Running::start(trilith, &self.project, flags);
        self.proxy.wait_for(1, "PUT", "acme/app/blobs/");
        running
    }

    /// Returns how many blobs were sent to the registry.
    fn uploads(&self) -> usize {
        let requests = self.registry.requests();
        let sent = requests
            .iter()
            .filter(|request| request.method == "PUT" && request.path.contains("acme/app/blobs/"));
        sent.count()
    }
}

/// Returns how many of `documents` say that `action` was taken.
fn count(documents: &[Value], action: &str) -> usize {
    let taken = documents.iter().filter(|d| d["action"] == action);
    taken.count()
}

#[test]
fn the_second_waits_and_reuses() {
    let scene = Scene::new();
    let trilith = Trilith::new();
    let first = scene.start_and_hold(&trilith, &["--push"]);
    let mut second = Running::start(&trilith, &scene.project, &["--push"]);
    second.until_it_waits();
    // Another image, and the same one elsewhere, wait for nobody.
    let other = project(&scene.registry, "acme/other", "scratch");
    assert_eq!(trilith.push(&other)["action"], "build");
    let stored = trilith.json(&["build", "--project", path(&scene.project)]);
    assert_eq!(stored["action"], "build");
    scene.proxy.clear();
    let (first, second) = (first.document(), second.document());
    assert_eq!(first["action"], "build");
    assert_eq!(second["action"], "reuse");
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(stored["digest"], first["digest"]);
    // Two layers of its own and three configurations.
    assert_eq!(scene.uploads(), 5);
    let flights = trilith.store().join("flights");
    assert_eq!(std::fs::read_dir(flights).unwrap().count(), 0);
}

#[test]
fn many_at_once_build_once() {
    let scene = Scene::new();
    let trilith = Trilith::new();
    for flags in [&["--push"] as &[&str], &[]] {
        let builds: Vec<Running> = (0..8)
            .map(|_| Running::start(&trilith, &scene.project, flags))
            .collect();
        let documents: Vec<Value> = builds.into_iter().map(Running::document).collect();
        assert_eq!(count(&documents, "build"), 1, "{flags:?}");
        assert_eq!(count(&documents, "reuse"), 7, "{flags:?}");
        assert!(
            documents
                .iter()
                .all(|d| d["digest"] == documents[0]["digest"])
        );
    }
    assert_eq!(scene.uploads(), 5);
    assert_complete(&scene.registry, "acme/app");
}

#[test]
fn whoever_waits_for_the_dead_builds() {
    let scene = Scene::new();
    let trilith = Trilith::new();
    let first = scene.start_and_hold(&trilith, &["--push"]);
    let mut second = Running::start(&trilith, &scene.project, &["--push"]);
    second.until_it_waits();
    first.signal("-KILL");
    assert_eq!(first.failure().0, None);
    scene.proxy.clear();
    assert_eq!(second.document()["action"], "build");
    assert_complete(&scene.registry, "acme/app");
    assert_eq!(trilith.push(&scene.project)["action"], "reuse");
}

#[test]
fn waiting_can_be_interrupted() {
    let scene = Scene::new();
    let trilith = Trilith::new();
    let first = scene.start_and_hold(&trilith, &["--push"]);
    let mut second = Running::start(&trilith, &scene.project, &["--push"]);
    second.until_it_waits();
    second.signal("-INT");
    let (code, said) = second.failure();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    scene.proxy.clear();
    assert_eq!(first.document()["action"], "build");
}

#[test]
fn who_would_not_reuse_does_not_wait() {
    let scene = Scene::new();
    let trilith = Trilith::new();
    let first = scene.start_and_hold(&trilith, &["--push"]);
    let mut forced = trilith.command();
    forced.args(["build", "--force", "--project", path(&scene.project)]);
    forced.args([
        "--push",
        "--repository",
        &scene.registry.reference("acme/app"),
    ]);
    assert_success(&mut forced);
    scene.proxy.clear();
    // What was forced meanwhile is there, and is the same.
    assert_eq!(first.document()["action"], "reuse");
}

/// Two machines, whose layers differ in their compression: the tags stay with the first to finish.
#[test]
fn the_second_machine_keeps_what_the_first_made() {
    let scene = Scene::new();
    let (slow, fast) = (Trilith::new(), Trilith::new());
    let second = scene.start_and_hold(&slow, &["--push", "--compression", "zstd"]);
    let elsewhere = scene.registry.reference("acme/app");
    let first = Running::start(
        &fast,
        &scene.project,
        &["--push", "--repository", &elsewhere],
    );
    let first = first.document();
    assert_eq!(first["action"], "build");
    let tags = scene.registry.tags("acme/app");
    let manifests = || -> Vec<_> {
        let manifest = |tag: &String| scene.registry.manifest("acme/app", tag);
        tags.iter().map(manifest).collect()
    };
    let before = manifests();
    scene.proxy.clear();
    let second = second.document();
    assert_eq!(second["action"], "reuse");
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(manifests().len(), before.len());
    let images = |manifests: &[Option<trilith_testkit::Manifest>]| -> Vec<String> {
        let manifests = manifests.iter().flatten();
        manifests.map(|m| m.digest.clone()).collect()
    };
    assert_eq!(images(&manifests()), images(&before));
    assert_complete(&scene.registry, "acme/app");
}
