//! A real registry: Debian's `docker-registry` on a free loopback port.
//!
//! Tests push and pull through their own clients; what is here looks at the result from the
//! outside: the access log, manifests, tags, and the files the registry keeps.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;

use crate::command::{assert_success, stdout_of};
use crate::disk;
use crate::guard::{Guard, new_dir};
use crate::http::{self, Request, Response};

/// How a registry is set up; the default asks for no credentials and refuses to delete.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// User and password that every request needs (HTTP basic authentication).
    pub auth: Option<(String, String)>,
    /// Whether user and password are for a service that gives out tokens, one of which every request
    /// needs, as with the public registries.
    pub tokens: bool,
    /// Whether manifests and blobs may be deleted.
    pub delete: bool,
    /// Whether what is known of blobs is kept in memory, as Debian's own configuration has it. It then
    /// does not see what is done to its files.
    pub cache: bool,
    /// The size of the disk in memory that it keeps everything on, as in `1g`; this machine's without one.
    pub disk: Option<&'static str>,
    /// Fields that every answer has besides.
    pub headers: &'static [(&'static str, &'static str)],
}

/// A manifest as the registry serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Media type the registry announces.
    pub media_type: String,
    /// Digest the registry announces.
    pub digest: String,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// Returns the manifest as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes).expect("the manifest is not JSON")
    }
}

/// A running registry; stopped and removed when dropped, or when the test's process ends.
#[derive(Debug)]
pub struct Registry {
    guard: Guard,
    host: String,
    auth: Option<(String, String)>,
    tokens: Option<Tokens>,
    forgotten: AtomicUsize,
}

/// Marks the requests that only push the access log along.
const MARK: &str = "/v2/?testkit-mark=";

/// What `docker-registry` is asked to accept as the type of a manifest.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

impl Registry {
    /// Starts a registry and waits until it answers.
    ///
    /// # Panics
    /// When `docker-registry` is not installed or does not start.
    #[must_use]
    pub fn start(options: RegistryOptions) -> Self {
        let dir = new_dir("registry");
        if let Some(size) = options.disk {
            disk::mount(&dir.join("data"), size);
        }
        let mut config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "info", "formatter": "text"},
            "storage": {
                "filesystem": {"rootdirectory": dir.join("data")},
                "delete": {"enabled": options.delete},
                "maintenance": {"uploadpurging": {"enabled": false}},
            },
            "http": {"addr": "127.0.0.1:0", "secret": "testkit"},
        });
        for (name, value) in options.headers {
            config["http"]["headers"][name] = serde_json::json!([value]);
        }
        if options.cache {
            config["storage"]["cache"] = serde_json::json!({"blobdescriptor": "inmemory"});
        }
        let mut tokens = None;
        if let Some((user, password)) = &options.auth
            && options.tokens
        {
            let service = Tokens::start(user, password);
            config["auth"] = serde_json::json!({"token": {
                "realm": format!("http://{}/token", service.host),
                "service": "testkit",
                "issuer": "testkit",
                "rootcertbundle": service.guard.dir().join("cert.pem"),
            }});
            tokens = Some(service);
        } else if let Some((user, password)) = &options.auth {
            let file = dir.join("htpasswd");
            fs::write(&file, htpasswd(user, password)).expect("cannot write `htpasswd`");
            config["auth"] = serde_json::json!({"htpasswd": {"realm": "testkit", "path": file}});
        }
        // JSON is YAML.
        let file = dir.join("config.yml");
        fs::write(&file, config.to_string()).expect("cannot write the registry's configuration");
        let mut service = Command::new("docker-registry");
        service.arg("serve").arg(&file);
        let guard = Guard::start(dir, &service);
        let host = guard.wait_until("docker-registry", || {
            let log = fs::read_to_string(guard.dir().join("stderr")).ok()?;
            let (_, rest) = log.split_once("listening on ")?;
            let (address, _) = rest.split_once(['"', ' ', '\n'])?;
            Some(address.to_owned())
        });
        Self {
            guard,
            host,
            auth: options.auth,
            tokens,
            forgotten: AtomicUsize::new(0),
        }
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the reference of `name` (`acme/a:1`) on this registry.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Returns user and password, where the registry asks for them.
    #[must_use]
    pub fn auth(&self) -> Option<(&str, &str)> {
        let (user, password) = self.auth.as_ref()?;
        Some((user, password))
    }

    /// Returns user and password as `docker login` keeps them, where the registry asks for them.
    #[must_use]
    pub fn login(&self) -> Option<String> {
        let (user, password) = self.auth()?;
        let plain = format!("{user}:{password}");
        Some(base64::engine::general_purpose::STANDARD.encode(plain))
    }

    /// Returns the requests that were answered since the start or the last
    /// [`forget_requests`](Self::forget_requests), in the order of their answers.
    ///
    /// From the registry's access log, so without header fields and request lengths.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        let mut all = self.all_requests();
        all.drain(..self.forgotten.load(Ordering::SeqCst).min(all.len()));
        all
    }

    /// Makes [`requests`](Self::requests) start over.
    pub fn forget_requests(&self) {
        self.forgotten
            .store(self.all_requests().len(), Ordering::SeqCst);
    }

    fn all_requests(&self) -> Vec<Request> {
        // A line is written when its request is done; once a later request's line is there, so is it.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("{MARK}{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let _ = http::request(&self.host, "GET", &mark, &[]);
        let needle = format!("{mark} HTTP");
        let log = self.guard.wait_until("the access log", || {
            let log = fs::read_to_string(self.guard.dir().join("stdout")).ok()?;
            log.contains(&needle).then_some(log)
        });
        let requests = log.lines().filter_map(parse_line);
        requests
            .filter(|request| !request.path.starts_with(MARK))
            .collect()
    }

    /// Returns the manifest called `name`, a tag or a digest, in `repository`; `None` where there is none.
    ///
    /// # Panics
    /// When the registry answers with anything but yes or no.
    #[must_use]
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Manifest> {
        let path = format!("/v2/{repository}/manifests/{name}");
        let response = self.get("GET", &path, &[("Accept", MANIFEST_TYPES)]);
        match response.status {
            200 => Some(Manifest {
                media_type: response.header("content-type")?.to_owned(),
                digest: response.header("docker-content-digest")?.to_owned(),
                bytes: response.body,
            }),
            404 => None,
            status => panic!("`GET {path}` answered {status}"),
        }
    }

    /// Returns the tags of `repository`, sorted; none where it does not exist.
    #[must_use]
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let response = self.get("GET", &format!("/v2/{repository}/tags/list"), &[]);
        let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let names = json["tags"].as_array().into_iter().flatten();
        let mut tags: Vec<String> = names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        tags.sort();
        tags
    }

    /// Returns whether `repository` has the blob.
    #[must_use]
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        let path = format!("/v2/{repository}/blobs/{digest}");
        self.get("HEAD", &path, &[]).status == 200
    }

    /// Returns the file in which the registry keeps the content of `digest`, for tests that damage it.
    ///
    /// # Panics
    /// When `digest` has no algorithm.
    #[must_use]
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest
            .split_once(':')
            .expect("a digest names its algorithm");
        let blobs = self.guard.dir().join("data/docker/registry/v2/blobs");
        blobs.join(algorithm).join(&hex[..2]).join(hex).join("data")
    }

    /// Sends a request without a body, with credentials where the registry asks for them.
    #[must_use]
    pub fn get(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut headers = headers.to_vec();
        let basic = self.login().map(|login| format!("Basic {login}"));
        let credentials = match (&self.tokens, basic) {
            (Some(tokens), Some(basic)) => Some(tokens.get(&basic, path)),
            (_, basic) => basic,
        };
        if let Some(credentials) = &credentials {
            headers.push(("Authorization", credentials));
        }
        http::request(&self.host, method, path, &headers)
    }
}

