//! Workspaces against the engine that runs them, and the agent's transfers against `cat`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trilith_testkit::{
    Dockerd, DockerdOptions, ImageOptions, PushedImage, Release, assert_success, busybox_image,
    stdout_of,
};

use crate::Trilith;
use crate::measure::{Line, in_turn, mebibytes, memory, noise, registry, time};

const RUNS: usize = 15;
const TRANSFERS: usize = 5;
/// How much is uploaded and downloaded, in pieces of [`PIECE`] bytes.
const PIECES: usize = 16;
const PIECE: usize = 64 << 20;
/// What is before and behind a file in a form.
const FORM: [&str; 2] = [
    "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\r\n",
    "\r\n--x--\r\n",
];

/// An engine with an image of busybox, and a home for Trilith.
struct Scene<'a> {
    trilith: &'a Trilith,
    home: TempDir,
    docker: Dockerd,
    image: PushedImage,
}

impl<'a> Scene<'a> {
    fn new(trilith: &'a Trilith, release: Release) -> Self {
        let registry = registry();
        let image = busybox_image(&registry, "base:1", &ImageOptions::default());
        let docker = Dockerd::start_with(DockerdOptions {
            release,
            ..DockerdOptions::default()
        });
        assert_success(docker.docker().args(["pull", &image.reference]));
        Self {
            trilith,
            home: tempfile::tempdir().unwrap(),
            docker,
            image,
        }
    }

    fn trilith(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.trilith.binary);
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("DOCKER_HOST", self.docker.host());
        command
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = self.docker.docker();
        command.args(arguments);
        command
    }

    fn run(&self, name: &str) -> Command {
        let mut command = self.trilith(&["run", "--format", "json", "--network", "host"]);
        command.args(["--name", name, &self.image.reference]);
        command
    }
}

/// A workspace from nothing to an agent that answers, against a container that sleeps.
pub(crate) fn start(trilith: &Trilith) -> Vec<Line> {
    let line = |release| start_on(&Scene::new(trilith, release), release);
    [Release::Bookworm, Release::Trixie].map(line).into()
}

fn start_on(scene: &Scene<'_>, release: Release) -> Line {
    let alone = |command: &mut Command| {
        let taken = time(command);
        time(&mut scene.docker(&["rm", "--force", "--volumes", "box"]));
        taken
    };
    let mut sleeping = scene.docker(&["run", "--detach", "--name", "box", "--network", "host"]);
    sleeping.args([&scene.image.reference, "sleep", "1000"]);
    alone(&mut scene.run("box"));
    alone(&mut sleeping);
    let (ours, peer) = in_turn(
        RUNS,
        || alone(&mut scene.run("box")),
        || alone(&mut sleeping),
    );
    let engine = match release {
        Release::Bookworm => "Docker 20.10",
        Release::Trixie => "Docker 26.1",
    };
    Line::slower(
        &format!(
            "`trilith run` to an agent that answers, against `docker run --detach` of `sleep`, {engine}"
        ),
        ours,
        peer,
        "at most 50 ms more",
    )
}

/// The smallest command there is, by command line and by the agent's own protocol.
pub(crate) fn exec(trilith: &Trilith) -> Vec<Line> {
    let scene = Scene::new(trilith, Release::Bookworm);
    let started = assert_success(&mut scene.run("box"));
    let started: serde_json::Value = serde_json::from_slice(&started.stdout).unwrap();
    let address = started["url"].as_str().unwrap();
    let address = address.strip_prefix("http://").unwrap();
    let key = stdout_of(&mut scene.trilith(&["exec", "box", "--", "cat", "/.trilith/key"]));
    let connection = Connection::open(address, &key);
    let ask = || {
        let command = br#"{"argv":["/bin/true"]}"#;
        let started = Instant::now();
        let fields = "Content-Type: application/json";
        let path = "/api/bash/execute_bash_command";
        connection.ask("POST", path, fields, command.len() as u64);
        connection.send(command);
        connection.answer();
        started.elapsed()
    };
    let peer = || time(&mut scene.docker(&["exec", "box", "true"]));
    let ours = || time(&mut scene.trilith(&["exec", "box", "--", "true"]));
    let (program, peer_of_program) = in_turn(RUNS, ours, peer);
    let (request, peer_of_request) = in_turn(RUNS, ask, peer);
    vec![
        Line::faster(
            "`trilith exec` of `true`, against `docker exec`",
            program,
            peer_of_program,
            "3 times",
        ),
        Line::faster(
            "the same as a request on a connection that is kept",
            request,
            peer_of_request,
            "3 times",
        ),
    ]
}

/// 1 GiB through the agent, against the same bytes through a socket with `cat` at both ends; then
/// what memory the agent took, and its size.
///
/// `cat` is the client of both, and all files are in memory, so the agent alone makes the difference.
pub(crate) fn transfer(_: &Trilith) -> Vec<Line> {
    let files = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = |name: &str| files.path().join(name);
    let (source, copied, agents) = (file("source"), file("copied"), file("agents"));
    let mut whole = File::create(&source).unwrap();
    for part in 0..PIECES {
        whole.write_all(&noise(part as u64, PIECE)).unwrap();
    }
    drop(whole);
    let agent = RunningAgent::start(files.path());
    let idle = agent.memory("VmRSS:");
    let lines = [
        ("uploaded", &agents, Direction::Upload),
        ("uploaded as a form", &agents, Direction::Form),
        ("downloaded", &source, Direction::Download),
    ]
    .map(|(what, path, direction)| {
        let (ours, peer) = in_turn(
            TRANSFERS,
            || agent.transfer(direction, path, &source, &copied),
            || through_a_socket(&source, &copied),
        );
        let written = if direction == Direction::Download {
            &copied
        } else {
            &agents
        };
        assert_success(Command::new("cmp").arg(&source).arg(written));
        let ratio = peer.as_secs_f64() / ours.as_secs_f64();
        Line {
            ratio: format!("{ratio:.2} of its speed"),
            ..Line::faster(
                &format!("1 GiB {what}, against `cat` through a socket"),
                ours,
                peer,
                "0.7",
            )
        }
    });
    let line = |what: &str, ours: String, target: &str| Line {
        what: what.to_owned(),
        ours,
        peer: String::new(),
        ratio: String::new(),
        target: target.to_owned(),
    };
    let size = trilith_agent_bin::binary().len() as f64 / 1e6;
    let mut lines = Vec::from(lines);
    lines.extend([
        line(
            "peak memory of the agent after that",
            mebibytes(agent.memory("VmHWM:")),
            "under 32 MiB",
        ),
        line(
            "memory of the agent before that",
            mebibytes(idle),
            "under 8 MiB",
        ),
        line("size of the agent", format!("{size:.1} MB"), "under 6 MB"),
    ]);
    lines
}

