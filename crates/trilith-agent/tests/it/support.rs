//! An agent on a free port of loopback, and what to ask of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use trilith_testkit::http::{self, Answer, Response};

pub(crate) const KEY: &str = "correct horse battery staple";

/// An agent that ends when the test is over, with all that runs in it.
pub(crate) struct Agent {
    process: Child,
    pub(crate) host: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Agent {
    /// Starts `command`, an agent's, with a key in its environment and output kept in a directory of its own.
    pub(crate) fn launch(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = command
            .args(["--port", "0"])
            .env("OH_SESSION_API_KEYS_0", KEY)
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let host = address
            .unwrap_or_else(|| panic!("the agent says `{line}`"))
            .to_owned();
        // The pipe stays open: the agent may go on to complain.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { process, host, dir }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a request with the key.
    pub(crate) fn open(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let key = [("X-Session-API-Key", KEY)];
        http::open(&self.host, method, path, &[&key, fields].concat(), body)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Response {
        self.open(method, path, &[], body).read_all()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send("GET", path, b"")
    }

    /// Sends a document and returns the one that is answered with 200.
    pub(crate) fn post(&self, path: &str, document: &Value) -> Value {
        document_of(&self.send("POST", path, document.to_string().as_bytes()))
    }

    /// Runs a command to its end.
    pub(crate) fn execute(&self, request: &Value) -> Value {
        self.post("/api/bash/execute_bash_command", request)
    }

    /// Starts a command and returns its identifier.
    pub(crate) fn start(&self, request: &Value) -> String {
        let event = self.post("/api/bash/start_bash_command", request);
        event["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn search(&self, query: &str) -> Value {
        document_of(&self.get(&format!("/api/bash/bash_events/search?{query}")))
    }

    /// Returns the last output of `command` once it has ended.
    pub(crate) fn end_of(&self, command: &str) -> Value {
        let query = format!(
            "kind__eq=BashOutput&command_id__eq={command}&sort_order=TIMESTAMP_DESC&limit=1"
        );
        let mut last = Value::Null;
        wait_until("a command ends", || {
            last = self.search(&query)["items"][0].clone();
            !last["exit_code"].is_null()
        });
        last
    }

    /// Returns a number of kibibytes from the agent's status.
    pub(crate) fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        line.trim_matches([':', ' ', '\t', 'k', 'B'])
            .parse()
            .unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Sends a signal and returns how the agent ended.
    pub(crate) fn end(mut self, signal: &str) -> std::process::ExitStatus {
        assert!(self.signal(signal));
        self.process.wait().unwrap()
    }

    fn signal(&self, signal: &str) -> bool {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        sent.is_ok_and(|status| status.success())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Asked first: who is killed leaves behind what it runs.
        if matches!(self.process.try_wait(), Ok(None)) && self.signal("TERM") {
            let deadline = Instant::now() + Duration::from_secs(60);
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the document of an answer that has to be 200.
pub(crate) fn document_of(response: &Response) -> Value {
    let text = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the reason of an answer that has to have `status`.
pub(crate) fn detail_of(response: &Response, status: u16) -> String {
    let text = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, status, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    document["detail"].as_str().unwrap().to_owned()
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the processes that have `text` among their arguments or in their environment.
pub(crate) fn processes_with(text: &str) -> Vec<PathBuf> {
    let has = |path: &Path| {
        ["cmdline", "environ"].iter().any(|name| {
            let mut bytes = Vec::new();
            let read = fs::File::open(path.join(name)).and_then(|mut f| f.read_to_end(&mut bytes));
            read.is_ok() && String::from_utf8_lossy(&bytes).contains(text)
        })
    };
    let entries = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.join("stat").exists() && has(path))
        .collect()
}
