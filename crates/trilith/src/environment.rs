//! The environment, read once and in one place.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trilith_build::Context;
use trilith_build::engine::EngineAddresses;
use trilith_core::StatCache;
use trilith_oci::registry::{
    CaCertificates, CredentialPlaces, CredentialSource, Proxies, RegistryClient, RegistryConfig,
    RetryPolicy, Secret,
};
use trilith_workspace::Records;

use crate::args::Global;
use crate::output::{Failure, Output};

/// The longest wait that a registry may ask a batch for: most quotas are by the hour.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What the commands need to know of the machine they run on.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `$XDG_DATA_HOME/trilith/store`, where the store is when no flag says so.
    default_store: Option<PathBuf>,
    /// `$XDG_CACHE_HOME/trilith`, for what can be computed again.
    cache: Option<PathBuf>,
    /// `$XDG_STATE_HOME/trilith`, for what this machine has to remember.
    state: Option<PathBuf>,
    credentials: CredentialPlaces,
    /// `$SSL_CERT_FILE`, certificates to trust besides the system's.
    ca_file: Option<PathBuf>,
    proxies: Proxies,
    docker_host: Option<String>,
    engines: EngineAddresses,
}

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn load() -> Self {
        let home = path("HOME");
        let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        Self {
            engines: engines(path("DOCKER_CONFIG").or_else(|| below_home(".docker"))),
            default_store: xdg("XDG_DATA_HOME")
                .or_else(|| below_home(".local/share"))
                .map(|data| data.join("trilith/store")),
            cache: xdg("XDG_CACHE_HOME")
                .or_else(|| below_home(".cache"))
                .map(|cache| cache.join("trilith")),
            state: xdg("XDG_STATE_HOME")
                .or_else(|| below_home(".local/state"))
                .map(|state| state.join("trilith")),
            credentials: CredentialPlaces {
                docker_config: path("DOCKER_CONFIG"),
                registry_auth_file: path("REGISTRY_AUTH_FILE"),
                xdg_runtime_dir: xdg("XDG_RUNTIME_DIR"),
                xdg_config_home: xdg("XDG_CONFIG_HOME"),
                home,
            },
            ca_file: path("SSL_CERT_FILE"),
            proxies: Proxies {
                // As curl has it: `HTTP_PROXY` can be set by a request's header under CGI.
                http: text("http_proxy").map(Secret::new),
                https: text("https_proxy")
                    .or_else(|| text("HTTPS_PROXY"))
                    .map(Secret::new),
                except: text("no_proxy")
                    .or_else(|| text("NO_PROXY"))
                    .unwrap_or_default(),
            },
            docker_host: text("DOCKER_HOST"),
        }
    }

    /// Returns what remembers the hashes of the files below `directory`.
    pub(crate) fn stat_cache(&self, directory: &Path) -> StatCache {
        let directory = directory
            .canonicalize()
            .unwrap_or_else(|_| directory.to_owned());
        trilith_build::stat_cache(self.cache.as_deref(), &directory)
    }

    /// Returns what is remembered of workspaces.
    pub(crate) fn workspaces(&self) -> Result<Records, Failure> {
        let state = self.state.as_ref().ok_or_else(|| {
            Failure::usage("there is no place for the keys of workspaces: set HOME")
        })?;
        Ok(Records::new(state.join("workspaces")))
    }

    /// Returns what the operations of this process work with.
    pub(crate) fn context(&self, global: &Global, output: Output) -> Result<Context, Failure> {
        self.context_of(global, output, RegistryConfig::default())
    }

    /// Returns the same for a process that nobody waits for, with `jobs` images under way at a
    /// time: registries are waited for longer.
    pub(crate) fn batch_context(
        &self,
        global: &Global,
        output: Output,
        jobs: usize,
    ) -> Result<Context, Failure> {
        let config = RegistryConfig {
            concurrency: jobs * 2,
            retry: RetryPolicy {
                max_retry_after: MAX_RETRY_AFTER,
                ..RetryPolicy::default()
            },
            ..RegistryConfig::default()
        };
        self.context_of(global, output, config)
    }

    fn context_of(
        &self,
        global: &Global,
        output: Output,
        config: RegistryConfig,
    ) -> Result<Context, Failure> {
        let store = global.store.clone().or_else(|| self.default_store.clone());
        let store = store.ok_or_else(|| {
            Failure::usage("there is no place for the store: pass `--store DIR`, or set HOME")
        })?;
        let registry = RegistryClient::try_new(RegistryConfig {
            insecure_registries: global.insecure_registry.clone(),
            ca_certificates: self
                .ca_file
                .iter()
                .cloned()
                .map(CaCertificates::File)
                .collect(),
            credentials: CredentialSource::Files(self.credentials.files()),
            proxies: self.proxies.clone(),
            ..config
        })?;
        Ok(Context {
            registry,
            store,
            cache: self.cache.clone(),
            docker_host: self.docker_host.clone(),
            engines: self.engines.clone(),
            observer: Box::new(move |event| output.event(&event)),
        })
    }
}

/// Returns where engines are looked for; `docker` is the directory of Docker's client.
fn engines(docker: Option<PathBuf>) -> EngineAddresses {
    let certificates = || path("DOCKER_CERT_PATH").or_else(|| docker.clone());
    EngineAddresses {
        docker_host: text("DOCKER_HOST"),
        docker_context: text("DOCKER_CONTEXT"),
        docker_certificates: variable("DOCKER_TLS_VERIFY").and_then(|_| certificates()),
        docker_config: docker,
        container_host: text("CONTAINER_HOST"),
        buildkit_host: text("BUILDKIT_HOST"),
        buildkit_certificates: path("BUILDKIT_TLS_DIR"),
        runtime: xdg("XDG_RUNTIME_DIR"),
        // As Podman has it: other places for temporary files may be in memory.
        temporary: path("TMPDIR").unwrap_or_else(|| "/var/tmp".into()),
    }
}

/// Returns a variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from)
}

/// Returns a directory of the XDG base directory specification, which says to ignore
/// relative ones.
fn xdg(name: &str) -> Option<PathBuf> {
    path(name).filter(|path| path.is_absolute())
}

/// Returns a variable that is set to some text.
pub(crate) fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}
