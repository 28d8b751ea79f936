//! The engines of this machine.

use std::sync::Arc;

use async_trait::async_trait;
use trilith_build::Engines;
use trilith_build::engine::{Engine, EngineError, EngineKind};

/// Finds the engines of this machine.
pub(crate) struct LocalEngines;

#[async_trait]
impl Engines for LocalEngines {
    async fn open(&self, kind: Option<EngineKind>) -> Result<Arc<dyn Engine>, EngineError> {
        Err(EngineError::Unreachable {
            engine: kind.unwrap_or(EngineKind::Docker),
            address: "this machine".to_owned(),
            source: None,
        })
    }
}
