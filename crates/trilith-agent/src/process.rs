//! Child processes: started, waited for and ended, those that were orphaned included.
//!
//! The agent is the first process of a container, or a subreaper: whatever loses its parent
//! becomes its child. It waits for all of them, so no other code may wait for a process.

use std::collections::HashMap;
use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_open,
    pidfd_send_signal, test_kill_process_group, wait, waitpid,
};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::command::prefer_to_kill;
use crate::id::Id;
use crate::key;

/// The variable by which a process is known to belong to a command, even when it has left its
/// group: `AGENT-COMMAND`, two identifiers.
pub(crate) const MARK: &str = "TRILITH_AGENT_COMMAND";

/// How a process ended: its exit code, or the number of the signal, negated.
pub(crate) type Exit = i32;

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The program and its arguments; it is looked for as a shell does.
    pub(crate) argv: Vec<String>,
    pub(crate) cwd: Option<String>,
    /// Variables that differ from the agent's own; `None` removes one.
    pub(crate) env: Vec<(String, Option<String>)>,
    /// Whether standard input is a pipe; else it is empty.
    pub(crate) stdin: bool,
    pub(crate) command: Id,
}

/// A process that was started, the leader of a group of its own.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) group: Group,
    pub(crate) exit: oneshot::Receiver<Exit>,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

/// All children of the agent.
#[derive(Debug)]
pub(crate) struct Children {
    agent: Id,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Pid, oneshot::Sender<Exit>>,
    /// How many are being started and not yet in `waiting`.
    starting: usize,
}

impl Children {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            agent: Id::random()?,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `program`.
    pub(crate) async fn spawn(self: &Arc<Self>, program: Program) -> io::Result<Child> {
        let children = Arc::clone(self);
        let (started, ends) = spawn_blocking(move || children.start(&program))
            .await
            .map_err(io::Error::other)??;
        let [stdout, stderr] = [ends.stdout, ends.stderr].map(OwnedFd::from);
        Ok(Child {
            group: started.group,
            exit: started.exit,
            stdin: ends
                .stdin
                .map(|pipe| pipe::Sender::from_owned_fd(pipe.into()))
                .transpose()?,
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: pipe::Receiver::from_owned_fd(stderr)?,
        })
    }

    fn start(&self, program: &Program) -> io::Result<(Started, Ends)> {
        let [name, arguments @ ..] = program.argv.as_slice() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there is no program",
            ));
        };
        let mark = format!("{}-{}", self.agent, program.command);
        // Not /dev/null, which an image need not have.
        let (stdin, stdin_end) = io::pipe()?;
        let (stdout_end, stdout) = io::pipe()?;
        let (stderr_end, stderr) = io::pipe()?;
        let mut command = Command::new(name);
        command.args(arguments).process_group(0);
        command
            .stdin(Stdio::from(stdin))
            .stdout(stdout)
            .stderr(stderr);
        for (name, _) in std::env::vars_os() {
            if key::is_secret(name.as_encoded_bytes()) {
                command.env_remove(name);
            }
        }
        for (name, value) in &program.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env(MARK, &mark);
        if let Some(cwd) = &program.cwd {
            command.current_dir(cwd);
        }
        self.state().starting += 1;
        let spawned = command.spawn();
        let (sender, exit) = oneshot::channel();
        let mut state = self.state();
        state.starting -= 1;
        let pid = spawned.map(|child| Pid::from_child(&child));
        if let Ok(pid) = pid {
            prefer_to_kill(pid);
            state.waiting.insert(pid, sender);
        }
        drop(state);
        // It may have ended before it was known.
        self.reap();
        let leader = pid?;
        let stdin = program.stdin.then_some(stdin_end);
        let ends = Ends {
            stdin,
            stdout: stdout_end,
            stderr: stderr_end,
        };
        Ok((
            Started {
                group: Group { leader, mark },
                exit,
            },
            ends,
        ))
    }

    /// Waits for all processes that have ended, without blocking.
    pub(crate) fn reap(&self) {
        let mut state = self.state();
        let known: Vec<Pid> = state.waiting.keys().copied().collect();
        for pid in known {
            // One that is already gone has no status any more.
            if let Ok(Some((pid, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
                state.tell(pid, status);
            }
        }
        // Another's child must not be taken for an orphan.
        while state.starting == 0 {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => state.tell(pid, status),
                _ => break,
            }
        }
    }

    /// Signals every process that a command of this agent has started and that is still there.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let groups: Vec<Pid> = self.state().waiting.keys().copied().collect();
        for group in groups {
            let _ = kill_process_group(group, signal);
        }
        signal_marked(&format!("{}-", self.agent), signal);
    }

    /// Returns whether no child is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }
}

impl State {
    fn tell(&mut self, pid: Pid, status: WaitStatus) {
        let signal = status.terminating_signal().map(|signal| -signal);
        let exit = status.exit_status().or(signal);
        if let Some(exit) = exit
            && let Some(sender) = self.waiting.remove(&pid)
        {
            // Nobody may be interested any more.
            let _ = sender.send(exit);
        }
    }
}

#[derive(Debug)]
struct Started {
    group: Group,
    exit: oneshot::Receiver<Exit>,
}

/// Our ends of a process's pipes.
#[derive(Debug)]
struct Ends {
    stdin: Option<io::PipeWriter>,
    stdout: PipeReader,
    stderr: PipeReader,
}

/// The process group of a command, and the mark of those that left it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    leader: Pid,
    mark: String,
}

impl Group {
    /// Signals all processes of the command. What is stopped goes on, so that it can end.
    pub(crate) fn signal(&self, signal: Signal) {
        for signal in [signal, Signal::CONT] {
            // Those that are gone are no concern.
            let _ = kill_process_group(self.leader, signal);
            signal_marked(&self.mark, signal);
        }
    }

    /// Signals all processes of the command but the first, as far as they are found.
    pub(crate) fn signal_others(&self, signal: Signal) {
        for (pid, process) in marked(&self.mark) {
            if pid != self.leader {
                let _ = pidfd_send_signal(&process, signal);
                let _ = pidfd_send_signal(&process, Signal::CONT);
            }
        }
    }

    /// Returns whether no process of the command is left, as far as can be told.
    pub(crate) fn is_gone(&self) -> bool {
        test_kill_process_group(self.leader).is_err() && marked(&self.mark).is_empty()
    }
}

fn signal_marked(prefix: &str, signal: Signal) {
    for (_, process) in marked(prefix) {
        let _ = pidfd_send_signal(process, signal);
    }
}

/// Returns the processes whose mark begins with `prefix`, by looking at all there are. None without `/proc`.
fn marked(prefix: &str) -> Vec<(Pid, OwnedFd)> {
    let wanted = format!("{MARK}={prefix}");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_marked = |entry: fs::DirEntry| {
        let pid = entry
            .file_name()
            .to_str()?
            .parse()
            .ok()
            .and_then(Pid::from_raw)?;
        // Opened first: if it still is what is meant when its environment is read, it is what is
        // signalled.
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        variables
            .any(|variable| variable.starts_with(wanted.as_bytes()))
            .then_some((pid, process))
    };
    entries.filter_map(is_marked).collect()
}
