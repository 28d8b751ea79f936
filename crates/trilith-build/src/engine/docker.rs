//! The Docker Engine.
//!
//! Builds are BuildKit's, through the connections that the engine gives away for that; an engine
//! before 20.10, whose BuildKit cannot be spoken with, is sent one archive, to its classic
//! builder. Images, names and pushes go through the Engine's own API. No client of Docker is run,
//! and Podman, which answers on the same socket and builds with something else, is refused.

mod api;
mod classic;
mod containers;
mod hosts;
mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use tokio::sync::OnceCell;
use trilith_core::{Digest, Platform, Reference};
use trilith_oci::Kind;
use trilith_oci::registry::RegistryClient;

use super::address::EngineAddress;
use super::solve::{self, AnyConnection, Endpoint, Exporter, Frontend};
use super::{
    BuildRequest, BuiltImage, Engine, EngineError, EngineIdentity, EngineKind, Export, Feature,
    Observer, RunningImage,
};
use api::ApiVersion;
pub(super) use api::{Api, Doing, KEEP_ALIVE, PROBES};
pub(super) use containers::NetworkSettings;

/// The version of the API of Docker 20.10. The BuildKit of those before asks a session with an
/// empty `:authority`, which is no HTTP/2, and runs no mounts by itself either.
const BUILDKIT: ApiVersion = ApiVersion(1, 41);

/// A Docker Engine, 18.09 or newer.
#[derive(Debug)]
pub struct DockerEngine {
    api: Api,
    registry: RegistryClient,
    version: OnceCell<Version>,
    has_buildkit: OnceCell<bool>,
    frontend: Frontend,
    is_containerd: OnceCell<bool>,
}

/// What an engine is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(rename = "Version")]
    number: String,
    os: String,
    arch: String,
    #[serde(default)]
    components: Vec<Component>,
}

/// What an engine says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    driver_status: Option<Vec<[String; 2]>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(rename = "ImageID")]
    image_id: Digest,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

impl Version {
    fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.arch, None)
    }
}

impl DockerEngine {
    /// Returns the engine at `address`. Opens no connection. Credentials for what the engine
    /// fetches and pushes are those of `registry`.
    ///
    /// # Errors
    /// A file that TLS needs cannot be used.
    pub fn try_new(address: EngineAddress, registry: RegistryClient) -> Result<Self, EngineError> {
        Ok(Self {
            api: Api::try_new(address)?,
            registry,
            version: OnceCell::new(),
            has_buildkit: OnceCell::new(),
            frontend: Frontend::default(),
            is_containerd: OnceCell::new(),
        })
    }

    /// Returns what the engine is; an error where it is Podman.
    async fn version(&self) -> Result<&Version, EngineError> {
        let ask = || async {
            let doing = Doing("ask", "/version");
            let request = self.api.request(Method::GET, "/version").await?;
            let version: Version = self.api.get(request, doing).await?;
            let mut components = version.components.iter();
            if components.any(|component| component.name.contains("Podman")) {
                return Err(self.unsupported("build: it is Podman, which has an engine of its own"));
            }
            Ok(version)
        };
        self.version.get_or_try_init(ask).await
    }

