//! The static agent in images of every kind, and the client that it is for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has to fail")]

mod client;
mod images;
#[path = "../../../trilith-agent/tests/it/support.rs"]
#[allow(dead_code, reason = "the tests of the agent itself need more of it")]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes the program to `path`.
fn write_agent(path: &Path) {
    fs::write(path, trilith_agent_bin::binary()).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}
