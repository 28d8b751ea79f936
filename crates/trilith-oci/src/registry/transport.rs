//! The connections: one pool for plain HTTP, one for TLS, and what their failures mean.
//!
//! Follows no redirect, repeats nothing, reads no proxy settings from the environment. The
//! system's certificates are read when the first TLS connection is made, so that a run
//! against a local registry does not pay for them; where they lie is found by
//! `rustls-native-certs`, which on Unix does honour `SSL_CERT_FILE` and `SSL_CERT_DIR`.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, NoProxy, Proxy, Request, Response, Url};
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

/// The connections of a process.
pub(crate) struct Transport {
    plain: Client,
    secure: OnceLock<Result<Client, String>>,
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    config: RegistryConfig,
}

impl Transport {
    pub(crate) fn try_new(config: &RegistryConfig) -> Result<Self, Failure> {
        let mut roots = Vec::new();
        for certificates in &config.ca_certificates {
            roots.extend(parse(certificates)?);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let untrusting = tls(&provider)
            .map_err(|error| Failure::config(format!("TLS cannot be set up ({error})")))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let plain = builder(config)?
            // Never used for TLS; given so that no other backend is looked for.
            .tls_backend_preconfigured(untrusting)
            .build()
            .map_err(|error| {
                Failure::config(format!("HTTP cannot be set up ({})", RootCause::of(&error)))
            })?;
        Ok(Self {
            plain,
            secure: OnceLock::new(),
            roots,
            provider,
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
        if url.scheme() == "http" {
            return Ok(&self.plain);
        }
        self.secure
            .get_or_init(|| self.secure_client())
            .as_ref()
            .map_err(|reason| Failure::config(reason.clone()))
    }

    fn secure_client(&self) -> Result<Client, String> {
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(
            self.roots.iter().cloned(),
            Arc::clone(&self.provider),
        )
        .map_err(|error| format!("the system's certificates cannot be used ({error})"))?;
        let config = tls(&self.provider)
            .map_err(|error| format!("TLS cannot be set up ({error})"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        builder(&self.config)
            .map_err(|failure| failure.to_string())?
            .tls_backend_preconfigured(config)
            .build()
            .map_err(|error| format!("HTTPS cannot be set up ({})", RootCause::of(&error)))
    }
}

fn tls(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()
}

fn builder(config: &RegistryConfig) -> Result<ClientBuilder, Failure> {
    let mut builder = Client::builder()
        .user_agent(&config.user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(config.timeouts.connect)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(config.concurrency * 2)
        .no_proxy();
    let except = NoProxy::from_string(&format!("{LOOPBACK},{}", config.proxies.except));
    let (http, https) = (&config.proxies.http, &config.proxies.https);
    let made = [
        http.as_ref().map(|url| Proxy::http(url.expose())),
        https.as_ref().map(|url| Proxy::https(url.expose())),
    ];
    for proxy in made.into_iter().flatten() {
        // The error quotes the URL, which may hold a password.
        let proxy =
            proxy.map_err(|_| Failure::config("the URL of the proxy is malformed".to_owned()))?;
        builder = builder.proxy(proxy.no_proxy(except.clone()));
    }
    Ok(builder)
}

fn parse(certificates: &CaCertificates) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let origin = &certificates.origin;
    let parsed: Vec<_> = CertificateDer::pem_slice_iter(&certificates.pem)
        .collect::<Result<_, _>>()
        .map_err(|error| {
            Failure::config(format!(
                "certificates in `{origin}` are malformed ({error})"
            ))
        })?;
    if parsed.is_empty() {
        return Err(Failure::config(format!(
            "`{origin}` holds no PEM certificate"
        )));
    }
    let mut store = rustls::RootCertStore::empty();
    for certificate in &parsed {
        store.add(certificate.clone()).map_err(|error| {
            Failure::config(format!(
                "a certificate in `{origin}` is malformed ({error})"
            ))
        })?;
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
    fn bad_settings_are_refused() {
        let certificates = |pem: &str| RegistryConfig {
            ca_certificates: vec![CaCertificates {
                origin: "/ca.pem".to_owned(),
                pem: pem.as_bytes().to_vec(),
            }],
            ..RegistryConfig::default()
        };
        let proxy = |url: &str| RegistryConfig {
            proxies: super::super::config::Proxies {
                https: Some(Secret::new(url)),
                ..super::super::config::Proxies::default()
            },
            ..RegistryConfig::default()
        };
        for (config, reason) in [
            (certificates(""), "`/ca.pem` holds no PEM certificate"),
            (
                certificates("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                "a certificate in `/ca.pem` is malformed",
            ),
            (
                certificates("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n"),
                "malformed",
            ),
            (proxy("http://user:hunter2@"), "proxy is malformed"),
        ] {
            let failure = Transport::try_new(&config).err().unwrap();
            let text = failure.to_string();
            assert!(text.contains(reason) && !text.contains("hunter2"), "{text}");
        }
        assert!(Transport::try_new(&proxy("http://user:p@proxy:3128")).is_ok());
    }
}
