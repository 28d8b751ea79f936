//! Where a registry is spoken to, and which addresses it may send us on to.
//!
//! Opens no connection. It decides by the text of names and addresses alone; what a name
//! resolves to is not looked at.

use std::collections::BTreeSet;
use std::net::IpAddr;

use reqwest::Url;
use trilith_core::DEFAULT_REGISTRY;

use super::failure::Failure;

/// The host that serves the API of `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// What credential files call `docker.io`.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The address of one registry.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The registry as references write it, `docker.io` or `localhost:5000`.
    pub(crate) registry: String,
    /// The root of the API's host, `https://registry-1.docker.io/` for instance.
    pub(crate) base: Url,
}

impl Endpoint {
    /// Returns the name by which credential files and helpers know the registry.
    pub(crate) fn credential_key(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            DOCKER_HUB_KEY
        } else {
            &self.registry
        }
    }

    /// Returns the URL of `path` (below `/v2/REPOSITORY/`) in `repository`.
    pub(crate) fn url(&self, repository: &str, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{repository}/{path}"));
        url
    }
}

/// The rule for schemes: plain HTTP on loopback and for the registries named insecure, else TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    insecure: BTreeSet<String>,
}

impl Endpoints {
    /// Returns the rule with `insecure` registries, each `host` or `host:port`.
    pub(crate) fn try_new(insecure: &[String]) -> Result<Self, Failure> {
        for registry in insecure {
            let parsed = Url::parse(&format!("http://{registry}/"));
            let bare = parsed.is_ok_and(|url| {
                url.path() == "/" && url.username().is_empty() && url.query().is_none()
            });
            if !bare || registry.contains(['/', '#', '?']) {
                return Err(Failure::config(format!(
                    "insecure registry `{registry}` must be written `host` or `host:port`"
                )));
            }
        }
        Ok(Self {
            insecure: insecure.iter().map(|name| name.to_lowercase()).collect(),
        })
    }

    /// Returns where `registry` is spoken to.
    pub(crate) fn of(&self, registry: &str) -> Result<Endpoint, Failure> {
        let host = if registry == DEFAULT_REGISTRY {
            DOCKER_HUB_HOST
        } else {
            registry
        };
        let malformed = |_| Failure::config(format!("registry `{registry}` is not a host name"));
        let mut base = Url::parse(&format!("https://{host}/")).map_err(malformed)?;
        if self.is_plain_host(&base, registry) {
            // Parsed again rather than re-schemed: the default port differs.
            base = Url::parse(&format!("http://{host}/")).map_err(malformed)?;
        }
        Ok(Endpoint {
            registry: registry.to_owned(),
            base,
        })
    }

    fn is_plain_host(&self, url: &Url, name: &str) -> bool {
        let host = url.host_str().unwrap_or_default();
        is_loopback(host)
            || self.insecure.contains(&name.to_lowercase())
            || self.insecure.contains(host)
    }

    /// Returns where a redirect, an upload location or a token realm `to`, named by the server
    /// at `from`, leads; an error with the reason where it must not be followed.
    ///
    /// A registry behind a proxy that ends TLS often names itself with `http`; on the same
    /// host that is read as `https` and never followed in the clear. Plain HTTP goes only
    /// where the rule allows it, and nothing out there may send us to this machine's loopback
    /// or link-local addresses (cloud metadata services live there).
    pub(crate) fn follow(&self, from: &Url, to: &str) -> Result<Url, String> {
        let mut url = from
            .join(to)
            .map_err(|error| format!("it is not a URL ({error})"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("scheme `{}` is not followed", url.scheme()));
        }
        // A user name in a URL would be sent as basic authentication.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        let same_host = url.host_str() == from.host_str() && url.port() == from.port();
        if url.scheme() == "http" && from.scheme() == "https" && same_host {
            let _ = url.set_scheme("https");
        }
        let host = url.host_str().unwrap_or_default();
        if is_local(host) && !from.host_str().is_some_and(is_local) {
            return Err(format!("`{host}` is an address of this machine or link"));
        }
        let named = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        if url.scheme() == "http" && !same_origin(&url, from) && !self.is_plain_host(&url, &named) {
            return Err(format!("`{named}` would be spoken to without TLS"));
        }
        Ok(url)
    }
}

