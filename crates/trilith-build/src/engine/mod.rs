//! Engines: what runs the steps of a Dockerfile.
//!
//! [`Engine`] is the seam: an implementation is one file beside this one and one registration.
//! It builds one image of one platform at a time and knows no levels, keys or plans.

mod address;
mod buildkit;
mod containers;
mod docker;
mod error;
mod open;
mod podman;
mod redact;
mod request;
mod solve;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use trilith_core::{Digest, Platform, Reference};

pub use address::{
    AddressError, DEFAULT_DOCKER_SOCKET, EngineAddress, TlsFiles, load_docker_context,
};
pub use buildkit::{BuildkitAddress, BuildkitEngine};
pub use containers::{
    Connection, Container, ContainerRequest, ContainerState, Containers, Gpus, LogOptions, LogSink,
    OutputStream, Pieces, PublishedPort, Terminal, TerminalControl, TerminalRequest,
};
pub use docker::DockerEngine;
pub use error::EngineError;
pub(crate) use open::running_images;
pub use open::{
    EngineAddresses, open_all_containers, open_containers, open_engine, open_first_containers,
    open_first_engine, probe_engines,
};
pub use podman::{Podman, PodmanOptions};
pub use request::{
    BuildRequest, BuildSecret, CacheEntry, NamedContext, Network, SecretSource, SshAgent,
};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineKind {
    /// The Docker Engine, by its API.
    Docker,
    /// Podman.
    Podman,
    /// A buildkitd that is spoken to directly.
    Buildkit,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildkit => "buildkit",
        })
    }
}

/// Which engine it is that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Which engine.
    pub kind: EngineKind,
    /// Its version, as it says it.
    pub version: String,
    /// Where it answers, as in `unix:///var/run/docker.sock`.
    pub address: String,
}

/// An engine that answered, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// Which engine.
    pub kind: EngineKind,
    /// Its version, as it says it.
    pub version: String,
    /// Where it answers, as in `unix:///var/run/docker.sock`.
    pub address: String,
    /// What it can do: found out by asking, not by its version, where there is something to ask.
    pub capabilities: Capabilities,
}

/// What an engine can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The platform of the machine, first, and those it can emulate, where it says so.
    pub platforms: Vec<Platform>,
    /// What else it can do.
    pub features: BTreeSet<Feature>,
}

/// Something that not every engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Images replace stages by name (`--build-context`), so that the Dockerfile need not be
    /// rewritten.
    NamedContexts,
    /// `RUN --mount=type=secret`.
    Secrets,
    /// `RUN --mount=type=ssh`.
    Ssh,
    /// Layers of other images and places can be used as a cache.
    CacheImport,
    /// The cache can be written to a registry or directory.
    CacheExport,
    /// It keeps images that containers can be started from.
    Load,
    /// It pushes to registries by itself.
    Push,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NamedContexts,
        Self::Secrets,
        Self::Ssh,
        Self::CacheImport,
        Self::CacheExport,
        Self::Load,
        Self::Push,
    ];

    /// Returns its name, as in `cache-import`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NamedContexts => "named-contexts",
            Self::Secrets => "secrets",
            Self::Ssh => "ssh",
            Self::CacheImport => "cache-import",
            Self::CacheExport => "cache-export",
            Self::Load => "load",
            Self::Push => "push",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the result of a build goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export<'a> {
    /// Into the engine's own image store, without a name; for engines that
    /// [keep images](Feature::Load).
    Keep,
    /// To a repository by digest, without a tag; for engines without an image store.
    Push(&'a Reference),
    /// As an OCI archive; for engines without an image store.
    Archive(&'a Path),
}

/// An image that an engine has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// What the engine knows it by: the digest of its config where it keeps images, else that
    /// of its manifest.
    pub id: Digest,
}

/// The image of a container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningImage {
    /// What the engine knows it by: the digest of its config or of its manifest.
    pub id: Digest,
    /// The labels of the container, which has those of its image.
    pub labels: BTreeMap<String, String>,
}

