//! The context that an `OpenHands` agent server is built from: no more of an SDK checkout than its
//! Dockerfile needs.
//!
//! What the reference means is what is sent: its patterns for hidden directories and caches never
//! match there, since it hands them to a function that compares them with bare names.

use std::path::{Path, PathBuf};

use trilith_core::StatCache;

use super::context::{BuildContext, Dockerfile};
use super::error::BuildContextError;
use super::parts::{ContextParts, FilePart, PartsContext, TreePart, load_parts};

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

/// Returns what the context of an agent server is put together of: `openhands/` without hidden
/// files, caches, `*.pyc` and `*.md`; `pyproject.toml`, `uv.lock`, `README.md` and `LICENSE`; and
/// the Dockerfile as `Dockerfile`.
#[must_use]
pub fn agent_server_parts() -> ContextParts {
    parts_of(&[SOURCE], &IGNORE)
}

/// Returns what the context of an agent server is put together of where its package is spread
/// over the directories `packages`, without what `ignore` matches.
pub(crate) fn parts_of(packages: &[&str], ignore: &[&str]) -> ContextParts {
    let tree = |name: &&str| TreePart {
        from: name.into(),
        to: (*name).to_owned(),
        ignore: ignore.iter().map(|&pattern| pattern.to_owned()).collect(),
    };
    let file = |name: &&str| FilePart {
        from: name.into(),
        to: (*name).to_owned(),
    };
    ContextParts {
        trees: packages.iter().map(tree).collect(),
        files: FILES.iter().map(file).collect(),
        dockerfile: Some(DOCKERFILE.to_owned()),
    }
}

/// Lists and hashes the context of the agent server in the checkout at `sdk_root`, of
/// [`agent_server_parts`]. Ignore files do not apply.
///
/// # Errors
/// As [`BuildContext::load`]; `openhands/` has to be there.
pub fn load_agent_server_context(
    sdk_root: &Path,
    dockerfile: &Dockerfile,
    cache: &StatCache,
) -> Result<AgentServerContext, BuildContextError> {
    let PartsContext { context, missing } =
        load_parts(sdk_root, &agent_server_parts(), dockerfile, cache)?;
    Ok(AgentServerContext { context, missing })
}
