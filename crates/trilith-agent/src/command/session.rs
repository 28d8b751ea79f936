//! Sessions: shells that stay, and with them the directory, the variables and the functions that
//! commands leave behind.
//!
//! A shell reads commands from a pipe, one at a time, and says behind each, on both streams, that
//! it is over: a mark that nobody can guess, and the exit code. What a job in the background
//! prints between two commands belongs to the second.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memchr::memmem;
use rustix::process::Signal;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until, timeout};

use super::recorder::{Recorder, Stream};
use super::run::{Commands, GRACE, Running, exit, readable, try_read, write};
use super::{Request, no_shell, quoted, shell};
use crate::events::Event;
use crate::failure::{Failure, Outcome};
use crate::id::Id;
use crate::process::{Child, Group, Program};

/// How many sessions there may be.
const SESSIONS: usize = 64;

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<Id, Session>>);

#[derive(Debug)]
struct Session {
    group: Group,
    /// Locked while a command runs.
    shell: Arc<AsyncMutex<Child>>,
}

impl Sessions {
    /// Starts a shell in the directory and with the variables of `request`.
    pub(crate) async fn open(&self, commands: &Commands, request: &Request) -> Outcome<Id> {
        let status = axum::http::StatusCode::NOT_IMPLEMENTED;
        let shell = shell().ok_or_else(|| Failure::new(status, no_shell()))?;
        let id = Id::random().map_err(Failure::internal)?;
        if self.all().len() >= SESSIONS {
            let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
            return Err(Failure::new(
                status,
                format!("there are {SESSIONS} sessions already"),
            ));
        }
        let program = Program {
            argv: vec![shell.to_owned()],
            cwd: request.cwd.clone(),
            env: request.env.clone().into_iter().collect(),
            stdin: true,
            command: id,
        };
        let child = commands.children.spawn(program).await;
        let child =
            child.map_err(|error| Failure::bad(format!("cannot start a shell: {error}")))?;
        let group = child.group.clone();
        let shell = Arc::new(AsyncMutex::new(child));
        self.all().insert(id, Session { group, shell });
        Ok(id)
    }

