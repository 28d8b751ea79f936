//! A proxy in front of a registry that fails on demand.
//!
//! Clients speak to it as if it were the registry: `Host` is passed on, so the addresses the
//! registry hands out lead back here. Every connection carries one request and is then
//! closed, which keeps it simple: bodies are passed on as they come, in both directions, without
//! a look at their framing. It is no benchmark of keep-alive, and knows no TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::command::TIME_LIMIT;
use crate::http::{Request, parse_head, parse_status, read_head};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes from the proxy: a status, header fields and an error document.
    Answer(u16, Vec<(String, String)>),
    /// The request is read and never answered.
    Silence,
    /// The answer comes this much later.
    Delay(Duration),
    /// The request is passed on once the rules are [cleared](FaultProxy::clear).
    Hold,
    /// The connection ends after this many bytes of the answer's body.
    CutResponse(u64),
    /// The connections on both sides end after this many bytes of the request's body.
    CutRequest(u64),
}

impl Fault {
    /// Returns the answer with nothing but `status`.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new())
    }
}

/// Which requests meet a fault. The first rule that matches a request decides.
#[derive(Clone, Debug)]
pub struct Rule {
    method: String,
    path: String,
    fault: Fault,
    spare: usize,
    /// How many pass between two faults.
    between: usize,
    times: usize,
}

impl Rule {
    /// Makes every request with `method` (`*` for any) whose path contains `path` meet `fault`.
    #[must_use]
    pub fn new(method: &str, path: &str, fault: Fault) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            fault,
            spare: 0,
            between: 0,
            times: usize::MAX,
        }
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn after(mut self, count: usize) -> Self {
        self.spare = count;
        self
    }

    /// Lets all but every `count`th matching request pass.
    #[must_use]
    pub fn every(mut self, count: usize) -> Self {
        self.between = count - 1;
        self.spare = self.between;
        self
    }

    /// Ends the rule after `count` faults.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        self.times = count;
        self
    }

    fn matches(&self, request: &Request) -> bool {
        let method = self.method == "*" || self.method == request.method;
        method && request.path.contains(&self.path) && self.times > 0
    }

    /// Counts a matching request; returns the fault if it is due.
    fn take(&mut self) -> Option<Fault> {
        if self.spare > 0 {
            self.spare -= 1;
            return None;
        }
        self.times -= 1;
        self.spare = self.between;
        Some(self.fault.clone())
    }
}

/// A running proxy; ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    host: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    ending: AtomicBool,
    rules: Mutex<Vec<Rule>>,
    /// How often the rules were cleared, which what is held waits for.
    cleared: (Mutex<u64>, Condvar),
    requests: Mutex<Vec<Request>>,
    /// Told of each request.
    noted: Condvar,
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

impl FaultProxy {
    /// Starts a proxy in front of `upstream`, as in `127.0.0.1:5000`. Without rules it only passes on.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("cannot listen on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            ending: AtomicBool::new(false),
            rules: Mutex::default(),
            cleared: <(Mutex<u64>, Condvar)>::default(),
            noted: Condvar::new(),
            requests: Mutex::default(),
            connections: Mutex::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Self {
            address,
            host: address.to_string(),
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the reference of `name` (`acme/a:1`) as seen through this proxy.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
        self.shared.release();
    }

    /// Returns the requests seen since the start or the last
    /// [`forget_requests`](Self::forget_requests), in the order of their arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Returns once `count` requests with `method` have come whose path contains `path`.
    ///
    /// # Panics
    /// When they do not come in [`TIME_LIMIT`].
    pub fn wait_for(&self, count: usize, method: &str, path: &str) {
        let missing = |requests: &mut Vec<Request>| {
            let asked = requests
                .iter()
                .filter(|request| request.method == method && request.path.contains(path));
            asked.count() < count
        };
        let requests = lock(&self.shared.requests);
        let noted = self
            .shared
            .noted
            .wait_timeout_while(requests, TIME_LIMIT, missing);
        let (requests, waited) = noted.unwrap_or_else(PoisonError::into_inner);
        assert!(
            !waited.timed_out(),
            "there were no {count} requests {method} {path}, but {requests:?}"
        );
    }

    /// Makes [`requests`](Self::requests) start over. No request may be under way.
    pub fn forget_requests(&self) {
        lock(&self.shared.requests).clear();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared.release();
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in lock(&self.shared.connections).drain(..) {
            if let Some(connection) = connection.upgrade() {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }
}

/// Locks; a thread that panicked left nothing half-written here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.ending.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A connection that breaks is what this proxy is for.
            let _ = serve(client, &shared);
        });
    }
}

impl Shared {
    /// Notes `stream`, so that the end of the proxy ends it too.
    fn watch(&self, stream: TcpStream) -> Arc<TcpStream> {
        let stream = Arc::new(stream);
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&stream));
        stream
    }

    /// Notes `request`; returns its number.
    fn note(&self, request: &Request) -> usize {
        let mut requests = lock(&self.requests);
        requests.push(request.clone());
        self.noted.notify_all();
        requests.len() - 1
    }

    /// Changes the note with `number`.
    fn amend(&self, number: usize, change: impl FnOnce(&mut Request)) {
        if let Some(request) = lock(&self.requests).get_mut(number) {
            change(request);
        }
    }

    /// Lets everything go on that is held.
    fn release(&self) {
        *lock(&self.cleared.0) += 1;
        self.cleared.1.notify_all();
    }

    /// Waits until the rules have been cleared more often than `times`.
    fn hold(&self, times: u64) {
        let (cleared, changed) = &self.cleared;
        let held = changed.wait_while(lock(cleared), |cleared| *cleared == times);
        drop(held.unwrap_or_else(PoisonError::into_inner));
    }

    fn fault_for(&self, request: &Request) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        rules.iter_mut().find(|rule| rule.matches(request))?.take()
    }
}

