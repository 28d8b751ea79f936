//! `trilith build --push` against skopeo and docker, on a real registry over loopback.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use trilith_testkit::{
    Dockerd, Format, ImageOptions, Project, Registry, assert_success, debian_image, push_image,
    skopeo,
};

use crate::Trilith;
use crate::measure::{Line, in_turn, mebibytes, noise, peak_memory, registry, text, time};

const RUNS: usize = 9;
/// How often what takes a few milliseconds is measured.
const SHORT_RUNS: usize = 201;
const MEGABYTE: usize = 1_000_000;

/// A machine of its own: a home for Trilith, a registry, a project on a base.
struct Scene<'a> {
    trilith: &'a Trilith,
    home: TempDir,
    registry: Registry,
    project: Project,
}

impl<'a> Scene<'a> {
    fn new(trilith: &'a Trilith, registry: Registry, base: &str) -> Self {
        let project = Project::python();
        project.write("vendor/ballast", noise(1, MEGABYTE));
        project.write("app/ballast", noise(2, 2 * MEGABYTE));
        project.write(
            "trilith.toml",
            format!(
                "[image]\nrepository = \"{}\"\nversion = \"1.0.0\"\nbase = \"{base}\"\n\
                 [[layer]]\nlevel = \"lock\"\ncopy = \"vendor\"\nto = \"/opt/vendor\"\n\
                 [[layer]]\nlevel = \"source\"\ncopy = \"app\"\nto = \"/opt/app\"\n",
                registry.reference("acme/app"),
            ),
        );
        Self {
            trilith,
            home: tempfile::tempdir().unwrap(),
            registry,
            project,
        }
    }

    fn build(&self) -> Command {
        let mut command = Command::new(&self.trilith.binary);
        command
            .args([
                "build",
                "--push",
                "--quiet",
                "--format",
                "json",
                "--project",
            ])
            .arg(self.project.path())
            .env("HOME", self.home.path());
        command
    }

    fn reference(&self) -> String {
        let output = assert_success(&mut self.build());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["reference"].as_str().unwrap().to_owned()
    }
}

/// A build of what exists, with the base named by digest and by tag.
pub(crate) fn unchanged(trilith: &Trilith) -> Vec<Line> {
    let mut lines = Vec::new();
    for by_digest in [true, false] {
        let registry = registry();
        let base = debian_image(&registry, "debian:bookworm", Format::Oci, false);
        let pinned = registry.reference(&format!("debian@{}", base.digest));
        let scene = Scene::new(
            trilith,
            registry,
            if by_digest { &pinned } else { &base.reference },
        );
        let reference = scene.reference();
        scene.reference();
        let inspect = || {
            let mut command = skopeo("inspect");
            command
                .args(["--raw", "--tls-verify=false"])
                .arg(format!("docker://{reference}"));
            command
        };
        let (ours, peer) = in_turn(
            SHORT_RUNS,
            || time(&mut scene.build()),
            || time(&mut inspect()),
        );
        scene.registry.forget_requests();
        time(&mut scene.build());
        let requests = scene.registry.requests().len();
        let base = if by_digest { "digest" } else { "tag" };
        let what = format!("base named by {base}, {requests} HEAD, against `skopeo inspect --raw`");
        lines.push(Line::faster(&what, ours, peer, "4 times"));
    }
    lines
}

