//! The one error type of this crate. What failed below is kept whole and passed through.

use std::path::PathBuf;

use trilith_core::{
    HashError, InputsDocumentError, InputsError, Level, PlanError, Platform, Reference,
    ReferenceError, Repository, SchemeError,
};
use trilith_oci::Kind;
use trilith_oci::place::PlaceError;

use crate::batch::{BaseListError, JournalError, MatrixError};
use crate::build_context::BuildContextError;
use crate::dockerfile::{CutError, DockerfileError, LevelsError, SettingsError};
use crate::engine::EngineError;
use crate::project::{ProjectError, values::ValueError};
use crate::template::TemplateError;
use crate::user::AccountError;

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
    /// A directory is in no checkout of what a preset builds.
    #[error("`{}` is in no checkout of {what}", start.display())]
    NoCheckout {
        /// What a checkout is looked for of.
        what: &'static str,
        /// What the root of one has.
        has: &'static str,
        /// Where the search began.
        start: PathBuf,
    },
    /// The openhands schemes hash one directory.
    #[error("scheme `{scheme}` hashes one source directory, not {count}")]
    Sources {
        /// The scheme.
        scheme: trilith_core::Scheme,
        /// How many the project has.
        count: usize,
    },
    /// The Dockerfile is no text.
    #[error("`{}` is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The Dockerfile cannot be understood.
    #[error("cannot use Dockerfile `{}`", path.display())]
    Dockerfile {
        /// The Dockerfile, or the template that made it.
        path: PathBuf,
        /// What is wrong with it.
        source: DockerfileError,
    },
    /// The stages of the Dockerfile cannot be levels.
    #[error("cannot make levels of the stages of `{}`", path.display())]
    Levels {
        /// The Dockerfile, or the template that made it.
        path: PathBuf,
        /// What is wrong with it.
        source: LevelsError,
    },
    /// A target beside levels, which are targets themselves.
    #[error("`{}` has both a target and levels, whose stages are what is built", path.display())]
    TargetWithLevels {
        /// The Dockerfile, or the template that made it.
        path: PathBuf,
    },
    /// A template whose stages are levels makes another text for each platform.
    #[error("template `{}` makes another Dockerfile for each platform", path.display())]
    TemplatePlatforms {
        /// The template.
        path: PathBuf,
    },
    /// A Dockerfile names an image that is none.
    #[error("the Dockerfile is built from `{image}`, which is not an image")]
    ImageName {
        /// The image as it is named.
        image: String,
        /// What is wrong with the name.
        source: ReferenceError,
    },
    /// A template cannot be read or rendered.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The build context cannot be listed or sent.
    #[error(transparent)]
    BuildContext(#[from] BuildContextError),
    /// An engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The recipe is a Dockerfile, which only an engine can build.
    #[error("the recipe of `{}` is a Dockerfile, which graft does not build", project.display())]
    NeedsEngine {
        /// The project.
        project: PathBuf,
    },
    /// The recipe is made of layers, which no engine is asked for.
    #[error("the recipe of `{}` is made of layers, which no engine builds", project.display())]
    NeedsGraft {
        /// The project.
        project: PathBuf,
    },
    /// The agent is carried for one platform alone.
    #[error("there is no agent for `{platform}`: this program carries that for `{host}`")]
    AgentPlatform {
        /// What is built for.
        platform: Box<Platform>,
        /// What this program runs on.
        host: Box<Platform>,
    },
    /// The recipe is a Dockerfile, which makes users itself.
    #[error("the recipe of `{}` is a Dockerfile, into whose images no user is put", project.display())]
    UserInDockerfile {
        /// The project.
        project: PathBuf,
    },
    /// The base has another user of that name or number.
    #[error("cannot give `{base}` the user `{user}`")]
    User {
        /// The user's name.
        user: String,
        /// The base, by its digest.
        base: String,
        /// What is in the way.
        source: AccountError,
    },
    /// No engine is sent anything for this recipe.
    #[error("the recipe of `{}` is made of layers, for which nothing is sent to an engine", project.display())]
    NothingSent {
        /// The project.
        project: PathBuf,
    },
    /// The base lies where an engine cannot get it from.
    #[error("the engine cannot get the base image `{base}`")]
    BaseOutOfReach {
        /// The base as it is named.
        base: String,
    },
    /// An engine made something else than it was asked for.
    #[error("the {level} image that the engine built is not what was asked for: {reason}")]
    NotAsAsked {
        /// The level.
        level: Level,
        /// What differs.
        reason: String,
    },
    /// A stage cannot be replaced by an image.
    #[error("cannot build on the images of levels")]
    Cut(#[from] CutError),
    /// `[config]` holds what cannot be an instruction.
    #[error("cannot apply `[config]` to the Dockerfile")]
    Settings(#[from] SettingsError),
    /// Several platforms cannot be one image in an engine.
    #[error("an engine keeps the image of one platform under a name, not of {count}")]
    LoadPlatforms {
        /// How many platforms are asked for.
        count: usize,
    },
    /// The user ended the build.
    #[error("interrupted")]
    Interrupted,
    /// A list of base images.
    #[error(transparent)]
    BaseList(#[from] BaseListError),
    /// The variants of a batch.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// The journal of a batch.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The name of a base makes no repository.
    #[error("line {line} of the list of bases: `{repository}/{name}` is no repository")]
    BatchName {
        /// Where in the list.
        line: usize,
        /// The repository that it is below of.
        repository: Box<Repository>,
        /// The name.
        name: String,
    },
    /// The user ended a batch.
    #[error("interrupted; what is done is in `{}`", manifest.display())]
    BatchInterrupted {
        /// The journal.
        manifest: PathBuf,
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
    /// The layers of an image cannot be put on another base as they are.
    #[error("cannot rebase `{image}`: {reason}")]
    NotRebasable {
        /// The image.
        image: String,
        /// Why not.
        reason: String,
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
            Self::Journal(error) => error.kind(),
            Self::Hash(_) | Self::Interrupted | Self::BatchInterrupted { .. } => Kind::System,
            Self::Missing { .. } | Self::NeverBuilt { .. } | Self::NoInputs { .. } => {
                Kind::NotFound
            }
            Self::Inputs { .. } | Self::NotAsAsked { .. } => Kind::Corrupt,
            Self::Dockerfile { source, .. } => source.kind(),
            Self::Levels { source, .. } => source.kind(),
            Self::Template(error) => error.kind(),
            Self::BuildContext(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Option { .. }
            | Self::NoCheckout { .. }
            | Self::Scheme(_)
            | Self::Base(_)
            | Self::Unset { .. }
            | Self::Sources { .. }
            | Self::InputNames(_)
            | Self::NotText { .. }
            | Self::TargetWithLevels { .. }
            | Self::TemplatePlatforms { .. }
            | Self::ImageName { .. }
            | Self::NeedsEngine { .. }
            | Self::NeedsGraft { .. }
            | Self::AgentPlatform { .. }
            | Self::UserInDockerfile { .. }
            | Self::User { .. }
            | Self::NothingSent { .. }
            | Self::BaseOutOfReach { .. }
            | Self::Cut(_)
            | Self::Settings(_)
            | Self::NotRebasable { .. }
            | Self::LoadPlatforms { .. }
            | Self::BaseList(_)
            | Self::Matrix(_)
            | Self::BatchName { .. } => Kind::Usage,
        }
    }

    /// Returns whether the same call may succeed when made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Oci(error) => error.is_retryable(),
            Self::Existence { source, .. } => source.is_retryable(),
            Self::Plan(_) => true,
            Self::BuildContext(error) => error.is_retryable(),
            Self::Engine(error) => error.is_retryable(),
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
            Self::Journal(error) => error.hint(),
            Self::BatchInterrupted { .. } => {
                Some("the same command with `--resume` goes on from there".to_owned())
            }
            Self::NoCheckout { has, .. } => {
                Some(format!("name one with `--sdk-root`; its root has {has}"))
            }
            Self::Dockerfile { source, .. } => source.hint(),
            Self::Levels { source, .. } => source.hint(),
            Self::TargetWithLevels { .. } => {
                Some("leave out `target`; the stage of level source is built".to_owned())
            }
            Self::TemplatePlatforms { .. } => Some("build one platform at a time".to_owned()),
            Self::Template(error) => error.hint(),
            Self::BuildContext(error) => error.hint(),
            Self::Engine(error) => error.hint(),
            Self::Sources { .. } => Some("name one with `--source`".to_owned()),
            Self::NeedsEngine { .. } => Some(
                "leave out `--builder graft`, or describe the image with `[[layer]]`, which needs \
                 no engine"
                    .to_owned(),
            ),
            Self::NeedsGraft { .. } => {
                Some("leave out `--builder`, or describe the image with a Dockerfile".to_owned())
            }
            Self::AgentPlatform { .. } => Some(
                "leave out `inject`, or build each platform on a machine of its kind".to_owned(),
            ),
            Self::UserInDockerfile { .. } => {
                Some("leave out `[user]`, and make the user in the Dockerfile".to_owned())
            }
            Self::User { .. } => Some(
                "choose another name or other numbers under `[user]`; a user of the base with the \
                 same name and numbers is taken as it is"
                    .to_owned(),
            ),
            Self::NothingSent { .. } => Some("leave out `--build-folder`".to_owned()),
            Self::BaseOutOfReach { .. } => Some(
                "copy it to a registry with `trilith copy`, or build with `--push`, which does"
                    .to_owned(),
            ),
            Self::Cut(error) => error.hint(),
            Self::LoadPlatforms { .. } => {
                Some("name one with `--platform`, or leave out `--load`".to_owned())
            }
            Self::NeverBuilt { .. } => {
                Some("name the image to compare with, as in `trilith explain IMAGE`".to_owned())
            }
            Self::NotRebasable { .. } => Some(
                "build it on the new base, as in `trilith build --base-image IMAGE`".to_owned(),
            ),
            Self::NoInputs { .. } => Some("images that `trilith build` makes carry one".to_owned()),
            _ => None,
        }
    }
}
