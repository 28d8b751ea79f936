//! The engines of a machine: where they are looked for, and which of them answer.
//!
//! A new engine is one line in [`ENGINES`]. Reads no environment; whoever makes
//! [`EngineAddresses`] does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trilith_oci::registry::RegistryClient;

use super::{
    BuildkitAddress, BuildkitEngine, Containers, DockerEngine, Engine, EngineAddress, EngineError,
    EngineInfo, EngineKind, Podman, PodmanOptions, RunningImage, TlsFiles, load_docker_context,
};

/// How long an engine may take to say what it is.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Where a buildkitd listens that runs as root.
const BUILDKIT_SOCKET: &str = "unix:///run/buildkit/buildkitd.sock";

/// Makes an engine without asking it anything.
type Open = fn(&EngineAddresses, &RegistryClient) -> Result<Arc<dyn Engine>, EngineError>;

/// All engines, in the order in which they are tried.
const ENGINES: [(EngineKind, Open); 3] = [
    (EngineKind::Docker, open_docker),
    (EngineKind::Podman, |addresses, registry| {
        Ok(Arc::new(podman(addresses, registry)))
    }),
    (EngineKind::Buildkit, open_buildkit),
];

/// Where engines are looked for, as their own clients are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineAddresses {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`, which counts where there is no host.
    pub docker_context: Option<String>,
    /// The directory of Docker's client, `DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// The directory with the certificates for `docker_host`, where TLS is asked for:
    /// `DOCKER_CERT_PATH` with `DOCKER_TLS_VERIFY`.
    pub docker_certificates: Option<PathBuf>,
    /// `CONTAINER_HOST`, the socket of a Podman. Without one it is this machine's.
    pub container_host: Option<String>,
    /// `BUILDKIT_HOST`.
    pub buildkit_host: Option<String>,
    /// The directory with the certificates for a `buildkit_host` of TCP, which is spoken to by TLS
    /// then: `BUILDKIT_TLS_DIR`.
    pub buildkit_certificates: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, where the sockets of engines without root are.
    pub runtime: Option<PathBuf>,
    /// Where contexts are unpacked for engines that read them from disk.
    pub temporary: PathBuf,
}

