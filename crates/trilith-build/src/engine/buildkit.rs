//! A buildkitd that is spoken to directly: by a socket, a port, or inside of a container.
//!
//! It keeps a cache and no images. What it builds it pushes by digest, or sends as an OCI
//! archive; names are given afterwards, by whoever knows when everything is there.

mod dial;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use trilith_core::{Digest, Platform, Reference};
use trilith_oci::registry::RegistryClient;
use trilith_oci::{ImageStore, Kind, Name};

use super::address::{AddressError, EngineAddress, TlsFiles};
use super::docker::Api;
use super::solve::{self, AnyConnection, Endpoint, Exporter, Frontend};
use super::{
    BuildRequest, BuiltImage, Engine, EngineError, EngineIdentity, EngineKind, Export, Feature,
    Observer,
};

/// Where a buildkitd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildkitAddress {
    /// At a socket or port.
    Direct(EngineAddress),
    /// In a container, which is reached through the Docker Engine.
    Container {
        /// The container.
        name: String,
        /// The engine it runs on.
        docker: EngineAddress,
    },
}

impl BuildkitAddress {
    /// Parses `docker-container:NAME` and `docker-container://NAME`, a container of the engine at
    /// `docker`, and whatever [`EngineAddress::parse`] does, with `tls` for TCP.
    ///
    /// # Errors
    /// As [`EngineAddress::parse`]; a name that no container can have.
    pub fn parse(
        text: &str,
        tls: Option<TlsFiles>,
        docker: &EngineAddress,
    ) -> Result<Self, AddressError> {
        let Some(name) = text.strip_prefix("docker-container:") else {
            return EngineAddress::parse(text, tls).map(Self::Direct);
        };
        let name = name.strip_prefix("//").unwrap_or(name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(AddressError::new(text, "it must name a container"));
        }
        Ok(Self::Container {
            name: name.to_owned(),
            docker: docker.clone(),
        })
    }
}

impl fmt::Display for BuildkitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            Self::Container { name, .. } => write!(f, "docker-container:{name}"),
        }
    }
}

/// A buildkitd.
#[derive(Debug)]
pub struct BuildkitEngine {
    address: BuildkitAddress,
    /// What the container runs on.
    docker: Option<Api>,
    registry: RegistryClient,
    frontend: Frontend,
    described: OnceCell<(Option<String>, Vec<Platform>)>,
}

impl BuildkitEngine {
    /// Returns the buildkitd at `address`. Opens no connection. Credentials for what it fetches
    /// and pushes are those of `registry`.
    ///
    /// # Errors
    /// A file that TLS needs cannot be used.
    pub fn try_new(
        address: BuildkitAddress,
        registry: RegistryClient,
    ) -> Result<Self, EngineError> {
        let docker = match &address {
            BuildkitAddress::Container { docker, .. } => Some(Api::try_new(docker.clone())?),
            BuildkitAddress::Direct(_) => None,
        };
        Ok(Self {
            address,
            docker,
            registry,
            frontend: Frontend::default(),
            described: OnceCell::new(),
        })
    }

    /// Returns its version, where it tells one, and its platforms.
    async fn describe(&self) -> Result<&(Option<String>, Vec<Platform>), EngineError> {
        let ask = || solve::describe(self);
        self.described.get_or_try_init(ask).await
    }

    fn unsupported(&self, what: &'static str) -> EngineError {
        EngineError::Unsupported {
            engine: EngineKind::Buildkit,
            address: self.address.to_string(),
            what,
        }
    }

    /// Returns the exporter that pushes to the repository of `reference`.
    fn pushing(&self, reference: &Reference) -> Exporter {
        let repository = reference.repository();
        let mut attributes = HashMap::from([
            ("name".to_owned(), repository.to_string()),
            ("push".to_owned(), "true".to_owned()),
            ("push-by-digest".to_owned(), "true".to_owned()),
        ]);
        if self.registry.is_plain_http(repository.registry()) {
            attributes.insert("registry.insecure".to_owned(), "true".to_owned());
        }
        Exporter {
            kind: "image".to_owned(),
            attributes,
            file: None,
        }
    }

    /// Asks the registry for what was pushed.
    async fn verify(&self, reference: &Reference, digest: &Digest) -> Result<(), EngineError> {
        let looked = async {
            let repository = self.registry.repository(reference.repository())?;
            repository.resolve(&Name::Digest(digest.clone())).await
        };
        let (reason, kind) = match looked.await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {
                let reason = format!("`{digest}` is not in the registry afterwards");
                (reason, Kind::Corrupt)
            }
            Err(error) => {
                let reason = format!("the registry cannot be asked afterwards: {error}");
                (reason, error.kind())
            }
        };
        Err(failed("push", &reference.to_string(), reason, kind))
    }
}