/// Something that happens during a build.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A step began; or is known to be cached, and then ends at once. It can begin again after
    /// its end, as when its layers are fetched from a cache one by one.
    Started {
        /// Unique within the build.
        step: u64,
        /// As in `[deps 2/3] RUN uv sync`.
        title: String,
    },
    /// A step wrote to stdout or stderr. Not cut into lines.
    Log {
        /// The step; `None` where the engine does not say.
        step: Option<u64>,
        /// What it wrote.
        text: String,
    },
    /// A step moves bytes.
    Bytes {
        /// The step.
        step: u64,
        /// Bytes moved.
        done: u64,
        /// Bytes to move, where known.
        total: Option<u64>,
    },
    /// A step ended.
    Finished {
        /// The step.
        step: u64,
        /// Whether nothing had to be run.
        cached: bool,
        /// What went wrong.
        error: Option<String>,
    },
}

/// Is told what happens during a build. Called in order, and must not block.
pub type Observer<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// An engine that runs the steps of a Dockerfile.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Which engine.
    fn kind(&self) -> EngineKind;

    /// Asks the engine whether it answers, and what it is.
    async fn identity(&self) -> Result<EngineIdentity, EngineError>;

    /// Returns the platform of the machine, first, and those it can emulate, where it says so.
    async fn platforms(&self) -> Result<Vec<Platform>, EngineError>;

    /// Returns whether it can do something. To find out may take as long as a small build.
    async fn can(&self, feature: Feature) -> Result<bool, EngineError>;

    /// Asks the engine for everything that it can do.
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let identity = self.identity().await?;
        let EngineIdentity {
            kind,
            version,
            address,
        } = identity;
        let asked = Feature::ALL.into_iter().map(|feature| async move {
            Ok::<_, EngineError>((feature, self.can(feature).await?))
        });
        let features = try_join_all(asked).await?.into_iter();
        let features = features.filter_map(|(feature, can)| can.then_some(feature));
        Ok(EngineInfo {
            kind,
            version,
            address,
            capabilities: Capabilities {
                platforms: self.platforms().await?,
                features: features.collect(),
            },
        })
    }

    /// Builds an image.
    ///
    /// # Errors
    /// [`EngineError::Step`] where a step failed, with the end of what it wrote. The engine is
    /// left without a trace but its cache. A dropped future stops the build.
    async fn build(
        &self,
        request: &BuildRequest<'_>,
        export: Export<'_>,
        observer: Observer<'_>,
    ) -> Result<BuiltImage, EngineError>;

    /// Returns the id of the image that the engine keeps under `reference`, `None` where it is
    /// known to keep none.
    async fn find(&self, reference: &Reference) -> Result<Option<Digest>, EngineError>;

    /// Names a kept image.
    async fn tag(&self, image: &BuiltImage, reference: &Reference) -> Result<(), EngineError>;

    /// Pushes the image kept under `reference`, a tag, and returns the digest that the registry
    /// has it by.
    async fn push(
        &self,
        reference: &Reference,
        observer: Observer<'_>,
    ) -> Result<Digest, EngineError>;

    /// Writes a kept image to `archive`, as `docker save` does.
    async fn save(&self, image: &BuiltImage, archive: &Path) -> Result<(), EngineError>;

    /// Takes in the images of an archive that `docker save` could have written, under the names
    /// it gives them.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where the engine keeps no images, or cannot take any in.
    async fn load(&self, archive: &Path) -> Result<(), EngineError> {
        Err(EngineError::Unsupported {
            engine: self.kind(),
            address: archive.display().to_string(),
            what: "take in images",
        })
    }

    /// Returns the images of the containers that run.
    async fn running(&self) -> Result<Vec<RunningImage>, EngineError> {
        Ok(Vec::new())
    }

    /// Takes a name off a kept image, and the image away with its last name. No error where
    /// there is none of that name.
    async fn untag(&self, reference: &Reference) -> Result<(), EngineError>;
}
