//! The terminal of this process, given to a program in a workspace.

use std::os::unix::process::ExitStatusExt as _;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, stdin, stdout};
use tokio::signal::unix::{SignalKind, signal};
use trilith_build::engine::{Connection, Containers, Terminal, TerminalControl, TerminalRequest};

use crate::output::Failure;

/// Runs a program in this terminal until it ends, and returns its exit code.
pub(crate) async fn run(
    engine: &dyn Containers,
    id: &str,
    request: &TerminalRequest,
) -> Result<i32, Failure> {
    if !isatty(std::io::stdin()) {
        return Err(Failure::usage(
            "standard input is no terminal: leave out `--tty`",
        ));
    }
    match engine.terminal(id, request).await? {
        Terminal::Program(command) => {
            let status = tokio::process::Command::from(command).status().await;
            let status = status.map_err(|error| Failure::system("cannot run it", error))?;
            Ok(status
                .code()
                .or(status.signal().map(|signal| 128 + signal))
                .unwrap_or(1))
        }
        Terminal::Connected {
            connection,
            control,
        } => {
            let raw =
                Raw::enter().map_err(|error| Failure::system("cannot use the terminal", error))?;
            let passed = pass(connection, control.as_ref(), request.input).await;
            drop(raw);
            passed.map_err(|error| Failure::system("the terminal is gone", error))?;
            Ok(control.exit_code().await?)
        }
    }
}

/// Passes on what is typed, what is shown, and the size, until the program ends.
async fn pass(
    connection: Box<dyn Connection>,
    control: &dyn TerminalControl,
    input: bool,
) -> std::io::Result<()> {
    let (shown, typed) = tokio::io::split(connection);
    let mut resized = signal(SignalKind::window_change())?;
    let sizes = async {
        loop {
            if let Ok(size) = tcgetwinsize(std::io::stdout()) {
                // A program that has ended needs no size.
                let _ended = control.resize(size.ws_col, size.ws_row).await;
            }
            resized.recv().await;
        }
    };
    let typing = async {
        if input {
            // One that has ended reads nothing.
            let _ended = relay(stdin(), typed).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        shown = relay(shown, stdout()) => shown,
        () = typing => Ok(()),
        never = sizes => never,
    }
}

/// Passes bytes on as soon as they come.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// The terminal in raw mode, put back when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing put back.
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
