//! Where engines listen, and what their TLS needs.
//!
//! Addresses are given by the caller; no environment is read. What `docker context use` chose is
//! read from the configuration directory that the caller names.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use trilith_core::Digest;

use super::EngineError;

/// Where Docker listens unless somebody says otherwise.
pub const DEFAULT_DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineAddress {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port, as in `build.example:2376`.
    Tcp {
        /// Host and port.
        authority: String,
        /// Where given, TLS is spoken.
        tls: Option<TlsFiles>,
    },
}

/// Files in the PEM format that TLS with an engine needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates that the engine's must be signed by; without one, those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, where the engine asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a text is no address of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of an engine: {reason}")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl EngineAddress {
    /// Parses `unix:///path`, `unix:/path`, `tcp://host:port`, `tcp:host:port` and
    /// `http://host:port`. TCP is spoken with `tls`, if there is any.
    ///
    /// # Errors
    /// Other schemes, a relative path, no port.
    pub fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Self, AddressError> {
        let refused = |reason| AddressError::new(text, reason);
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| refused("it starts with no `unix:` or `tcp:`"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(refused("the path must be absolute")),
            "tcp" | "http" | "https" => {
                let authority = rest.trim_end_matches('/');
                let port = authority.rsplit_once(':').map(|(_, port)| port);
                let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
                if !is_port || authority.contains(['/', '@', '?', '#']) {
                    return Err(refused("it must name a host and a port"));
                }
                Ok(Self::Tcp {
                    authority: authority.to_owned(),
                    tls: match scheme {
                        "http" => None,
                        "https" => Some(tls.unwrap_or_default()),
                        _ => tls,
                    },
                })
            }
            "ssh" => Err(refused(
                "SSH is not spoken; forward the engine's socket, as with `ssh -L`, and name that",
            )),
            _ => Err(refused("only `unix:` and `tcp:` are spoken")),
        }
    }
}

impl AddressError {
    pub(super) fn new(text: &str, reason: &'static str) -> Self {
        // What is no address may still hold a password.
        let text = super::redact::clean_urls(text);
        Self { text, reason }
    }

    /// Returns the text, without passwords.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Default for EngineAddress {
    fn default() -> Self {
        Self::Unix(DEFAULT_DOCKER_SOCKET.into())
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { authority, .. } => write!(f, "tcp://{authority}"),
        }
    }
}

impl TlsFiles {
    /// Returns the usual files in `directory`, those that are there: `ca.pem`, `cert.pem` and
    /// `key.pem`, or as Kubernetes names them, `ca.crt`, `tls.crt` and `tls.key`.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        let file = |names: [&str; 2]| {
            let mut paths = names.into_iter().map(|name| directory.join(name));
            paths.find(|path| path.exists())
        };
        Self {
            ca: file(["ca.pem", "ca.crt"]),
            identity: file(["cert.pem", "tls.crt"]).zip(file(["key.pem", "tls.key"])),
        }
    }

    /// Returns settings that trust nobody, for connections without TLS whose client must be told
    /// of TLS all the same.
    pub(super) fn trusting_nobody() -> Result<ClientConfig, EngineError> {
        let (builder, _) = builder()?;
        Ok(builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth())
    }

    /// Reads the files.
    pub(super) fn load(&self) -> Result<ClientConfig, EngineError> {
        let (builder, provider) = builder()?;
        let builder = if let Some(ca) = &self.ca {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(ca)? {
                let added = roots.add(certificate);
                added.map_err(|error| EngineError::io("use", ca)(io::Error::other(error)))?;
            }
            builder.with_root_certificates(roots)
        } else {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|error| {
                EngineError::io("use", Path::new("TLS"))(io::Error::other(error))
            })?;
            let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        };
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        // The reason why PEM is malformed does not quote it.
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| EngineError::io("read", key)(io::Error::other(error)))?;
        builder
            .with_client_auth_cert(certificates(certificate)?, secret)
            .map_err(|error| EngineError::io("use", certificate)(io::Error::other(error)))
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<(Builder, Arc<CryptoProvider>), EngineError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| EngineError::io("use", Path::new("TLS"))(io::Error::other(error)))?;
    Ok((builder, provider))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> =
        read.map_err(|error| EngineError::io("read", path)(io::Error::other(error)))?;
    if certificates.is_empty() {
        let none = io::Error::other("it holds no PEM certificate");
        return Err(EngineError::io("read", path)(none));
    }
    Ok(certificates)
}

/// Docker's `config.json`, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    current_context: Option<String>,
}

