//! Running Podman: its output while it runs, and its end when nobody waits any more.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::super::{EngineError, EngineKind};
use super::stop;

/// How long the output of what has ended is waited for: something it left may hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// How Podman is called.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Variables over those of this process, `None` for those to be removed.
    pub(super) environment: Vec<(String, Option<String>)>,
}

impl Program {
    /// Returns Podman with `arguments`, in a process group of its own: an interrupt from the
    /// terminal is for whoever called it to pass on.
    pub(super) fn command(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> std::process::Command {
        use std::os::unix::process::CommandExt as _;

        let mut command = self.foreground(arguments);
        command.stdin(Stdio::null());
        command.process_group(0);
        command
    }

    /// Returns Podman with `arguments`, to be run in the terminal of this process.
    pub(super) fn foreground(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> std::process::Command {
        let mut command = std::process::Command::new(&self.path);
        command.args(arguments);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Returns where it is, for messages.
    pub(super) fn address(&self) -> String {
        self.path.display().to_string()
    }

    /// Runs a call that is short and says little.
    pub(super) async fn output(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Output, EngineError> {
        let mut command = Command::from(self.command(arguments));
        command.kill_on_drop(true);
        self.output_of(command).await
    }

    /// Runs such a call that was made by [`Self::command`].
    pub(super) async fn output_of(&self, mut command: Command) -> Result<Output, EngineError> {
        let output = command.output().await;
        output.map_err(|error| self.unreachable(error))
    }

    /// Runs a call that may be long, and hands on what it writes to either stream, in the order
    /// it is written. When the future is dropped it is stopped as [`stop::stop`] says, with the
    /// working containers that name `mark`.
    pub(super) async fn run(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        mark: Option<&Path>,
        mut on_output: impl FnMut(&[u8]),
    ) -> Result<ExitStatus, EngineError> {
        let lost = |source| self.lost(source);
        let (mut reader, child) = self.spawn(arguments)?;
        let mut running = Running {
            child,
            program: self,
            mark,
        };
        let mut buffer = vec![0; 64 * 1024];
        let mut status = None;
        let mut deadline = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(deadline), if status.is_some() => break,
                read = reader.read(&mut buffer) => match read.map_err(lost)? {
                    0 => break,
                    count => on_output(&buffer[..count]),
                },
                ended = running.child.wait(), if status.is_none() => {
                    status = Some(ended.map_err(lost)?);
                    deadline = Instant::now() + LAST_OUTPUT;
                }
            }
        }
        match status {
            Some(status) => Ok(status),
            None => running.child.wait().await.map_err(lost),
        }
    }

    /// Removes what a build left that failed: the working containers that name `mark`.
    pub(super) async fn remove_left(&self, mark: &Path) -> Result<(), EngineError> {
        let (program, mark) = (self.clone(), mark.to_owned());
        let removed = tokio::task::spawn_blocking(move || stop::remove_left(&program, &mark));
        removed.await.map_err(|error| self.lost(error.into()))
    }

    fn spawn(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<(Receiver, Child), EngineError> {
        let unreachable = |error| self.unreachable(error);
        let (reader, writer) = io::pipe().map_err(unreachable)?;
        let mut command = self.command(arguments);
        command
            .stdout(writer.try_clone().map_err(unreachable)?)
            .stderr(writer);
        let reader = Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(unreachable)?;
        // The command, and with it our end of the pipe, goes out of scope here.
        let child = Command::from(command).spawn().map_err(unreachable)?;
        Ok((reader, child))
    }

    fn unreachable(&self, error: io::Error) -> EngineError {
        EngineError::Unreachable {
            engine: EngineKind::Podman,
            address: self.address(),
            source: Some(error.into()),
        }
    }

    fn lost(&self, error: io::Error) -> EngineError {
        EngineError::Lost {
            engine: EngineKind::Podman,
            operation: "run",
            object: self.address(),
            source: error.into(),
        }
    }
}

/// A call under way.
struct Running<'p> {
    child: Child,
    program: &'p Program,
    mark: Option<&'p Path>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            stop::stop(&mut self.child, self.program, self.mark);
        }
    }
}
