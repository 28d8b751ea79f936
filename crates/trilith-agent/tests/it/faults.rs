//! What misbehaves, and what comes of it: a clear result, in time, and nothing left.

use std::io::Read as _;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent;
use crate::support::{Agent, detail_of, document_of, processes_with, wait_until};

#[test]
fn commands_are_ended_in_time_with_all_that_they_started() {
    let agent = agent(&[]);
    for (name, script) in [
        ("plain", "echo before; sleep 1000"),
        (
            "deaf",
            "trap '' TERM; echo before; (trap '' TERM; sleep 1000) & while :; do sleep 1; done",
        ),
        (
            "forked",
            "trap '' TERM; echo before; (sleep 1000 & sleep 1000 & wait) & exec sleep 1000",
        ),
        (
            "escaped",
            "echo before; setsid sh -c \"trap '' TERM; sleep 1000\" & sleep 1000",
        ),
        ("stopped", "echo before; kill -STOP $$"),
    ] {
        let begin = Instant::now();
        let mark = format!("mark-{name}-{}", agent.pid());
        let request = json!({"command": script, "timeout": 1, "env": {"MARK": mark}});
        let output = agent.execute(&request);
        assert_eq!(output["exit_code"], -1, "{name}");
        assert_eq!(output["stdout"], "before\n", "{name}");
        assert_eq!(
            output["stderr"], "Command timed out after 1 seconds",
            "{name}"
        );
        assert!(begin.elapsed() < Duration::from_secs(20), "{name}");
        wait_until("all processes are gone", || {
            processes_with(&mark).is_empty()
        });
    }
}

#[test]
fn orphans_are_reaped() {
    let agent = agent(&[]);
    let output = agent.execute(&json!({"command": "(sleep 0.2 & echo $!) ; (true &)"}));
    let orphan = output["stdout"].as_str().unwrap().trim().to_owned();
    wait_until("an orphan is reaped", || {
        !std::path::Path::new(&format!("/proc/{orphan}")).exists()
    });
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    wait_until("no child is left", || {
        std::fs::read_to_string(&children).unwrap().is_empty()
    });
}

#[test]
fn a_flood_is_cut_and_takes_no_memory() {
    let agent = agent(&[]);
    let command =
        agent.start(&json!({"command": "yes 0123456789abcde | head -c 200000000; echo over >&2"}));
    let end = agent.end_of(&command);
    assert_eq!(end["exit_code"], 0);
    let note = end["stderr"].as_str().unwrap();
    assert!(
        note.starts_with('[') && note.ends_with(" bytes of output lost: more than 128 MiB]"),
        "{note}"
    );
    let path = format!("/api/bash/bash_commands/{command}/output?stream=stdout");
    let kept = std::io::copy(
        &mut agent.open("GET", &path, &[], b""),
        &mut std::io::sink(),
    )
    .unwrap();
    let lost: u64 = note[1..].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(kept + lost, 200_000_000 + 5);
    assert!(
        agent.memory("VmHWM") < 32 << 10,
        "{} KiB",
        agent.memory("VmHWM")
    );
}

#[test]
fn a_reader_that_is_slow_or_goes_away_holds_nothing_up() {
    let agent = agent(&[]);
    let command = agent.start(&json!({"command": "seq 1 1000000; cat", "stdin": true}));
    let path = format!("/api/bash/bash_commands/{command}/events");
    let slow = agent.open("GET", &path, &[], b"");
    let mut gone = agent.open("GET", &path, &[], b"");
    gone.read_exact(&mut [0; 1000]).unwrap();
    drop(gone);
    assert_eq!(
        agent.execute(&json!({"command": "echo 1"}))["stdout"],
        "1\n"
    );
    agent.send(
        "POST",
        &format!("/api/bash/bash_commands/{command}/stdin?close=true"),
        b"",
    );
    assert_eq!(agent.end_of(&command)["exit_code"], 0);
    let rest = String::from_utf8(slow.read_all().body).unwrap();
    assert!(rest.contains("1000000\\n"));
}

