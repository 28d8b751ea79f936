//! What a workspace is: an agent, and something around it that can be paused and ended.
//!
//! Commands, files and git are the agent's, so that they are the same in every workspace.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, empty};

use crate::{Agent, Change, Command, Diff, Ended, Error};

/// Where bytes come from.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// Where bytes go to.
pub type Sink<'o> = &'o mut (dyn AsyncWrite + Send + Unpin);

/// What a command has printed, and how it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it has ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// A place to run commands and keep files in. Whoever starts one has it running.
///
/// Paths are absolute, as the workspace has them.
#[async_trait]
pub trait Workspace: Send + Sync {
    /// Returns what it is, as in `a remote workspace`.
    fn kind(&self) -> &'static str;

    /// Returns the agent in it.
    fn agent(&self) -> &Agent;

    /// Freezes everything in it.
    ///
    /// # Errors
    /// [`Error::Unable`] where it is no container of ours.
    async fn pause(&self) -> Result<(), Error> {
        Err(Error::Unable {
            workspace: self.kind(),
            operation: "paused",
        })
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// As [`Self::pause`].
    async fn resume(&self) -> Result<(), Error> {
        Err(Error::Unable {
            workspace: self.kind(),
            operation: "resumed",
        })
    }

    /// Ends what was started for it, the container or the agent, and waits for that. All that
    /// runs in it is killed. Nothing is done where nothing was started, or it has ended.
    async fn stop(&self) -> Result<(), Error>;

    /// Returns whether its agent answers.
    async fn is_healthy(&self) -> bool {
        self.agent().is_healthy().await
    }

    /// Runs a command with these streams until it ends. One whose future is dropped goes on, at
    /// most to its timeout.
    ///
    /// # Errors
    /// The agent fails or goes away, a stream fails, or more is printed than the agent keeps. A
    /// command that fails is no error.
    async fn exec(
        &self,
        command: &Command,
        stdin: Input,
        mut stdout: Sink<'_>,
        mut stderr: Sink<'_>,
    ) -> Result<Ended, Error> {
        let agent = self.agent();
        let never = std::future::pending();
        agent
            .run(command, stdin, &mut stdout, &mut stderr, never)
            .await
    }

    /// Runs a command with nothing to read, and returns what it prints, which is kept in memory.
    ///
    /// # Errors
    /// As [`Self::exec`].
    async fn output(&self, command: &Command) -> Result<Output, Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let input = Box::new(empty());
        let ended = self.exec(command, input, &mut stdout, &mut stderr).await?;
        Ok(Output {
            ended,
            stdout,
            stderr,
        })
    }

    /// Writes a file, as [`Agent::upload`] does.
    async fn upload(&self, from: Input, to: &str) -> Result<u64, Error> {
        self.agent().upload(from, to).await
    }

    /// Reads a file, as [`Agent::download`] does.
    async fn download(&self, from: &str, mut to: Sink<'_>) -> Result<u64, Error> {
        self.agent().download(from, &mut to).await
    }

    /// Returns what has changed in a git repository, as [`Agent::git_changes`] does.
    async fn git_changes(
        &self,
        directory: &str,
        reference: Option<&str>,
    ) -> Result<Vec<Change>, Error> {
        self.agent().git_changes(directory, reference).await
    }

    /// Returns both sides of a file, as [`Agent::git_diff`] does.
    async fn git_diff(&self, file: &str, reference: Option<&str>) -> Result<Diff, Error> {
        self.agent().git_diff(file, reference).await
    }
}
