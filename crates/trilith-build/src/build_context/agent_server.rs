//! The context that an `OpenHands` agent server is built from: no more of an SDK checkout than its
//! Dockerfile needs.
//!
//! What the reference means is what is sent: its patterns for hidden directories and caches never
//! match there, since it hands them to a function that compares them with bare names.

use std::path::{Path, PathBuf};

use trilith_core::{Patterns, StatCache, load_tree};

use super::context::{BuildContext, Dockerfile, load_file, resolve_directory};
use super::error::BuildContextError;

/// Where an SDK checkout has the Dockerfile of the agent server.
pub const AGENT_SERVER_DOCKERFILE: &str = "openhands/agent_server/docker/Dockerfile";

/// The package.
const SOURCE: &str = "openhands";

/// What is left out of it.
const IGNORE: [&str; 4] = [".*", "__pycache__/", "*.pyc", "*.md"];

/// What lies beside it.
const FILES: [&str; 4] = ["pyproject.toml", "uv.lock", "README.md", "LICENSE"];

/// Where the Dockerfile is in the context.
const DOCKERFILE: &str = "Dockerfile";

/// The context of an agent server.
#[derive(Clone, Debug)]
pub struct AgentServerContext {
    /// The context.
    pub context: BuildContext,
    /// The files beside the package that are not there, which is worth a warning.
    pub missing: Vec<PathBuf>,
}

/// Lists and hashes the context of the agent server in the checkout at `sdk_root`: `openhands/`
/// without hidden files, caches, `*.pyc` and `*.md`; `pyproject.toml`, `uv.lock`, `README.md` and
/// `LICENSE`; and the Dockerfile as `Dockerfile`. Ignore files do not apply.
///
/// # Errors
/// As [`BuildContext::load`]; `openhands/` has to be there.
pub fn load_agent_server_context(
    sdk_root: &Path,
    dockerfile: &Dockerfile,
    cache: &StatCache,
) -> Result<AgentServerContext, BuildContextError> {
    let root = resolve_directory(sdk_root)?;
    let ignore = Patterns::parse(IGNORE).map_err(trilith_core::HashError::from)?;
    let source = resolve_directory(&root.join(SOURCE))?;
    let mut context = BuildContext::empty();
    context.add_tree(
        SOURCE.as_bytes(),
        &source,
        &load_tree(&source, &ignore, cache)?,
    );
    let mut missing = Vec::new();
    for name in FILES {
        let path = root.join(name);
        match load_file("project file", &path, cache) {
            Ok((_, file)) => context.add_file(name.as_bytes(), file),
            Err(error) if error.kind() == trilith_oci::Kind::NotFound => missing.push(path),
            Err(error) => return Err(error),
        }
    }
    context.add_visible_dockerfile(DOCKERFILE.as_bytes(), dockerfile, cache)?;
    Ok(AgentServerContext { context, missing })
}
