//! A workspace on this machine: a directory, and processes that nothing holds back.
//!
//! It is the agent of all others, run here with the directory as its root. What is asked of files
//! cannot leave the directory; commands can, as those of anybody who runs them here.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use async_trait::async_trait;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy, sink};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::agent::LISTENING;
use crate::{Agent, Defaults, Error, SessionKey, Workspace};

/// A directory of this machine and an agent for it. When it is dropped the agent is told to end,
/// with all that runs in it, and is not waited for.
#[derive(Debug)]
pub struct LocalWorkspace {
    agent: Agent,
    process: Process,
}

/// The agent's process.
#[derive(Debug)]
struct Process {
    child: Mutex<Child>,
}

impl LocalWorkspace {
    /// Starts an agent for `directory`, which is there, and waits until it is ready. Its commands
    /// begin in the directory, with the variables of this process.
    ///
    /// # Errors
    /// The agent cannot be started, or ends.
    pub async fn start(directory: &Path) -> Result<Self, Error> {
        let failed = |error| Error::system(format!("open `{}`", directory.display()), error);
        let root = directory.canonicalize().map_err(failed)?;
        let key = SessionKey::random()?;
        let mut child = launch(&root).map_err(|error| Error::system("start the agent", error))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let process = Process {
            child: Mutex::new(child),
        };
        let (Some(mut stdin), Some(stderr)) = (stdin, stderr) else {
            return Err(failed_start("it has no streams"));
        };
        let mut lines = BufReader::new(stderr);
        let mut line = String::new();
        let asked = async {
            stdin.write_all(key.expose().as_bytes()).await?;
            drop(stdin);
            lines.read_line(&mut line).await
        };
        let answered = timeout(Defaults::HEALTH, asked).await;
        let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        answered.map_err(|error| Error::system("speak to the agent", error))?;
        let url = line.trim().strip_prefix(LISTENING);
        let url = url.ok_or_else(|| failed_start(line.trim()))?;
        // It may go on to complain, and must not wait for a reader.
        tokio::spawn(async move { copy(&mut lines, &mut sink()).await });
        let agent = Agent::try_new(url, key)?;
        Ok(Self { agent, process })
    }
}

fn failed_start(reason: &str) -> Error {
    Error::Agent {
        operation: "start",
        reason: reason.to_owned(),
    }
}

/// Starts the agent from memory, with its key to come on standard input.
fn launch(root: &Path) -> io::Result<Child> {
    let mut program = File::from(memfd_create("trilith-agent", MemfdFlags::CLOEXEC)?);
    program.write_all(trilith_agent_bin::binary())?;
    program.set_permissions(Permissions::from_mode(0o500))?;
    // Opened by the child, before it loses the descriptor.
    Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .args(["--port", "0", "--key-file", "-", "--root"])
        .arg(root)
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

#[async_trait]
impl Workspace for LocalWorkspace {
    fn kind(&self) -> &'static str {
        "a local workspace"
    }

    fn agent(&self) -> &Agent {
        &self.agent
    }

    async fn stop(&self) -> Result<(), Error> {
        let mut child = self.process.child.lock().await;
        ask_to_end(&child);
        let ended = match timeout(Defaults::GRACE, child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => child.kill().await,
        };
        ended.map_err(|error| Error::system("end the agent", error))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        ask_to_end(self.child.get_mut());
    }
}

/// Sends SIGTERM, after which the agent ends what it runs and itself.
fn ask_to_end(child: &Child) {
    // Without a number it was waited for already.
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _ended = kill_process(pid, Signal::TERM);
    }
}
