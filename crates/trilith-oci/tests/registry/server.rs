//! A small HTTP server that answers what a test tells it to, well-formed or not.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use trilith_core::Repository;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, method: &str, start: &str) -> bool {
        self.method == method && self.target.starts_with(start)
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    head: String,
    body: Vec<u8>,
    length: Option<usize>,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Next,
    Close,
    /// Sends the body over and over.
    Endless,
    /// Sends nothing more and keeps the connection.
    Hang,
    /// Sends nothing at all.
    Silent,
    /// Sends the body a byte at a time, for ever.
    Dribble,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            head: format!("HTTP/1.1 {status} Whatever\r\n"),
            body: Vec::new(),
            length: Some(0),
            then: Then::Next,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.head, "{name}: {value}\r\n");
        self
    }

    /// A body with a `Content-Length`.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.length = Some(self.body.len());
        self
    }

    /// What HEAD answers: a `Content-Length`, and no body.
    pub(crate) fn length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Ends the body by closing, after `length` was announced.
    pub(crate) fn cut(mut self, announced: usize) -> Self {
        self.length = Some(announced);
        self.then = Then::Close;
        self
    }

    pub(crate) fn without_length(mut self) -> Self {
        self.length = None;
        self.then = Then::Close;
        self
    }

    pub(crate) fn endless(mut self) -> Self {
        self.length = None;
        self.then = Then::Endless;
        self
    }

    pub(crate) fn dribble(mut self, announced: usize) -> Self {
        self.length = Some(announced);
        self.then = Then::Dribble;
        self
    }

    pub(crate) fn hang(mut self, announced: usize) -> Self {
        self.length = Some(announced);
        self.then = Then::Hang;
        self
    }

    pub(crate) fn silent() -> Self {
        Self {
            then: Then::Silent,
            ..Self::new(200)
        }
    }

    /// Closes the connection without an answer.
    pub(crate) fn hang_up() -> Self {
        Self {
            head: String::new(),
            body: Vec::new(),
            length: None,
            then: Then::Close,
        }
    }

    /// Sends exactly these bytes and closes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            body: bytes.into(),
            ..Self::hang_up()
        }
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server on a port of its own, stopped when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(|_| handler).await
    }

    /// Starts a server whose answers know its address.
    pub(crate) async fn start_with<H>(make: impl FnOnce(&str) -> H) -> Self
    where
        H: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler: Arc<Handler> = Arc::new(make(&address.to_string()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log)));
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn repository(&self, path: &str) -> Repository {
        format!("{}/{path}", self.address).parse().unwrap()
    }

    /// Returns the requests so far, those whose body never came whole excepted.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &str, start: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.is(method, start))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, handler: Arc<Handler>, log: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read(&mut stream).await {
        log.lock().unwrap().push(seen.clone());
        let reply = handler(&seen);
        if !write(&mut stream, &seen, reply).await {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut seen = Seen {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let length = seen
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await.ok()?;
    Some(seen)
}

/// Returns whether the connection can be used on.
async fn write(stream: &mut BufReader<TcpStream>, seen: &Seen, reply: Reply) -> bool {
    let mut head = reply.head;
    if reply.then == Then::Silent {
        std::future::pending::<()>().await;
    }
    if !head.is_empty() {
        if let Some(length) = reply.length {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        head += "\r\n";
    }
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    if seen.method == "HEAD" && !head.is_empty() {
        return stream.flush().await.is_ok();
    }
    match reply.then {
        Then::Dribble => {
            for byte in reply.body.iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                    return false;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            false
        }
        Then::Endless => {
            while stream.write_all(&reply.body).await.is_ok() {}
            false
        }
        then => {
            let sent = stream.write_all(&reply.body).await.is_ok() && stream.flush().await.is_ok();
            if then == Then::Hang {
                std::future::pending::<()>().await;
            }
            sent && then == Then::Next
        }
    }
}
