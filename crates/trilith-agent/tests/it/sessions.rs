//! Shells that stay.

use serde_json::{Value, json};

use crate::agent;
use crate::support::{Agent, detail_of, document_of, processes_with, wait_until};

fn open(agent: &Agent, request: &Value) -> String {
    let session = agent.post("/api/bash/sessions", request);
    session["id"].as_str().unwrap().to_owned()
}

fn run(agent: &Agent, session: &str, command: &str) -> (String, String, i64) {
    let request = json!({"command": command, "timeout": 1});
    let output = agent.post(&format!("/api/bash/sessions/{session}/execute"), &request);
    let text = |name: &str| output[name].as_str().unwrap_or_default().to_owned();
    (
        text("stdout"),
        text("stderr"),
        output["exit_code"].as_i64().unwrap(),
    )
}

fn said(stdout: &str, stderr: &str, code: i64) -> (String, String, i64) {
    (stdout.to_owned(), stderr.to_owned(), code)
}

#[test]
fn what_a_command_leaves_behind_is_there_for_the_next() {
    let agent = agent(&[]);
    let session = open(&agent, &json!({"cwd": "/usr", "env": {"GIVEN": "a"}}));
    let other = open(&agent, &json!({}));
    for (command, expected) in [
        ("pwd; echo $GIVEN", said("/usr\na\n", "", 0)),
        (
            "cd bin; x='it'\\''s'; f() { echo f $1; }; echo err >&2; (exit 3)",
            said("", "err\n", 3),
        ),
        (
            "pwd; f \"$x\"; printf 'no line'",
            said("/usr/bin\nf it's\nno line", "", 0),
        ),
        ("printf '\\036'; cat; echo \"$#\"", said("\u{1e}0\n", "", 0)),
        ("echo 'two\nlines'; # remark", said("two\nlines\n", "", 0)),
        ("false", said("", "", 1)),
    ] {
        assert_eq!(run(&agent, &session, command), expected, "{command}");
    }
    let (_, complaint, code) = run(&agent, &session, "if");
    assert!(code != 0 && !complaint.is_empty());
    assert_eq!(run(&agent, &session, "echo $x"), said("it's\n", "", 0));
    assert_eq!(run(&agent, &other, "echo $x"), said("\n", "", 0));
    assert_eq!(
        agent.search("kind__eq=BashCommand")["items"]
            .as_array()
            .unwrap()
            .len(),
        9
    );
    let all = document_of(&agent.get("/api/bash/sessions"));
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_command_that_takes_too_long_is_ended_and_the_session_is_not() {
    let agent = agent(&[]);
    let session = open(&agent, &json!({}));
    let note = "Command timed out after 1 seconds";
    run(&agent, &session, "x=kept");
    let deaf = "echo before; sh -c \"trap '' TERM; sleep 1000; sleep 1000\"; echo after";
    assert_eq!(run(&agent, &session, deaf).2, -1);
    assert!(run(&agent, &session, "sleep 1000").1.ends_with(note));
    assert_eq!(run(&agent, &session, "echo $x"), said("kept\n", "", 0));
    // What the shell itself does can only be ended with it.
    assert_eq!(
        run(&agent, &session, "while :; do :; done"),
        said("", note, -1)
    );
    let path = format!("/api/bash/sessions/{session}/execute");
    let request = json!({"command": "true"}).to_string();
    detail_of(&agent.send("POST", &path, request.as_bytes()), 404);
}

#[test]
fn a_session_ends_by_itself_or_when_it_is_told() {
    let agent = agent(&[]);
    let session = open(&agent, &json!({}));
    assert_eq!(
        run(&agent, &session, "echo bye; exit 5"),
        said("bye\n", "", 5)
    );
    let path = format!("/api/bash/sessions/{session}");
    detail_of(&agent.send("DELETE", &path, b""), 404);
    let mark = format!("mark-{}", agent.pid());
    let session = open(&agent, &json!({"env": {"MARK": mark}}));
    let path = format!("/api/bash/sessions/{session}");
    let request = json!({"command": "echo ready; setsid sleep 1000"}).to_string();
    let started = document_of(&agent.send("POST", &format!("{path}/start"), request.as_bytes()));
    let command = started["id"].as_str().unwrap();
    detail_of(
        &agent.send("POST", &format!("{path}/start"), request.as_bytes()),
        409,
    );
    document_of(&agent.send("DELETE", &path, b""));
    assert_eq!(agent.end_of(command)["exit_code"], -9);
    wait_until("all processes are gone", || {
        processes_with(&mark).is_empty()
    });
    detail_of(
        &agent.send("POST", "/api/bash/sessions", br#"{"cwd": "/no/such"}"#),
        400,
    );
}

#[test]
fn a_command_of_a_session_is_stopped_like_any_other() {
    let agent = agent(&[]);
    let session = open(&agent, &json!({}));
    let path = format!("/api/bash/sessions/{session}/start");
    let request = json!({"command": "echo ready; sleep 1000; echo over"}).to_string();
    let started = document_of(&agent.send("POST", &path, request.as_bytes()));
    let command = started["id"].as_str().unwrap();
    document_of(&agent.send(
        "POST",
        &format!("/api/bash/bash_commands/{command}/stop"),
        b"",
    ));
    assert!(!agent.end_of(command)["exit_code"].is_null());
    assert_eq!(run(&agent, &session, "echo on"), said("on\n", "", 0));
}
