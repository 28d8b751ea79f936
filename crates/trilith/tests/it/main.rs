//! The command line from outside, against real registries and engines.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod agent;
mod bad_input;
mod batch;
mod contract;
mod crash;
mod determinism;
mod dockerfiles;
mod doctor;
mod engines;
mod examples;
mod explain;
mod faults;
mod flight;
mod interop;
mod manual;
mod prune;
mod readme;
mod rebase;
mod story;
mod support;
mod user;
mod workspace;
