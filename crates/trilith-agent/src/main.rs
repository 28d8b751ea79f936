//! The small server inside an image: runs commands, moves files and reads git repositories over
//! HTTP, in the words that the remote workspace of `OpenHands`' SDK speaks. `docs/agent.md` is its contract.
//!
//! One static program that needs nothing of the image, not even a shell. It is the first process
//! of a container, or behaves as if it were. It does nothing for whoever has not the key.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a program, and says where it listens and why it ends"
)]

mod bash;
mod command;
mod document;
mod events;
mod failure;
mod files;
mod git;
mod id;
mod key;
mod options;
mod process;
mod server;
mod spool;
mod time;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Signal, getpid, set_child_subreaper, set_dumpable_behavior,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use command::Commands;
use events::Events;
use files::Root;
use key::Keys;
use options::{Options, Request, USAGE};
use process::Children;
use server::Agent;
use spool::Spool;

/// How long commands have to end when the agent is to end.
const GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Request::Serve(options)) => options,
        Ok(Request::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Request::Version) => {
            println!("trilith-agent {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprintln!("error: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    // Nobody without the right to trace may look into the memory or the environment of the agent.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| format!("cannot hide memory: {error}"))?;
    let text = load_keys(options)?;
    let keys = Keys::parse(&text).ok_or(
        "there is no key: give --key-file, or set OH_SESSION_API_KEYS_0 or SESSION_API_KEY",
    )?;
    if holds_secrets() {
        restart_without_secrets(options, &text)?;
    }
    drop(text);
    set_child_subreaper(Some(getpid()))
        .map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .thread_stack_size(256 << 10)
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(serve(options, keys))
}

/// Reads the keys, one in each line.
fn load_keys(options: &Options) -> Result<Vec<u8>, String> {
    let Some(path) = &options.key_file else {
        let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let variables = variables.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        return Ok(key::from_variables(&variables));
    };
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| format!("cannot read the key from `{}`: {error}", path.display()))
}

fn holds_secrets() -> bool {
    std::env::vars_os().any(|(name, _)| key::is_secret(name.as_bytes()))
}

/// Becomes the same program without keys in its environment, where `/proc/PID/environ` would
/// show them to whoever may look. Without `/proc` nothing is shown, and nothing is done.
fn restart_without_secrets(options: &Options, keys: &[u8]) -> Result<(), String> {
    let Ok(program) = std::env::current_exe() else {
        return Ok(());
    };
    let wrap = |error: io::Error| format!("cannot start again: {error}");
    let (reader, mut writer) = io::pipe().map_err(wrap)?;
    // What does not fit into a pipe is no key.
    if keys.len() > 4096 {
        return Err("the keys are longer than 4096 bytes".to_owned());
    }
    writer.write_all(keys).map_err(wrap)?;
    drop(writer);
    let mut command = Command::new(program);
    command
        .args(options.with_key_on_stdin())
        .stdin(Stdio::from(reader));
    for (name, _) in std::env::vars_os() {
        if key::is_secret(name.as_bytes()) {
            command.env_remove(name);
        }
    }
    Err(wrap(command.exec()))
}

async fn serve(options: &Options, keys: Keys) -> Result<(), String> {
    let wrap = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
    let children = Children::new().map_err(wrap("get random numbers"))?;
    let events = Events::new(Spool::new(&spool_dirs()));
    let commands = Arc::new(Commands::new(events, children));
    let mut signals = Signals::new().map_err(wrap("handle signals"))?;
    let root = match &options.root {
        Some(path) => Root::below(path).map_err(wrap("use the root (it needs Linux 5.6)"))?,
        None => Root::everything(),
    };
    let address = (options.host, options.port);
    let listener = TcpListener::bind(address).await.map_err(wrap("listen"))?;
    let address = listener.local_addr().map_err(wrap("listen"))?;
    let router = server::router(Agent::new(keys, Arc::clone(&commands), root));
    // In one piece: some engines keep what comes in several as several lines.
    let listening = format!("listening on http://{address}\n");
    eprint!("{listening}");
    tokio::select! {
        never = server::serve(listener, router) => match never {},
        () = signals.handle(&commands.children) => {}
    }
    signals.end(&commands.children).await;
    Ok(())
}

/// Returns where output may be kept, the best place first.
fn spool_dirs() -> Vec<PathBuf> {
    let own = std::env::var_os("TMPDIR").map(PathBuf::from);
    let usual = ["/tmp", "/var/tmp"].map(PathBuf::from);
    own.into_iter()
        .filter(|dir| dir.is_absolute())
        .chain(usual)
        .collect()
}

/// The signals that are not left to the system.
struct Signals {
    child: tokio::signal::unix::Signal,
    forwarded: [(tokio::signal::unix::Signal, Signal); 6],
}

impl Signals {
    fn new() -> io::Result<Self> {
        let listen = |kind, number| signal(kind).map(|stream| (stream, number));
        Ok(Self {
            child: signal(SignalKind::child())?,
            forwarded: [
                listen(SignalKind::terminate(), Signal::TERM)?,
                listen(SignalKind::interrupt(), Signal::INT)?,
                listen(SignalKind::quit(), Signal::QUIT)?,
                listen(SignalKind::hangup(), Signal::HUP)?,
                listen(SignalKind::user_defined1(), Signal::USR1)?,
                listen(SignalKind::user_defined2(), Signal::USR2)?,
            ],
        })
    }

    /// Waits for children and passes signals on, until one ends the agent.
    async fn handle(&mut self, children: &Children) {
        loop {
            let [term, int, quit, hup, usr1, usr2] = &mut self.forwarded;
            let received = tokio::select! {
                _ = self.child.recv() => None,
                _ = term.0.recv() => Some(term.1),
                _ = int.0.recv() => Some(int.1),
                _ = quit.0.recv() => Some(quit.1),
                _ = hup.0.recv() => Some(hup.1),
                _ = usr1.0.recv() => Some(usr1.1),
                _ = usr2.0.recv() => Some(usr2.1),
            };
            children.reap();
            if let Some(signal) = received {
                children.signal_all(signal);
                if matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT) {
                    return;
                }
            }
        }
    }

    /// Ends what still runs: asked with SIGTERM, killed after a while.
    async fn end(&mut self, children: &Children) {
        children.signal_all(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while !children.is_empty() && Instant::now() < deadline {
            tokio::select! {
                _ = self.child.recv() => {}
                () = sleep(Duration::from_millis(50)) => {}
            }
            children.reap();
        }
        children.signal_all(Signal::KILL);
        children.reap();
    }
}
