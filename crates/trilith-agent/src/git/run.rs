//! Running git: without what a repository may configure to be run, and never for long.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rustix::fs::OFlags;
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::failure::{Failure, Outcome};
use crate::files::Root;
use crate::id::Id;
use crate::process::{Children, Exit, Program};

/// How long git may take.
const TIME: Duration = Duration::from_secs(30);

/// How much of what git prints is read, in bytes; more is a failure.
const OUTPUT: usize = 8 << 20;

/// How much of what git complains about is told, in bytes.
const COMPLAINT: usize = 4 << 10;

/// The git of the image.
#[derive(Debug)]
pub(super) struct Git {
    children: Arc<Children>,
    root: Arc<Root>,
}

/// What git said.
#[derive(Debug)]
pub(super) struct Answer {
    exit: Exit,
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Answer {
    /// Returns what git printed, or its complaint when it failed.
    pub(super) fn success(self) -> Outcome<Vec<u8>> {
        if self.exit == 0 {
            return Ok(self.stdout);
        }
        let complaint = String::from_utf8_lossy(&self.stderr);
        Err(Failure::bad(format!("git failed: {}", complaint.trim())))
    }

    /// Returns the line that git printed; `None` when it failed or printed none.
    pub(super) fn line(self) -> Option<String> {
        let line = String::from_utf8(self.stdout).ok()?.trim().to_owned();
        (self.exit == 0 && !line.is_empty()).then_some(line)
    }

    pub(super) fn succeeded(&self) -> bool {
        self.exit == 0
    }
}

impl Git {
    pub(super) fn new(children: Arc<Children>, root: Arc<Root>) -> Self {
        Self { children, root }
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Returns whether `dir` is in a repository. What is no directory is none.
    pub(super) async fn is_repository(&self, dir: &Path) -> Outcome<bool> {
        if !dir.is_dir() {
            return Ok(false);
        }
        // Outside of the root nothing is looked at.
        self.root.open(dir, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(self
            .run(dir, &["rev-parse", "--git-dir"])
            .await?
            .succeeded())
    }

    /// Runs git in `dir`, to its end.
    pub(super) async fn run(&self, dir: &Path, arguments: &[&str]) -> Outcome<Answer> {
        let safe = [
            // The agent is not the owner of everything that it is shown.
            "safe.directory=*",
            "core.fsmonitor=false",
            "core.hooksPath=/dev/null",
            "core.quotePath=false",
        ];
        let mut argv: Vec<String> = vec!["git".into(), "--no-pager".into()];
        argv.extend(
            safe.iter()
                .flat_map(|option| ["-c".to_owned(), (*option).to_owned()]),
        );
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut env = vec![
            ("GIT_OPTIONAL_LOCKS".to_owned(), Some("0".to_owned())),
            ("GIT_TERMINAL_PROMPT".to_owned(), Some("0".to_owned())),
            ("LC_ALL".to_owned(), Some("C".to_owned())),
        ];
        if let Some(above) = self.root.path().and_then(Path::parent) {
            let above = above.to_string_lossy().into_owned();
            env.push(("GIT_CEILING_DIRECTORIES".to_owned(), Some(above)));
        }
        let command = Id::random().map_err(Failure::internal)?;
        let cwd = Some(dir.to_string_lossy().into_owned());
        let program = Program {
            argv,
            cwd,
            env,
            stdin: false,
            command,
        };
        let child = self
            .children
            .spawn(program)
            .await
            .map_err(|error| no_git(&error))?;
        let group = child.group.clone();
        let work = async {
            let stdout = read(&child.stdout, OUTPUT);
            let stderr = read(&child.stderr, COMPLAINT);
            let (stdout, stderr) = tokio::join!(stdout, stderr);
            let exit = child.exit.await.unwrap_or(-1);
            (stdout, stderr, exit)
        };
        let (stdout, stderr, exit) = timeout(TIME, work).await.map_err(|_| {
            group.signal(Signal::KILL);
            let status = StatusCode::GATEWAY_TIMEOUT;
            Failure::new(
                status,
                format!("git took more than {} seconds", TIME.as_secs()),
            )
        })?;
        let (stdout, is_cut) = stdout.map_err(Failure::internal)?;
        if is_cut {
            let limit = OUTPUT >> 20;
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Failure::new(
                status,
                format!("git printed more than {limit} MiB"),
            ));
        }
        let (stderr, _) = stderr.map_err(Failure::internal)?;
        Ok(Answer {
            exit,
            stdout,
            stderr,
        })
    }
}

fn no_git(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        let status = StatusCode::NOT_IMPLEMENTED;
        Failure::new(
            status,
            "this image has no `git`, which changes are read with",
        )
    } else {
        Failure::internal(format!("cannot start `git`: {error}"))
    }
}

/// Reads to the end and returns the first `limit` bytes, and whether there were more.
async fn read(pipe: &pipe::Receiver, limit: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let mut is_cut = false;
    loop {
        pipe.readable().await?;
        let mut buffer = [0; 16 << 10];
        match pipe.try_read(&mut buffer) {
            Ok(0) => return Ok((bytes, is_cut)),
            Ok(length) => {
                let room = length.min(limit - bytes.len());
                bytes.extend_from_slice(&buffer[..room]);
                is_cut |= room < length;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the closest directory at or above `path` that is a repository's.
pub(super) fn closest(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|dir| dir.join(".git").exists())
        .map(Path::to_owned)
}
