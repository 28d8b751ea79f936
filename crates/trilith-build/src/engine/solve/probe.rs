//! What the Dockerfile frontend of a BuildKit can do, found out by building next to nothing.
//!
//! A frontend has no list of what it knows, and its version is told by nobody. So it is given
//! Dockerfiles that it builds without running a step, reading a file or asking a registry, and
//! that it refuses where it does not know what they use.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_core::Platform;
use trilith_oci::registry::RegistryClient;

use super::session::OwnFailure;
use super::{Endpoint, Unsolved, frontend, new_session, redactor, run, steps};
use crate::build_context::BuildContext;
use crate::engine::{BuildRequest, EngineError, Network};

/// What a frontend knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct FrontendFeatures {
    /// Images in place of stages.
    pub(in crate::engine) named_contexts: bool,
    /// `RUN --mount`.
    pub(in crate::engine) mounts: bool,
}

/// The stage that is replaced cannot be built: the file is not there.
const NAMED_CONTEXTS: &str = "FROM scratch AS replaced\nCOPY missing /\nFROM replaced\n";
/// The stage with the step is not built, only read.
const MOUNTS: &str = "FROM scratch AS unused\n\
    RUN --mount=type=secret,id=x --mount=type=ssh [\"x\"]\n\
    FROM scratch\nLABEL x=y\n";

/// Asks the frontend at `endpoint`.
pub(in crate::engine) async fn probe(
    endpoint: &dyn Endpoint,
    registry: &RegistryClient,
) -> Result<FrontendFeatures, EngineError> {
    let replaced = Some(("context:replaced", "docker-image://scratch"));
    let (named_contexts, mounts) = tokio::join!(
        knows(endpoint, registry, NAMED_CONTEXTS, replaced),
        knows(endpoint, registry, MOUNTS, None),
    );
    Ok(FrontendFeatures {
        named_contexts: named_contexts?,
        mounts: mounts?,
    })
}

/// Returns whether `dockerfile` can be built.
async fn knows(
    endpoint: &dyn Endpoint,
    registry: &RegistryClient,
    dockerfile: &str,
    attribute: Option<(&str, &str)>,
) -> Result<bool, EngineError> {
    let none = BTreeMap::new();
    let request = BuildRequest {
        context: Arc::new(BuildContext::of_dockerfile(dockerfile)),
        target: None,
        args: &none,
        platform: &Platform::host(),
        labels: &none,
        named_contexts: &[],
        secrets: &[],
        ssh: &[],
        extra_hosts: &[],
        network: Network::Default,
        cache_from: &[],
        cache_to: &[],
        no_cache: false,
        pull: false,
    };
    let mut solve = frontend::solve_request(&request);
    // The platform of the machine is the one that surely is there.
    solve.frontend_attrs.remove("platform");
    if let Some((name, value)) = attribute {
        solve
            .frontend_attrs
            .insert(name.to_owned(), value.to_owned());
    }
    let redactor = redactor(&request);
    let session = new_session(registry, &request, None, &redactor, &OwnFailure::default());
    let mut steps = steps::Steps::new(&|_| (), redactor.clone());
    match Box::pin(run(endpoint, session, solve, &mut steps)).await {
        Ok(_) => Ok(true),
        Err(Unsolved::Said(_)) => Ok(false),
        Err(other) => Err(other.into_error(endpoint.kind(), &redactor)),
    }
}
