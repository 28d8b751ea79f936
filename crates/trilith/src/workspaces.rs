//! Which engine a workspace is on.

use std::sync::Arc;

use trilith_build::Context;
use trilith_build::engine::{
    Containers, EngineKind, open_all_containers, open_containers, open_first_containers,
};
use trilith_oci::Kind;
use trilith_workspace::{Records, resolve};

use crate::args::ContainerEngine;
use crate::output::Failure;

fn kind(engine: ContainerEngine) -> EngineKind {
    match engine {
        ContainerEngine::Docker => EngineKind::Docker,
        ContainerEngine::Podman => EngineKind::Podman,
    }
}

/// Returns the engine that was asked for, or the first that answers.
pub(crate) async fn one_engine(
    context: &Context,
    engine: Option<ContainerEngine>,
) -> Result<Arc<dyn Containers>, Failure> {
    Ok(match engine {
        Some(engine) => open_containers(kind(engine), &context.engines, &context.registry)?,
        None => open_first_containers(&context.engines, &context.registry).await?,
    })
}

/// Returns the engine that was asked for, or all that answer.
pub(crate) async fn engines(
    context: &Context,
    engine: Option<ContainerEngine>,
) -> Result<Vec<Arc<dyn Containers>>, Failure> {
    Ok(match engine {
        Some(_) => vec![one_engine(context, engine).await?],
        None => open_all_containers(&context.engines, &context.registry).await?,
    })
}

/// Returns the engine of a workspace and the full id of its container. One that this machine
/// does not remember is looked for on all engines.
pub(crate) async fn engine_of(
    context: &Context,
    records: &Records,
    name: &str,
) -> Result<(Arc<dyn Containers>, String), Failure> {
    let missing = match records.find(name) {
        Ok(record) => {
            let kind = if record.engine == EngineKind::Podman.to_string() {
                EngineKind::Podman
            } else {
                EngineKind::Docker
            };
            let engine = open_containers(kind, &context.engines, &context.registry)?;
            return Ok((engine, record.id));
        }
        Err(error) if error.kind() == Kind::NotFound => error,
        Err(error) => return Err(error.into()),
    };
    for engine in engines(context, None).await? {
        match resolve(engine.as_ref(), name).await {
            Ok(container) => return Ok((engine, container.id)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(missing.into())
}
