//! What an engine is asked to build.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use trilith_core::{Platform, Reference};
use trilith_oci::registry::Secret;

use crate::build_context::BuildContext;

/// One image to be built.
#[derive(Clone)]
pub struct BuildRequest<'a> {
    /// What instructions can copy, with the Dockerfile.
    pub context: Arc<BuildContext>,
    /// The stage to build; the last one if `None`.
    pub target: Option<&'a str>,
    /// Build arguments. Never secret: they stay in the image's history.
    pub args: &'a BTreeMap<String, String>,
    /// What to build for.
    pub platform: &'a Platform,
    /// Labels of the image, over those the Dockerfile sets.
    pub labels: &'a BTreeMap<String, String>,
    /// Images that replace stages, for engines that can do that.
    pub named_contexts: &'a [NamedContext],
    /// What `RUN --mount=type=secret` can ask for.
    pub secrets: &'a [BuildSecret],
    /// What `RUN --mount=type=ssh` can ask for.
    pub ssh: &'a [SshAgent],
    /// Lines of `/etc/hosts` of the steps: name, and address or `host-gateway`.
    pub extra_hosts: &'a [(String, String)],
    /// Which network the steps see.
    pub network: Network,
    /// Where cached layers may come from.
    pub cache_from: &'a [CacheEntry],
    /// Where the cache is written to.
    pub cache_to: &'a [CacheEntry],
    /// Run every step anew.
    pub no_cache: bool,
    /// Whether base images are asked for again where the engine has one of that name.
    pub pull: bool,
}

/// Which network steps see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the engine gives them.
    #[default]
    Default,
    /// None.
    None,
    /// That of the machine.
    Host,
}

/// An image in place of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedContext {
    /// The stage's name.
    pub stage: String,
    /// The image, by digest.
    pub image: Reference,
}

/// A secret that steps can mount.
#[derive(Clone, Debug)]
pub struct BuildSecret {
    /// As in `RUN --mount=type=secret,id=ID`.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where the value of a secret is.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In a file, read when a step asks.
    File(PathBuf),
    /// Here.
    Value(Secret),
}

/// An SSH agent that steps can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAgent {
    /// As in `RUN --mount=type=ssh,id=ID`; `default` where the step names none.
    pub id: String,
    /// The socket of the agent.
    pub socket: PathBuf,
}

/// A cache of layers, as in `type=registry,ref=ghcr.io/acme/cache` or just a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, ….
    pub kind: String,
    /// What the kind is told, as in `ref`.
    pub options: BTreeMap<String, String>,
}
