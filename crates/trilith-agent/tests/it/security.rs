//! Who may do what.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use trilith_testkit::http;

use crate::agent;
use crate::support::{KEY, detail_of, document_of, processes_with};

#[test]
fn nothing_but_life_is_told_without_the_key() {
    let agent = agent(&[]);
    for path in ["/health", "/alive", "/ready"] {
        assert_eq!(http::request(&agent.host, "GET", path, &[]).status, 200);
    }
    let file = agent.path("file");
    fs::write(&file, "kept").unwrap();
    let command = json!({"command": format!("rm {file}")}).to_string();
    let path = format!("?path={file}");
    let id = "0".repeat(32);
    for (method, route) in [
        ("GET", "/server_info".to_owned()),
        ("POST", "/api/bash/execute_bash_command".to_owned()),
        ("POST", "/api/bash/start_bash_command".to_owned()),
        ("GET", "/api/bash/bash_events/search".to_owned()),
        ("GET", "/api/bash/bash_events/".to_owned()),
        ("GET", format!("/api/bash/bash_events/{id}")),
        ("DELETE", "/api/bash/bash_events".to_owned()),
        ("POST", format!("/api/bash/bash_commands/{id}/stop")),
        ("GET", format!("/api/bash/bash_commands/{id}/events")),
        ("GET", format!("/api/bash/bash_commands/{id}/output")),
        ("POST", format!("/api/bash/bash_commands/{id}/stdin")),
        ("POST", format!("/api/file/upload{path}")),
        ("PUT", format!("/api/file/upload{path}")),
        ("GET", format!("/api/file/upload{path}")),
        ("DELETE", format!("/api/file/upload{path}")),
        ("GET", format!("/api/file/download{path}")),
        ("POST", format!("/api/file/create_directory{path}")),
        ("GET", format!("/api/file/list{path}")),
        ("GET", format!("/api/file/stat{path}")),
        ("GET", format!("/api/git/changes{path}")),
        ("GET", format!("/api/git/diff{path}")),
        ("GET", "/no/such/route".to_owned()),
        ("PATCH", "/server_info".to_owned()),
    ] {
        for fields in [
            &[][..],
            &[("X-Session-API-Key", "")],
            &[("X-Session-API-Key", &KEY[1..])],
            &[("X-Session-API-Key", KEY), ("X-Session-API-Key", "x")],
            &[("Authorization", KEY)],
        ] {
            let answer = http::open(&agent.host, method, &route, fields, command.as_bytes());
            detail_of(&answer.read_all(), 401);
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(agent.search("")["items"], json!([]));
    detail_of(&agent.get("/no/such/route"), 404);
    detail_of(&agent.send("PATCH", "/server_info", b""), 405);
    assert_eq!(
        document_of(&agent.get("/server_info"))["title"],
        "Trilith Agent"
    );
}

#[test]
fn there_is_no_agent_without_a_key() {
    let run = |arguments: &[&str], key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trilith-agent"));
        command.args(["--port", "0"]).args(arguments);
        let output = command
            .env("SESSION_API_KEY", key)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&[], "").contains("there is no key"));
    assert!(run(&["--key-file", "-"], "x").contains("there is no key"));
    assert!(run(&["--key-file", "/no/such"], "x").contains("cannot read the key from `/no/such`"));
}

#[test]
fn the_key_is_nowhere_to_be_seen() {
    // Agents of other tests that are just starting still show theirs.
    const OWN: &str = "wrong donkey capacitor staple";
    let mut command = Command::new(env!("CARGO_BIN_EXE_trilith-agent"));
    command.env("OH_SESSION_API_KEYS_1", OWN);
    let agent = crate::support::Agent::launch(command);
    let opened = http::open(
        &agent.host,
        "GET",
        "/server_info",
        &[("X-Session-API-Key", OWN)],
        b"",
    );
    assert_eq!(opened.status, 200);
    let output =
        agent.execute(&json!({"command": "env; cat /proc/$PPID/environ | tr '\\0' '\\n'"}));
    let seen = output["stdout"].as_str().unwrap();
    assert!(
        seen.contains("TRILITH_AGENT_COMMAND=") && !seen.contains(KEY) && !seen.contains(OWN),
        "{seen}"
    );
    // Nor to one who may look everywhere, as root may here.
    assert!(processes_with(OWN).is_empty());
    // Nobody without that right may look into the memory, not even the same user.
    let status = fs::metadata(format!("/proc/{}/mem", agent.pid())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&status), 0);
}

#[test]
fn a_user_cannot_look_into_an_agent_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, format!("{KEY}\n")).unwrap();
    std::os::unix::fs::chown(&key, Some(65534), Some(65534)).unwrap();
    let program = dir.path().join("agent");
    fs::copy(env!("CARGO_BIN_EXE_trilith-agent"), &program).unwrap();
    Command::new("chmod")
        .args(["-R", "a+rx"])
        .arg(dir.path())
        .status()
        .unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(&program).arg("--key-file").arg(&key);
    let agent = crate::support::Agent::launch(command);
    let output = agent.execute(&json!({"command": "id -u; cat /proc/$PPID/environ; cat /proc/$PPID/mem; ls /proc/$PPID/fd"}));
    assert_eq!(output["stdout"], "65534\n");
    let errors = output["stderr"].as_str().unwrap();
    assert_eq!(errors.matches("Permission denied").count(), 3, "{errors}");
}

#[test]
fn requests_are_bounded() {
    let agent = agent(&[]);
    let long = json!({"command": format!("true {}", "x".repeat(5 << 20))}).to_string();
    detail_of(
        &agent.send("POST", "/api/bash/execute_bash_command", long.as_bytes()),
        413,
    );
    let head = "x".repeat(600 << 10);
    let answer = agent.open("GET", "/server_info", &[("X-Long", &head)], b"");
    assert_eq!(answer.read_all().status, 431);
    for body in ["", "{", "[]", "{\"command\":1}", "\u{0}"] {
        detail_of(
            &agent.send("POST", "/api/bash/execute_bash_command", body.as_bytes()),
            422,
        );
    }
}

#[test]
fn files_are_below_the_root_where_one_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let root = base.join("root");
    fs::create_dir(&root).unwrap();
    fs::write(base.join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("..", root.join("up")).unwrap();
    let agent = agent(&["--root", root.to_str().unwrap()]);
    for path in [
        "link",
        "../secret",
        "up/secret",
        "up/new",
        "up/../../etc/passwd",
    ] {
        let path = root.join(path).display().to_string();
        for (method, route) in [
            ("GET", "download"),
            ("PUT", "upload"),
            ("GET", "upload"),
            ("DELETE", "upload"),
        ] {
            let answer = agent.send(method, &format!("/api/file/{route}?path={path}"), b"");
            detail_of(&answer, 403);
        }
    }
    for route in ["file/list", "file/stat", "git/changes", "git/diff"] {
        detail_of(
            &agent.get(&format!("/api/{route}?path={}", base.display())),
            403,
        );
    }
    let up = root.join("up").display().to_string();
    detail_of(&agent.get(&format!("/api/file/list?path={up}")), 403);
    detail_of(
        &agent.send(
            "POST",
            &format!("/api/file/create_directory?path={up}/new"),
            b"",
        ),
        403,
    );
    assert_eq!(fs::read_to_string(base.join("secret")).unwrap(), "secret");
    let inside = root.join("a/b").display().to_string();
    document_of(&agent.send("PUT", &format!("/api/file/upload?path={inside}"), b"x"));
    assert_eq!(fs::read_to_string(root.join("a/b")).unwrap(), "x");
}
