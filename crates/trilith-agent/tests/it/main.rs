//! The agent from outside, as a program on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has to fail")]

mod commands;
mod faults;
mod files;
mod security;
mod sessions;
mod support;

use std::process::Command;

use support::Agent;

/// Starts the agent with `arguments`.
fn agent(arguments: &[&str]) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trilith-agent"));
    command.args(arguments);
    Agent::launch(command)
}
