//! Starts a real registry.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use trilith_core::Repository;

/// `user` with the password `hunter2`.
const HTPASSWD: &str = "user:$2b$04$zoNLMXFSRiOcwBfYBa5jPObvq8CWRFvyO6Z/Sz7g8Vn7keW3xJuye\n";

/// How a registry is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    None,
    /// Basic authentication.
    Password,
    /// TLS with the certificate in `tls/`.
    Tls,
}

/// A `docker-registry` on a port and in a directory of its own; ended when dropped.
pub(crate) struct DockerRegistry {
    address: String,
    child: Child,
    _directory: TempDir,
}

impl DockerRegistry {
    pub(crate) fn start(protection: Protection) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        // Another process may take the port before the registry does; then another is tried.
        for _ in 0..20 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            drop(listener);
            let (auth, tls) = match protection {
                Protection::None => (String::new(), String::new()),
                Protection::Password => {
                    let path = at("htpasswd");
                    let auth = format!("auth: {{htpasswd: {{realm: test, path: {path}}}}}\n");
                    (auth, String::new())
                }
                Protection::Tls => {
                    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/tls");
                    let files = format!("certificate: {from}/cert.pem, key: {from}/key.pem");
                    (String::new(), format!(", tls: {{{files}}}"))
                }
            };
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'{tls}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n{auth}",
                at("data")
            );
            std::fs::write(at("config.yml"), config).unwrap();
            std::fs::write(at("htpasswd"), HTPASSWD).unwrap();
            let mut child = Command::new("docker-registry")
                .args(["serve", &at("config.yml")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry must be installed (`apt-get install docker-registry`)");
            if answers(&address, protection == Protection::Tls, &mut child) {
                return Self {
                    address,
                    child,
                    _directory: directory,
                };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry does not start");
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap()
    }

    pub(crate) fn repository(&self, path: &str) -> Repository {
        format!("{}/{path}", self.address).parse().unwrap()
    }
}

/// Returns whether the registry comes up; `false` where it ends instead.
fn answers(address: &str, tls: bool, child: &mut Child) -> bool {
    for _ in 0..3000 {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if let Ok(mut stream) = TcpStream::connect(address) {
            let request = format!("GET /v2/ HTTP/1.0\r\nHost: {address}\r\n\r\n");
            let mut answer = String::new();
            let asked = stream.write_all(request.as_bytes());
            if asked.is_ok() && stream.read_to_string(&mut answer).is_ok() {
                // With TLS it says that it wants TLS.
                return answer.contains("registry/2.0") || tls && answer.contains("HTTPS server");
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
