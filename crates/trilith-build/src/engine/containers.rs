//! Containers: what an engine that keeps images can run.
//!
//! [`Containers`] is the seam. It knows containers, archives and streams, and nothing of what runs
//! in them. What it starts has no more rights than a request gives: no capability, no new
//! privilege, ports on loopback only.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use trilith_core::{Platform, Reference};

use super::{Engine, EngineError};

/// Bytes as they come.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A container that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRequest {
    /// Its name, unique on the engine.
    pub name: String,
    /// The image: a reference, or the id that the engine has it by.
    pub image: String,
    /// The program that replaces the image's entry point, and its arguments.
    pub argv: Vec<String>,
    /// Variables over those of the image.
    pub environment: BTreeMap<String, String>,
    /// Labels over those of the image.
    pub labels: BTreeMap<String, String>,
    /// Ports of the container that are to be reached from this machine.
    pub ports: Vec<PublishedPort>,
    /// As in `SOURCE:TARGET[:ro]`, where the source is an absolute path or the name of a volume.
    pub volumes: Vec<String>,
    /// A directory that is kept apart from the container's own files, writable and gone with it.
    pub private: Option<String>,
    /// A network of the engine, or one of its words such as `host`; its default if `None`.
    pub network: Option<String>,
    /// What the image must be for; the engine's own platform if `None`.
    pub platform: Option<Platform>,
    /// How many GPUs; `None` for none.
    pub gpus: Option<Gpus>,
    /// Whether the container's own files cannot be changed. `/tmp` is in memory then.
    pub read_only: bool,
    /// The capabilities that it has, as in `CHOWN`.
    pub capabilities: Vec<String>,
    /// The most processes and threads at a time.
    pub pids: Option<u32>,
    /// The most memory, in bytes, with nothing beyond it swapped out.
    pub memory: Option<u64>,
}

/// GPUs for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpus {
    /// All there are.
    All,
    /// So many.
    Count(u32),
}

/// A port of a container, and where it is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// The address of this machine.
    pub host: IpAddr,
    /// The port of this machine; one that is free, chosen by the engine, if `None`.
    pub host_port: Option<u16>,
    /// The TCP port in the container.
    pub container_port: u16,
}

/// A container that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its full id.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// The image as it was named.
    pub image: String,
    /// When it was made, as the engine has it: RFC 3339.
    pub created: String,
    /// What it does.
    pub state: ContainerState,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where its ports are reached, by port of the container.
    pub ports: BTreeMap<u16, Vec<SocketAddr>>,
    /// Its own addresses in the engine's networks.
    pub addresses: Vec<Ipv4Addr>,
    /// Who its first process runs as, in the image's words.
    pub user: String,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It was made and not started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// Its first process has ended.
    Exited {
        /// The exit code of the process.
        code: i64,
        /// Whether the kernel ended something in it for want of memory.
        out_of_memory: bool,
    },
}

impl ContainerState {
    /// Returns its name, as in `running`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited { .. } => "exited",
        }
    }

    /// Returns the state that both engines describe in the same words.
    pub(super) fn new(status: &str, code: i64, out_of_memory: bool) -> Self {
        match status {
            "created" | "configured" | "initialized" => Self::Created,
            "running" | "restarting" => Self::Running,
            "paused" => Self::Paused,
            _ => Self::Exited {
                code,
                out_of_memory,
            },
        }
    }
}

/// Where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Is told what a container writes.
pub type LogSink<'s> = &'s mut (dyn FnMut(OutputStream, &[u8]) + Send);

/// Which output of a container is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether to wait for more until the container ends.
    pub follow: bool,
    /// The last so many lines; all if `None`.
    pub tail: Option<u32>,
}

/// A program that is to run in a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminalRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables over those of the container.
    pub environment: BTreeMap<String, String>,
    /// The directory; the container's if `None`.
    pub cwd: Option<String>,
    /// Whether it is given what is typed.
    pub input: bool,
}

/// Something that carries bytes both ways.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A program in a terminal, in the way that the engine has it.
pub enum Terminal<'e> {
    /// The other end of the terminal.
    Connected {
        /// What is typed and what is shown.
        connection: Box<dyn Connection>,
        /// The terminal itself.
        control: Box<dyn TerminalControl + 'e>,
    },
    /// A program that is to be run in the caller's own terminal, which it takes care of.
    Program(Command),
}

/// The terminal of a program in a container.
#[async_trait]
pub trait TerminalControl: Send + Sync {
    /// Tells the size.
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), EngineError>;

    /// Returns the exit code of the program, which has ended.
    async fn exit_code(&self) -> Result<i32, EngineError>;
}

/// An engine that runs containers.
#[async_trait]
pub trait Containers: Engine {
    /// Checks that the engine answers, with one short question.
    async fn answers(&self) -> Result<(), EngineError>;

    /// Fetches an image from its registry into the engine.
    async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<(), EngineError>;

    /// Makes a container of an image that the engine keeps, and returns its full id.
    async fn create(&self, request: &ContainerRequest) -> Result<String, EngineError>;

    /// Starts a container.
    async fn start(&self, id: &str) -> Result<(), EngineError>;

    /// Returns the container with this id or name; `None` where there is none.
    async fn container(&self, name: &str) -> Result<Option<Container>, EngineError>;

    /// Returns all containers with a label of this name, whatever they do.
    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError>;

    /// Unpacks a tar into `directory` of a container, which need not run.
    async fn write_archive(
        &self,
        id: &str,
        directory: &str,
        archive: Pieces,
    ) -> Result<(), EngineError>;

    /// Returns the file or directory `path` as a tar, whose names begin with the last of `path`.
    ///
    /// # Errors
    /// Of kind [`NotFound`](trilith_oci::Kind::NotFound) where there is no such path.
    async fn read_archive(&self, id: &str, path: &str) -> Result<Pieces, EngineError>;

    /// Hands on what a container has written, and what it writes.
    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
        sink: LogSink<'_>,
    ) -> Result<(), EngineError>;

    /// Freezes all processes of a container.
    async fn pause(&self, id: &str) -> Result<(), EngineError>;

    /// Lets them go on.
    async fn resume(&self, id: &str) -> Result<(), EngineError>;

    /// Starts a program in a terminal.
    async fn terminal<'e>(
        &'e self,
        id: &str,
        request: &TerminalRequest,
    ) -> Result<Terminal<'e>, EngineError>;

    /// Ends a container, asked to end for `grace` and then killed, and removes it with its
    /// private directory. No error where there is none.
    async fn remove(&self, id: &str, grace: Duration) -> Result<(), EngineError>;

    /// Kills and removes a container, and waits for that, from wherever a future was dropped.
    fn remove_now(&self, id: &str);
}
