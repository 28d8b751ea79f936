//! The Docker Engine and BuildKit, real ones.

#![allow(
    clippy::unwrap_used,
    clippy::similar_names,
    reason = "a test fails by panicking; what is built comes from a build"
)]

mod build;
mod buildkit;
mod builds;
mod classic;
mod failures;
mod hostile;
mod images;
mod old;
mod parts;
mod relay;
mod secured;
mod trixie;
