//! Real parts for the tests: registries, engines, a proxy that fails on demand, base images, projects.
//!
//! Everything runs on loopback and in directories of its own, needs root and Debian's packages, and
//! is gone when the test is over, even when the test is killed. Base images are made with other
//! tools (Python, skopeo, umoci, mmdebstrap), so that they test Trilith and not the
//! other way round. Only ever a dev-dependency: functions panic instead of returning errors, with
//! everything that the failing program said.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot get its parts has to fail"
)]

mod cache;
mod command;
mod disk;
mod dockerd;
mod guard;
pub mod http;
mod image;
mod network;
mod podman;
mod project;
mod proxy;
mod registry;
mod rootless;
mod trixie;

pub use command::{
    TIME_LIMIT, assert_failure, assert_success, run, run_within, skopeo, stdout_of, umoci,
};
pub use disk::SmallDisk;
pub use dockerd::{Dockerd, DockerdOptions, HOST_GATEWAY, Release};
pub use image::{
    Compression, Format, ImageOptions, PushedImage, busybox_image, busybox_rootfs, debian_image,
    debian_rootfs, git_image, many_bases, push_image,
};
pub use podman::{Podman, PodmanOptions};
pub use project::{Project, pypi_sdist};
pub use proxy::{Fault, FaultProxy, Rule};
pub use registry::{Manifest, Registry, RegistryOptions};
pub use rootless::Rootless;
pub use trixie::{inside, trixie_client, trixie_engines};