    /// Returns the identifiers of all.
    pub(crate) fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = self.all().keys().copied().collect();
        ids.sort();
        ids
    }

    /// Returns the session `id` for a command of its own; it does one at a time.
    pub(crate) fn take(&self, id: Id) -> Outcome<OwnedMutexGuard<Child>> {
        let shell = self
            .all()
            .get(&id)
            .map(|session| Arc::clone(&session.shell));
        let shell = shell.ok_or_else(no_session)?;
        shell
            .try_lock_owned()
            .map_err(|_| Failure::conflict("the session is busy"))
    }

    /// Ends the session `id` and all that it runs.
    pub(crate) fn close(&self, id: Id) -> Outcome<()> {
        let session = self.all().remove(&id).ok_or_else(no_session)?;
        session.group.signal(Signal::KILL);
        Ok(())
    }

    fn forget(&self, id: Id) {
        self.all().remove(&id);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Id, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_session() -> Failure {
    Failure::not_found("there is no such session")
}

impl Commands {
    /// Starts a command in a session and returns its event.
    pub(crate) fn start_in(self: &Arc<Self>, session: Id, request: Request) -> Outcome<Event> {
        let shell = self.sessions.take(session)?;
        let Some(command) = request.command.clone() else {
            return Err(Failure::invalid("a session needs a `command`"));
        };
        if request.attached {
            return Err(Failure::invalid(
                "a session keeps its output; `attached` is not for it",
            ));
        }
        let patience = request.timeout;
        let start = |commands: Arc<Self>, recorder: Recorder, running: Arc<Running>| async move {
            let talk = Talk::new(shell, recorder, Duration::from_secs_f64(patience));
            if !talk.run(&command, &running.stop).await? {
                commands.sessions.forget(session);
            }
            Ok(())
        };
        self.register(request, start)
    }
}

/// One command in a session.
struct Talk {
    shell: OwnedMutexGuard<Child>,
    recorder: Recorder,
    stdout: Scanner,
    stderr: Scanner,
    patience: Duration,
}

impl Talk {
    fn new(shell: OwnedMutexGuard<Child>, recorder: Recorder, patience: Duration) -> Self {
        let (stdout, stderr) = (Scanner::default(), Scanner::default());
        Self {
            shell,
            recorder,
            stdout,
            stderr,
            patience,
        }
    }

    /// Runs `command` and returns whether the session goes on.
    async fn run(mut self, command: &str, stop: &Notify) -> io::Result<bool> {
        let mark = Id::random()?;
        let needle = format!("\u{1e}{mark} ").into_bytes();
        self.stdout.needle.clone_from(&needle);
        self.stderr.needle = needle;
        // With `command` a mistake in the text does not end the shell.
        let script = format!(
            "command eval {} </dev/null\nset -- $?; \
             printf '\\036%s %s\\036' {mark} $1; printf '\\036%s %s\\036' {mark} $1 >&2; set --\n",
            quoted(command),
        );
        let deadline = Instant::now() + self.patience;
        let sent = match &self.shell.stdin {
            Some(stdin) => timeout(self.patience, write(stdin, script.as_bytes())).await,
            None => Ok(Err(io::ErrorKind::BrokenPipe.into())),
        };
        if !matches!(sent, Ok(Ok(()))) {
            self.shell.group.signal(Signal::KILL);
            let note = Some("the session takes no commands any more".to_owned());
            self.recorder.finish(-1, note).await?;
            return Ok(false);
        }
        let (cause, code) = self.listen(deadline, stop).await;
        let note = match cause {
            Some(Cause::Timeout) => Some(format!(
                "Command timed out after {} seconds",
                self.patience.as_secs_f64()
            )),
            _ => None,
        };
        let both = self.stdout.status.is_some() && self.stderr.status.is_some();
        let code = if note.is_some() { -1 } else { code };
        self.recorder.finish(code, note).await?;
        Ok(both)
    }

    /// Reads until the shell says that the command is over, or is over itself.
    async fn listen(&mut self, deadline: Instant, stop: &Notify) -> (Option<Cause>, i32) {
        let mut cause = None;
        let mut timer = deadline;
        // What is done when the time is up: asked, killed, and then the shell itself.
        let mut steps = [Step::Ask, Step::Kill, Step::End].into_iter();
        loop {
            let wake = self.recorder.due().map_or(timer, |due| due.min(timer));
            let mut code = None;
            let shell = &mut *self.shell;
            tokio::select! {
                biased;
                status = exit(Some(&mut shell.exit)) => code = Some(status),
                () = sleep_until(wake) => {}
                () = stop.notified() => {
                    cause.get_or_insert(Cause::Stopped);
                    timer = Instant::now();
                }
                () = readable(Some(&shell.stdout)), if self.stdout.status.is_none() => {}
                () = readable(Some(&shell.stderr)), if self.stderr.status.is_none() => {}
            }
            let open = self.read();
            if let (Some(status), Some(_)) = (self.stdout.status, self.stderr.status) {
                return (cause, status);
            }
            if code.is_some() || !open {
                // Who closes both streams is about to end; what it ends with comes behind.
                let shell = &mut *self.shell;
                let code = match code {
                    Some(code) => code,
                    None => timeout(GRACE, exit(Some(&mut shell.exit)))
                        .await
                        .unwrap_or(-1),
                };
                shell.group.signal(Signal::KILL);
                return (cause, code);
            }
            let now = Instant::now();
            if self.recorder.is_full() || self.recorder.due().is_some_and(|due| due <= now) {
                // See `Life::live`.
                let _ = self.recorder.seal().await;
            }
            if now >= timer {
                cause.get_or_insert(Cause::Timeout);
                timer = now + GRACE;
                match steps.next() {
                    Some(Step::Ask) => self.shell.group.signal_others(Signal::TERM),
                    Some(Step::Kill) => self.shell.group.signal_others(Signal::KILL),
                    Some(Step::End) => self.shell.group.signal(Signal::KILL),
                    None => return (cause, -1),
                }
            }
        }
    }

    /// Reads what there is; false when the shell has closed its streams.
    fn read(&mut self) -> bool {
        let shell = &*self.shell;
        let mut open = true;
        for (pipe, scanner, stream) in [
            (&shell.stdout, &mut self.stdout, Stream::Stdout),
            (&shell.stderr, &mut self.stderr, Stream::Stderr),
        ] {
            if scanner.status.is_some() {
                continue;
            }
            let recorder = &mut self.recorder;
            open &= try_read(pipe, |bytes| recorder.push(stream, &scanner.push(bytes)));
        }
        open
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Timeout,
    Stopped,
}

enum Step {
    Ask,
    Kill,
    End,
}

/// Looks for the mark in a stream.
#[derive(Debug, Default)]
struct Scanner {
    needle: Vec<u8>,
    pending: Vec<u8>,
    status: Option<i32>,
}

impl Scanner {
    /// Takes bytes and returns those that are certainly of the command.
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let found = memmem::find(&self.pending, &self.needle);
        let end = found.unwrap_or_else(|| {
            let longest = self.pending.len().min(self.needle.len());
            let is_start = |length: &usize| self.pending.ends_with(&self.needle[..*length]);
            self.pending.len() - (1..=longest).rev().find(is_start).unwrap_or(0)
        });
        let rest = self.pending.split_off(end);
        let data = std::mem::replace(&mut self.pending, rest);
        if found.is_some() {
            let status = &self.pending[self.needle.len()..];
            if let Some(end) = memchr::memchr(0x1e, status) {
                let status = std::str::from_utf8(&status[..end]).ok();
                self.status = Some(status.and_then(|text| text.parse().ok()).unwrap_or(-1));
                self.pending.clear();
            }
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_mark_is_found_however_it_is_cut(
            data in prop::collection::vec(prop_oneof![Just(0x1e), Just(b'm'), any::<u8>()], 0..50),
            size in 1..10_usize,
        ) {
            prop_assume!(memmem::find(&data, b"\x1emark ").is_none());
            let mut scanner = Scanner { needle: b"\x1emark ".to_vec(), ..Scanner::default() };
            let stream = [&data[..], b"\x1emark 42\x1e"].concat();
            let found: Vec<u8> = stream.chunks(size).flat_map(|piece| scanner.push(piece)).collect();
            prop_assert_eq!(found, data);
            prop_assert_eq!(scanner.status, Some(42));
        }
    }
}