/// Serves the one request of a connection.
fn serve(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let client = shared.watch(client);
    let (head, rest) = read_head(Vec::new(), &mut &*client)?;
    let (line, headers) = parse_head(&head);
    let mut words = line.split(' ').map(str::to_owned);
    let request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        status: None,
        headers,
        sent: 0,
        received: 0,
    };
    let number = shared.note(&request);
    let mut limits = (u64::MAX, u64::MAX);
    let cleared = *lock(&shared.cleared.0);
    match shared.fault_for(&request) {
        None => {}
        Some(Fault::Silence) => return drain(&client),
        Some(Fault::Delay(time)) => thread::sleep(time),
        Some(Fault::Hold) => shared.hold(cleared),
        Some(Fault::CutRequest(bytes)) => limits.0 = bytes,
        Some(Fault::CutResponse(bytes)) => limits.1 = bytes,
        Some(Fault::Answer(status, headers)) => {
            shared.amend(number, |request| request.status = Some(status));
            return answer(&client, &request.method, status, &headers);
        }
    }
    let upstream = shared.watch(TcpStream::connect(&shared.upstream)?);
    (&*upstream).write_all(&with_close(&head))?;
    let upload = {
        let (client, upstream) = (Arc::clone(&client), Arc::clone(&upstream));
        let shared = Arc::clone(shared);
        thread::spawn(move || upload(&rest, &client, &upstream, limits.0, &shared, number))
    };
    let outcome = download(&upstream, &client, limits.1, shared, number);
    // The client gets all of the answer, and may finish sending what nobody reads any more.
    let _ = upstream.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Write);
    let _ = upload.join();
    outcome
}

/// Returns `head` with `Connection: close` and without any other such field.
fn with_close(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.trim_end().split("\r\n");
    let mut result = format!("{}\r\n", lines.next().unwrap_or_default());
    for line in lines {
        let name = line.split(':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("connection") {
            result.push_str(line);
            result.push_str("\r\n");
        }
    }
    result.push_str("Connection: close\r\n\r\n");
    result.into_bytes()
}

/// Passes the request's body on, and reads what the client sends after the answer.
fn upload(
    rest: &[u8],
    client: &TcpStream,
    upstream: &TcpStream,
    limit: u64,
    shared: &Shared,
    number: usize,
) {
    let count = |bytes: u64| shared.amend(number, |request| request.sent += bytes);
    if pass(&mut rest.chain(client), upstream, limit, count).unwrap_or(0) >= limit {
        let _ = upstream.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
    }
    let _ = drain(client);
}

/// Passes the answer on: heads of 1xx answers, the head, the body up to `limit` bytes.
fn download(
    upstream: &TcpStream,
    client: &TcpStream,
    limit: u64,
    shared: &Shared,
    number: usize,
) -> io::Result<()> {
    let mut from = upstream;
    let mut client = client;
    let mut rest = Vec::new();
    loop {
        let (head, behind) = read_head(rest, &mut from)?;
        rest = behind;
        client.write_all(&head)?;
        let status = parse_status(&parse_head(&head).0);
        if status.is_none_or(|status| status >= 200) {
            shared.amend(number, |request| request.status = status);
            break;
        }
    }
    let count = |bytes: u64| shared.amend(number, |request| request.received += bytes);
    pass(&mut rest.chain(from), client, limit, count)?;
    Ok(())
}

/// Copies up to `limit` bytes and returns how many; `count` is told of each piece.
fn pass(
    from: &mut impl Read,
    mut to: &TcpStream,
    limit: u64,
    count: impl Fn(u64),
) -> io::Result<u64> {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed = 0;
    while passed < limit {
        let room = usize::try_from(limit - passed).unwrap_or(usize::MAX);
        let room = room.min(buffer.len());
        let read = from.read(&mut buffer[..room])?;
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read])?;
        passed += read as u64;
        count(read as u64);
    }
    Ok(passed)
}

/// Answers instead of the registry.
fn answer(
    mut client: &TcpStream,
    method: &str,
    status: u16,
    headers: &[(String, String)],
) -> io::Result<()> {
    let mut body = r#"{"errors":[{"code":"UNKNOWN","message":"injected by the test"}]}"#;
    let mut head = format!(
        "HTTP/1.1 {status} Injected\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    head.extend(
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n")),
    );
    if method == "HEAD" {
        body = "";
    }
    client.write_all(format!("{head}\r\n{body}").as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // Closing with unread data would reset the connection, and the client might miss the answer.
    drain(client)
}

/// Reads until the other side closes.
fn drain(mut client: &TcpStream) -> io::Result<()> {
    io::copy(&mut client, &mut io::sink())?;
    Ok(())
}
