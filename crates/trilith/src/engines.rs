//! The engines of this machine.

use std::sync::Arc;

use async_trait::async_trait;
use trilith_build::engine::{
    Engine, EngineAddresses, EngineError, EngineKind, open_engine, open_first_engine,
};
use trilith_build::{Context, Engines};
use trilith_oci::registry::RegistryClient;

/// Finds the engines of this machine.
pub(crate) struct LocalEngines {
    addresses: EngineAddresses,
    registry: RegistryClient,
}

impl LocalEngines {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            addresses: context.engines.clone(),
            registry: context.registry.clone(),
        }
    }
}

#[async_trait]
impl Engines for LocalEngines {
    async fn open(&self, kind: Option<EngineKind>) -> Result<Arc<dyn Engine>, EngineError> {
        match kind {
            Some(kind) => open_engine(kind, &self.addresses, &self.registry),
            None => open_first_engine(&self.addresses, &self.registry).await,
        }
    }
}