/// The description of a context.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEndpoint {
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// Returns the address of a context of Docker's client: the one called `name`, or else the one
/// that was chosen with `docker context use`. `None` where none was chosen.
///
/// `config` is the client's directory, `~/.docker` mostly.
///
/// # Errors
/// There is no such context, its files cannot be read, or it wants TLS without verification.
pub fn load_docker_context(
    config: &Path,
    name: Option<&str>,
) -> Result<Option<EngineAddress>, EngineError> {
    let chosen = if let Some(name) = name {
        Some(name.to_owned())
    } else {
        let path = config.join("config.json");
        load_json::<Config>(&path)?.and_then(|config| config.current_context)
    };
    let Some(name) = chosen.filter(|name| !name.is_empty() && name != "default") else {
        return Ok(None);
    };
    let directory = Digest::of(name.as_bytes());
    let contexts = config.join("contexts");
    let path = contexts
        .join("meta")
        .join(directory.hex())
        .join("meta.json");
    let invalid = |reason: String| {
        let reason = format!("Docker context `{name}` {reason}");
        EngineError::io("read", &path)(io::Error::new(io::ErrorKind::InvalidData, reason))
    };
    let meta = load_json::<Meta>(&path)?;
    let meta =
        meta.ok_or_else(|| EngineError::io("read", &path)(io::ErrorKind::NotFound.into()))?;
    let endpoint = meta.endpoints.docker;
    let endpoint = endpoint.ok_or_else(|| invalid("names no engine".to_owned()))?;
    if endpoint.skip_tls_verify {
        return Err(invalid("asks for TLS without verification".to_owned()));
    }
    let tls = contexts.join("tls").join(directory.hex()).join("docker");
    let tls = tls.is_dir().then(|| TlsFiles::in_directory(&tls));
    let address = EngineAddress::parse(&endpoint.host, tls);
    address
        .map(Some)
        .map_err(|error| invalid(error.to_string()))
}

/// Reads a file; `None` where there is none.
fn load_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            // Not the message, which may quote a password.
            let (line, column) = (error.line(), error.column());
            let reason = format!("it is malformed at line {line}, column {column}");
            EngineError::io("read", path)(io::Error::new(io::ErrorKind::InvalidData, reason))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("unix:/run/b.sock", "unix:///run/b.sock"),
            ("tcp://build.example:2376", "tcp://build.example:2376"),
            ("tcp:[::1]:2376/", "tcp://[::1]:2376"),
            ("http://localhost:80", "tcp://localhost:80"),
        ] {
            let address = EngineAddress::parse(text, None).unwrap();
            assert_eq!(address.to_string(), expected);
        }
        for (text, reason) in [
            ("unix://docker.sock", "absolute"),
            ("docker.sock", "starts with no"),
            ("tcp://host", "a host and a port"),
            ("tcp://host:port", "a host and a port"),
            ("tcp://user:hunter2@host:1", "a host and a port"),
            ("ssh://host", "forward the engine's socket"),
            ("npipe:////./pipe/docker", "only `unix:`"),
        ] {
            let error = EngineAddress::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let tls = |text| match EngineAddress::parse(text, Some(TlsFiles::default())).unwrap() {
            EngineAddress::Tcp { tls, .. } => tls.is_some(),
            EngineAddress::Unix(_) => false,
        };
        assert!(tls("tcp://a:1") && tls("https://a:1") && !tls("http://a:1") && !tls("unix:/a"));
    }

    #[test]
    fn files_of_tls() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let found = || TlsFiles::in_directory(directory.path());
        assert_eq!(found(), TlsFiles::default());
        for name in ["ca.crt", "tls.crt"] {
            fs::write(at(name), "").unwrap();
        }
        let ca = Some(at("ca.crt"));
        assert_eq!(found(), TlsFiles { ca, identity: None });
        for name in ["tls.key", "ca.pem"] {
            fs::write(at(name), "").unwrap();
        }
        let expected = TlsFiles {
            ca: Some(at("ca.pem")),
            identity: Some((at("tls.crt"), at("tls.key"))),
        };
        assert_eq!(found(), expected);
    }

    #[test]
    fn contexts_of_the_client() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path();
        let load = |name| load_docker_context(config, name);
        assert_eq!(load(None).unwrap(), None);
        fs::write(
            config.join("config.json"),
            r#"{"currentContext": "remote"}"#,
        )
        .unwrap();
        let error = load(None).unwrap_err();
        assert!(error.to_string().contains("meta.json"), "{error}");

        let name = Digest::of(b"remote");
        let meta = config.join("contexts/meta").join(name.hex());
        fs::create_dir_all(&meta).unwrap();
        let write = |text: &str| fs::write(meta.join("meta.json"), text).unwrap();
        let reason = |name| {
            let error = load(name).unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };
        write(r#"{"Name": "remote", "Endpoints": {"docker": {"Host": "tcp://h:1"}}}"#);
        let expected = EngineAddress::parse("tcp://h:1", None).unwrap();
        assert_eq!(load(None).unwrap(), Some(expected));
        let tls = config.join("contexts/tls").join(name.hex()).join("docker");
        fs::create_dir_all(&tls).unwrap();
        fs::write(tls.join("ca.pem"), "").unwrap();
        match load(Some("remote")).unwrap().unwrap() {
            EngineAddress::Tcp {
                tls: Some(files), ..
            } => {
                assert_eq!(files.ca, Some(tls.join("ca.pem")));
                assert_eq!(files.identity, None);
                assert!(files.load().is_err());
            }
            other => panic!("{other}"),
        }
        write(r#"{"Endpoints": {"docker": {"Host": "tcp://h:1", "SkipTLSVerify": true}}}"#);
        assert!(reason(None).contains("without verification"));
        write(r#"{"Endpoints": {"kubernetes": {}}}"#);
        assert!(reason(None).contains("names no engine"));
        write("{");
        assert!(reason(None).contains("line 1"));
        assert_eq!(load(Some("default")).unwrap(), None);
    }
}
