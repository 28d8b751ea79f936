//! Engines that go away in the middle of a build, and disks that are full.

use std::sync::atomic::{AtomicU32, Ordering};

use trilith_testkit::{
    DockerdOptions, ImageOptions, Podman, PodmanOptions, Registry, RegistryOptions, Release,
    SmallDisk, busybox_image, run,
};

use super::parts::*;
use crate::support::Trilith;

/// Tells the steps of tests apart that run at the same time.
static NUMBER: AtomicU32 = AtomicU32::new(100);

/// More than a small disk holds.
const WRITES_TOO_MUCH: &str = "RUN dd if=/dev/zero of=/large bs=1M count=200\n";
/// The size of an engine's small disk.
const SIZE: &str = "64m";

fn an_engine_that_goes_away(engine: Start, end: End) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (mut engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    // Like no other command of this machine.
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let sleep = format!("sleep {number}{}", std::process::id());
    project.write(
        "Dockerfile",
        format!("{DOCKERFILE}RUN echo waiting && {sleep}\n"),
    );
    let waiting = Waiting::start(build(&trilith, &engine, &project, &["--push"]));
    let pid = waiting.id();
    engine.end(end, pid);
    let said = waiting.failure();
    assert!(
        said.contains("error: ") && said.contains(engine.name),
        "{said}"
    );
    assert!(said.contains("broke off"), "{said}");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    if engine.name != "docker" {
        assert_tidy(&trilith, &engine);
    }

    let of_step = |process: &Process| process.line.trim_end().ends_with(&sleep);
    if engine.name == "docker" {
        // What a daemon leaves running that is killed is not ours to end.
        Process::all()
            .filter(of_step)
            .for_each(|p| p.signal("KILL"));
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while Process::all().any(|process| of_step(&process)) {
        assert!(std::time::Instant::now() < deadline, "the step goes on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    engine.restart();
    // What had a name in an engine that went away is the next build's to take away.
    project.write("Dockerfile", DOCKERFILE);
    assert_eq!(tags(&built(&trilith, &engine, &project, &["--push"])), 3);
    assert_eq!(level_tags(&registry), 3);
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);
}

fn a_full_disk_in_the_engine(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    project.write("Dockerfile", format!("{DOCKERFILE}{WRITES_TOO_MUCH}"));
    let error = refused(&trilith, &engine, &project, &["--push"]);
    assert!(error.contains("error: step `[runtime"), "{error}");
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert_eq!(engine.images(), Vec::<String>::new());

    // Nor is there room for what is copied.
    project.write("Dockerfile", DOCKERFILE);
    project.write("app/large", vec![b'x'; 100 << 20]);
    let error = refused(&trilith, &engine, &project, &["--push"]);
    assert!(error.contains("error: "), "{error}");
    assert!(error.contains("no space left on device"), "{error}");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert_eq!(engine.images(), Vec::<String>::new());

    // What the engine keeps of it is the engine's, and fills the disk; a build fits on a larger one.
    engine.enlarge_disk("256m");
    project.remove("app/large");
    assert_eq!(tags(&built(&trilith, &engine, &project, &["--push"])), 3);
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);
}

fn a_full_disk_of_the_store(engine: Start) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    // Before the engine, which may see no other.
    let disk = SmallDisk::new("16m");
    let (engine, trilith) = (engine(), Trilith::new());
    let project = project(&registry, &base.reference);
    let makes_much = "RUN dd if=/dev/urandom of=/large bs=1M count=24\n";
    project.write("Dockerfile", format!("{DOCKERFILE}{makes_much}"));
    let store = disk.path().join("store");
    let store = store.to_str().unwrap();
    let error = refused(&trilith, &engine, &project, &["--store", store]);
    assert!(
        error.contains("error: ") && error.contains(store),
        "{error}"
    );
    assert!(error.contains("o space left on device"), "{error}");
    let index = disk.path().join("store/index.json");
    let index = std::fs::read_to_string(index).unwrap_or_default();
    assert!(!index.contains("v1.0.0"), "{index}");
    assert_eq!(engine.images(), Vec::<String>::new());
    let used = run(std::process::Command::new("du").args(["-sk", store]));
    let used = String::from_utf8(used.stdout).unwrap();
    let kilobytes: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kilobytes < 4096, "{used} stays on the disk");

    project.write("Dockerfile", DOCKERFILE);
    let flags = ["--store", store];
    assert_eq!(tags(&built(&trilith, &engine, &project, &flags)), 3);
}

