//! A Trilith with a home of its own, and what tests ask about images again and again.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use trilith_testkit::{Podman, Project, Registry, assert_success, run};

/// The binary under test, with its own home, store and caches.
pub(crate) struct Trilith {
    home: TempDir,
}

impl Trilith {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns the command with an environment in which nothing of this machine shows.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trilith"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home.path())
            .current_dir(self.home.path());
        command
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn store(&self) -> std::path::PathBuf {
        self.home.path().join(".local/share/trilith/store")
    }

    /// Runs the command, whatever comes of it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(self.command().args(arguments))
    }

    /// Runs the command and returns the document it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = assert_success(self.command().args(arguments).args(["--format", "json"]));
        serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
    }

    /// Runs the command, which has to fail with `code`, and returns what it says.
    pub(crate) fn error(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(
            output.stdout.is_empty(),
            "a failure prints nothing on stdout"
        );
        stderr
    }

    /// Builds `project` into its registry.
    /// Writes what `docker login` would, where the registry asks for credentials.
    pub(crate) fn log_in(&self, registry: &Registry) {
        let Some(login) = registry.login() else {
            return;
        };
        let config = self.home().join(".docker/config.json");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        let auths = serde_json::json!({"auths": {registry.host(): {"auth": login}}});
        fs::write(config, auths.to_string()).unwrap();
    }

    pub(crate) fn push(&self, project: &Project) -> Value {
        self.json(&["build", "--push", "--project", path(project)])
    }
}

/// Returns the variables with which a Trilith finds `podman` and makes its temporary files where that
/// sees them, in a root of its own or not.
pub(crate) fn podman_environment(podman: &Podman) -> Vec<(String, String)> {
    let set = podman.environment().into_iter();
    let mut environment: Vec<(String, String)> = set
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", podman.dir().display());
    environment.push(("PATH".to_owned(), path));
    let temporary = podman.dir().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    environment.push(("TMPDIR".to_owned(), temporary.display().to_string()));
    environment
}

/// Makes of functions that take how an `Engine` is started a test on each of these.
macro_rules! on {
    ($engines:tt: $($test:ident),+ $(,)?) => {
        $(on!(@ $test $engines);)+
    };
    (@ $test:ident [$($engine:ident),+]) => {
        mod $test {
            $(#[test]
            fn $engine() {
                super::$test(super::Engine::$engine);
            })+
        }
    };
}
pub(crate) use on;

pub(crate) fn path(project: &Project) -> &str {
    project.path().to_str().unwrap()
}

/// A project of two layers on `base`, named `repository` on `registry`.
pub(crate) fn project(registry: &Registry, repository: &str, base: &str) -> Project {
    let project = Project::python();
    project.write("vendor/lib.py", "VALUE = 1\n");
    project.write(
        "trilith.toml",
        recipe(&registry.reference(repository), base),
    );
    project
}

pub(crate) fn recipe(repository: &str, base: &str) -> String {
    format!(
        r#"
[image]
repository = "{repository}"
version = "1.0.0"
base = "{base}"
platforms = ["linux/amd64"]

[inputs]
lock = ["pyproject.toml", "uv.lock"]

[[layer]]
level = "lock"
copy = "vendor"
to = "/opt/app/vendor"

[[layer]]
level = "source"
copy = "app"
to = "/opt/app"
owner = "10001:10001"

[config]
entrypoint = ["/opt/app/run"]
user = "10001:10001"
workdir = "/opt/app"
env = {{ LANG = "C.UTF-8" }}
"#
    )
}

/// Returns the tag of a full reference.
pub(crate) fn tag(reference: &Value) -> &str {
    reference.as_str().unwrap().rsplit_once(':').unwrap().1
}

/// Checks that every tag of `repository` leads to manifests and blobs that are all there.
pub(crate) fn assert_complete(registry: &Registry, repository: &str) {
    for tag in registry.tags(repository) {
        assert_manifest_complete(registry, repository, &tag);
    }
}

fn assert_manifest_complete(registry: &Registry, repository: &str, name: &str) {
    let manifest = registry
        .manifest(repository, name)
        .unwrap_or_else(|| panic!("`{repository}:{name}` has no manifest"))
        .json();
    for child in manifest["manifests"].as_array().into_iter().flatten() {
        assert_manifest_complete(registry, repository, child["digest"].as_str().unwrap());
    }
    let config = manifest.get("config").into_iter();
    for blob in config.chain(manifest["layers"].as_array().into_iter().flatten()) {
        let digest = blob["digest"].as_str().unwrap();
        assert!(
            registry.has_blob(repository, digest),
            "`{repository}:{name}` lacks {digest}"
        );
    }
}

/// Returns the digest of the lowest layer of an image.
pub(crate) fn lowest_layer(registry: &Registry, repository: &str, digest: &str) -> String {
    let manifest = registry.manifest(repository, digest).unwrap().json();
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
}
