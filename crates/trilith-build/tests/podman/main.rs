//! Podman as an engine: 4.3 and 5.4, real ones, with a real registry.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod build;
mod builds;
mod failures;
mod images;
mod parts;
mod remote;
mod rootless;
