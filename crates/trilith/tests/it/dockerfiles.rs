//! What is an input of a Dockerfile recipe, and at which level: no engine is needed to tell.

use std::collections::BTreeMap;

use serde_json::Value;
use trilith_testkit::{ImageOptions, Project, Registry, RegistryOptions, busybox_image};

use crate::support::{Trilith, path};

const DOCKERFILE: &str = "\
ARG BASE_IMAGE
ARG VERSION=1
FROM ${BASE_IMAGE} AS base
RUN setup
FROM base AS deps
ARG VERSION
COPY requirements.lock scripts/install /deps/
RUN install $VERSION
FROM deps AS runtime
ARG GREETING=hello
COPY --from=TOOLS /bin/sh /tool
COPY app /app
";

struct Parts {
    trilith: Trilith,
    project: Project,
    recipe: String,
}

impl Parts {
    fn new(registry: &Registry) -> Self {
        let base = busybox_image(registry, "base:1", &ImageOptions::default());
        let tools = busybox_image(registry, "tools:1", &ImageOptions::default());
        let project = Project::empty();
        project.write("Dockerfile", DOCKERFILE.replace("TOOLS", &tools.reference));
        for file in [
            "requirements.lock",
            "scripts/install",
            "app/main",
            "notes",
            "x.log",
        ] {
            project.write(file, "one\n");
        }
        project.write(".dockerignore", "*.log\n");
        let recipe = format!(
            "[image]\nrepository = \"{}\"\nversion = \"1\"\nbase = \"{}\"\n\
             platforms = [\"linux/amd64\"]\n[inputs]\nlock = [\"requirements.lock\"]\n\
             [dockerfile]\npath = \"Dockerfile\"\n",
            registry.reference("acme/app"),
            base.reference
        );
        Self {
            trilith: Trilith::new(),
            project,
            recipe,
        }
    }

    /// Returns the keys of the levels with `flags`.
    fn tags(&self, flags: &[&str]) -> BTreeMap<String, Value> {
        let arguments = [&["tags", "--project", path(&self.project)], flags].concat();
        let Value::Object(document) = self.trilith.json(&arguments) else {
            panic!("a document is an object");
        };
        document.into_iter().collect()
    }

    /// Returns the lowest level whose tag differs, when the ones above it do too.
    fn moved(&self, before: &BTreeMap<String, Value>, flags: &[&str]) -> &'static str {
        let after = self.tags(flags);
        let differs = ["versioned", "lock", "source"].map(|level| before[level] != after[level]);
        match differs {
            [true, true, true] => "versioned",
            [false, true, true] => "lock",
            [false, false, true] => "source",
            [false, false, false] => "nothing",
            other => panic!("a change moved {other:?}"),
        }
    }

    fn check(&self, changes: &[(&str, &str, &[&str], &str)]) {
        let before = self.tags(&[]);
        for (file, content, flags, expected) in changes {
            let kept = (!file.is_empty()).then(|| self.project.read(file));
            if kept.is_some() {
                self.project.write(file, content);
            }
            assert_eq!(self.moved(&before, flags), *expected, "{file} {flags:?}");
            if let Some(kept) = kept {
                self.project.write(file, kept);
            }
        }
        assert_eq!(self.moved(&before, &[]), "nothing");
    }
}

#[test]
fn a_fact_counts_where_its_stage_does() {
    let registry = Registry::start(RegistryOptions::default());
    let parts = Parts::new(&registry);
    let levels = "levels = { versioned = \"base\", lock = \"deps\", source = \"runtime\" }\n";
    let recipe = format!("{}{levels}", parts.recipe);
    parts.project.write("trilith.toml", &recipe);
    let text = parts.project.read("Dockerfile");
    let text = |from: &str, to: &str| text.replace(from, to);
    let other = busybox_image(
        &registry,
        "tools:2",
        &ImageOptions {
            compression: trilith_testkit::Compression::None,
            ..ImageOptions::default()
        },
    );
    parts.check(&[
        (
            "Dockerfile",
            &text("RUN setup", "RUN setup anew"),
            &[],
            "versioned",
        ),
        (
            "Dockerfile",
            &text("RUN install", "RUN  install -v"),
            &[],
            "lock",
        ),
        (
            "Dockerfile",
            &text("COPY app /app", "COPY app /opt"),
            &[],
            "source",
        ),
        (
            "Dockerfile",
            &text("FROM deps AS", "# A remark.\nFROM deps AS"),
            &[],
            "nothing",
        ),
        ("Dockerfile", &text("tools:1", "tools:2"), &[], "source"),
        ("requirements.lock", "two\n", &[], "lock"),
        ("scripts/install", "two\n", &[], "lock"),
        ("app/main", "two\n", &[], "source"),
        ("notes", "two\n", &[], "nothing"),
        ("x.log", "two\n", &[], "nothing"),
        (
            "trilith.toml",
            &format!("{recipe}# A remark.\n"),
            &[],
            "nothing",
        ),
        ("", "", &["--build-arg", "VERSION=2"], "lock"),
        ("", "", &["--build-arg", "GREETING=good day"], "source"),
        ("", "", &["--extra-deps", "git"], "lock"),
        ("", "", &["--user", "10001"], "source"),
        ("", "", &["--base-image", &other.reference], "versioned"),
    ]);
    let error = parts.trilith.error(
        2,
        &[
            "tags",
            "--project",
            path(&parts.project),
            "--target",
            "deps",
        ],
    );
    assert!(
        error.contains("target") && error.contains("hint: "),
        "{error}"
    );
}

#[test]
fn without_levels_the_text_comes_first_and_the_context_last() {
    let registry = Registry::start(RegistryOptions::default());
    let parts = Parts::new(&registry);
    parts.project.write("trilith.toml", &parts.recipe);
    let text = parts.project.read("Dockerfile");
    let text = |from: &str, to: &str| text.replace(from, to);
    parts.check(&[
        (
            "Dockerfile",
            &text("COPY app /app", "COPY app /opt"),
            &[],
            "versioned",
        ),
        ("requirements.lock", "two\n", &[], "lock"),
        ("scripts/install", "two\n", &[], "source"),
        ("notes", "two\n", &[], "source"),
        ("x.log", "two\n", &[], "nothing"),
        ("", "", &["--build-arg", "VERSION=2"], "versioned"),
        ("", "", &["--target", "deps"], "versioned"),
        ("", "", &["--extra-deps", "git"], "lock"),
        ("", "", &["--user", "10001"], "source"),
    ]);
}
