//! What can go wrong with an engine.

use std::path::{Path, PathBuf};

use trilith_oci::Kind;

use super::EngineKind;
use crate::build_context::BuildContextError;

/// A failure of an engine, or of a build on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nobody answers at its address.
    #[error("{engine} does not answer at `{address}`")]
    Unreachable {
        /// The engine.
        engine: EngineKind,
        /// Where it was looked for.
        address: String,
        /// Why, where there is more to say.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Of all engines, none answers.
    #[error("no engine answers: {}", join(reasons))]
    NoneAnswers {
        /// Why each of them does not.
        reasons: Vec<EngineError>,
    },
    /// A step failed.
    #[error("step `{step}` failed: {reason}")]
    Step {
        /// As in `[deps 2/3] RUN uv sync`.
        step: String,
        /// What the engine says, as in `exit code: 1`.
        reason: String,
        /// The last lines that it wrote, at most 50.
        log: Vec<String>,
    },
    /// The engine refused something or failed at it.
    #[error("{engine} failed to {operation} `{object}`: {reason}")]
    Failed {
        /// The engine.
        engine: EngineKind,
        /// As in `push`.
        operation: &'static str,
        /// On what.
        object: String,
        /// What it says, without secrets.
        reason: String,
        /// The kind of the failure.
        kind: Kind,
    },
    /// The engine cannot do what was asked.
    #[error("{engine} at `{address}` cannot {what}")]
    Unsupported {
        /// The engine.
        engine: EngineKind,
        /// Where it answers.
        address: String,
        /// As in `mount build secrets`.
        what: &'static str,
    },
    /// The engine went away in the middle.
    #[error("the connection to {engine} broke off while it was to {operation} `{object}`")]
    Lost {
        /// The engine.
        engine: EngineKind,
        /// What it was doing.
        operation: &'static str,
        /// On what.
        object: String,
        /// What the connection says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The build context.
    #[error(transparent)]
    Context(#[from] BuildContextError),
    /// A file of this machine.
    #[error("cannot {operation} `{}`", path.display())]
    Io {
        /// As in `read`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl EngineError {
    /// Returns a function that wraps an I/O error with what was tried on which path.
    pub(super) fn io(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } | Self::NoneAnswers { .. } | Self::Lost { .. } => {
                Kind::Unavailable
            }
            Self::Failed { kind, .. } => *kind,
            Self::Unsupported { .. } => Kind::Usage,
            Self::Context(error) => error.kind(),
            Self::Step { .. } | Self::Io { .. } => Kind::System,
        }
    }

    /// Returns whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoneAnswers { .. } | Self::Lost { .. } => true,
            Self::Context(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } | Self::NoneAnswers { .. } | Self::Unsupported { .. } => {
                Some("`trilith doctor` tells which engines answer and what each can do".to_owned())
            }
            Self::Context(error) => error.hint(),
            _ => None,
        }
    }
}

/// Returns the reasons in one line, each with its causes.
fn join(reasons: &[EngineError]) -> String {
    let reasons = reasons.iter().map(|reason| {
        let first: &dyn std::error::Error = reason;
        let causes = std::iter::successors(Some(first), |error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        causes.join(": ")
    });
    reasons.collect::<Vec<_>>().join("; ")
}
