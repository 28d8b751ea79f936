//! Both engines run containers from the images made here, and leave nothing behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use trilith_testkit::{
    Compression, Dockerd, DockerdOptions, Format, ImageOptions, Podman, PodmanOptions, Registry,
    RegistryOptions, Release, Rootless, assert_failure, assert_success, busybox_image,
    debian_image, skopeo, stdout_of,
};

/// Returns the mounts whose place or source names `text`.
fn mounts(text: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let lines = table.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}

#[test]
fn docker_runs_what_is_made_here() {
    let registry = Registry::start(RegistryOptions::default());
    let dockerd = Dockerd::start();
    for (name, options) in [
        ("oci:1", ImageOptions::default()),
        (
            "docker:1",
            ImageOptions {
                format: Format::DockerV2s2,
                ..ImageOptions::default()
            },
        ),
        ("list:1", ImageOptions::multi_platform(Format::DockerV2s2)),
        ("index:1", ImageOptions::multi_platform(Format::Oci)),
    ] {
        let image = busybox_image(&registry, name, &options);
        assert_success(dockerd.docker().args(["pull", &image.reference]));
        let said = stdout_of(
            dockerd
                .docker()
                .args(["run", "--rm", "--network=none", &image.reference])
                .args(["sh", "-c", "cat /etc/motd; ls /etc/removed; echo $BASE"]),
        );
        assert_eq!(said, "welcome back\n1", "{name}");
    }
    // A container that still runs is ended with the daemon.
    let index = registry.reference("index:1");
    assert_success(dockerd.docker().args([
        "run",
        "--detach",
        "--network=none",
        &index,
        "sleep",
        "1000",
    ]));
    let dir = dockerd.dir().to_owned();
    assert!(!mounts(dir.to_str().unwrap()).is_empty());
    drop(dockerd);
    assert_eq!(mounts(dir.to_str().unwrap()), Vec::<String>::new());
    assert!(!dir.exists());
}

#[test]
fn docker_in_a_network_of_its_own_publishes_ports_there_alone() {
    let registry = Registry::start(RegistryOptions::default());
    let temporary = tempfile::tempdir().unwrap();
    let archive = archive(&registry, temporary.path());
    for release in [Release::Bookworm, Release::Trixie] {
        let dockerd = Dockerd::start_with(DockerdOptions {
            release,
            bridge: true,
            ..DockerdOptions::default()
        });
        assert_success(dockerd.docker().args(["load", "--input"]).arg(&archive));
        assert_success(
            dockerd
                .docker()
                .args(["run", "--detach", "--name=web", "--publish=127.0.0.1::80"])
                .arg("--stop-signal=KILL")
                .args(["base:1", "sleep", "1000"]),
        );
        // It listens before it goes into the background.
        assert_success(
            dockerd
                .docker()
                .args(["exec", "web", "httpd", "-h", "/etc"]),
        );
        let address = stdout_of(dockerd.docker().args(["port", "web", "80"]));
        let mut wget = Command::new("busybox");
        wget.args(["wget", "-q", "-O-", &format!("http://{address}/motd")]);
        let said = stdout_of(&mut dockerd.inside_network(&wget));
        assert_eq!(said, "welcome back", "{release:?}");
        assert_failure(&mut wget);

        let mut network = Command::new("readlink");
        network.arg("/proc/self/ns/net");
        let network = stdout_of(&mut dockerd.inside_network(&network));
        assert_ne!(processes_in(&network), 0);
        let dir = dockerd.dir().to_owned();
        drop(dockerd);
        assert_eq!(processes_in(&network), 0);
        assert_eq!(mounts(dir.to_str().unwrap()), Vec::<String>::new());
        assert!(!dir.exists());
    }
}

/// Returns the file in `directory` from which engines load the image `base:1`.
fn archive(registry: &Registry, directory: &Path) -> PathBuf {
    let image = busybox_image(registry, "base:1", &ImageOptions::default());
    let archive = directory.join("image.tar");
    let (from, to) = (
        format!("docker://{}", image.reference),
        format!("docker-archive:{}:base:1", archive.display()),
    );
    assert_success(skopeo("copy").args([from, to]));
    archive
}

/// Returns how many processes are in a network namespace, as in `net:[4026531840]`.
fn processes_in(network: &str) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let network_of = |entry: std::io::Result<fs::DirEntry>| {
        fs::read_link(entry.ok()?.path().join("ns/net")).ok()
    };
    let networks = processes.filter_map(network_of);
    networks
        .filter(|found| found.as_os_str() == network)
        .count()
}

#[test]
fn podman_runs_what_is_made_here() {
    let registry = Registry::start(RegistryOptions::default());
    let podman = Podman::new();
    for (name, options) in [
        ("oci:1", ImageOptions::default()),
        (
            "zstd:1",
            ImageOptions {
                compression: Compression::Zstd,
                ..ImageOptions::default()
            },
        ),
        (
            "plain:1",
            ImageOptions {
                compression: Compression::None,
                ..ImageOptions::default()
            },
        ),
        ("list:1", ImageOptions::multi_platform(Format::DockerV2s2)),
    ] {
        let image = busybox_image(&registry, name, &options);
        podman.pull(&image.reference);
        let script = "cat /etc/motd; ls /etc/removed; echo $BASE";
        let said = podman.run(&image.reference, &["sh", "-c", script]);
        assert_eq!(said, "welcome back\n1", "{name}");
    }
    let list = registry.reference("list:1");
    assert_success(podman.podman().args([
        "run",
        "--detach",
        "--name=left",
        &list,
        "sleep",
        "1000",
    ]));
    let root = stdout_of(
        podman
            .podman()
            .args(["info", "--format={{.Store.GraphRoot}}"]),
    );
    let dir = root.trim_end_matches("/storage").to_owned();
    assert!(!mounts(&dir).is_empty());
    drop(podman);
    assert_eq!(mounts(&dir), Vec::<String>::new());
    assert!(!fs::exists(&dir).unwrap());
}

