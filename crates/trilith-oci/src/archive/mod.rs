//! Images in single files, and in the engine that speaks the same format.
//!
//! Archives are never extracted: members are found once, then read in place. What is
//! written is written beside its target and renamed, so that a target is whole or untouched.

mod daemon;
mod docker;
#[cfg(test)]
mod docker_tests;
mod docker_write;
mod members;
mod oci;
mod output;
mod read_only;

#[cfg(test)]
mod oci_tests;

pub use daemon::{DEFAULT_DOCKER_HOST, Daemon};
pub use docker::{DockerArchiveSource, LayerForm, open_docker_archive};
pub use docker_write::{DockerArchiveOptions, write_docker_archive, write_docker_image};
pub(crate) use members::Part;
pub use oci::{OciArchiveOptions, open_oci_archive, write_oci_archive};
pub(crate) use read_only::{Content, ReadOnlyStore};
