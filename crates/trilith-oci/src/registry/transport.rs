//! The connections: one pool for plain HTTP, one for TLS, and what their failures mean.
//!
//! Follows no redirect, repeats nothing, reads no proxy settings from the environment. All
//! certificates are read when the first TLS connection is made, so that a run against a local
//! registry does not pay for them; where the system's lie is found by
//! `rustls-native-certs`, which on Unix does honour `SSL_CERT_FILE` and `SSL_CERT_DIR`.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, NoProxy, Proxy, Request, Response, Url};
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::config::{CaCertificates, RegistryConfig};
use super::failure::{Cause, Failure, RootCause};

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);
/// The hosts no proxy is asked for.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// The connections of a process. Each pool is made when it is first needed.
pub(crate) struct Transport {
    plain: OnceLock<Result<Client, String>>,
    secure: OnceLock<Result<Client, String>>,
    proxies: Vec<Proxy>,
    config: RegistryConfig,
}

impl Transport {
    pub(crate) fn try_new(config: &RegistryConfig) -> Result<Self, Failure> {
        Ok(Self {
            plain: OnceLock::new(),
            secure: OnceLock::new(),
            proxies: proxies(config)?,
            config: config.clone(),
        })
    }

    /// Sends `request` and returns the answer's head.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, Failure> {
        let client = self.client(request.url())?;
        client
            .execute(request)
            .await
            .map_err(|error| Failure::new(cause(&error, self.config.timeouts.connect)))
    }

    fn client(&self, url: &Url) -> Result<&Client, Failure> {
        let client = match url.scheme() {
            "http" => self.plain.get_or_init(|| self.plain_client()),
            _ => self.secure.get_or_init(|| self.secure_client()),
        };
        client
            .as_ref()
            .map_err(|reason| Failure::config(reason.clone()))
    }

    fn plain_client(&self) -> Result<Client, String> {
        // Never used for TLS; given so that no other backend is looked for.
        let untrusting = tls(&provider())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        self.build(untrusting)
    }

    fn secure_client(&self) -> Result<Client, String> {
        let mut roots = Vec::new();
        for certificates in &self.config.ca_certificates {
            roots.extend(read(certificates)?);
        }
        let provider = provider();
        let verifier =
            rustls_platform_verifier::Verifier::new_with_extra_roots(roots, Arc::clone(&provider))
                .map_err(|error| format!("the system's certificates cannot be used ({error})"))?;
        let trusting = tls(&provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        self.build(trusting)
    }

    fn build(&self, tls: ClientConfig) -> Result<Client, String> {
        let config = &self.config;
        let mut builder = Client::builder()
            .user_agent(&config.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(config.timeouts.connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.concurrency * 2)
            .no_proxy()
            .tls_backend_preconfigured(tls);
        for proxy in &self.proxies {
            builder = builder.proxy(proxy.clone());
        }
        builder
            .build()
            .map_err(|error| format!("HTTP cannot be set up ({})", RootCause::of(&error)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up ({error})"))
}

fn proxies(config: &RegistryConfig) -> Result<Vec<Proxy>, Failure> {
    let except = NoProxy::from_string(&format!("{LOOPBACK},{}", config.proxies.except));
    let (http, https) = (&config.proxies.http, &config.proxies.https);
    let made = [
        http.as_ref().map(|url| Proxy::http(url.expose())),
        https.as_ref().map(|url| Proxy::https(url.expose())),
    ];
    let proxies = made.into_iter().flatten().map(|proxy| {
        // The error quotes the URL, which may hold a password.
        let malformed = |_| Failure::config("the URL of the proxy is malformed".to_owned());
        Ok(proxy.map_err(malformed)?.no_proxy(except.clone()))
    });
    proxies.collect()
}

fn read(certificates: &CaCertificates) -> Result<Vec<CertificateDer<'static>>, String> {
    match certificates {
        CaCertificates::Pem(pem) => parse("the certificates given", pem),
        CaCertificates::File(path) => {
            let origin = format!("`{}`", path.display());
            let pem = std::fs::read(path)
                .map_err(|error| format!("{origin}, certificates to trust: {error}"))?;
            parse(&origin, &pem)
        }
    }
}

fn parse(origin: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("certificates in {origin} are malformed ({error})"))?;
    if parsed.is_empty() {
        return Err(format!("{origin} holds no PEM certificate"));
    }
    let mut store = rustls::RootCertStore::empty();
    for certificate in &parsed {
        store
            .add(certificate.clone())
            .map_err(|error| format!("a certificate in {origin} is malformed ({error})"))?;
    }
    Ok(parsed)
}

/// Returns what `error` means. Its URL is not kept.
pub(crate) fn cause(error: &reqwest::Error, connect: Duration) -> Cause {
    let root = RootCause::of(error);
    match tls_error(error) {
        // Bytes that are no TLS record: the other side speaks plain HTTP.
        Some(rustls::Error::InvalidMessage(_)) => Cause::NotTls(root),
        Some(_) => Cause::Tls(root),
        None if error.is_timeout() => Cause::Timeout(connect),
        None if error.is_connect() => Cause::Connect(root),
        None if error.is_builder() => Cause::Config(root.to_string()),
        None => Cause::Broken(root),
    }
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An `io::Error` is transparent: what it wraps is not its source.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn bad_certificates_are_told_when_they_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        for (pem, reason) in [
            ("", "ca.pem` holds no PEM certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "a certificate in `",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n",
                "malformed",
            ),
        ] {
            std::fs::write(&file, pem).unwrap();
            let transport = Transport::try_new(&RegistryConfig {
                ca_certificates: vec![CaCertificates::File(file.clone())],
                ..RegistryConfig::default()
            })
            .unwrap();
            let plain = transport.client(&"http://a".parse().unwrap());
            assert!(plain.is_ok());
            let failure = transport.client(&"https://a".parse().unwrap()).unwrap_err();
            assert!(failure.to_string().contains(reason), "{failure}");
        }
    }

    #[test]
    fn bad_proxies_are_refused() {
        let proxy = |url: &str| RegistryConfig {
            proxies: super::super::config::Proxies {
                https: Some(Secret::new(url)),
                ..super::super::config::Proxies::default()
            },
            ..RegistryConfig::default()
        };
        let failure = Transport::try_new(&proxy("http://user:hunter2@"))
            .err()
            .unwrap();
        let text = failure.to_string();
        assert!(
            text.contains("proxy is malformed") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(Transport::try_new(&proxy("http://user:p@proxy:3128")).is_ok());
    }
}