/// 2 MB of source changed on Debian in the same registry, to all tags pushed: text, and what does not
/// compress.
pub(crate) fn source_change(trilith: &Trilith) -> Vec<Line> {
    let registry = registry();
    let base = debian_image(&registry, "debian:bookworm", Format::Oci, true);
    let scene = Scene::new(trilith, registry, &base.reference);
    scene.reference();
    let docker = Dockerd::start();
    let tag = scene.registry.reference("acme/docker:source");
    let dockerfile = format!(
        "FROM {}\nCOPY vendor /opt/vendor\nCOPY app /opt/app\n",
        base.reference
    );
    scene.project.write("Dockerfile", dockerfile);
    let docker_build = || {
        let mut build = docker.docker();
        build
            .args(["build", "--quiet", "--tag", &tag])
            .arg(scene.project.path());
        build.env("DOCKER_BUILDKIT", "1");
        let mut push = docker.docker();
        push.args(["push", "--quiet", &tag]);
        time(&mut build) + time(&mut push)
    };
    docker_build();
    let kinds: [(&str, Content); 2] = [("text", text), ("noise", noise)];
    let seed = Cell::new(100);
    let lines = kinds.map(|(kind, content)| {
        let change = || {
            seed.set(seed.get() + 1);
            let content = content(seed.get(), 2 * MEGABYTE);
            scene.project.write("app/ballast", content);
        };
        let ours = || {
            change();
            time(&mut scene.build())
        };
        let peer = || {
            change();
            docker_build()
        };
        let (ours, peer) = in_turn(RUNS, ours, peer);
        let what = format!(
            "2 MB of source ({kind}) on Debian, built and pushed, against `docker build` + `docker push`"
        );
        Line::faster(&what, ours, peer, "5 times")
    });
    lines.into()
}

/// Makes a file of so many bytes, given a seed.
type Content = fn(u64, usize) -> Vec<u8>;

/// A layer of 2 GiB that does not compress.
pub(crate) fn large_layer(trilith: &Trilith) -> Vec<Line> {
    let registry = registry();
    let scene = Scene::new(trilith, registry, "scratch");
    let block = noise(3, 64 << 20);
    let mut file = fs::File::create(scene.project.path().join("app/large")).unwrap();
    for _ in 0..32 {
        std::io::Write::write_all(&mut file, &block).unwrap();
    }
    drop(file);
    let (taken, peak) = peak_memory(&mut scene.build());
    let line = |what: &str, taken: std::time::Duration, peak: u64| Line {
        what: what.to_owned(),
        ours: mebibytes(peak),
        peer: String::new(),
        ratio: format!("{:.1} s", taken.as_secs_f64()),
        target: "under 64 MiB".to_owned(),
    };
    let mut forced = scene.build();
    forced
        .arg("--force")
        .args(["--repository", &scene.registry.reference("acme/other")]);
    let (again, peak_again) = peak_memory(&mut forced);
    vec![
        line(
            "2 GiB layer hashed, written and pushed: peak memory",
            taken,
            peak,
        ),
        line(
            "the same layer pushed to another repository: peak memory",
            again,
            peak_again,
        ),
    ]
}

/// The same change on bases of different size.
pub(crate) fn base_size(trilith: &Trilith) -> Vec<Line> {
    let mut times = Vec::new();
    for megabytes in [10, 1000] {
        let registry = registry();
        let rootfs = tempfile::tempdir().unwrap();
        let layer = layer(rootfs.path(), megabytes);
        let options = ImageOptions {
            compression: trilith_testkit::Compression::None,
            ..Default::default()
        };
        let base = push_image(&registry, "base:1", &[layer], &options);
        let scene = Scene::new(trilith, registry, &base.reference);
        let mut first = Vec::new();
        for run in 0..RUNS {
            let repository = scene.registry.reference(&format!("acme/app{run}"));
            first.push(time(scene.build().args(["--repository", &repository])));
        }
        first.sort();
        times.push(first[RUNS / 2]);
    }
    let ratio = times[1].as_secs_f64() / times[0].as_secs_f64();
    vec![Line {
        what: "first build into a repository: base of 1 GB, against a base of 10 MB".to_owned(),
        ours: format!("{:.1} ms", times[1].as_secs_f64() * 1000.0),
        peer: format!("{:.1} ms", times[0].as_secs_f64() * 1000.0),
        ratio: format!("{ratio:.2} times as long"),
        target: "1, whatever the base".to_owned(),
    }]
}

/// Returns a tar with a file of `megabytes` that do not compress.
fn layer(directory: &Path, megabytes: usize) -> PathBuf {
    let mut file = fs::File::create(directory.join("ballast")).unwrap();
    for part in 0..megabytes {
        std::io::Write::write_all(&mut file, &noise(part as u64, MEGABYTE)).unwrap();
    }
    let tar = directory.join("layer.tar");
    assert_success(Command::new("tar").current_dir(directory).args([
        "-cf",
        "layer.tar",
        "ballast",
    ]));
    tar
}
