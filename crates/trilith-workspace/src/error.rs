//! What can go wrong with a workspace.

use std::io;

use trilith_build::engine::EngineError;
use trilith_oci::Kind;

/// A failure of a workspace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The image cannot be brought to the engine.
    #[error(transparent)]
    Image(Box<trilith_build::Error>),
    /// The container ended before its agent answered.
    #[error("the container of `{image}` ended before its agent answered: exit code {code}{}", if *.out_of_memory { ", out of memory" } else { "" })]
    Died {
        /// The image.
        image: String,
        /// The exit code of its first process.
        code: i64,
        /// Whether the kernel ended something for want of memory.
        out_of_memory: bool,
        /// The end of what it wrote.
        log: Vec<String>,
    },
    /// The agent did not answer in time.
    #[error("the agent in the container of `{image}` did not answer within {seconds} s")]
    Silent {
        /// The image.
        image: String,
        /// How long it was waited for, in seconds.
        seconds: f64,
        /// The end of what the container wrote.
        log: Vec<String>,
    },
    /// Somebody wanted it to end before it was there.
    #[error("interrupted; the container is removed")]
    Interrupted,
    /// No workspace has such a name.
    #[error("there is no workspace `{0}`")]
    Missing(String),
    /// Several workspaces have ids that begin so.
    #[error("several workspaces have an id that begins with `{0}`")]
    Ambiguous(String),
    /// The workspace of this name is frozen, so that nothing in it answers.
    #[error("the workspace `{0}` is paused")]
    Paused(String),
    /// What was asked for can never be.
    #[error("{0}")]
    Usage(String),
    /// A workspace of this kind is not able to.
    #[error("{workspace} cannot be {operation}")]
    Unable {
        /// As in `a remote workspace`.
        workspace: &'static str,
        /// As in `paused`.
        operation: &'static str,
    },
    /// The agent refused, failed or went away.
    #[error("the agent failed to {operation}: {reason}")]
    Agent {
        /// As in `run a command`.
        operation: &'static str,
        /// What it says.
        reason: String,
    },
    /// This machine.
    #[error("cannot {operation}")]
    System {
        /// As in ``read `path` ``.
        operation: String,
        /// Why.
        source: io::Error,
    },
}

impl From<trilith_build::Error> for Error {
    fn from(error: trilith_build::Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl Error {
    pub(crate) fn system(operation: impl Into<String>, source: io::Error) -> Self {
        Self::System {
            operation: operation.into(),
            source,
        }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Missing(_) => Kind::NotFound,
            Self::Ambiguous(_) | Self::Paused(_) | Self::Usage(_) | Self::Unable { .. } => {
                Kind::Usage
            }
            Self::Agent { .. } | Self::Silent { .. } => Kind::Unavailable,
            Self::Died { .. } | Self::Interrupted | Self::System { .. } => Kind::System,
        }
    }

    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some("`trilith ps` lists them".to_owned()),
            Self::Ambiguous(_) => Some("write more of it".to_owned()),
            Self::Paused(name) => Some(format!("`trilith resume {name}` lets it go on")),
            Self::Image(error) => error.hint(),
            _ => None,
        }
    }

    /// Returns the end of what the container wrote.
    #[must_use]
    pub fn log(&self) -> &[String] {
        match self {
            Self::Died { log, .. } | Self::Silent { log, .. } => log,
            _ => &[],
        }
    }
}