    /// Returns whether the engine gives away connections to a BuildKit that can be spoken with.
    async fn has_buildkit(&self) -> Result<bool, EngineError> {
        let ask = || async {
            if self.api.version().await? < BUILDKIT {
                return Ok(false);
            }
            match self.control().await {
                Ok(_) => Ok(true),
                // An engine that knows the question never answers so.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Usage) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.has_buildkit.get_or_try_init(ask).await.copied()
    }

    /// Returns whether images are kept by containerd. BuildKit has all its exporters then.
    async fn is_containerd(&self) -> Result<bool, EngineError> {
        let ask = || async {
            let request = self.api.request(Method::GET, "/info").await?;
            let info: Info = self.api.get(request, Doing("ask", "/info")).await?;
            let mut status = info.driver_status.into_iter().flatten();
            Ok(status.any(|[_, value]| value.starts_with("io.containerd.snapshotter.")))
        };
        self.is_containerd.get_or_try_init(ask).await.copied()
    }

    /// Returns what of `request` the engine's BuildKit cannot do.
    async fn refusal(
        &self,
        request: &BuildRequest<'_>,
    ) -> Result<Option<&'static str>, EngineError> {
        match solve::refused_caches(request) {
            Some(what) if !self.is_containerd().await? => Ok(Some(what)),
            _ => self.frontend.refusal(self, &self.registry, request).await,
        }
    }

    async fn build_with_buildkit(
        &self,
        request: &BuildRequest<'_>,
        observer: Observer<'_>,
    ) -> Result<Digest, EngineError> {
        let exporter = Exporter {
            kind: "moby".to_owned(),
            ..Exporter::default()
        };
        let solved = solve::solve(self, &self.registry, request, exporter, observer).await?;
        solved.digest().ok_or_else(|| {
            let doing = Doing("build", "the image");
            doing.failed("it tells no ID", Kind::Corrupt)
        })
    }

    fn unsupported(&self, what: &'static str) -> EngineError {
        EngineError::Unsupported {
            engine: EngineKind::Docker,
            address: self.api.address().to_string(),
            what,
        }
    }
}

#[async_trait]
impl Endpoint for DockerEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Docker
    }

    async fn control(&self) -> Result<AnyConnection, EngineError> {
        let request = self.api.request(Method::POST, "/grpc").await?;
        self.api
            .upgrade(request, "h2c", Doing("reach", "BuildKit"))
            .await
    }

    async fn session(
        &self,
        headers: &[(&'static str, String)],
    ) -> Result<Option<AnyConnection>, EngineError> {
        let request = self.api.request(Method::POST, "/session").await?;
        let request = request.headers(api::header_map(headers));
        let doing = Doing("open", "a session");
        Ok(Some(self.api.upgrade(request, "h2c", doing).await?))
    }
}

#[async_trait]
impl Engine for DockerEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Docker
    }

    async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        Ok(EngineIdentity {
            kind: EngineKind::Docker,
            version: self.version().await?.number.clone(),
            address: self.api.address().to_string(),
        })
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        let mut platforms = vec![self.version().await?.platform()];
        if self.has_buildkit().await? {
            let (_, emulated) = solve::describe(self).await?;
            platforms.extend(emulated);
        }
        let mut seen = BTreeSet::new();
        platforms.retain(|platform| seen.insert(platform.clone()));
        Ok(platforms)
    }

    async fn can(&self, feature: Feature) -> Result<bool, EngineError> {
        match feature {
            Feature::Load | Feature::Push | Feature::CacheImport => Ok(true),
            _ if !self.has_buildkit().await? => Ok(false),
            Feature::CacheExport => self.is_containerd().await,
            Feature::NamedContexts => {
                let known = self.frontend.knows_named_contexts(self, &self.registry);
                known.await
            }
            Feature::Secrets | Feature::Ssh => {
                self.frontend.knows_mounts(self, &self.registry).await
            }
        }
    }

    async fn build(
        &self,
        request: &BuildRequest<'_>,
        export: Export<'_>,
        observer: Observer<'_>,
    ) -> Result<BuiltImage, EngineError> {
        if !matches!(export, Export::Keep) {
            return Err(self.unsupported("export an image without keeping it"));
        }
        let native = self.version().await?.platform();
        let has_buildkit = self.has_buildkit().await?;
        let refusal = if has_buildkit {
            self.refusal(request).await?
        } else {
            classic::refusal(request)
        };
        if let Some(what) = refusal {
            return Err(self.unsupported(what));
        }
        let hosts = self.resolve_hosts(request.extra_hosts).await?;
        let request = &BuildRequest {
            extra_hosts: &hosts,
            ..request.clone()
        };
        let id = if has_buildkit {
            self.build_with_buildkit(request, observer).await?
        } else {
            self.build_classic(request, &native, observer).await?
        };
        self.verify(&id, request).await?;
        Ok(BuiltImage { id })
    }

    async fn find(&self, reference: &Reference) -> Result<Option<Digest>, EngineError> {
        self.find_image(&reference.to_string()).await
    }

    async fn tag(&self, image: &BuiltImage, reference: &Reference) -> Result<(), EngineError> {
        self.tag_image(image, reference).await
    }

    async fn push(
        &self,
        reference: &Reference,
        observer: Observer<'_>,
    ) -> Result<Digest, EngineError> {
        self.push_image(reference, observer).await
    }

    async fn save(&self, image: &BuiltImage, archive: &Path) -> Result<(), EngineError> {
        self.save_image(image, archive).await
    }

    async fn load(&self, archive: &Path) -> Result<(), EngineError> {
        self.load_archive(archive).await
    }

    async fn running(&self) -> Result<Vec<RunningImage>, EngineError> {
        let request = self.api.request(Method::GET, "/containers/json").await?;
        let doing = Doing("list", "running containers");
        let containers: Vec<Container> = self.api.get(request, doing).await?;
        let running = containers.into_iter().map(|container| RunningImage {
            id: container.image_id,
            labels: container.labels.unwrap_or_default(),
        });
        Ok(running.collect())
    }

    async fn untag(&self, reference: &Reference) -> Result<(), EngineError> {
        self.untag_image(reference).await
    }
}