#[test]
fn a_newer_podman_runs_what_is_made_here() {
    let registry = Registry::start(RegistryOptions::default());
    let image = busybox_image(&registry, "oci:1", &ImageOptions::default());
    let podman = Podman::trixie();
    podman.pull(&image.reference);
    let said = podman.run(&image.reference, &["cat", "/etc/motd"]);
    assert_eq!(said, "welcome back");
    let version = stdout_of(podman.podman().arg("--version"));
    assert!(version.contains(" 5.4."), "{version}");
    // What one call starts is there for the next.
    let run = ["run", "--detach", "--name=left", &image.reference];
    assert_success(podman.podman().args(run).args(["sleep", "1000"]));
    let said = stdout_of(podman.podman().args(["exec", "left", "cat", "/etc/motd"]));
    assert_eq!(said, "welcome back");
    let dir = podman.dir().to_owned();
    drop(podman);
    assert_eq!(mounts(dir.to_str().unwrap()), Vec::<String>::new());
    assert!(!dir.exists());
}

/// Set for [`is_killed`].
const VARIABLE: &str = "TRILITH_TEST_IS_KILLED";

#[test]
fn what_a_killed_test_had_is_gone() {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "is_killed", "--nocapture"])
        .env(VARIABLE, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stdout.take().unwrap()).lines();
    let mut told = lines.filter_map(|line| {
        let line = line.unwrap();
        Some(line.split_once("has ")?.1.to_owned())
    });
    let (dir, network) = (told.next().unwrap(), told.next().unwrap());
    // The process that keeps the namespaces, the container and its monitor.
    assert_eq!(processes_in(&network), 3);
    test.kill().unwrap();
    test.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while fs::exists(&dir).unwrap() {
        assert!(Instant::now() < deadline, "{dir} stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(processes_in(&network), 0);
    assert_eq!(mounts(&dir), Vec::<String>::new());
}

/// What is killed. Without the variable it is not.
#[test]
fn is_killed() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let registry = Registry::start(RegistryOptions::default());
    let temporary = tempfile::tempdir().unwrap();
    let podman = Podman::with(PodmanOptions {
        release: Release::Trixie,
        bridge: true,
        ..PodmanOptions::default()
    });
    let archive = archive(&registry, temporary.path());
    assert_success(podman.podman().args(["load", "--input"]).arg(&archive));
    drop(temporary);
    let run = ["run", "--detach", "--network=host", "base:1"];
    assert_success(podman.podman().args(run).args(["sleep", "1000"]));
    println!("has {}", podman.dir().display());
    let mut network = Command::new("readlink");
    network.arg("/proc/self/ns/net");
    println!("has {}", stdout_of(&mut podman.inside_network(&network)));
    // Its end is that of a test which fails to kill this one.
    let _end = std::io::stdin().lines().next();
}

#[test]
fn a_user_without_rights_has_a_podman() {
    let user = Rootless::new();
    let temporary = user.temporary();
    let format = "{{.Host.Security.Rootless}} {{len .Host.IDMappings.UIDMap}}";
    let said = stdout_of(user.command("podman").args(["info", "--format", format]));
    assert_eq!(said, "true 2");
    assert_eq!(stdout_of(user.command("id").arg("-un")), "agent");
    drop(user);
    assert_eq!(mounts(temporary.to_str().unwrap()), Vec::<String>::new());
    assert!(!temporary.parent().unwrap().exists());
    let users = fs::read_to_string("/etc/passwd").unwrap();
    assert!(!users.contains("agent:x:64242"));
}

#[test]
fn images_are_the_same_every_time_and_say_what_they_are() {
    let registry = Registry::start(RegistryOptions::default());
    let options = ImageOptions::multi_platform(Format::Oci);
    let first = busybox_image(&registry, "a:1", &options);
    let second = busybox_image(&registry, "b:1", &options);
    assert_eq!(first.digest, second.digest);
    let config = |architecture: &str| {
        let reference = format!("docker://{}", first.reference);
        let override_arch = format!("--override-arch={architecture}");
        let mut skopeo = skopeo("inspect");
        stdout_of(skopeo.args(["--config", "--raw", &override_arch, &reference]))
    };
    assert!(config("arm64").contains("\"variant\": \"v8\""));
    assert!(config("amd64").contains("\"x-foreign\""));
    let index = registry.manifest("a", "1").unwrap();
    assert_eq!(index.media_type, "application/vnd.oci.image.index.v1+json");
}

#[test]
fn debian_runs_and_is_made_once() {
    let registry = Registry::start(RegistryOptions::default());
    let image = debian_image(&registry, "debian:bookworm", Format::DockerV2s2, true);
    let oci = debian_image(&registry, "debian:oci", Format::Oci, true);
    assert_ne!(image.digest, oci.digest);
    let podman = Podman::new();
    podman.pull(&image.reference);
    let script = "import os; print(open('/etc/debian_version').read()[:2], os.environ['LANG'])";
    assert_eq!(
        podman.run(&image.reference, &["python3", "-c", script]),
        "12 C.UTF-8"
    );
}