fn failed(operation: &'static str, object: &str, reason: String, kind: Kind) -> EngineError {
    EngineError::Failed {
        engine: EngineKind::Buildkit,
        operation,
        object: object.to_owned(),
        reason,
        kind,
    }
}

#[async_trait]
impl Endpoint for BuildkitEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Buildkit
    }

    async fn control(&self) -> Result<AnyConnection, EngineError> {
        match (&self.address, &self.docker) {
            (BuildkitAddress::Container { name, .. }, Some(docker)) => {
                dial::container(docker, name).await
            }
            (BuildkitAddress::Direct(address), _)
            | (
                BuildkitAddress::Container {
                    docker: address, ..
                },
                None,
            ) => dial::direct(address).await,
        }
    }

    async fn session(
        &self,
        _headers: &[(&'static str, String)],
    ) -> Result<Option<AnyConnection>, EngineError> {
        Ok(None)
    }
}

#[async_trait]
impl Engine for BuildkitEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Buildkit
    }

    async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        let (version, _) = self.describe().await?;
        Ok(EngineIdentity {
            kind: EngineKind::Buildkit,
            version: version.clone().unwrap_or_else(|| "unknown".to_owned()),
            address: self.address.to_string(),
        })
    }

    async fn platforms(&self) -> Result<Vec<Platform>, EngineError> {
        let (_, platforms) = self.describe().await?;
        Ok(platforms.clone())
    }

    async fn can(&self, feature: Feature) -> Result<bool, EngineError> {
        match feature {
            Feature::Push | Feature::CacheImport | Feature::CacheExport => Ok(true),
            Feature::Load => Ok(false),
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
        let refusal = self.frontend.refusal(self, &self.registry, request);
        if let Some(what) = refusal.await? {
            return Err(self.unsupported(what));
        }
        let (exporter, archive) = match export {
            Export::Keep => return Err(self.unsupported("keep images")),
            Export::Push(reference) => (self.pushing(reference), None),
            Export::Archive(path) => {
                let archive = solve::NewFile::beside(path)?;
                let exporter = Exporter {
                    kind: "oci".to_owned(),
                    attributes: HashMap::new(),
                    file: Some(archive.path().to_owned()),
                };
                (exporter, Some(archive))
            }
        };
        let solved = solve::solve(self, &self.registry, request, exporter, observer).await?;
        let id = solved.digest().ok_or_else(|| {
            let reason = "it tells no digest".to_owned();
            failed("build", "the image", reason, Kind::Corrupt)
        })?;
        if let Export::Push(reference) = export {
            self.verify(reference, &id).await?;
        }
        if let Some(archive) = archive {
            archive.keep()?;
        }
        Ok(BuiltImage { id })
    }

    async fn find(&self, _reference: &Reference) -> Result<Option<Digest>, EngineError> {
        Err(self.unsupported("keep images"))
    }

    async fn tag(&self, _image: &BuiltImage, _reference: &Reference) -> Result<(), EngineError> {
        Err(self.unsupported("keep images"))
    }

    async fn push(
        &self,
        _reference: &Reference,
        _observer: Observer<'_>,
    ) -> Result<Digest, EngineError> {
        Err(self.unsupported("keep images"))
    }

    async fn save(&self, _image: &BuiltImage, _archive: &Path) -> Result<(), EngineError> {
        Err(self.unsupported("keep images"))
    }

    async fn untag(&self, _reference: &Reference) -> Result<(), EngineError> {
        Err(self.unsupported("keep images"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let docker = EngineAddress::default();
        for (text, expected) in [
            (
                "unix:///run/buildkit/buildkitd.sock",
                Some("unix:///run/buildkit/buildkitd.sock"),
            ),
            ("tcp:host:1234", Some("tcp://host:1234")),
            (
                "docker-container:builder_1.x",
                Some("docker-container:builder_1.x"),
            ),
            (
                "docker-container://builder",
                Some("docker-container:builder"),
            ),
            ("docker-container:", None),
            ("docker-container:a/../b", None),
            ("podman-container:b", None),
        ] {
            let address = BuildkitAddress::parse(text, None, &docker);
            let shown = address.ok().map(|address| address.to_string());
            assert_eq!(shown.as_deref(), expected, "{text}");
        }
    }
}
