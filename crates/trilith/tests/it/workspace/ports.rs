//! Ports of programs in a workspace, and networks.

use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};
use trilith_testkit::{assert_success, run, stdout_of};

use super::parts::{Engine, Start};
use crate::support::on;

on!([podman_4, bridged_docker_20, bridged_docker_26, bridged_podman_5]: ports_are_published);
on!([bridged_docker_20, bridged_docker_26, bridged_podman_5]: an_internal_network_will_do);

/// A port is reached wherever it is published, on loopback alone, and the engine's choice is told.
fn ports_are_published(start: Start) {
    let engine = &start();
    let free = free_port();
    let chosen = format!("{free}:8080");
    // 8000 is the agent's own.
    let flags = [
        "--publish",
        "8080",
        "--publish",
        &chosen,
        "--publish",
        "8000",
    ];
    let started = engine.start(&[&flags[..], &["--name", "web", &engine.base]].concat());
    let ports = &started["ports"];
    let published = addresses(&ports["8080"]);
    assert_eq!(published.len(), 2, "{started}");
    assert!(
        published.contains(&format!("127.0.0.1:{free}")),
        "{started}"
    );
    let agents = addresses(&ports["8000"]);
    assert_eq!(agents.len(), 1, "{started}");
    assert_eq!(started["url"], format!("http://{}", agents[0]));
    let all = [&published[..], &agents].concat();
    let local = |address: &String| address.starts_with("127.0.0.1:");
    assert!(all.iter().all(local), "{started}");
    assert_eq!(engine.json(&["ps"])[0]["ports"], *ports);

    // It listens before it goes into the background.
    let served = engine.exec("web", &[], &["httpd", "-p", "8080", "-h", "/etc"], b"");
    assert_eq!(served.status.code(), Some(0), "{served:?}");
    for address in &published {
        let mut get = Command::new("busybox");
        get.args(["wget", "-q", "-O-", &format!("http://{address}/motd")]);
        assert_eq!(stdout_of(&mut engine.beside(get)), "welcome back");
    }

    let taken = run(&mut engine.start_command(&["--publish", &chosen, &engine.base]));
    let said = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!(taken.status.code(), Some(1), "{said}");
    assert!(said.contains(&free.to_string()), "{said}");
    assert_eq!(engine.containers().len(), 1);

    let flags = ["--publish", "81", &engine.base];
    let said = stdout_of(&mut engine.plain_start_command(&flags));
    assert_eq!(said.matches("  port ").count(), 1, "{said}");
    assert!(said.contains("  port 81 at 127.0.0.1:"), "{said}");
    assert_success(&mut engine.command(&["stop", "--all"]));
    assert!(engine.containers().is_empty());
}

/// Returns a port that nothing listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn addresses(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Where an engine publishes no port the agent is reached all the same.
fn an_internal_network_will_do(start: Start) {
    let engine = &start();
    engine.client(&["network", "create", "--internal", "inner"]);
    let started = engine.json(&["run", "--network", "inner", "--name", "box", &engine.base]);
    assert_eq!(started["ports"], json!({}));
    let output = engine.exec("box", &[], &["echo", "here"], b"");
    assert_eq!(output.stdout, b"here\n", "{output:?}");
    assert_success(&mut engine.command(&["stop", "box"]));
    assert!(engine.containers().is_empty());
}
