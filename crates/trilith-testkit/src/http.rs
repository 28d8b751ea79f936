//! One HTTP request and its answer, for tests that look at a registry directly.
//!
//! Plain HTTP/1.0 over a new connection, so there are no chunks and no reuse: what it
//! reads is what the server sent. It follows no redirects and knows no TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request that a server has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method, as in `HEAD`.
    pub method: String,
    /// Path with its query, as in `/v2/a/manifests/latest`.
    pub path: String,
    /// Status of the answer; `None` where none was sent.
    pub status: Option<u16>,
    /// Header fields with their names in lower case; empty where the observer keeps none.
    pub headers: Vec<(String, String)>,
    /// Length of the request's body in bytes; 0 where the observer does not count it.
    pub sent: u64,
    /// Length of the answer's body in bytes.
    pub received: u64,
}

impl Request {
    /// Returns the first header field with the lower-case `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields with their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the first header field with the lower-case `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut fields = headers.iter();
    fields
        .find(|(field, _)| field == name)
        .map(|(_, value)| value.as_str())
}

/// Sends one request without a body to `host` (`127.0.0.1:5000`) and returns the answer.
///
/// # Panics
/// When the server cannot be reached, is silent for half a minute or does not speak HTTP.
#[must_use]
pub fn request(host: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    try_request(host, method, path, headers)
        .unwrap_or_else(|error| panic!("{method} `http://{host}{path}` failed: {error}"))
}

fn try_request(
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Response> {
    try_open(host, method, path, headers, b"")?.try_read()
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    rest: std::io::Cursor<Vec<u8>>,
    stream: TcpStream,
}

impl Answer {
    /// Reads the rest.
    ///
    /// # Panics
    /// When the server is silent for half a minute.
    #[must_use]
    pub fn read_all(self) -> Response {
        self.try_read()
            .unwrap_or_else(|error| panic!("an answer is cut off: {error}"))
    }

    fn try_read(mut self) -> std::io::Result<Response> {
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        Ok(Response {
            status: self.status,
            headers: self.headers,
            body,
        })
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.rest.read(buffer)? {
            0 => self.stream.read(buffer),
            length => Ok(length),
        }
    }
}

/// Sends one request with a body and returns the answer as soon as its head is there.
///
/// # Panics
/// As [`request`] does.
#[must_use]
pub fn open(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_open(host, method, path, headers, body)
        .unwrap_or_else(|error| panic!("{method} `http://{host}{path}` failed: {error}"))
}

fn try_open(
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n");
    head.extend((!body.is_empty()).then(|| format!("Content-Length: {}\r\n", body.len())));
    head.extend(
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n")),
    );
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // A server may answer before it has read everything.
    let sent = stream.write_all(body);
    let (head, rest) = match read_head(Vec::new(), &mut stream) {
        Ok(read) => read,
        Err(error) => return Err(sent.err().unwrap_or(error)),
    };
    let (line, headers) = parse_head(&head);
    let status = parse_status(&line).ok_or_else(|| std::io::Error::other(line.clone()))?;
    Ok(Answer {
        status,
        headers,
        rest: std::io::Cursor::new(rest),
        stream,
    })
}

/// The most bytes a head may have.
const MAX_HEAD: usize = 64 * 1024;

/// Reads on from `bytes`, which were read already, up to the empty line after the header fields.
/// Returns the head and what was read behind it.
pub(crate) fn read_head(
    mut bytes: Vec<u8>,
    stream: &mut impl Read,
) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = find_end(&bytes) {
            let rest = bytes.split_off(end);
            return Ok((bytes, rest));
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 || bytes.len() > MAX_HEAD {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        // A client that tries TLS first waits long for an answer, and falls back at once when refused.
        if !bytes[0].is_ascii_alphabetic() {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
}

fn find_end(bytes: &[u8]) -> Option<usize> {
    let start = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(start + 4)
}

/// Returns the first line of a head and its fields.
pub(crate) fn parse_head(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields =
        fields.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    (first, fields.collect())
}

/// Returns the status of a status line such as `HTTP/1.1 200 OK`.
pub(crate) fn parse_status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}