/// Returns the engine of this kind. It is not asked anything.
///
/// # Errors
/// Its address is none, or files that name it or prove who we are cannot be used.
pub fn open_engine(
    kind: EngineKind,
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Engine>, EngineError> {
    let mut engines = ENGINES.iter();
    match engines.find(|(other, _)| *other == kind) {
        Some((_, open)) => open(addresses, registry),
        None => Err(unreachable(kind, String::new(), "it is not built in")),
    }
}

/// Returns the first engine that answers.
///
/// # Errors
/// [`EngineError::NoneAnswers`].
pub async fn open_first_engine(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Engine>, EngineError> {
    let mut reasons = Vec::new();
    for (kind, open) in ENGINES {
        let answer = match open(addresses, registry) {
            Ok(engine) => in_time(kind, engine.identity()).await.map(|_| engine),
            Err(error) => Err(error),
        };
        match answer {
            Ok(engine) => return Ok(engine),
            Err(error) => reasons.push(error),
        }
    }
    Err(EngineError::NoneAnswers { reasons })
}

/// Returns the engine of this kind as one that runs containers. It is not asked anything.
///
/// # Errors
/// Those of [`open_engine`], and [`EngineError::Unsupported`] for an engine that runs none.
pub fn open_containers(
    kind: EngineKind,
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Containers>, EngineError> {
    match kind {
        EngineKind::Docker => {
            let address = docker_address(addresses)?;
            Ok(Arc::new(DockerEngine::try_new(address, registry.clone())?))
        }
        EngineKind::Podman => Ok(Arc::new(podman(addresses, registry))),
        EngineKind::Buildkit => Err(EngineError::Unsupported {
            engine: kind,
            address: addresses.buildkit_host.clone().unwrap_or_default(),
            what: "run containers",
        }),
    }
}

/// Returns the engines that run containers and answer, in the order in which they are tried.
///
/// # Errors
/// [`EngineError::NoneAnswers`].
pub async fn open_all_containers(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Vec<Arc<dyn Containers>>, EngineError> {
    let (mut engines, mut reasons) = (Vec::new(), Vec::new());
    for kind in [EngineKind::Docker, EngineKind::Podman] {
        match answering(kind, addresses, registry).await {
            Ok(engine) => engines.push(engine),
            Err(reason) => reasons.push(reason),
        }
    }
    if engines.is_empty() {
        return Err(EngineError::NoneAnswers { reasons });
    }
    Ok(engines)
}

/// Returns the first engine that runs containers and answers.
///
/// # Errors
/// [`EngineError::NoneAnswers`].
pub async fn open_first_containers(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Containers>, EngineError> {
    let mut reasons = Vec::new();
    for kind in [EngineKind::Docker, EngineKind::Podman] {
        match answering(kind, addresses, registry).await {
            Ok(engine) => return Ok(engine),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(EngineError::NoneAnswers { reasons })
}

async fn answering(
    kind: EngineKind,
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Containers>, EngineError> {
    let engine = open_containers(kind, addresses, registry)?;
    engine.answers().await?;
    Ok(engine)
}

/// Asks all engines what they are, at the same time.
pub async fn probe_engines(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Vec<(EngineKind, Result<EngineInfo, EngineError>)> {
    let probes = ENGINES.into_iter().map(|(kind, open)| async move {
        let info = match open(addresses, registry) {
            Ok(engine) => in_time(kind, engine.info()).await,
            Err(error) => Err(error),
        };
        (kind, info)
    });
    join_all(probes).await
}

/// Returns the images of the containers that run in any engine that answers.
///
/// # Errors
/// An engine answers, but does not say what runs.
pub(crate) async fn running_images(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Vec<RunningImage>, EngineError> {
    let asked = ENGINES.into_iter().map(|(kind, open)| async move {
        let Ok(engine) = open(addresses, registry) else {
            return Ok(Vec::new());
        };
        match in_time(kind, engine.identity()).await {
            Ok(_) => engine.running().await,
            Err(_) => Ok(Vec::new()),
        }
    });
    let running: Result<Vec<Vec<RunningImage>>, EngineError> =
        join_all(asked).await.into_iter().collect();
    Ok(running?.into_iter().flatten().collect())
}

async fn in_time<T>(
    kind: EngineKind,
    answer: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let answer = tokio::time::timeout(ANSWER_LIMIT, answer).await;
    answer.unwrap_or_else(|_| {
        let seconds = ANSWER_LIMIT.as_secs();
        let reason = format!("it said nothing for {seconds} seconds");
        Err(unreachable(kind, "its address".to_owned(), reason))
    })
}

fn open_docker(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Engine>, EngineError> {
    let engine = DockerEngine::try_new(docker_address(addresses)?, registry.clone())?;
    Ok(Arc::new(engine))
}

fn podman(addresses: &EngineAddresses, registry: &RegistryClient) -> Podman {
    let mut options = PodmanOptions::new(addresses.temporary.clone());
    if let Some(host) = &addresses.container_host {
        let host = ("CONTAINER_HOST".to_owned(), Some(host.clone()));
        options.environment.push(host);
    }
    Podman::new(options, registry.clone())
}

fn open_buildkit(
    addresses: &EngineAddresses,
    registry: &RegistryClient,
) -> Result<Arc<dyn Engine>, EngineError> {
    let own = socket(addresses, "buildkit/buildkitd.sock");
    let given = addresses.buildkit_host.clone().or(own);
    let text = given.unwrap_or_else(|| BUILDKIT_SOCKET.to_owned());
    // Only a buildkitd in a container needs Docker.
    let docker = if text.starts_with("docker-container:") {
        docker_address(addresses)?
    } else {
        EngineAddress::default()
    };
    let certificates = addresses.buildkit_certificates.as_deref();
    let tls = certificates.map(TlsFiles::in_directory);
    let address = BuildkitAddress::parse(&text, tls, &docker);
    let address = address.map_err(|error| no_address(EngineKind::Buildkit, error))?;
    let engine = BuildkitEngine::try_new(address, registry.clone())?;
    Ok(Arc::new(engine))
}

/// Returns where Docker's own client would look.
fn docker_address(addresses: &EngineAddresses) -> Result<EngineAddress, EngineError> {
    if let Some(host) = &addresses.docker_host {
        let certificates = addresses.docker_certificates.as_deref();
        let tls = certificates.map(TlsFiles::in_directory);
        return EngineAddress::parse(host, tls)
            .map_err(|error| no_address(EngineKind::Docker, error));
    }
    let context = addresses.docker_context.as_deref();
    if let Some(config) = &addresses.docker_config
        && let Some(address) = load_docker_context(config, context)?
    {
        return Ok(address);
    }
    let usual = EngineAddress::default();
    let is_there = matches!(&usual, EngineAddress::Unix(path) if path.exists());
    let own = socket(addresses, "docker.sock").filter(|_| !is_there);
    Ok(own.map_or(usual, |own| {
        EngineAddress::Unix(own.trim_start_matches("unix://").into())
    }))
}

/// Returns the address of a socket of an engine without root, where there is one.
fn socket(addresses: &EngineAddresses, name: &str) -> Option<String> {
    let path = addresses.runtime.as_ref()?.join(name);
    path.exists().then(|| format!("unix://{}", path.display()))
}

fn no_address(engine: EngineKind, error: super::AddressError) -> EngineError {
    unreachable(engine, error.text().to_owned(), error)
}

fn unreachable(
    engine: EngineKind,
    address: String,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> EngineError {
    EngineError::Unreachable {
        engine,
        address,
        source: Some(source.into()),
    }
}
