//! A buildkitd. Debian has none, but its `dockerd` is one: `/grpc` is the same API, and only how it
//! is asked for has to be left out.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// A socket that leads to the BuildKit of an engine.
pub(super) struct Relay {
    socket: PathBuf,
    /// Both ends of all connections; `None` once it is closed.
    connections: Arc<Mutex<Option<Vec<UnixStream>>>>,
}

impl Relay {
    /// Passes on what is sent to a new socket beside that of the engine at `host`. It ends with
    /// the engine.
    pub(super) fn start(host: &str) -> Self {
        let engine = PathBuf::from(host.strip_prefix("unix://").unwrap());
        let socket = engine.with_file_name("buildkitd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let connections = Arc::new(Mutex::new(Some(Vec::new())));
        let relay = Self {
            socket,
            connections: Arc::clone(&connections),
        };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(engine) = connect(&engine) else {
                    return;
                };
                let copies = [engine.try_clone().unwrap(), client.try_clone().unwrap()];
                match &mut *connections.lock().unwrap() {
                    Some(connections) => connections.extend(copies),
                    None => return,
                }
                let other_way = (engine.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || pass(client, engine));
                thread::spawn(move || pass(other_way.0, other_way.1));
            }
        });
        relay
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Breaks all connections off, and takes no more.
    pub(super) fn close(&self) {
        std::fs::remove_file(&self.socket).unwrap();
        for connection in self
            .connections
            .lock()
            .unwrap()
            .take()
            .into_iter()
            .flatten()
        {
            let _gone = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Returns a connection to the BuildKit of the engine, `None` where that is gone.
fn connect(engine: &Path) -> Option<UnixStream> {
    let mut engine = UnixStream::connect(engine).ok()?;
    let request = b"POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    engine.write_all(request).ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        engine.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    head.starts_with(b"HTTP/1.1 101 ").then_some(engine)
}

/// Passes on until either side breaks it off.
fn pass(mut from: UnixStream, mut to: UnixStream) {
    let _broken_off = std::io::copy(&mut from, &mut to);
    let _gone = from.shutdown(std::net::Shutdown::Both);
    let _gone = to.shutdown(std::net::Shutdown::Both);
}
