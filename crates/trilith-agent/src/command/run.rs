//! The life of a command: started, read from, ended in time, and its last event written.
//!
//! A command has ended when the process that was started has, whatever it left running in the background;
//! what that prints later is read and thrown away, so that it can go on.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::recorder::{Recorder, Stream};
use super::{Request, no_shell, shell};
use crate::events::{Event, Events, finished};
use crate::failure::{Failure, Outcome};
use crate::id::Id;
use crate::process::{Child, Children, Exit, Group, Program};

/// How long a command has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// How much is read at once, in bytes.
const READ: usize = 16 << 10;

/// How many commands may run at a time.
const RUNNING: usize = 1024;

/// All commands: those that run, and the events of all.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) events: Arc<Events>,
    pub(crate) children: Arc<Children>,
    running: Mutex<HashMap<Id, Arc<Running>>>,
}

/// What can be done with a command that runs.
#[derive(Debug, Default)]
pub(crate) struct Running {
    stop: Notify,
    /// Present between the start and the end of standard input.
    stdin: AsyncMutex<Option<pipe::Sender>>,
}

impl Running {
    /// Writes `bytes` to the command, as fast as it reads.
    pub(crate) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let stdin = self.stdin.lock().await;
        let Some(pipe) = stdin.as_ref() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        while !bytes.is_empty() {
            pipe.writable().await?;
            match pipe.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends standard input.
    pub(crate) async fn close(&self) {
        *self.stdin.lock().await = None;
    }
}

impl Commands {
    pub(crate) fn new(events: Events, children: Children) -> Self {
        Self {
            events: Arc::new(events),
            children: Arc::new(children),
            running: Mutex::default(),
        }
    }

    /// Starts a command and returns its event. Whether it could be started is in its output.
    pub(crate) fn start(self: &Arc<Self>, request: Request) -> Outcome<Event> {
        let id = Id::random().map_err(Failure::internal)?;
        let running = Arc::new(Running::default());
        {
            let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= RUNNING {
                let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
                return Err(Failure::new(
                    status,
                    format!("{RUNNING} commands run already"),
                ));
            }
            all.insert(id, Arc::clone(&running));
        }
        let request = Arc::new(request);
        let event = self.events.start(id, Arc::clone(&request));
        let commands = Arc::clone(self);
        tokio::spawn(async move {
            let recorder = Recorder::new(Arc::clone(&commands.events), id);
            // A failure to record is one of the random number generator; nobody is to be told.
            let _ = commands.run(id, &request, &running, recorder).await;
            let mut all = commands
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.remove(&id);
        });
        Ok(event)
    }

    /// Returns the command `id` if it runs.
    pub(crate) fn running(&self, id: Id) -> Option<Arc<Running>> {
        let all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).cloned()
    }

    /// Waits for the end of the command `id`.
    pub(crate) async fn wait(&self, id: Id) {
        if let Some(progress) = self.events.progress(id) {
            finished(progress).await;
        }
    }

    /// Ends the command `id` and waits for its end; false when there is none.
    pub(crate) async fn stop(&self, id: Id) -> bool {
        if let Some(running) = self.running(id) {
            running.stop.notify_one();
            self.wait(id).await;
            return true;
        }
        self.events.progress(id).is_some()
    }

    async fn run(
        &self,
        id: Id,
        request: &Request,
        running: &Running,
        recorder: Recorder,
    ) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs_f64(request.timeout);
        let argv = match (&request.command, &request.argv, shell()) {
            (Some(command), _, Some(shell)) => vec![shell.into(), "-c".into(), command.clone()],
            (Some(_), _, None) => return recorder.finish(127, Some(no_shell())).await,
            (None, argv, _) => argv.clone().unwrap_or_default(),
        };
        let program = Program {
            argv,
            cwd: request.cwd.clone(),
            env: request.env.clone().into_iter().collect(),
            stdin: request.stdin,
            command: id,
        };
        // Standard input that comes early waits for the pipe.
        let mut stdin = running.stdin.lock().await;
        let mut child = match self.children.spawn(program.clone()).await {
            Ok(child) => child,
            Err(error) => {
                let (code, note) = cannot_start(&program, &error);
                return recorder.finish(code, Some(note)).await;
            }
        };
        *stdin = child.stdin.take();
        drop(stdin);
        let ended = Life::new(child, recorder, deadline)
            .live(&running.stop)
            .await;
        running.close().await;
        ended.finish(request.timeout).await
    }
}

/// Returns the exit code that a shell would give, and why `program` cannot be started.
fn cannot_start(program: &Program, error: &io::Error) -> (Exit, String) {
    let name = program.argv.first().map_or("", String::as_str);
    if let Some(cwd) = program.cwd.as_deref()
        && let Err(error) = std::fs::read_dir(cwd)
    {
        return (126, format!("cannot start in directory `{cwd}`: {error}"));
    }
    let code = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    (code, format!("cannot start `{name}`: {error}"))
}

/// What is being done about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// It was asked to end, and is killed at this time.
    Asked(Instant),
    /// It was killed, and is given up at this time.
    Killed(Instant),
}

/// Why a command is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Timeout,
    Stopped,
}

struct Life {
    group: Group,
    exit: Option<oneshot::Receiver<Exit>>,
    code: Option<Exit>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    recorder: Recorder,
    deadline: Instant,
    phase: Phase,
    cause: Option<Cause>,
}

