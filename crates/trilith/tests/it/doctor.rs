//! `trilith doctor`: what it finds, and what it does not tell.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use trilith_testkit::{Dockerd, Podman, Project, assert_success, run, stdout_of};

use crate::support::{Trilith, path};

/// Runs `command`, and returns the document it prints and the report for people.
fn both(mut command: impl FnMut() -> Command) -> (Value, String) {
    let document = assert_success(command().args(["doctor", "--format", "json"]));
    let report = assert_success(command().arg("doctor"));
    assert_eq!(String::from_utf8_lossy(&document.stderr), "");
    (
        serde_json::from_slice(&document.stdout).expect("stdout is one JSON document"),
        String::from_utf8(report.stdout).expect("the report is UTF-8"),
    )
}

/// Lets the command find this Podman instead of the machine's.
fn with_podman<'c>(command: &'c mut Command, podman: &Podman) -> &'c mut Command {
    for (name, value) in podman.environment() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn engines_that_answer_tell_what_they_can_do() {
    let (dockerd, podman) = (Dockerd::start(), Podman::new());
    let trilith = Trilith::new();
    let command = || {
        let mut command = trilith.command();
        with_podman(&mut command, &podman).env("DOCKER_HOST", dockerd.host());
        command
    };
    let (document, report) = both(command);
    assert_eq!(document["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["auto"], "docker");
    let [docker, other, buildkit] = document["engines"].as_array().unwrap().as_slice() else {
        panic!("{document}");
    };
    for (engine, name, version, address) in [
        (docker, "docker", "20.10.", dockerd.host().as_str()),
        (other, "podman", "4.3.", "podman"),
    ] {
        assert_eq!(engine["engine"], name);
        assert_eq!(engine["answers"], true, "{engine}");
        assert!(engine["version"].as_str().unwrap().starts_with(version));
        assert_eq!(engine["address"], address);
        assert_eq!(engine["platforms"][0], "linux/amd64");
        let features = engine["features"].as_array().unwrap();
        for feature in ["secrets", "load", "push"] {
            assert!(features.contains(&json!(feature)), "{engine}");
        }
        for feature in features {
            assert!(engine["missing"].get(feature.as_str().unwrap()).is_none());
        }
        assert_eq!(
            (&engine["problem"], &engine["remedy"]),
            (&Value::Null, &Value::Null)
        );
        assert!(report.contains(&format!("{name}: {version}")), "{report}");
    }
    assert_eq!(buildkit["answers"], false);
    assert!(report.contains("Dockerfiles are built by docker unless told otherwise"));
    assert_eq!(document["credentials"], Value::Null);
}

#[test]
fn what_does_not_answer_comes_with_a_remedy() {
    let trilith = Trilith::new();
    let command = || {
        let mut command = trilith.command();
        command
            .env("PATH", "/nonexistent")
            .env("DOCKER_HOST", "tcp://user:planted-word@docker.example")
            .env("BUILDKIT_HOST", "unix:///nonexistent/buildkitd.sock");
        command
    };
    let (document, report) = both(command);
    assert_eq!(document["auto"], Value::Null);
    for (position, engine, address, remedy) in [
        (0, "docker", "docker.example", "systemctl start docker"),
        (1, "podman", "`podman`", "Podman 4.3"),
        (
            2,
            "buildkit",
            "unix:///nonexistent/buildkitd.sock",
            "BUILDKIT_HOST",
        ),
    ] {
        let found = &document["engines"][position];
        assert_eq!(found["engine"], engine);
        assert_eq!(found["answers"], false);
        assert_eq!(found["features"], json!([]));
        assert!(
            found["problem"].as_str().unwrap().contains(address),
            "{found}"
        );
        assert!(
            found["remedy"].as_str().unwrap().contains(remedy),
            "{found}"
        );
        assert!(report.contains(remedy), "{report}");
    }
    assert!(report.contains("no engine answers"), "{report}");
    assert!(
        !format!("{document}{report}").contains("planted-word"),
        "{report}"
    );

    let project = Project::empty();
    project.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    project.write(
        "trilith.toml",
        r#"
[image]
repository = "localhost:1/acme/app"
version = "1"
base = "scratch"
[dockerfile]
path = "Dockerfile"
"#,
    );
    let output = run(command().args(["build", "--project", path(&project)]));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("no engine answers: docker does not"),
        "{error}"
    );
    assert!(error.contains("trilith doctor"), "{error}");
    assert!(!error.contains("planted-word"), "{error}");
}

#[test]
fn certificates_of_a_buildkitd_are_read() {
    let trilith = Trilith::new();
    let certificates = trilith.home().join("certificates");
    fs::create_dir(&certificates).unwrap();
    fs::write(certificates.join("ca.pem"), "planted-word").unwrap();
    let (document, report) = both(|| {
        let mut command = trilith.command();
        command
            .env("PATH", "/nonexistent")
            .env("BUILDKIT_HOST", "tcp://127.0.0.1:1")
            .env("BUILDKIT_TLS_DIR", &certificates);
        command
    });
    let problem = document["engines"][2]["problem"].as_str().unwrap();
    assert!(problem.contains("certificates/ca.pem"), "{problem}");
    assert!(
        !format!("{document}{report}").contains("planted-word"),
        "{report}"
    );
}

#[test]
fn contexts_of_docker_are_followed() {
    let dockerd = Dockerd::start();
    let trilith = Trilith::new();
    // Docker names the directory by the SHA-256 of the name.
    let name = sha256("chosen");
    let config = trilith.home().join(".docker");
    let meta = config.join("contexts/meta").join(name);
    fs::create_dir_all(&meta).unwrap();
    let description = json!({
        "Name": "chosen",
        "Endpoints": {"docker": {"Host": dockerd.host()}},
    });
    fs::write(meta.join("meta.json"), description.to_string()).unwrap();
    fs::write(
        config.join("config.json"),
        r#"{"currentContext": "chosen"}"#,
    )
    .unwrap();
    let (document, _) = both(|| trilith.command());
    assert_eq!(document["engines"][0]["address"], dockerd.host().as_str());
    let (document, _) = both(|| {
        let mut command = trilith.command();
        command.env("DOCKER_CONTEXT", "missing");
        command
    });
    let problem = document["engines"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("cannot read"), "{problem}");
}

fn sha256(text: &str) -> String {
    let mut command = Command::new("sh");
    let printed = stdout_of(command.args(["-c", &format!("printf %s {text} | sha256sum")]));
    printed[..64].to_owned()
}

#[test]
fn credentials_are_found_and_not_told() {
    let trilith = Trilith::new();
    let project = Project::empty();
    project.write(
        "trilith.toml",
        "[image]\nrepository = \"registry.example/acme/app\"\n",
    );
    let command = || {
        let mut command = trilith.command();
        command
            .env("PATH", "/nonexistent")
            .current_dir(project.path());
        command
    };
    let (document, report) = both(command);
    let credentials = &document["credentials"];
    assert_eq!(credentials["repository"], "registry.example/acme/app");
    assert_eq!(credentials["found"], false);
    let config = trilith.home().join(".docker/config.json");
    let searched = credentials["searched"].to_string();
    assert!(searched.contains(config.to_str().unwrap()), "{searched}");
    assert!(report.contains("docker login"), "{report}");

    fs::create_dir(config.parent().unwrap()).unwrap();
    // base64 of `user:planted-word`.
    let auth = "dXNlcjpwbGFudGVkLXdvcmQ=";
    let auths = json!({"auths": {"registry.example": {"auth": auth}}});
    fs::write(&config, auths.to_string()).unwrap();
    let (document, report) = both(command);
    let credentials = &document["credentials"];
    assert_eq!(credentials["found"], true);
    let origin = credentials["origin"].as_str().unwrap();
    assert!(origin.contains(config.to_str().unwrap()), "{origin}");
    assert!(report.contains(origin), "{report}");
    let all = format!("{document}{report}");
    assert!(
        !all.contains(auth) && !all.contains("planted-word"),
        "{all}"
    );

    let other =
        assert_success(command().args(["doctor", "--format=json", "--repository=other.example/a"]));
    let document: Value = serde_json::from_slice(&other.stdout).unwrap();
    assert_eq!(document["credentials"]["repository"], "other.example/a");
    assert_eq!(document["credentials"]["found"], false);

    fs::write(&config, "{\"auths\": planted-word}").unwrap();
    let (document, report) = both(command);
    let problem = document["credentials"]["problem"].as_str().unwrap();
    assert!(problem.contains("malformed at line 1"), "{problem}");
    assert!(!format!("{document}{report}").contains("planted-word"));
}

#[test]
fn a_store_that_cannot_be_written_to() {
    let trilith = Trilith::new();
    let file = trilith.home().join("file");
    fs::write(&file, "").unwrap();
    let command = |store: &str| {
        let mut command = trilith.command();
        command.env("PATH", "/nonexistent").args(["--store", store]);
        command
    };
    let below = file.join("store");
    let (document, report) = both(|| command(below.to_str().unwrap()));
    assert_eq!(document["store"]["path"], below.to_str().unwrap());
    assert_eq!(document["store"]["writable"], false);
    assert!(
        report.contains("cannot be written to: not a directory"),
        "{report}"
    );
    let new = trilith.home().join("new/store");
    let (document, report) = both(|| command(new.to_str().unwrap()));
    let store = &document["store"];
    assert_eq!(
        (&store["exists"], &store["writable"]),
        (&json!(false), &json!(true))
    );
    assert!(report.contains("will be made"), "{report}");
    assert!(!new.exists());
}

#[test]
fn a_project_that_is_malformed_is_said_to_be() {
    let trilith = Trilith::new();
    let project = Project::empty();
    project.write("trilith.toml", "[image\n");
    let error = trilith.error(2, &["doctor", "--project", path(&project)]);
    assert!(error.contains("trilith.toml"), "{error}");
}
