//! `trilith batch` against `docker build` and `docker push` for each base, and against what the
//! registry itself can do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use trilith_testkit::{
    Dockerd, DockerdOptions, ImageOptions, Project, Registry, SmallDisk, assert_success,
    busybox_image, many_bases,
};

use crate::Trilith;
use crate::measure::{Line, mebibytes, noise, peak_memory, registry_on, time};
use crate::replay::{Written, replay};

/// Bytes of the payload, which does not compress.
const PAYLOAD: usize = 10_000_000;
/// Bases of the comparison.
const BASES: usize = 200;
/// Docker builds at a time.
const DOCKER_JOBS: usize = 8;
/// Connections of the client that does nothing else, as many as images are worked on at a time.
const CONNECTIONS: usize = 16;
/// The size of a disk in memory.
const IN_MEMORY: Option<&str> = Some("4g");

/// A registry with bases, and a project to put on them.
struct Scene<'a> {
    trilith: &'a Trilith,
    home: PathBuf,
    /// What `home` is in.
    _kept: (TempDir, Option<SmallDisk>),
    registry: Registry,
    project: Project,
    bases: Vec<String>,
    /// How many tags an image gets.
    tags: usize,
    runs: AtomicUsize,
}

impl<'a> Scene<'a> {
    fn new(
        trilith: &'a Trilith,
        disk: Option<&'static str>,
        bases: usize,
        payload: usize,
        tags: usize,
    ) -> Self {
        let registry = registry_on(disk);
        busybox_image(&registry, "base:1", &ImageOptions::default());
        let names = many_bases(&registry, ("base", "1"), "eval", bases);
        let kept = (tempfile::tempdir().unwrap(), disk.map(SmallDisk::new));
        let home = kept.1.as_ref().map(SmallDisk::path);
        let project = Project::python();
        project.write("app/payload", noise(1, payload));
        project.write(
            "trilith.toml",
            format!(
                "[image]\nrepository = \"{}\"\nversion = \"1.0.0\"\n\
                 [[layer]]\nlevel = \"source\"\ncopy = \"app\"\nto = \"/opt/app\"\n",
                registry.reference("acme/agents"),
            ),
        );
        let scene = Self {
            trilith,
            home: home.unwrap_or_else(|| kept.0.path().to_owned()),
            _kept: kept,
            bases: names.iter().map(|name| registry.reference(name)).collect(),
            registry,
            project,
            tags,
            runs: AtomicUsize::new(0),
        };
        // What was written so far waits for no disk any more.
        assert_success(&mut Command::new("sync"));
        scene
    }

    fn list(&self) -> PathBuf {
        let list = self.home.join("bases");
        fs::write(&list, self.bases.join("\n")).unwrap();
        list
    }

    fn batch(&self) -> Command {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut command = Command::new(&self.trilith.binary);
        command
            .args([
                "batch",
                "--push",
                "--quiet",
                "--format",
                "json",
                "--manifest",
            ])
            .arg(self.home.join(format!("run{run}.jsonl")))
            .arg("--bases")
            .arg(self.list())
            .arg("--project")
            .arg(self.project.path())
            .env("HOME", &self.home);
        if self.tags == 1 {
            command.args(["--skip-tags", "versioned,lock"]);
        }
        command
    }

    /// Does what the first batch asked of the registry once more.
    fn replay(&self) -> Duration {
        let journal = fs::read_to_string(self.home.join("run0.jsonl")).unwrap();
        let lines = journal
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let images = lines.filter(|line| line["record"] == "image").map(|line| {
            let host = format!("{}/", self.registry.host());
            let tags = line["tags"].as_array().unwrap().iter();
            let tags = tags.map(|tag| tag.as_str().unwrap().rsplit_once(':').unwrap().1.to_owned());
            Written {
                base: line["base"].as_str().unwrap().replace(&host, ""),
                tags: tags.collect(),
            }
        });
        let images: Vec<Written> = images.collect();
        assert_eq!(images.len(), self.bases.len());
        let host = self.registry.host();
        replay(host, "acme/agents", "acme/again", &images, CONNECTIONS)
    }

