//! The agent where there is nothing, little, and a distribution.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use trilith_testkit::{busybox_rootfs, inside, trixie_client};

use crate::support::{Agent, detail_of, document_of};
use crate::write_agent;

/// Starts the agent as the only program of `root`, or beside what is there.
fn launch_in(root: &Path) -> Agent {
    write_agent(&root.join("trilith-agent"));
    let mut command = Command::new("chroot");
    command.arg(root).arg("/trilith-agent");
    Agent::launch(command)
}

/// Does what works everywhere.
fn use_files_and_programs(agent: &Agent) {
    let path = "/some/where/file";
    let upload = agent.send("PUT", &format!("/api/file/upload?path={path}"), b"content");
    assert_eq!(document_of(&upload)["file_size"], 7);
    let download = agent.get(&format!("/api/file/download?path={path}"));
    assert_eq!(download.body, b"content");
    let list = document_of(&agent.get("/api/file/list?path=/some"));
    assert_eq!(list["items"][0]["name"], "where");
}

#[test]
fn it_is_one_small_static_program() {
    let binary = trilith_agent_bin::binary();
    assert_eq!(&binary[..4], b"\x7fELF");
    assert!(binary.len() < 6_000_000, "{} bytes", binary.len());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    write_agent(&path);
    // A program that needs an interpreter or a library says so with this.
    let output = Command::new("ldd").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("not a dynamic executable") || said.contains("statically linked"),
        "{said}"
    );
}

#[test]
fn where_there_is_nothing_programs_run_and_a_shell_is_missed_clearly() {
    let root = tempfile::tempdir().unwrap();
    let agent = launch_in(root.path());
    assert!(
        agent.memory("VmRSS") < 8 << 10,
        "{} KiB",
        agent.memory("VmRSS")
    );
    assert_eq!(
        document_of(&agent.get("/server_info"))["shell"],
        Value::Null
    );
    let output = agent.execute(&json!({"command": "true"}));
    assert_eq!(output["exit_code"], 127);
    let reason = output["stderr"].as_str().unwrap();
    assert!(
        reason.contains("no shell") && reason.contains("`argv`"),
        "{reason}"
    );
    let output = agent.execute(&json!({"argv": ["/trilith-agent", "--version"]}));
    assert_eq!(output["exit_code"], 0);
    assert!(
        output["stdout"]
            .as_str()
            .unwrap()
            .starts_with("trilith-agent ")
    );
    use_files_and_programs(&agent);
    let reason = detail_of(&agent.get("/api/git/changes?path=/some"), 501);
    assert!(reason.contains("no `git`"), "{reason}");
}

#[test]
fn where_there_is_busybox_commands_run() {
    let root = tempfile::tempdir().unwrap();
    busybox_rootfs(root.path());
    let agent = launch_in(root.path());
    let output = agent.execute(&json!({"command": "cat /etc/motd | tr a-z A-Z", "cwd": "/data"}));
    assert_eq!(output["stdout"], "WELCOME\n");
    use_files_and_programs(&agent);
}

#[test]
fn where_there_is_debian_commands_run() {
    let [added, scratch] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_agent(&added.path().join("trilith-agent"));
    let mut command = inside(&trixie_client(), added.path(), scratch.path());
    command.arg("/added/trilith-agent");
    let agent = Agent::launch(command);
    let output = agent.execute(&json!({"command": ". /etc/os-release; echo $ID"}));
    assert_eq!(output["stdout"], "debian\n");
    use_files_and_programs(&agent);
}