#[test]
fn an_attached_command_waits_for_its_readers_and_loses_nothing() {
    let agent = agent(&[]);
    let length = 200 << 20;
    let progress = agent.path("progress");
    let script = format!(
        "for i in $(seq 200); do head -c 1048576 /dev/zero; echo >&2; echo $i >{progress}; done"
    );
    let command = agent.start(&json!({"command": script, "attached": true}));
    let path = |stream: &str| format!("/api/bash/bash_commands/{command}/output?stream={stream}");
    let mut stdout = agent.open("GET", &path("stdout"), &[], b"");
    let stderr = agent.open("GET", &path("stderr"), &[], b"");
    stdout.read_exact(&mut [0; 1000]).unwrap();
    // What is on its way fills up, and then the command stands still.
    let so_far = || std::fs::read_to_string(&progress).unwrap_or_default();
    let mut before = String::new();
    wait_until("the command waits", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = so_far();
        std::mem::replace(&mut before, now.clone()) == now && !now.is_empty()
    });
    let written: u32 = before.trim().parse().unwrap();
    assert!(
        written < 100,
        "{written} MiB are written, and 1000 bytes read"
    );
    let detail = detail_of(&agent.get(&path("stdout")), 409);
    assert!(detail.contains("has had its reader"), "{detail}");

    let rest = stdout.read_all().body;
    assert_eq!(rest.len(), length - 1000);
    assert!(rest.iter().all(|byte| *byte == 0));
    assert_eq!(stderr.read_all().body, vec![b'\n'; 200]);
    assert_eq!(agent.end_of(&command)["exit_code"], 0);
    let peak = agent.memory("VmHWM");
    assert!(peak < 32 << 10, "{peak} KiB");
}

#[test]
fn an_attached_command_goes_on_when_its_readers_are_gone() {
    let agent = agent(&[]);
    let script = "head -c 300000000 /dev/zero; echo end >&2";
    let command = agent.start(&json!({"command": script, "attached": true}));
    let path = |stream: &str| format!("/api/bash/bash_commands/{command}/output?stream={stream}");
    let mut stdout = agent.open("GET", &path("stdout"), &[], b"");
    let stderr = agent.open("GET", &path("stderr"), &[], b"");
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    assert_eq!(stderr.read_all().body, b"end\n");
    assert_eq!(agent.end_of(&command)["exit_code"], 0);

    let command = agent.start(&json!({"command": "echo 1", "attached": true}));
    let path = format!("/api/bash/bash_commands/{command}/output?stream=stdout");
    detail_of(&agent.get(&format!("{path}&offset=1")), 422);
    assert_eq!(agent.get(&path).body, b"1\n");
    let session = agent.post("/api/bash/sessions", &json!({}))["id"].clone();
    let path = format!("/api/bash/sessions/{}/execute", session.as_str().unwrap());
    let request = json!({"command": "true", "attached": true}).to_string();
    detail_of(&agent.send("POST", &path, request.as_bytes()), 422);
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().to_str().unwrap();
    // The mount is the agent's own and goes with it.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    command.arg("mount -t tmpfs -o size=4m none \"$0\"; TMPDIR=$0 exec \"$@\"");
    command.args([disk, env!("CARGO_BIN_EXE_trilith-agent")]);
    let agent = Agent::launch(command);
    let file = format!("{disk}/file");
    let upload = format!("/api/file/upload?path={file}");
    document_of(&agent.send("PUT", &upload, b"first"));
    let reason = detail_of(&agent.send("PUT", &upload, &vec![1; 6 << 20]), 507);
    assert!(reason.contains("No space left on device"), "{reason}");
    assert_eq!(
        agent.get(&format!("/api/file/download?path={file}")).body,
        b"first"
    );
    let output =
        agent.execute(&json!({"command": "head -c 8000000 /dev/zero | tr '\\0' x; echo done >&2"}));
    assert_eq!(output["exit_code"], 0);
    let note = output["stderr"].as_str().unwrap();
    assert!(
        note.contains("bytes of output lost: No space left on device"),
        "{note}"
    );
    let kept = output["stdout"].as_str().unwrap().len();
    assert!(kept > 0 && kept < 4 << 20, "{kept}");
    let output = agent.execute(&json!({"command": format!("ls -A {disk}")}));
    assert_eq!(output["exit_code"], 0);
}

#[test]
fn the_agent_ends_with_all_that_it_runs() {
    for signal in ["TERM", "INT"] {
        let agent = agent(&[]);
        let mark = format!("mark-{}", agent.pid());
        let script = "trap '' TERM INT; (setsid sleep 1000 &); echo x; sleep 1000; sleep 1000";
        let command = agent.start(&json!({"command": script, "env": {"MARK": mark}}));
        let query = format!("kind__eq=BashOutput&command_id__eq={command}");
        wait_until("a command runs", || {
            agent.search(&query)["items"][0]["stdout"] == "x\n"
        });
        assert!(agent.end(signal).success());
        wait_until("all processes are gone", || {
            processes_with(&mark).is_empty()
        });
    }
}

#[test]
fn other_signals_are_passed_on() {
    let agent = agent(&[]);
    let script = "trap 'echo got; exit' USR1; echo ready; while :; do sleep 0.05; done";
    let command = agent.start(&json!({"command": script}));
    let query = format!("kind__eq=BashOutput&command_id__eq={command}");
    wait_until("a command is ready", || {
        agent.search(&query)["items"][0]["stdout"] == "ready\n"
    });
    Command::new("kill")
        .args(["-s", "USR1", &agent.pid().to_string()])
        .status()
        .unwrap();
    assert_eq!(agent.end_of(&command)["stdout"], "got\n");
}