impl Life {
    fn new(child: Child, recorder: Recorder, deadline: Instant) -> Self {
        Self {
            group: child.group,
            exit: Some(child.exit),
            code: None,
            stdout: Some(child.stdout),
            stderr: Some(child.stderr),
            recorder,
            deadline,
            phase: Phase::Running,
            cause: None,
        }
    }

    /// Goes on until the command has ended, or cannot be ended.
    async fn live(mut self, stop: &Notify) -> Self {
        loop {
            let timer = self.timer();
            tokio::select! {
                biased;
                code = exit(self.exit.as_mut()) => {
                    self.exit = None;
                    self.code = Some(code);
                }
                () = sleep_until(timer) => {}
                () = stop.notified() => self.end(Cause::Stopped),
                () = readable(self.stdout.as_ref()) => {}
                () = readable(self.stderr.as_ref()) => {}
            }
            // Both, so that neither keeps the other from being read.
            read(&mut self.stdout, Stream::Stdout, &mut self.recorder);
            read(&mut self.stderr, Stream::Stderr, &mut self.recorder);
            let now = Instant::now();
            if self.recorder.is_full() || self.recorder.due().is_some_and(|due| due <= now) {
                // The generator of random numbers works, or nothing would have been started.
                let _ = self.recorder.seal().await;
            }
            if self.is_over(now) {
                return self;
            }
        }
    }

    /// Returns when to look after the command next.
    fn timer(&self) -> Instant {
        let deadline = match self.phase {
            Phase::Running => self.deadline,
            // Whether the rest of the group is gone is not told.
            Phase::Asked(at) | Phase::Killed(at) if self.code.is_some() => {
                at.min(Instant::now() + Duration::from_millis(10))
            }
            Phase::Asked(at) | Phase::Killed(at) => at,
        };
        self.recorder
            .due()
            .map_or(deadline, |due| due.min(deadline))
    }

    fn end(&mut self, cause: Cause) {
        if self.phase == Phase::Running {
            self.cause = Some(cause);
            self.group.signal(Signal::TERM);
            self.phase = Phase::Asked(Instant::now() + GRACE);
        }
    }

    /// Does what the time demands and returns whether nothing more is to be waited for.
    fn is_over(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Running if self.code.is_some() => return true,
            Phase::Running if now >= self.deadline => self.end(Cause::Timeout),
            Phase::Running => {}
            _ if self.code.is_some() && self.group.is_gone() => return true,
            Phase::Asked(at) if now >= at => {
                self.group.signal(Signal::KILL);
                self.phase = Phase::Killed(now + GRACE);
            }
            Phase::Asked(_) => {}
            Phase::Killed(at) => return now >= at,
        }
        false
    }

    /// Reads what is still in the pipes and writes the last event.
    async fn finish(mut self, timeout: f64) -> io::Result<()> {
        drain(self.stdout.as_ref(), Stream::Stdout, &mut self.recorder);
        drain(self.stderr.as_ref(), Stream::Stderr, &mut self.recorder);
        for pipe in [self.stdout.take(), self.stderr.take()]
            .into_iter()
            .flatten()
        {
            tokio::spawn(discard(pipe));
        }
        let (code, note) = match (self.cause, self.code) {
            (None, code) => (code.unwrap_or(-1), None),
            (Some(Cause::Timeout), _) => (
                -1,
                Some(format!("Command timed out after {timeout} seconds")),
            ),
            (Some(Cause::Stopped), Some(code)) => (code, None),
            (Some(Cause::Stopped), None) => (-1, Some("Command could not be killed".to_owned())),
        };
        self.recorder.finish(code, note).await
    }
}

async fn exit(receiver: Option<&mut oneshot::Receiver<Exit>>) -> Exit {
    match receiver {
        // The sender is kept until the process has ended.
        Some(receiver) => receiver.await.unwrap_or(-1),
        None => pending().await,
    }
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error shows again when it is read.
        Some(pipe) => drop(pipe.readable().await),
        None => pending().await,
    }
}

/// Reads once; at the end the pipe is gone.
fn read(pipe: &mut Option<pipe::Receiver>, stream: Stream, recorder: &mut Recorder) {
    let mut buffer = [0; READ];
    match pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer)) {
        Some(Ok(length @ 1..)) => recorder.push(stream, &buffer[..length]),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
        _ => *pipe = None,
    }
}

/// Reads what is in the pipe now, and not what others go on to write.
///
/// Asks the system itself: the runtime may not have heard yet that there is something.
fn drain(pipe: Option<&pipe::Receiver>, stream: Stream, recorder: &mut Recorder) {
    let Some(pipe) = pipe else { return };
    let available = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
    let mut left = usize::try_from(available).unwrap_or(0);
    let mut buffer = [0; READ];
    while left > 0 {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(length @ 1..) => {
                recorder.push(stream, &buffer[..length]);
                left = left.saturating_sub(length);
            }
            _ => return,
        }
    }
}

/// Reads to the end.
async fn discard(pipe: pipe::Receiver) {
    let mut pipe = Some(pipe);
    while pipe.is_some() {
        readable(pipe.as_ref()).await;
        let mut buffer = [0; 4096];
        match pipe.as_ref().map(|pipe| pipe.try_read(&mut buffer)) {
            Some(Ok(1..)) => {}
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => pipe = None,
        }
    }
}
