//! The life of a command: started, read from, ended in time, and its last event written.
//!
//! A command has ended when the process that was started has, whatever it left running in the background;
//! what that prints later is read and thrown away, so that it can go on.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::recorder::{Recorder, Stream};
use super::session::Sessions;
use super::{Request, no_shell, shell};
use crate::events::{Event, Events, finished};
use crate::failure::{Failure, Outcome};
use crate::id::Id;
use crate::process::{Child, Children, Exit, Group, Program};

/// How long a command has between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// How much is read at once, in bytes.
const READ: usize = 16 << 10;

/// How long those who are to read an attached command are waited for.
const ATTACHING: Duration = Duration::from_secs(30);

/// How many commands may run at a time.
const RUNNING: usize = 1024;

/// All commands: those that run, and the events of all.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) events: Arc<Events>,
    pub(crate) children: Arc<Children>,
    pub(crate) sessions: Sessions,
    running: Mutex<HashMap<Id, Arc<Running>>>,
}

/// What can be done with a command that runs.
#[derive(Debug, Default)]
pub(crate) struct Running {
    pub(super) stop: Notify,
    stdin: watch::Sender<Stdin>,
}

#[derive(Clone, Debug, Default)]
enum Stdin {
    /// The command is not started yet.
    #[default]
    Early,
    Open(Arc<pipe::Sender>),
    Closed,
}

impl From<Option<pipe::Sender>> for Stdin {
    fn from(pipe: Option<pipe::Sender>) -> Self {
        pipe.map_or(Self::Closed, |pipe| Self::Open(Arc::new(pipe)))
    }
}

impl Running {
    /// Writes `bytes` to the command, as fast as it reads.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdin = self.stdin.subscribe();
        let stdin = stdin.wait_for(|stdin| !matches!(stdin, Stdin::Early)).await;
        // Not kept locked, or it could not be closed.
        let stdin = stdin.map(|stdin| stdin.clone()).map_err(io::Error::other)?;
        match stdin {
            Stdin::Open(pipe) => write(&pipe, bytes).await,
            Stdin::Early | Stdin::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends standard input, once what is being written to it is written.
    pub(crate) fn close(&self) {
        self.stdin.send_replace(Stdin::Closed);
    }
}

/// Writes all of `bytes`, as fast as they are read.
pub(super) async fn write(pipe: &pipe::Sender, mut bytes: &[u8]) -> io::Result<()> {
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

impl Commands {
    pub(crate) fn new(events: Events, children: Children) -> Self {
        Self {
            events: Arc::new(events),
            children: Arc::new(children),
            sessions: Sessions::default(),
            running: Mutex::default(),
        }
    }

    /// Starts a command and returns its event. Whether it could be started is in its output.
    pub(crate) fn start(self: &Arc<Self>, request: Request) -> Outcome<Event> {
        let own = request.clone();
        let is_attached = request.attached;
        let event = self.register(request, async move |commands, recorder, running| {
            commands.run(&own, &running, recorder).await
        })?;
        if is_attached {
            let (events, command) = (Arc::clone(&self.events), event.id);
            tokio::spawn(async move {
                sleep(ATTACHING).await;
                events.give_readers_up(command);
            });
        }
        Ok(event)
    }

    /// Records a command and has `live` live its life.
    pub(super) fn register<F, L>(self: &Arc<Self>, request: Request, live: L) -> Outcome<Event>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
        L: FnOnce(Arc<Self>, Recorder, Arc<Running>) -> F,
    {
        let id = Id::random().map_err(Failure::internal)?;
        let running = Arc::new(Running::default());
        {
            let mut all = self.running();
            if all.len() >= RUNNING {
                let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
                let reason = format!("{RUNNING} commands run already");
                return Err(Failure::new(status, reason));
            }
            all.insert(id, Arc::clone(&running));
        }
        let event = self.events.start(id, Arc::new(request));
        let recorder = Recorder::new(Arc::clone(&self.events), id);
        let lived = live(Arc::clone(self), recorder, running);
        let commands = Arc::clone(self);
        tokio::spawn(async move {
            // A failure to record is one of the random number generator; nobody is to be told.
            let _ = lived.await;
            commands.running().remove(&id);
        });
        Ok(event)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Id, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the command `id` if it runs.
    pub(crate) fn get(&self, id: Id) -> Option<Arc<Running>> {
        self.running().get(&id).cloned()
    }

    /// Waits for the end of the command `id`.
    pub(crate) async fn wait(&self, id: Id) {
        if let Some(progress) = self.events.progress(id) {
            finished(progress).await;
        }
    }

    /// Ends the command `id` and waits for its end; false when there is none.
    pub(crate) async fn stop(&self, id: Id) -> bool {
        if let Some(running) = self.get(id) {
            running.stop.notify_one();
            self.wait(id).await;
            return true;
        }
        self.events.progress(id).is_some()
    }

    async fn run(
        &self,
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
            command: recorder.command(),
        };
        let mut child = match self.children.spawn(program.clone()).await {
            Ok(child) => child,
            Err(error) => {
                let (code, note) = cannot_start(&program, &error);
                return recorder.finish(code, Some(note)).await;
            }
        };
        running.stdin.send_replace(Stdin::from(child.stdin.take()));
        let ended = Life::new(child, recorder, deadline)
            .live(&running.stop)
            .await;
        running.close();
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
    is_held: Option<watch::Receiver<bool>>,
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
            is_held: recorder.is_held(),
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
            let is_held = self.is_held.as_ref().is_some_and(|held| *held.borrow());
            tokio::select! {
                biased;
                code = exit(self.exit.as_mut()) => {
                    self.exit = None;
                    self.code = Some(code);
                }
                () = sleep_until(timer) => {}
                () = stop.notified() => self.end(Cause::Stopped),
                () = changed(self.is_held.as_mut()) => {}
                () = readable(self.stdout.as_ref()), if !is_held => {}
                () = readable(self.stderr.as_ref()), if !is_held => {}
            }
            if !is_held {
                // Both, so that neither keeps the other from being read.
                read(&mut self.stdout, Stream::Stdout, &mut self.recorder);
                read(&mut self.stderr, Stream::Stderr, &mut self.recorder);
            }
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

pub(super) async fn exit(receiver: Option<&mut oneshot::Receiver<Exit>>) -> Exit {
    match receiver {
        // The sender is kept until the process has ended.
        Some(receiver) => receiver.await.unwrap_or(-1),
        None => pending().await,
    }
}

async fn changed(receiver: Option<&mut watch::Receiver<bool>>) {
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    pending::<()>().await;
}

pub(super) async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error shows again when it is read.
        Some(pipe) => drop(pipe.readable().await),
        None => pending().await,
    }
}

/// Reads once; at the end the pipe is gone.
fn read(pipe: &mut Option<pipe::Receiver>, stream: Stream, recorder: &mut Recorder) {
    let take = |bytes: &[u8]| recorder.push(stream, bytes);
    if pipe.as_ref().is_some_and(|pipe| !try_read(pipe, take)) {
        *pipe = None;
    }
}

/// Reads once, if there is something, and returns whether there may be more.
pub(super) fn try_read(pipe: &pipe::Receiver, take: impl FnOnce(&[u8])) -> bool {
    let mut buffer = [0; READ];
    match pipe.try_read(&mut buffer) {
        Ok(length @ 1..) => {
            take(&buffer[..length]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        Ok(0) => false,
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
    loop {
        readable(Some(&pipe)).await;
        if !try_read(&pipe, |_| {}) {
            return;
        }
    }
}
