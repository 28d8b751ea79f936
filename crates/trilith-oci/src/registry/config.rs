//! What a [`super::RegistryClient`] is told: every setting, and nothing read from the environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::credentials::CredentialSource;
use super::observe::Event;
use super::retry::RetryPolicy;
use super::secret::Secret;

/// The settings of a client.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Registries, `host` or `host:port`, that are spoken to in plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Certificate authorities to trust besides the system's.
    pub ca_certificates: Vec<CaCertificates>,
    /// Where credentials come from.
    pub credentials: CredentialSource,
    /// The proxies to go through; registries on loopback are always reached directly.
    pub proxies: Proxies,
    /// When requests are made again.
    pub retry: RetryPolicy,
    /// How long is waited for what.
    pub timeouts: Timeouts,
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// The most requests to one registry at a time, and of those the most uploads. The
    /// bodies of downloads do not count, else a copy within a registry could wait for itself.
    pub concurrency: usize,
    /// Is told about every answer, retry and pause.
    pub observer: Option<Observer>,
}

/// A function that is told what a client does.
pub type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            ca_certificates: Vec::new(),
            credentials: CredentialSource::Anonymous,
            proxies: Proxies::default(),
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            user_agent: concat!("trilith/", env!("CARGO_PKG_VERSION")).to_owned(),
            concurrency: 8,
            observer: None,
        }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig")
            .field("insecure_registries", &self.insecure_registries)
            .field("ca_certificates", &self.ca_certificates)
            .field("credentials", &self.credentials)
            .field("proxies", &self.proxies)
            .field("retry", &self.retry)
            .field("timeouts", &self.timeouts)
            .field("user_agent", &self.user_agent)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Certificates in PEM form, one or more. Read when the first TLS connection is made.
#[derive(Clone)]
pub enum CaCertificates {
    /// A file.
    File(PathBuf),
    /// The text with its `-----BEGIN CERTIFICATE-----` blocks.
    Pem(Vec<u8>),
}

impl fmt::Debug for CaCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Pem(_) => f.write_str("Pem(..)"),
        }
    }
}

/// The proxies to go through, as the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` write them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// The URL of the proxy for `http` addresses; may hold a user name and password.
    pub http: Option<Secret>,
    /// The URL of the proxy for `https` addresses; may hold a user name and password.
    pub https: Option<Secret>,
    /// Hosts, domains and address ranges to reach directly, separated by commas.
    pub except: String,
}

/// How long is waited for what before an attempt counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer, and for the whole body of a small one (manifests, tokens, errors).
    pub answer: Duration,
    /// For at least 1 KiB of a blob, in either direction.
    pub stall: Duration,
    /// For a registry to answer once it has a whole blob or manifest, which it may have to
    /// verify and move.
    pub commit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            commit: Duration::from_secs(300),
        }
    }
}

/// The directories that credential files are looked for in. The caller reads the environment.
#[derive(Clone, Debug, Default)]
pub struct CredentialPlaces {
    /// The home directory (`HOME`).
    pub home: Option<PathBuf>,
    /// Docker's directory (`DOCKER_CONFIG`), `.docker` in the home directory by default.
    pub docker_config: Option<PathBuf>,
    /// The one file to use instead of Podman's usual ones (`REGISTRY_AUTH_FILE`).
    pub registry_auth_file: Option<PathBuf>,
    /// The user's runtime directory (`XDG_RUNTIME_DIR`).
    pub xdg_runtime_dir: Option<PathBuf>,
    /// The user's configuration directory (`XDG_CONFIG_HOME`), `.config` in the home directory
    /// by default.
    pub xdg_config_home: Option<PathBuf>,
}

impl CredentialPlaces {
    /// Returns the credential files of Docker and Podman, in the order they are looked at
    /// (`containers-auth.json(5)`): an explicitly named one, Docker's, Podman's.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let docker = self
            .docker_config
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".docker")))
            .map(|directory| directory.join("config.json"));
        let config_home = self
            .xdg_config_home
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        let podman = [self.xdg_runtime_dir.clone(), config_home]
            .into_iter()
            .flatten()
            .map(|directory| directory.join("containers/auth.json"));
        match &self.registry_auth_file {
            Some(file) => std::iter::once(file.clone()).chain(docker).collect(),
            None => docker.into_iter().chain(podman).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_files_in_order() {
        let home = CredentialPlaces {
            home: Some("/h".into()),
            ..CredentialPlaces::default()
        };
        let full = CredentialPlaces {
            docker_config: Some("/d".into()),
            xdg_runtime_dir: Some("/run/user/1".into()),
            xdg_config_home: Some("/c".into()),
            ..home.clone()
        };
        let named = CredentialPlaces {
            registry_auth_file: Some("/a.json".into()),
            ..full.clone()
        };
        for (places, expected) in [
            (CredentialPlaces::default(), vec![]),
            (
                home,
                vec!["/h/.docker/config.json", "/h/.config/containers/auth.json"],
            ),
            (
                full,
                vec![
                    "/d/config.json",
                    "/run/user/1/containers/auth.json",
                    "/c/containers/auth.json",
                ],
            ),
            (named, vec!["/a.json", "/d/config.json"]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(places.files(), expected);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = RegistryConfig {
            proxies: Proxies {
                https: Some(Secret::new("http://user:hunter2@proxy")),
                ..Proxies::default()
            },
            ..RegistryConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
