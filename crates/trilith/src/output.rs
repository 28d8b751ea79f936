//! What the user sees: results on stdout, progress, warnings and errors on stderr.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use trilith_build::Event;
use trilith_build::engine::EngineError;
use trilith_oci::Kind;

use crate::args::{Format, Global};

/// Where and how to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            format: global.format,
            quiet: global.quiet,
        }
    }

    /// Prints the result: `text` for people, `json` for programs.
    pub(crate) fn result(
        self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text => Self::print(text().as_bytes()),
            Format::Json => {
                let mut document =
                    serde_json::to_vec(json).map_err(|e| Failure::system("cannot print", e))?;
                document.push(b'\n');
                Self::print(&document)
            }
        }
    }

    /// Prints bytes as they are.
    pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // Whoever closed the pipe, as `head` does, has seen what they wanted.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::system("cannot write to stdout", error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints a line about what is going on.
    pub(crate) fn note(self, line: &str) {
        if !self.quiet {
            to_stderr(line);
        }
    }

    /// Prints what happens in a build.
    pub(crate) fn event(self, event: &Event<'_>) {
        match event {
            Event::Warning(text) => self.note(&format!("warning: {text}")),
            Event::Planned(plan) => {
                for reason in &plan.reasons {
                    self.note(&format!("plan: {reason}"));
                }
            }
            Event::Layer {
                level,
                title,
                size,
                reused,
            } => {
                let verb = if *reused { "reused" } else { "wrote" };
                self.note(&format!("{verb} {level} layer, {title}, {}", bytes(*size)));
            }
            Event::Waiting { reference } => {
                self.note(&format!("waiting for another build of {reference}"));
            }
            Event::Publishing { place } => self.note(&format!("publishing to {place}")),
            _ => {}
        }
    }

    /// Prints the error with its causes and what to do next, and returns the exit code.
    pub(crate) fn fail(failure: &Failure) -> ExitCode {
        let mut text = format!("error: {}", failure.error);
        for line in &failure.log {
            let _infallible = write!(text, "\n  | {line}");
        }
        let mut source = failure.error.source();
        while let Some(cause) = source {
            let _infallible = write!(text, "\n  caused by: {cause}");
            source = cause.source();
        }
        if let Some(hint) = &failure.hint {
            let _infallible = write!(text, "\n  hint: {hint}");
        }
        to_stderr(&text);
        ExitCode::from(failure.exit_code)
    }
}

fn to_stderr(line: &str) {
    // With stderr gone there is nobody left to tell.
    let _closed = writeln!(std::io::stderr().lock(), "{line}");
}

/// A failure with what the user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<dyn std::error::Error + Send + Sync>,
    hint: Option<String>,
    exit_code: u8,
    /// The end of what a failing step wrote.
    log: Vec<String>,
}

/// The exit codes: 0 is done.
const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const PARTLY_FAILED: u8 = 3;

/// The one table from kinds of failure to exit codes.
fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Usage => WRONG_USAGE,
        Kind::NotFound | Kind::Denied | Kind::Unavailable | Kind::Corrupt | Kind::System => FAILED,
    }
}

impl Failure {
    /// The exit code of a process that is ended before it is done.
    pub(crate) const INTERRUPTED: u8 = FAILED;

    /// Returns the failure of `failed` of the `images` of a batch.
    pub(crate) fn partly(failed: usize, images: usize) -> Self {
        Self {
            error: format!("{failed} of {images} images failed").into(),
            hint: Some("the same command with `--resume` tries them again".to_owned()),
            exit_code: PARTLY_FAILED,
            log: Vec::new(),
        }
    }

    /// Returns a failure of this process rather than of what was asked.
    pub(crate) fn system(
        what: &str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let error = format!("{what}: {error}");
        Self {
            error: error.into(),
            hint: None,
            exit_code: FAILED,
            log: Vec::new(),
        }
    }

    /// Returns a failure of the command line.
    pub(crate) fn usage(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            error: error.into(),
            hint: None,
            exit_code: WRONG_USAGE,
            log: Vec::new(),
        }
    }
}

impl From<trilith_build::Error> for Failure {
    fn from(error: trilith_build::Error) -> Self {
        Self {
            hint: error.hint(),
            exit_code: exit_code(error.kind()),
            log: match &error {
                trilith_build::Error::Engine(EngineError::Step { log, .. }) => log.clone(),
                _ => Vec::new(),
            },
            error: Box::new(error),
        }
    }
}

impl From<trilith_workspace::Error> for Failure {
    fn from(error: trilith_workspace::Error) -> Self {
        Self {
            hint: error.hint(),
            exit_code: exit_code(error.kind()),
            log: error.log().to_vec(),
            error: Box::new(error),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        trilith_build::Error::from(error).into()
    }
}

impl From<trilith_oci::Error> for Failure {
    fn from(error: trilith_oci::Error) -> Self {
        trilith_build::Error::from(error).into()
    }
}

impl From<trilith_core::HashError> for Failure {
    fn from(error: trilith_core::HashError) -> Self {
        trilith_build::Error::from(error).into()
    }
}

impl From<trilith_build::project::ProjectError> for Failure {
    fn from(error: trilith_build::project::ProjectError) -> Self {
        trilith_build::Error::from(error).into()
    }
}

/// Returns a size for people, in units of 1000 with one decimal: `2.1 MB`.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if size < 1000 {
        return format!("{size} B");
    }
    let mut tenths = size / 100;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (2_149_000, "2.1 MB"),
            (999_999, "999.9 kB"),
            (5_000_000_000, "5.0 GB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }
}