    /// Builds an image on each of the bases with Docker, several at a time, and pushes it under as many
    /// tags.
    fn docker(&self, disk: Option<&'static str>) -> Duration {
        let dockerfile = "ARG BASE\nFROM $BASE\nCOPY app /opt/app\n";
        self.project.write("Dockerfile", dockerfile);
        let docker = Dockerd::start_with(DockerdOptions {
            disk,
            ..DockerdOptions::default()
        });
        let context = self.project.path();
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..DOCKER_JOBS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(base) = self.bases.get(number) else {
                            break;
                        };
                        let repository = self.registry.reference("acme/docker");
                        let names =
                            (0..self.tags).map(|tag| format!("{repository}:{number}-{tag}"));
                        let names: Vec<String> = names.collect();
                        let mut build = docker.docker();
                        build.args(["build", "--quiet", "--build-arg"]);
                        build.arg(format!("BASE={base}"));
                        build.args(names.iter().flat_map(|name| ["--tag", name]));
                        time(build.arg(context).env("DOCKER_BUILDKIT", "1"));
                        for name in names {
                            time(docker.docker().args(["push", "--quiet", &name]));
                        }
                    }
                });
            }
        });
        started.elapsed()
    }
}

fn rate(images: usize, taken: Duration) -> f64 {
    images as f64 / taken.as_secs_f64()
}

fn per_image(images: usize, taken: Duration) -> f64 {
    taken.as_secs_f64() * 1000.0 / images as f64
}

/// 200 bases and a payload of 10 MB, on one registry: first where nobody waits for a disk, then where
/// all do.
pub(crate) fn batch(trilith: &Trilith) -> Vec<Line> {
    let mut lines = compare(trilith, IN_MEMORY, "in memory");
    lines.extend(compare(trilith, None, "on disk"));
    lines
}

/// Measures a batch, with what the registry, Docker and Trilith keep on `disk`, which is called `place`.
fn compare(trilith: &Trilith, disk: Option<&'static str>, place: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |what: &str, ours: String, peer: String, ratio: String, target: &str| {
        lines.push(Line {
            what: format!("{place}: {what}"),
            ours,
            peer,
            ratio,
            target: target.to_owned(),
        });
    };
    let images = |rate: f64| format!("{rate:.1} images/s");
    let times = |ratio: f64| format!("{ratio:.1} times faster");
    // All of Trilith's before Docker: what a daemon leaves to be removed slows down who comes next.
    let ours = [(3, "three tags"), (1, "one tag")].map(|(tags, what)| {
        let scene = Scene::new(trilith, disk, BASES, PAYLOAD, tags);
        let first = time(&mut scene.batch());
        let (ours, limit) = (rate(BASES, first), rate(BASES, scene.replay()));
        line(
            &format!(
                "200 bases, 10 MB payload, {what}, against the same requests by a client that does nothing else"
            ),
            images(ours),
            images(limit),
            format!("{:.0} % of the limit", ours / limit * 100.0),
            "60 images/s",
        );
        if tags == 3 {
            let second = time(&mut scene.batch());
            line(
                "second run, nothing changed",
                format!("{:.0} images/s", rate(BASES, second)),
                String::new(),
                String::new(),
                "300 images/s",
            );
            scene.project.write("app/line", "x = 1\n");
            let changed = time(&mut scene.batch());
            line(
                "one line of source changed, against the first run",
                format!("{:.1} ms an image", per_image(BASES, changed)),
                format!("{:.1} ms an image", per_image(BASES, first)),
                format!("{:.2} times", changed.as_secs_f64() / first.as_secs_f64()),
                "1.3 times",
            );
        }
        (scene, what, ours)
    });
    let docker = ours.each_ref().map(|(scene, what, ours)| {
        let docker = rate(BASES, scene.docker(disk));
        line(
            &format!("the first run against `docker build` + `docker push` of {what}, 8 at a time"),
            images(*ours),
            images(docker),
            times(ours / docker),
            "10 times",
        );
        docker
    });
    let (three_tags, one) = (ours[0].2, docker[1]);
    line(
        "three tags against `docker build` + `docker push` of one",
        images(three_tags),
        images(one),
        times(three_tags / one),
        "",
    );
    lines
}

/// A small payload on more and more bases.
pub(crate) fn batch_size(trilith: &Trilith) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut smallest = None;
    for bases in [10, 100, 1000, 5000] {
        let scene = Scene::new(trilith, None, bases, 1000, 3);
        let (taken, peak) = peak_memory(&mut scene.batch());
        let cost = per_image(bases, taken);
        let reference = *smallest.get_or_insert(cost);
        lines.push(Line {
            what: format!("{bases} bases"),
            ours: format!("{cost:.1} ms an image, {} at most", mebibytes(peak)),
            peer: String::new(),
            ratio: format!("{:.2} times the first line", cost / reference),
            target: "constant, under 150 MiB".to_owned(),
        });
    }
    lines
}
