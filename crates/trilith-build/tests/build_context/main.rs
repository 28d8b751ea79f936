//! Build contexts: what is in them, byte for byte, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent_server;
mod archive;
mod docker;
mod dockerfile;
mod hostile;
mod property;
mod stream;
mod support;