/// The service that gives out tokens for a registry.
#[derive(Debug)]
struct Tokens {
    guard: Guard,
    host: String,
}

impl Tokens {
    fn start(user: &str, password: &str) -> Self {
        let dir = new_dir("tokens");
        assert_success(
            Command::new("openssl")
                .args([
                    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                ])
                .args([
                    "-subj",
                    "/CN=testkit",
                    "-keyout",
                    "key.pem",
                    "-out",
                    "cert.pem",
                ])
                .current_dir(&dir),
        );
        let mut service = Command::new("python3");
        service.args(["-c", include_str!("tokens.py"), user, password]);
        let guard = Guard::start(dir.clone(), service.arg(dir));
        let host = guard.wait_until("the service for tokens", || {
            let said = fs::read_to_string(guard.dir().join("stdout")).ok()?;
            Some(format!("127.0.0.1:{}", said.strip_suffix('\n')?))
        });
        Self { guard, host }
    }

    /// Returns what a request for `path` has to carry.
    fn get(&self, basic: &str, path: &str) -> String {
        let repository = path.strip_prefix("/v2/").and_then(|rest| {
            let ends = ["/manifests/", "/blobs/", "/tags/"];
            let mut ends = ends.iter().filter_map(|end| rest.split_once(end));
            ends.next().map(|(repository, _)| repository)
        });
        let repository = repository.expect("only repositories are looked at");
        let path = format!("/token?service=testkit&scope=repository:{repository}:pull");
        let answer = http::request(&self.host, "GET", &path, &[("Authorization", basic)]);
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let token = answer["token"].as_str().expect("no token was given");
        format!("Bearer {token}")
    }
}

/// Returns a line for an `htpasswd` file; the registry takes bcrypt only.
fn htpasswd(user: &str, password: &str) -> String {
    // Perl is on every Debian system and hands the work to libcrypt. The salt may be known here.
    let hash = stdout_of(Command::new("perl").args([
        "-e",
        "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))",
        password,
    ]));
    format!("{user}:{hash}\n")
}

/// Parses a line of the access log, which is in Apache's combined format.
fn parse_line(line: &str) -> Option<Request> {
    let (_, rest) = line.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut words = request.split(' ');
    let mut numbers = rest.split(' ');
    Some(Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        status: numbers.next()?.parse().ok(),
        headers: Vec::new(),
        sent: 0,
        received: numbers.next()?.parse().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_log_lines_are_taken_apart() {
        let line = "127.0.0.1 - - [24/Nov/2026:14:40:00 +0000] \
            \"HEAD /v2/a/b/manifests/1?x=y HTTP/1.1\" 404 157 \"\" \"client/1.0 (x; y)\"";
        let request = parse_line(line).expect("this is a line of the log");
        assert_eq!(request.method, "HEAD");
        assert_eq!(request.path, "/v2/a/b/manifests/1?x=y");
        assert_eq!((request.status, request.received), (Some(404), 157));
        assert_eq!(parse_line("anything else"), None);
    }
}
