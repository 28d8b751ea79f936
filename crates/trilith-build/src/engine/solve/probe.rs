//! What the Dockerfile frontend of a BuildKit can do, found out by building next to nothing.
//!
//! A frontend has no list of what it knows, and its version is told by nobody. So it is given
//! Dockerfiles that it builds without running a step, reading a file or asking a registry, and
//! that it refuses where it does not know what they use.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;
use trilith_core::Platform;
use trilith_oci::registry::RegistryClient;

use super::cache::Caches;
use super::session::OwnFailure;
use super::{Endpoint, Unsolved, frontend, new_session, redactor, run, steps};
use crate::build_context::BuildContext;
use crate::engine::{BuildRequest, EngineError, Network};

/// What a frontend knows, found out when it is asked for: it takes BuildKit longer than a small
/// build.
#[derive(Debug, Default)]
pub(in crate::engine) struct Frontend {
    named_contexts: OnceCell<bool>,
    mounts: OnceCell<bool>,
}

impl Frontend {
    /// Returns whether the frontend at `endpoint` lets images stand in for stages.
    pub(in crate::engine) async fn knows_named_contexts(
        &self,
        endpoint: &dyn Endpoint,
        registry: &RegistryClient,
    ) -> Result<bool, EngineError> {
        let replaced = Some(("context:replaced", "docker-image://scratch"));
        let ask = || knows(endpoint, registry, NAMED_CONTEXTS, replaced);
        self.named_contexts.get_or_try_init(ask).await.copied()
    }

    /// Returns whether the frontend at `endpoint` knows `RUN --mount`.
    pub(in crate::engine) async fn knows_mounts(
        &self,
        endpoint: &dyn Endpoint,
        registry: &RegistryClient,
    ) -> Result<bool, EngineError> {
        let ask = || knows(endpoint, registry, MOUNTS, None);
        self.mounts.get_or_try_init(ask).await.copied()
    }

    /// Returns what of `request` cannot be done by the frontend at `endpoint`, before it fails at
    /// it in the middle.
    pub(in crate::engine) async fn refusal(
        &self,
        endpoint: &dyn Endpoint,
        registry: &RegistryClient,
        request: &BuildRequest<'_>,
    ) -> Result<Option<&'static str>, EngineError> {
        let contexts = !request.named_contexts.is_empty();
        if contexts && !self.knows_named_contexts(endpoint, registry).await? {
            return Ok(Some("put images in place of stages"));
        }
        let mounts = !request.secrets.is_empty() || !request.ssh.is_empty();
        if mounts && !self.knows_mounts(endpoint, registry).await? {
            return Ok(Some("mount build secrets"));
        }
        Ok(None)
    }
}

/// The stage that is replaced cannot be built: the file is not there.
const NAMED_CONTEXTS: &str = "FROM scratch AS replaced\nCOPY missing /\nFROM replaced\n";
/// The stage with the step is not built, only read.
const MOUNTS: &str = "FROM scratch AS unused\n\
    RUN --mount=type=secret,id=x --mount=type=ssh [\"x\"]\n\
    FROM scratch\nLABEL x=y\n";

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
    let caches = Caches::default();
    let mut solve = frontend::solve_request(&request, &caches);
    // The platform of the machine is the one that surely is there.
    solve.frontend_attrs.remove("platform");
    if let Some((name, value)) = attribute {
        solve
            .frontend_attrs
            .insert(name.to_owned(), value.to_owned());
    }
    let redactor = redactor(&request);
    let failure = OwnFailure::default();
    let session = new_session(registry, &request, None, &caches, &redactor, &failure);
    let mut steps = steps::Steps::new(&|_| (), redactor.clone());
    match Box::pin(run(endpoint, session, solve, &mut steps)).await {
        Ok(_) => Ok(true),
        Err(Unsolved::Said(_)) => Ok(false),
        Err(other) => Err(other.into_error(endpoint.kind(), "ask", "the frontend", &redactor)),
    }
}
