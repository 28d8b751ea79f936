//! The requests of a batch once more, from a client that does nothing else: what the registry alone can
//! do.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

const ANY_MANIFEST: &str = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";

/// An image of a batch: what was read for it, and what was written.
pub(crate) struct Written {
    /// The base, as `REPOSITORY:TAG`.
    pub(crate) base: String,
    /// The tags, least specific first.
    pub(crate) tags: Vec<String>,
}

/// A manifest and the configuration that it names.
#[derive(PartialEq)]
struct Document {
    manifest: Vec<u8>,
    config: Vec<u8>,
    config_digest: String,
}

/// A connection that is kept.
struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
}

/// Writes what `images` of the repository `from` are to the repository `to`, over so many connections,
/// and returns how long that takes. The layers are there before.
pub(crate) fn replay(
    host: &str,
    from: &str,
    to: &str,
    images: &[Written],
    connections: usize,
) -> Duration {
    let mut first = Connection::open(host);
    let documents: Vec<Vec<(&str, Document)>> = images
        .iter()
        .map(|image| {
            let tags = image.tags.iter().map(String::as_str);
            tags.map(|tag| (tag, first.document(from, tag))).collect()
        })
        .collect();
    for (_, document) in documents.iter().flatten() {
        let manifest: Value = serde_json::from_slice(&document.manifest).unwrap();
        for layer in manifest["layers"].as_array().unwrap() {
            let digest = layer["digest"].as_str().unwrap();
            let mount = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
            assert_eq!(first.send("POST", &mount, "", b"").status, 201);
        }
    }
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut connection = Connection::open(host);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(image) = images.get(number) else {
                        break;
                    };
                    let (base, tag) = image.base.rsplit_once(':').unwrap();
                    connection.document(base, tag);
                    connection.write(to, &documents[number]);
                }
            });
        }
    });
    started.elapsed()
}

impl Connection {
    fn open(host: &str) -> Self {
        let stream = TcpStream::connect(host).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            host: host.to_owned(),
            stream: BufReader::new(stream),
        }
    }

    /// Reads the manifest behind `tag` and the configuration that it names.
    fn document(&mut self, repository: &str, tag: &str) -> Document {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let manifest = self.send("GET", &path, ANY_MANIFEST, b"");
        let read: Value = serde_json::from_slice(&manifest.body).unwrap();
        let config_digest = read["config"]["digest"].as_str().unwrap().to_owned();
        let path = format!("/v2/{repository}/blobs/{config_digest}");
        let config = self.send("GET", &path, "", b"");
        assert_eq!((manifest.status, config.status), (200, 200));
        Document {
            manifest: manifest.body,
            config: config.body,
            config_digest,
        }
    }

    /// Writes manifests under their tags, each configuration before the first that names it.
    fn write(&mut self, repository: &str, documents: &[(&str, Document)]) {
        let mut before = None;
        for (tag, document) in documents {
            let digest = &document.config_digest;
            if before != Some(document) {
                let path =
                    format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}");
                let opened = self.send("POST", &path, "", b"");
                let location = opened.location.unwrap();
                let path = location.split_once(&self.host).unwrap().1;
                let path = format!("{path}&digest={digest}");
                let kind = "Content-Type: application/octet-stream\r\n";
                assert_eq!(self.send("PUT", &path, kind, &document.config).status, 201);
            }
            let path = format!("/v2/{repository}/manifests/{tag}");
            let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
            assert_eq!(
                self.send("PUT", &path, kind, &document.manifest).status,
                201
            );
            before = Some(document);
        }
    }

    fn send(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> Answer {
        let sent = self.try_send(method, path, fields, body);
        sent.unwrap_or_else(|error| panic!("{method} `{path}` failed: {error}"))
    }

    fn try_send(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let (host, length) = (&self.host, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: {length}\r\n\r\n"
        );
        let request = [head.as_bytes(), body].concat();
        self.stream.get_mut().write_all(&request)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (mut location, mut length) = (None, 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "location" => location = Some(value.to_owned()),
                "content-length" => length = value.parse().map_err(io::Error::other)?,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer {
            status: status.unwrap_or_default(),
            location,
            body,
        })
    }
}