macro_rules! outages {
    ($($name:ident: $start:ident, [$($how:ident: $end:expr),+],)+) => {
        $(mod $name {
            use super::{End, Engine};

            $(#[test]
            fn $how() {
                super::an_engine_that_goes_away(Engine::$start, $end);
            })+

            #[test]
            fn a_full_disk_of_the_store() {
                super::a_full_disk_of_the_store(Engine::$start);
            }
        })+
    };
}

outages! {
    docker_20_10: docker_20, [killed: End::Signal("KILL"), stopped: End::Signal("TERM")],
    docker_26_1: docker_26, [killed: End::Signal("KILL"), stopped: End::Signal("TERM")],
    docker_26_1_with_containerd: docker_with_containerd, [killed: End::Signal("KILL")],
    podman_4_3: podman_4, [killed: End::Signal("KILL"), stopped: End::Signal("TERM")],
    podman_5_4: podman_5, [killed: End::Signal("KILL"), stopped: End::Signal("TERM")],
    buildkit: buildkit, [hung_up: End::Hangup],
}

mod a_full_disk {
    use super::*;

    fn small(options: DockerdOptions) -> DockerdOptions {
        DockerdOptions {
            disk: Some(SIZE),
            ..options
        }
    }

    #[test]
    fn docker_20_10() {
        a_full_disk_in_the_engine(|| Engine::docker(small(DockerdOptions::default())));
    }

    #[test]
    fn docker_26_1() {
        a_full_disk_in_the_engine(|| Engine::docker(small(TRIXIE)));
    }

    #[test]
    fn docker_26_1_with_containerd() {
        a_full_disk_in_the_engine(|| Engine::docker(small(CONTAINERD)));
    }

    #[test]
    fn buildkit() {
        a_full_disk_in_the_engine(|| Engine::buildkit_of(small(CONTAINERD)));
    }

    fn small_podman(release: Release) -> Engine {
        Engine::podman(Podman::with(PodmanOptions {
            release,
            disk: Some(SIZE),
            ..PodmanOptions::default()
        }))
    }

    #[test]
    fn podman_4_3() {
        a_full_disk_in_the_engine(|| small_podman(Release::Bookworm));
    }

    #[test]
    fn podman_5_4() {
        a_full_disk_in_the_engine(|| small_podman(Release::Trixie));
    }
}

/// Whoever is killed cannot tidy up; the next build does.
#[test]
fn a_killed_build_leaves_nothing_to_the_next() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let (engine, trilith) = (Engine::docker_20(), Trilith::new());
    let project = project(&registry, &base.reference);
    let slow = format!("{DOCKERFILE}RUN echo waiting && sleep 300\n");
    project.write("Dockerfile", slow);
    let waiting = Waiting::start(build(&trilith, &engine, &project, &["--push"]));
    let mut processes = Process::all();
    let id = waiting.id();
    processes
        .find(|process| process.id == id)
        .unwrap()
        .signal("KILL");
    waiting.killed();
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
    assert_eq!(engine.images().len(), 2);
    project.write("Dockerfile", DOCKERFILE);
    assert_eq!(tags(&built(&trilith, &engine, &project, &["--push"])), 3);
    assert_eq!(engine.images(), Vec::<String>::new());
    assert_tidy(&trilith, &engine);
}
