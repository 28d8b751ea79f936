//! The engines of this machine.

use std::sync::Arc;

use async_trait::async_trait;
use trilith_build::engine::{DockerEngine, Engine, EngineAddress, EngineError, EngineKind};
use trilith_build::{Context, Engines};
use trilith_oci::registry::RegistryClient;

/// Finds the engines of this machine.
pub(crate) struct LocalEngines {
    docker_host: Option<String>,
    registry: RegistryClient,
}

impl LocalEngines {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            docker_host: context.docker_host.clone(),
            registry: context.registry.clone(),
        }
    }
}

#[async_trait]
impl Engines for LocalEngines {
    async fn open(&self, kind: Option<EngineKind>) -> Result<Arc<dyn Engine>, EngineError> {
        let unreachable = |address: String, source| EngineError::Unreachable {
            engine: kind.unwrap_or(EngineKind::Docker),
            address,
            source,
        };
        match kind {
            None | Some(EngineKind::Docker) => {
                let address = match &self.docker_host {
                    Some(host) => EngineAddress::parse(host, None)
                        .map_err(|error| unreachable(host.clone(), Some(error.into())))?,
                    None => EngineAddress::default(),
                };
                Ok(Arc::new(DockerEngine::try_new(
                    address,
                    self.registry.clone(),
                )?))
            }
            Some(EngineKind::Podman | EngineKind::Buildkit) => {
                Err(unreachable("this machine".to_owned(), None))
            }
        }
    }
}
