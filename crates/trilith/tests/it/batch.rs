//! Batches: many bases, some of which fail, on a registry that does so too.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use trilith_testkit::{
    Dockerd, Fault, FaultProxy, ImageOptions, Project, Registry, RegistryOptions, Rule,
    assert_success, busybox_image, many_bases, skopeo,
};

use crate::support::{Trilith, assert_complete, path, tag};

/// A project that is put on many bases.
struct Scene {
    trilith: Trilith,
    registry: Registry,
    project: Project,
    names: Vec<String>,
}

impl Scene {
    fn new(count: usize) -> Self {
        Self::on(Registry::start(RegistryOptions::default()), count)
    }

    fn on(registry: Registry, count: usize) -> Self {
        busybox_image(&registry, "base:1", &ImageOptions::default());
        let names = many_bases(&registry, ("base", "1"), "eval", count);
        let project = Project::python();
        project.write("vendor/lib.py", "VALUE = 1\n");
        Self {
            trilith: Trilith::new(),
            registry,
            project,
            names,
        }
    }

    /// Writes the recipe for images on `host`.
    fn recipe(&self, host: &str) {
        let recipe = format!(
            "[image]\nrepository = \"{host}/acme/agents\"\nversion = \"1.0.0\"\n\
             platforms = [\"linux/amd64\"]\n\
             [[layer]]\nlevel = \"source\"\ncopy = \"app\"\nto = \"/opt/app\"\n"
        );
        self.project.write("trilith.toml", recipe);
    }

    /// Writes the list of bases on `host`, and `more` behind them.
    fn list(&self, host: &str, more: &str) -> PathBuf {
        let mut list = "# bases\n\n".to_owned();
        for name in &self.names {
            writeln!(list, "{host}/{name}").unwrap();
        }
        list.push_str(more);
        self.file("bases.txt", &list)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let file = self.trilith.home().join(name);
        fs::write(&file, content).unwrap();
        file
    }

    fn command(&self, list: &std::path::Path, arguments: &[&str]) -> Command {
        let mut command = self.trilith.command();
        command
            .args(["batch", "--push", "--format", "json", "--project"])
            .args([path(&self.project), "--bases"])
            .arg(list)
            .args(arguments);
        command
    }

