//! The one error type of this crate. What failed below is kept whole and passed through.

use std::path::PathBuf;

use trilith_core::{
    HashError, InputsDocumentError, InputsError, Level, PlanError, Reference, SchemeError,
};
use trilith_oci::Kind;
use trilith_oci::place::PlaceError;

use crate::project::{ProjectError, values::ValueError};

/// A failure to load, plan, build or explain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `trilith.toml` or another manifest of the project.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A value that overrides `trilith.toml`.
    #[error("invalid value for {option}")]
    Option {
        /// The option, as in `--expose`.
        option: &'static str,
        /// What is wrong with its value.
        source: ValueError,
    },
    /// A file or directory that is hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The tags cannot be made of what they are made of.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// The inputs have no unique names.
    #[error(transparent)]
    InputNames(#[from] InputsError),
    /// The base image is not named properly.
    #[error("the base image is not an image")]
    Base(#[source] PlaceError),
    /// The plan cannot be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An image, store or registry.
    #[error(transparent)]
    Oci(#[from] trilith_oci::Error),
    /// It cannot be told whether an image exists. That is never taken for absence.
    #[error("cannot tell whether the {level} image `{reference}` exists")]
    Existence {
        /// The level.
        level: Level,
        /// The image's name.
        reference: Box<Reference>,
        /// What was answered in place of yes or no.
        source: Box<trilith_oci::Error>,
    },
    /// Something that has to be known is said nowhere.
    #[error("{what} is not set")]
    Unset {
        /// What is missing, as in `the base image`.
        what: &'static str,
        /// How to set it.
        how: &'static str,
    },
    /// A lock file, source or layer payload of the recipe does not exist.
    #[error("{what} `{}` does not exist", path.display())]
    Missing {
        /// What it is, as in `layer payload`.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The openhands schemes hash one directory.
    #[error("scheme `{scheme}` hashes one source directory, not {count}")]
    Sources {
        /// The scheme.
        scheme: trilith_core::Scheme,
        /// How many the project has.
        count: usize,
    },
    /// The recipe is a Dockerfile, and no engine can be driven yet.
    #[error("the recipe of `{}` is a Dockerfile, which this version cannot build", project.display())]
    NeedsEngine {
        /// The project.
        project: PathBuf,
    },
    /// Nothing is recorded to compare the project with.
    #[error("`{}` has not been built into this store", project.display())]
    NeverBuilt {
        /// The project.
        project: PathBuf,
    },
    /// The image carries no list of inputs.
    #[error("`{image}` carries no list of inputs")]
    NoInputs {
        /// The image.
        image: String,
    },
    /// The list of inputs that an image carries is not one.
    #[error("the list of inputs of `{image}` is malformed")]
    Inputs {
        /// The image.
        image: String,
        /// What is wrong with it.
        source: InputsDocumentError,
    },
}

impl Error {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Project(error) => error.kind(),
            Self::Oci(error) => error.kind(),
            Self::Existence { source, .. } => source.kind(),
            Self::Plan(_) => Kind::Unavailable,
            Self::Hash(_) => Kind::System,
            Self::Missing { .. } | Self::NeverBuilt { .. } | Self::NoInputs { .. } => {
                Kind::NotFound
            }
            Self::Inputs { .. } => Kind::Corrupt,
            Self::Option { .. }
            | Self::Scheme(_)
            | Self::Base(_)
            | Self::Unset { .. }
            | Self::Sources { .. }
            | Self::InputNames(_)
            | Self::NeedsEngine { .. } => Kind::Usage,
        }
    }

    /// Returns whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Oci(error) => error.is_retryable(),
            Self::Existence { source, .. } => source.is_retryable(),
            Self::Plan(_) => true,
            _ => false,
        }
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Project(error) => error.hint(),
            Self::Hash(error) => error.hint(),
            Self::Scheme(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::InputNames(error) => error.hint(),
            Self::Oci(error) => error.hint(),
            Self::Existence { source, .. } => Some(source.hint().unwrap_or_else(|| {
                "what may exist is not built again; try once more, or build with \
                 `--cache-strategy scratch`, which asks nothing"
                    .to_owned()
            })),
            Self::Unset { how, .. } => Some((*how).to_owned()),
            Self::Sources { .. } => Some("name one with `--source`".to_owned()),
            Self::NeedsEngine { .. } => {
                Some("describe the image with `[[layer]]`, which needs no engine".to_owned())
            }
            Self::NeverBuilt { .. } => {
                Some("name the image to compare with, as in `trilith explain IMAGE`".to_owned())
            }
            Self::NoInputs { .. } => Some("images that `trilith build` makes carry one".to_owned()),
            _ => None,
        }
    }
}
