//! What the Dockerfile frontend of a BuildKit can do, found out by building next to nothing.
//!
//! A frontend has no list of what it knows, and its version is told by nobody. So it is given
//! Dockerfiles that it builds without running a step, reading a file or asking a registry, and
//! that it refuses where it does not know what they use.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_core::Platform;
use trilith_oci::registry::RegistryClient;

use super::cache::Caches;
use super::session::OwnFailure;
use super::{Endpoint, Unsolved, frontend, new_session, redactor, run, steps};
use crate::build_context::BuildContext;
use crate::engine::{BuildRequest, EngineError, Feature, Network};

/// What a frontend knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct FrontendFeatures {
    /// Images in place of stages.
    pub(in crate::engine) named_contexts: bool,
    /// `RUN --mount`.
    pub(in crate::engine) mounts: bool,
}

impl FrontendFeatures {
    pub(in crate::engine) fn features(self) -> Vec<Feature> {
        let mut features = Vec::new();
        if self.named_contexts {
            features.push(Feature::NamedContexts);
        }
        if self.mounts {
            features.extend([Feature::Secrets, Feature::Ssh]);
        }
        features
    }
}

/// Returns what of `request` cannot be done by a frontend with the features that `ask` finds out,
/// before it fails at it in the middle. It is asked only where it matters.
pub(in crate::engine) async fn refusal<F>(
    request: &BuildRequest<'_>,
    ask: impl FnOnce() -> F + Send,
) -> Result<Option<&'static str>, EngineError>
where
    F: Future<Output = Result<FrontendFeatures, EngineError>> + Send,
{
    let mounts = !request.secrets.is_empty() || !request.ssh.is_empty();
    if request.named_contexts.is_empty() && !mounts {
        return Ok(None);
    }
    let features = ask().await?;
    if !request.named_contexts.is_empty() && !features.named_contexts {
        return Ok(Some("put images in place of stages"));
    }
    Ok((mounts && !features.mounts).then_some("mount build secrets"))
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