    fn batch(&self, list: &std::path::Path, arguments: &[&str]) -> Value {
        let output = assert_success(&mut self.command(list, arguments));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the lines of a manifest.
    fn manifest(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.trilith.home().join(name)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    /// Returns the requests since the ended time, without the digests in them.
    fn requests(&self) -> Vec<(String, String)> {
        let requests = self.registry.requests();
        self.registry.forget_requests();
        let requests = requests
            .into_iter()
            .map(|request| (request.method, request.path));
        requests.collect()
    }
}

/// Returns how often the bytes of each blob were sent.
fn uploads(requests: &[(String, String)]) -> HashMap<String, usize> {
    let mut uploads = HashMap::new();
    for (method, path) in requests {
        if method == "PUT"
            && let Some((_, digest)) = path.split_once("digest=")
        {
            *uploads.entry(digest.to_owned()).or_default() += 1;
        }
    }
    uploads
}

#[test]
fn every_image_is_the_one_that_a_build_makes_and_the_work_is_done_once() {
    let scene = Scene::new(12);
    let host = scene.registry.host().to_owned();
    scene.recipe(&host);
    let more = format!("{host}/{}\n", scene.names[0]);
    let list = scene.list(&host, &more);
    scene.registry.forget_requests();

    let summary = scene.batch(&list, &["--jobs", "6"]);
    assert_eq!(
        (&summary["images"], &summary["built"]),
        (&12.into(), &12.into())
    );
    assert_eq!(summary["duplicates"], 1);
    let requests = scene.requests();
    let sent = uploads(&requests);
    assert!(sent.values().all(|&count| count == 1), "{sent:?}");
    // Once a tag is missing, all that are there are told at once.
    let of_tags = |wanted: &str, what: &str| {
        let about = |(method, path): &&(String, String)| {
            method == wanted && path.contains("/acme/agents/") && path.contains(what)
        };
        requests.iter().filter(about).count()
    };
    assert_eq!(of_tags("GET", "/tags/list"), 1, "{requests:?}");
    assert!(of_tags("HEAD", "/manifests/") <= 2 * 6, "{requests:?}");
    assert_complete(&scene.registry, "acme/agents");

    let lines = scene.manifest("trilith-batch.jsonl");
    assert_eq!(lines.len(), 13);
    assert_eq!(lines[0]["record"], "run");
    for line in &lines[1..] {
        assert_eq!(
            (&line["record"], &line["status"]),
            (&"image".into(), &"built".into())
        );
        assert_eq!(line["tags"].as_array().unwrap().len(), 3);
    }

    // Alone, from nothing that is remembered.
    let alone = Trilith::new();
    let base = lines[1]["base"].as_str().unwrap();
    let built = alone.json(&[
        "build",
        "--push",
        "--force",
        "--project",
        path(&scene.project),
        "--base-image",
        base,
    ]);
    assert_eq!(built["digest"], lines[1]["digest"]);
    assert_eq!(built["reference"], lines[1]["reference"]);
    scene.registry.forget_requests();

    let again = scene.batch(&list, &["--manifest", "second.jsonl"]);
    assert_eq!(again["reused"], 12);
    let requests = scene.requests();
    assert_eq!(requests.len(), 2 * 12);
    assert!(
        requests.iter().all(|(method, _)| method == "HEAD"),
        "{requests:?}"
    );

    // On a machine that remembers nothing, what the images carry decides.
    let fresh = Scene {
        trilith: Trilith::new(),
        ..scene
    };
    let list = fresh.list(&host, "");
    assert_eq!(fresh.batch(&list, &[])["reused"], 12);
    let stale = fresh
        .registry
        .manifest("acme/agents", tag(&lines[1]["reference"]))
        .unwrap();
    let other = tag(&lines[2]["reference"]);
    let copy = format!("docker://{host}/acme/agents");
    assert_success(
        skopeo("copy")
            .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
            .args([
                format!("{copy}@{}", stale.digest),
                format!("{copy}:{other}"),
            ]),
    );
    let mended = fresh.batch(&list, &["--manifest", "third.jsonl"]);
    assert_eq!(
        (&mended["reused"], &mended["built"]),
        (&11.into(), &1.into())
    );
    let now = fresh.registry.manifest("acme/agents", other).unwrap();
    assert_eq!(lines[2]["digest"], now.digest);
}

#[test]
fn a_registry_that_does_not_list_its_tags_is_asked_for_each() {
    let scene = Scene::new(8);
    let proxy = FaultProxy::start(scene.registry.host());
    proxy.add(Rule::new("GET", "/tags/list", Fault::status(404)));
    scene.recipe(proxy.host());
    let list = scene.list(proxy.host(), "");
    assert_eq!(scene.batch(&list, &[])["built"], 8);
    // One is missing, and asked for before the others.
    let all = format!(
        "{}/base:1\n{}",
        proxy.host(),
        fs::read_to_string(&list).unwrap()
    );
    let all = scene.file("all.txt", &all);
    let summary = scene.batch(&all, &["--jobs", "1", "--manifest", "second.jsonl"]);
    let done = (&summary["built"], &summary["reused"]);
    assert_eq!(done, (&1.into(), &8.into()));
}

#[test]
fn an_image_without_its_lower_tags_is_five_requests() {
    let scene = Scene::new(16);
    let host = scene.registry.host().to_owned();
    scene.recipe(&host);
    let list = scene.list(&host, "");
    scene.registry.forget_requests();
    let built = scene.batch(&list, &["--skip-tags", "versioned,lock", "--jobs", "1"]);
    assert_eq!(built["built"], 16);
    let requests = scene.requests();
    let about = |name: &str| {
        let requests = requests.iter().filter(|(_, path)| path.contains(name));
        requests
            .map(|(method, _)| method.as_str())
            .collect::<Vec<_>>()
    };
    // Of the base its manifest and configuration.
    assert_eq!(about("/eval/b15/"), ["GET", "GET"], "{requests:#?}");
    // Its configuration in two requests, its manifest in one; the layers of all, and a few
    // questions.
    let written = about("/acme/agents/")
        .into_iter()
        .filter(|&method| method != "HEAD");
    assert!(
        (16 * 3..16 * 3 + 8).contains(&written.count()),
        "{requests:#?}"
    );
    assert_eq!(scene.registry.tags("acme/agents").len(), 16);
    assert_complete(&scene.registry, "acme/agents");
    let again = scene.batch(
        &list,
        &["--skip-tags", "versioned,lock", "--manifest", "2.jsonl"],
    );
    assert_eq!(again["reused"], 16);
}

#[test]
fn a_base_is_read_without_a_question_where_reading_does_not_count() {
    for (headers, questions) in [(&[][..], 1), (&[("RateLimit-Remaining", "76;w=21600")], 8)] {
        let registry = Registry::start(RegistryOptions {
            headers,
            ..RegistryOptions::default()
        });
        let scene = Scene::on(registry, 8);
        let host = scene.registry.host().to_owned();
        scene.recipe(&host);
        let list = scene.list(&host, "");
        let requests = |manifest: &str| {
            scene.registry.forget_requests();
            let built = scene.batch(&list, &["--jobs", "1", "--manifest", manifest]);
            assert_eq!(built["built"], 8);
            let requests = scene.requests();
            ["HEAD", "GET"].map(|wanted| {
                let of_base = |(method, path): &&(String, String)| {
                    method == wanted && path.contains("/eval/") && path.contains("/manifests/")
                };
                requests.iter().filter(of_base).count()
            })
        };
        assert_eq!(requests("first.jsonl"), [questions, 8]);
        // They are known from then on, and asked for.
        scene.project.write("app/main.py", "print('changed')\n");
        assert_eq!(requests("second.jsonl"), [8, 0]);
    }
}

#[test]
fn payloads_travel_once_whatever_the_repositories() {
    let scene = Scene::new(4);
    let host = scene.registry.host().to_owned();
    scene.recipe(&host);
    let mut list = "base,name,tag\n".to_owned();
    for (number, name) in scene.names.iter().enumerate() {
        writeln!(list, "{host}/{name},team{number}/b,extra").unwrap();
    }
    let list = scene.file("bases.csv", &list);
    let matrix = "[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\nversion = \"2\"\n";
    let matrix = scene.file("matrix.toml", matrix);
    scene.registry.forget_requests();
    let summary = scene.batch(&list, &["--matrix", matrix.to_str().unwrap()]);
    assert_eq!(summary["built"], 8);
    let lines = scene.manifest("trilith-batch.jsonl");
    let digest = lines[1]["reference"].as_str().unwrap();
    assert!(digest.ends_with("-a") || digest.ends_with("-b"), "{digest}");
    let image = scene
        .registry
        .manifest("acme/agents/team0/b", "extra")
        .unwrap()
        .json();
    let payload = image["layers"].as_array().unwrap().last().unwrap()["digest"].clone();
    let sent = uploads(&scene.requests());
    let payload = payload.as_str().unwrap().replace(':', "%3A");
    assert_eq!(sent.get(&payload), Some(&1), "{sent:?}");
}

#[test]
fn a_base_is_asked_for_and_read_once_whatever_its_names_and_variants() {
    let scene = Scene::new(1);
    let host = scene.registry.host().to_owned();
    scene.recipe(&host);
    let base = format!("{host}/{}", scene.names[0]);
    let again = format!("{host}/again/b:1");
    let copied = ["docker://", &base, "docker://", &again];
    assert_success(skopeo("copy").args([copied[..2].concat(), copied[2..].concat()]));
    let list = scene.file("bases.txt", &format!("{base}\n{again}\n"));
    let names = ["a", "b", "c"].map(|name| format!("[[variant]]\nname = \"{name}\"\n"));
    let matrix = scene.file("matrix.toml", &names.concat());
    scene.registry.forget_requests();
    let summary = scene.batch(&list, &["--matrix", matrix.to_str().unwrap()]);
    // Of the same content, so each is built under one name and found under the other.
    let done = (&summary["built"], &summary["reused"]);
    assert_eq!(done, (&3.into(), &3.into()));
    let requests = scene.requests();
    let of_bases = |wanted: &str| {
        let of_bases = requests
            .iter()
            .filter(|(method, path)| method == wanted && !path.contains("/acme/agents/"));
        of_bases.map(|(_, path)| path.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of_bases("HEAD").len(), 2, "{requests:?}");
    let read = of_bases("GET");
    assert_eq!(read.len(), 2, "{read:?}");
    let is_read = |what: &str| read.iter().filter(|path| path.contains(what)).count() == 1;
    assert!(is_read("/manifests/") && is_read("/blobs/"), "{read:?}");

    // Nor again by the next batch, which has other source to put on it.
    scene.project.write("app/main.py", "print('changed')\n");
    let changed = [
        "--matrix",
        matrix.to_str().unwrap(),
        "--manifest",
        "changed.jsonl",
    ];
    assert_eq!(scene.batch(&list, &changed)["built"], 3);
    let requests = scene.requests();
    let (reads, of_base): (Vec<_>, Vec<_>) = requests
        .iter()
        .filter(|(_, path)| !path.contains("/acme/agents/"))
        .partition(|(method, _)| method == "GET");
    assert_eq!((reads.len(), of_base.len()), (0, 2), "{requests:?}");
}

#[test]
fn mistakes_are_told_before_anything_begins() {
    let scene = Scene::new(1);
    let host = scene.registry.host().to_owned();
    scene.recipe(&host);
    let mut list = String::new();
    for number in 1..=10_000 {
        let name = if number == 7 {
            "debian:-".to_owned()
        } else {
            format!("{host}/x{number}")
        };
        writeln!(list, "{name}").unwrap();
    }
    let list = scene.file("bases.txt", &list);
    scene.registry.forget_requests();
    let refused = scene.command(&list, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("has 1 mistake\n  line 7: "), "{stderr}");
    assert!(refused.stdout.is_empty());
    assert!(!scene.trilith.home().join("trilith-batch.jsonl").exists());
    assert!(scene.requests().is_empty());
}

#[test]
fn failures_stop_no_others_and_are_tried_again() {
    let scene = Scene::new(3);
    let host = scene.registry.host().to_owned();
    scene.recipe(&host);
    let list = scene.list(&host, &format!("{host}/gone:1\n{host}/later:1\n"));
    let failed = scene.command(&list, &[]).output().unwrap();
    assert_eq!(failed.status.code(), Some(3));
    let summary: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(
        (&summary["built"], &summary["failed"]),
        (&3.into(), &2.into())
    );
    assert_eq!(summary["failures"][0]["count"], 2);
    assert_eq!(
        summary["failures"][0]["cause"],
        "image `BASE` does not exist"
    );

    let stderr = scene.trilith.error(
        2,
        &[
            "batch",
            "--bases",
            list.to_str().unwrap(),
            "--project",
            path(&scene.project),
        ],
    );
    assert!(
        stderr.contains("exists") && stderr.contains("--resume"),
        "{stderr}"
    );

    busybox_image(&scene.registry, "later:1", &ImageOptions::default());
    let resumed = scene.command(&list, &["--resume"]).output().unwrap();
    assert_eq!(resumed.status.code(), Some(3));
    let lines = scene.manifest("trilith-batch.jsonl");
    let of = |base: &str| -> Vec<&Value> {
        let is = |line: &&Value| line["base"] == format!("{host}/{base}:1");
        lines.iter().filter(is).collect()
    };
    let later = of("later");
    assert_eq!(later.len(), 2);
    assert_eq!(
        (&later[1]["status"], &later[1]["attempts"]),
        (&"built".into(), &2.into())
    );
    assert_eq!(of("gone")[1]["error"]["kind"], "not_found");
    assert!(lines.iter().all(|line| line["run"] == lines[0]["run"]));

    let page = scene.trilith.home().join("report.html");
    let arguments = [
        "batch",
        "report",
        "trilith-batch.jsonl",
        "--html",
        "report.html",
    ];
    assert_success(scene.trilith.command().args(arguments));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("<b>4</b><span>built</span>"), "{page}");
    assert!(
        !page.contains("http://") && !page.contains("<script"),
        "{page}"
    );
}

#[test]
fn a_thousand_images_from_a_registry_that_fails_by_a_process_that_dies() {
    const COUNT: usize = 1000;
    let scene = Scene::new(COUNT);
    let proxy = FaultProxy::start(scene.registry.host());
    let retry_after = vec![("Retry-After".to_owned(), "1".to_owned())];
    // One in a hundred, in four ways.
    for (method, path, fault) in [
        ("HEAD", "/manifests/", Fault::status(503)),
        ("PUT", "/manifests/", Fault::CutResponse(0)),
        ("POST", "/blobs/uploads/", Fault::Answer(429, retry_after)),
        ("*", "", Fault::Delay(Duration::from_millis(200))),
    ] {
        proxy.add(Rule::new(method, path, fault).every(100));
    }
    let host = proxy.host().to_owned();
    scene.recipe(&host);
    let list = scene.list(&host, "");
    scene.registry.forget_requests();
    let manifest = scene.trilith.home().join("trilith-batch.jsonl");
    let lines = || {
        let text = fs::read_to_string(&manifest).unwrap_or_default();
        text.matches("\"record\":\"image\"").count()
    };
    for round in 1..=5 {
        let resume: &[&str] = if round == 1 { &[] } else { &["--resume"] };
        let mut child = scene
            .command(&list, resume)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while lines() < round * 100 {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended in round {round}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let summary = scene.batch(&list, &["--resume", "--retries", "5"]);
    let done = summary["built"].as_u64().unwrap() + summary["reused"].as_u64().unwrap();
    assert_eq!(done, COUNT as u64);
    let sent = uploads(&scene.requests());
    let twice: Vec<_> = sent.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");

    let mut ended: HashMap<String, Value> = HashMap::new();
    for line in scene.manifest("trilith-batch.jsonl") {
        if line["record"] == "image" {
            ended.insert(line["base"].as_str().unwrap().to_owned(), line);
        }
    }
    assert_eq!(ended.len(), COUNT);
    let work: Vec<(usize, &Value)> = scene
        .names
        .iter()
        .map(|name| &ended[&format!("{host}/{name}")])
        .enumerate()
        .collect();
    let direct = scene.registry.host();
    thread::scope(|scope| {
        for part in work.chunks(COUNT / 4) {
            scope.spawn(move || {
                for (number, line) in part {
                    let (_, name) = line["reference"].as_str().unwrap().split_once('/').unwrap();
                    let output = assert_success(
                        skopeo("inspect")
                            .arg("--tls-verify=false")
                            .arg(format!("docker://{direct}/{name}")),
                    );
                    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
                    assert_eq!(seen["Digest"], line["digest"]);
                    assert_eq!(seen["Labels"]["base"], number.to_string());
                    assert_eq!(seen["Layers"].as_array().unwrap().len(), 3);
                }
            });
        }
    });
    assert_complete(&scene.registry, "acme/agents");
}

#[test]
fn steps_on_many_bases_by_an_engine() {
    let scene = Scene::new(3);
    let host = scene.registry.host().to_owned();
    let docker = Dockerd::start();
    scene.project.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{host}/acme/agents\"\nversion = \"1.0.0\"\n\
             [dockerfile]\npath = \"Dockerfile\"\n"
        ),
    );
    scene.project.write(
        "Dockerfile",
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG COLOR=none\n\
         RUN echo \"the colour is $COLOR\" | tee /colour && ! grep -q black /colour\n",
    );
    let mut list = String::new();
    for (name, color) in scene.names.iter().zip(["red", "black", "green"]) {
        let line = serde_json::json!({"base": format!("{host}/{name}"), "args": {"COLOR": color}});
        writeln!(list, "{line}").unwrap();
    }
    let list = scene.file("bases.jsonl", &list);
    let mut command = scene.command(
        &list,
        &["--builder", "docker", "--network", "none", "--retries", "0"],
    );
    command.env("DOCKER_HOST", docker.host());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = (&summary["built"], &summary["failed"]);
    assert_eq!(counts, (&2.into(), &1.into()), "{stderr}");
    let lines = scene.manifest("trilith-batch.jsonl");
    let failed = lines
        .iter()
        .find(|line| line["status"] == "failed")
        .unwrap();
    let log = scene.trilith.home().join(failed["log"].as_str().unwrap());
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .contains("the colour is black")
    );
}
