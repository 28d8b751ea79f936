//! What a machine has for Trilith: engines, a store, credentials; and how to get the rest.
//!
//! Changes nothing, and tells where credentials are but never what they are.

use std::path::{Path, PathBuf};

use rustix::fs::Access;
use trilith_core::Repository;
use trilith_oci::registry::Account;

use crate::context::Context;
use crate::engine::{EngineError, EngineInfo, EngineKind, Feature, probe_engines};

/// What was found.
#[derive(Debug)]
pub struct Diagnosis {
    /// All engines, in the order in which they are tried.
    pub engines: Vec<EngineReport>,
    /// The local store.
    pub store: StoreReport,
    /// The credentials for the repository, if there is one.
    pub credentials: Option<CredentialReport>,
}

/// Whether an engine answers, and what it can do.
#[derive(Debug)]
pub struct EngineReport {
    /// Which engine.
    pub kind: EngineKind,
    /// What it said, or why it did not.
    pub info: Result<EngineInfo, EngineError>,
    /// What it cannot do, each with what to do instead.
    pub missing: Vec<(Feature, &'static str)>,
    /// How to make it answer, where it does not.
    pub remedy: Option<&'static str>,
}

/// The local store.
#[derive(Debug)]
pub struct StoreReport {
    /// Its directory.
    pub path: PathBuf,
    /// Whether it is there; it is made when something is first written to it.
    pub exists: bool,
    /// Why nothing can be written to it.
    pub problem: Option<std::io::Error>,
}

/// Whether there are credentials for a repository.
#[derive(Debug)]
pub struct CredentialReport {
    /// The repository.
    pub repository: Repository,
    /// The file or helper that they are from.
    pub origin: Option<String>,
    /// Where they were looked for in vain.
    pub searched: Vec<String>,
    /// Why that cannot be told.
    pub problem: Option<trilith_oci::Error>,
}

impl Diagnosis {
    /// Returns the engine that builds a Dockerfile where none is named: the first that answers.
    #[must_use]
    pub fn automatic(&self) -> Option<EngineKind> {
        let mut answering = self.engines.iter().filter(|report| report.info.is_ok());
        answering.next().map(|report| report.kind)
    }
}

/// Looks at the machine, and for credentials for `repository`.
pub async fn diagnose(context: &Context, repository: Option<&Repository>) -> Diagnosis {
    let engines = probe_engines(&context.engines, &context.registry).await;
    let credentials = match repository {
        Some(repository) => Some(credentials(context, repository).await),
        None => None,
    };
    Diagnosis {
        engines: engines
            .into_iter()
            .map(|(kind, info)| engine(kind, info))
            .collect(),
        store: store(&context.store),
        credentials,
    }
}

fn engine(kind: EngineKind, info: Result<EngineInfo, EngineError>) -> EngineReport {
    let missing = info.as_ref().map_or_else(
        |_| Vec::new(),
        |info| {
            let has = &info.capabilities.features;
            let missing = Feature::ALL
                .into_iter()
                .filter(|feature| !has.contains(feature));
            missing
                .map(|feature| (feature, instead(kind, feature)))
                .collect()
        },
    );
    let remedy = info.is_err().then(|| remedy(kind));
    EngineReport {
        kind,
        info,
        missing,
        remedy,
    }
}

/// Returns how to make an engine answer.
fn remedy(kind: EngineKind) -> &'static str {
    match kind {
        EngineKind::Docker => {
            "install Docker 18.09 or later and start it with `systemctl start docker` (members of \
             group `docker` may use it), or name one that runs, with `DOCKER_HOST` or `docker \
             context use`"
        }
        EngineKind::Podman => {
            "install Podman 4.3 or later, which needs no service, or name one elsewhere with \
             `CONTAINER_HOST`"
        }
        EngineKind::Buildkit => {
            "start `buildkitd`, or run it in a container (`docker run --detach --privileged --name \
             buildkitd moby/buildkit`), and set `BUILDKIT_HOST` to where it listens, as in \
             `docker-container://buildkitd`, and `BUILDKIT_TLS_DIR` where that is TLS"
        }
    }
}

/// Returns what to do where an engine cannot do something.
fn instead(kind: EngineKind, feature: Feature) -> &'static str {
    match (feature, kind) {
        (Feature::NamedContexts, _) => "nothing: the Dockerfile is rewritten, with the same result",
        (Feature::Secrets | Feature::Ssh, _) => "install a newer version",
        (Feature::CacheExport, EngineKind::Docker) => "build with `--builder buildkit`",
        (Feature::CacheImport | Feature::CacheExport, _) => {
            "install a newer version, or build with `--builder buildkit`"
        }
        (Feature::Load, _) => "push with `--push`, or write the image with `--output`",
        (Feature::Push, _) => "nothing: images are fetched from the engine and pushed",
    }
}

fn store(path: &Path) -> StoreReport {
    let mut ancestors = path.ancestors().filter(|path| !path.as_os_str().is_empty());
    let existing = ancestors
        .find(|path| path.exists())
        .unwrap_or(Path::new("."));
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    let problem = if existing.is_dir() {
        rustix::fs::access(existing, needed).err().map(Into::into)
    } else {
        Some(std::io::ErrorKind::NotADirectory.into())
    };
    StoreReport {
        path: path.to_owned(),
        exists: path.exists(),
        problem,
    }
}

async fn credentials(context: &Context, repository: &Repository) -> CredentialReport {
    let (registry, path) = (repository.registry(), repository.path());
    let mut report = CredentialReport {
        repository: repository.clone(),
        origin: None,
        searched: Vec::new(),
        problem: None,
    };
    match context.registry.account(registry, path).await {
        Ok(Account::From(origin)) => report.origin = Some(origin),
        Ok(Account::NoneIn(places)) => report.searched = places,
        Ok(Account::Unknown) => {}
        Err(error) => report.problem = Some(error),
    }
    report
}