/// Which way a file goes through the agent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Upload,
    /// An upload as the client of `OpenHands` does it.
    Form,
    Download,
}

/// An agent of this machine; killed when it is dropped.
struct RunningAgent {
    process: Child,
    address: String,
}

impl RunningAgent {
    const KEY: &'static str = "key";

    /// Starts the agent that Trilith carries, from a file in `directory`.
    fn start(directory: &Path) -> Self {
        let program = directory.join("agent");
        fs::write(&program, trilith_agent_bin::binary()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut process = Command::new(&program)
            .args(["--port", "0", "--key-file", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(Self::KEY.as_bytes()).unwrap();
        drop(stdin);
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        let agent = Self {
            address: address.unwrap().to_owned(),
            process,
        };
        let connection = agent.connect();
        connection.ask("GET", "/health", "Connection: close", 0);
        connection.answer();
        agent
    }

    fn connect(&self) -> Connection {
        Connection::open(&self.address, Self::KEY)
    }

    /// Returns a number of `/proc/PID/status`, in bytes.
    fn memory(&self, field: &str) -> u64 {
        memory(self.process.id(), field).unwrap()
    }

    /// Uploads `source` to `path`, or downloads `path` to `copied`.
    fn transfer(
        &self,
        direction: Direction,
        path: &Path,
        source: &Path,
        copied: &Path,
    ) -> Duration {
        let length = fs::metadata(source).unwrap().len();
        let path = path.display();
        let upload = format!("/api/file/upload?path={path}");
        let started = Instant::now();
        let connection = self.connect();
        match direction {
            Direction::Upload => {
                connection.ask("PUT", &upload, "Connection: close", length);
                wait(cat(open(source), connection.socket()));
                connection.answer();
            }
            Direction::Form => {
                let length = length + FORM.concat().len() as u64;
                let fields = "Content-Type: multipart/form-data; boundary=x";
                connection.ask("POST", &upload, fields, length);
                connection.send(FORM[0].as_bytes());
                wait(cat(open(source), connection.socket()));
                connection.send(FORM[1].as_bytes());
                connection.answer();
            }
            Direction::Download => {
                let path = format!("/api/file/download?path={path}");
                connection.ask("GET", &path, "Connection: close", 0);
                connection.answer_head();
                wait(cat(connection.socket(), create(copied)));
            }
        }
        started.elapsed()
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A connection to an agent.
struct Connection {
    stream: TcpStream,
    address: String,
    key: String,
}

impl Connection {
    fn open(address: &str, key: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            address: address.to_owned(),
            key: key.to_owned(),
        }
    }

    /// Sends the head of a request whose body has `length` bytes.
    fn ask(&self, method: &str, path: &str, fields: &str, length: u64) {
        let (address, key) = (&self.address, &self.key);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-Session-API-Key: {key}\r\n\
             {fields}\r\nContent-Length: {length}\r\n\r\n"
        );
        self.send(head.as_bytes());
    }

    fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    /// Reads an answer, which has to be a good one.
    fn answer(&self) {
        let head = self.answer_head();
        let mut fields = head.lines();
        let length = fields.find_map(|field| field.strip_prefix("content-length: "));
        match length {
            Some(length) => {
                let mut body = vec![0; length.parse().unwrap()];
                (&self.stream).read_exact(&mut body).unwrap();
            }
            // In chunks; the last one is empty.
            None => drop(self.read_to(b"\r\n0\r\n\r\n")),
        }
    }

    /// Reads the head of an answer and not a byte more.
    fn answer_head(&self) -> String {
        let head = String::from_utf8(self.read_to(b"\r\n\r\n")).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        head
    }

    fn read_to(&self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            let mut byte = [0];
            (&self.stream).read_exact(&mut byte).unwrap();
            bytes.extend(byte);
        }
        bytes
    }

    fn socket(&self) -> OwnedFd {
        self.stream.try_clone().unwrap().into()
    }
}

/// Returns how long a file takes from one `cat` to another through a socket on loopback.
fn through_a_socket(source: &Path, copied: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (receiver, _) = listener.accept().unwrap();
    let receiver = cat(receiver.into(), create(copied));
    wait(cat(open(source), sender.into()));
    wait(receiver);
    started.elapsed()
}

/// Starts `cat` between two files or sockets, which are closed here.
fn cat(input: OwnedFd, output: OwnedFd) -> Child {
    let mut command = Command::new("cat");
    command.stdin(input).stdout(output).spawn().unwrap()
}

fn wait(mut process: Child) {
    assert!(process.wait().unwrap().success());
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn create(path: &Path) -> OwnedFd {
    File::create(path).unwrap().into()
}