/// Returns whether a header meant for `a` may go to `b`.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Returns `path` of `url` for a message; the query may hold a signature or token, so it is cut off.
pub(crate) fn shown(url: &Url, home: &Url) -> String {
    let query = if url.query().is_some() { "?…" } else { "" };
    if same_origin(url, home) {
        format!("{}{query}", url.path())
    } else {
        let port = url.port().map(|port| format!(":{port}"));
        format!(
            "{}://{}{}{}{query}",
            url.scheme(),
            url.host_str().unwrap_or_default(),
            port.unwrap_or_default(),
            url.path()
        )
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// Loopback, unspecified and link-local addresses. Private networks are not among them: a
/// registry on one may well keep its blobs on another host there.
fn is_local(host: &str) -> bool {
    is_loopback(host)
        || address(host).is_some_and(|ip| match ip.to_canonical() {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes() {
        let endpoints =
            Endpoints::try_new(&["registry.lan:5000".to_owned(), "Plain.example".to_owned()])
                .unwrap();
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io/"),
            ("ghcr.io", "https://ghcr.io/"),
            ("localhost", "http://localhost/"),
            ("localhost:5000", "http://localhost:5000/"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/"),
            ("127.1.2.3:443", "http://127.1.2.3:443/"),
            ("[::1]:5000", "http://[::1]:5000/"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/"),
            ("localhost.example:5000", "https://localhost.example:5000/"),
            ("128.0.0.1", "https://128.0.0.1/"),
            ("registry.lan:5000", "http://registry.lan:5000/"),
            ("registry.lan", "https://registry.lan/"),
            ("plain.example:81", "http://plain.example:81/"),
            ("GHCR.io", "https://ghcr.io/"),
        ] {
            assert_eq!(endpoints.of(registry).unwrap().base.as_str(), base);
        }
        for bad in ["", "http://a", "a/b", "a b", "user@host", "a?b"] {
            assert!(Endpoints::try_new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn credential_keys() {
        let endpoints = Endpoints::default();
        for (registry, key) in [
            ("docker.io", "https://index.docker.io/v1/"),
            ("ghcr.io", "ghcr.io"),
        ] {
            assert_eq!(endpoints.of(registry).unwrap().credential_key(), key);
        }
    }

    #[test]
    fn what_is_followed() {
        let endpoints = Endpoints::try_new(&["minio.lan:9000".to_owned()]).unwrap();
        let base = "https://reg.example/v2/a/blobs/uploads/";
        for (from, to, expected) in [
            (
                base,
                "/v2/a/x?_state=q",
                Ok("https://reg.example/v2/a/x?_state=q"),
            ),
            (base, "x", Ok("https://reg.example/v2/a/blobs/uploads/x")),
            (
                base,
                "https://cdn.example/b?sig=1",
                Ok("https://cdn.example/b?sig=1"),
            ),
            (
                base,
                "https://u:p@cdn.example/b",
                Ok("https://cdn.example/b"),
            ),
            // A proxy that ends TLS without telling the registry.
            (
                base,
                "http://reg.example/v2/x",
                Ok("https://reg.example/v2/x"),
            ),
            (base, "http://cdn.example/b", Err("without TLS")),
            (
                base,
                "http://minio.lan:9000/b",
                Ok("http://minio.lan:9000/b"),
            ),
            (base, "https://169.254.169.254/x", Err("this machine")),
            (base, "https://localhost/x", Err("this machine")),
            (base, "https://[::ffff:127.0.0.1]/x", Err("this machine")),
            (base, "https://10.0.0.7/x", Ok("https://10.0.0.7/x")),
            (base, "file:///etc/passwd", Err("scheme `file`")),
            (base, "https://", Err("not a URL")),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.1:6000/t",
                Ok("http://127.0.0.1:6000/t"),
            ),
            (
                "http://127.0.0.1:5000/",
                "http://auth.example/t",
                Err("without TLS"),
            ),
            (
                "http://reg.lan:81/",
                "http://reg.lan:81/t",
                Ok("http://reg.lan:81/t"),
            ),
            (
                "http://reg.lan:81/",
                "http://reg.lan:82/t",
                Err("without TLS"),
            ),
        ] {
            let from = Url::parse(from).unwrap();
            match (endpoints.follow(&from, to), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url.as_str(), expected),
                (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
                (got, _) => panic!("{to}: {got:?}"),
            }
        }
    }

    #[test]
    fn queries_are_not_shown() {
        let home = Url::parse("https://reg.example/").unwrap();
        for (url, expected) in [
            ("https://reg.example/v2/a?token=x", "/v2/a?…"),
            (
                "https://s3.example:444/b?sig=x",
                "https://s3.example:444/b?…",
            ),
        ] {
            assert_eq!(shown(&Url::parse(url).unwrap(), &home), expected);
        }
    }
}
