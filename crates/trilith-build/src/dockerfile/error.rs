//! Why a Dockerfile cannot be used for levels, and what to do about it.
//!
//! Only what would make a key or a rewritten file wrong is refused. Other mistakes are left to
//! the engine, which knows its own grammar best.

use trilith_core::Level;
use trilith_oci::Kind;

use super::expand::ExpandError;

/// A line of a Dockerfile that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct DockerfileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a line of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file has no `FROM`.
    #[error("there is no `FROM`")]
    NoStage,
    /// An instruction that does not exist.
    #[error("unknown instruction `{0}`")]
    Instruction(String),
    /// An instruction that needs a stage stands before the first one.
    #[error("`{0}` stands before the first `FROM`")]
    BeforeStage(String),
    /// `FROM` with other than one argument, or one and `AS` and a name.
    #[error("`FROM {0}` is not `FROM IMAGE` or `FROM IMAGE AS NAME`")]
    From(String),
    /// The name of a stage breaks Docker's grammar or has a meaning already.
    #[error("`{0}` cannot name a stage")]
    StageName(String),
    /// Two stages have one name.
    #[error("stage `{name}` is there already, at line {line}")]
    DuplicateStage {
        /// The name, in lower case.
        name: String,
        /// Where the first one is.
        line: usize,
    },
    /// An instruction lacks arguments.
    #[error("`{0}` lacks arguments")]
    Arguments(String),
    /// A JSON array holds something else than strings.
    #[error("the JSON array of `{0}` holds something else than strings")]
    Json(String),
    /// `ONBUILD` with an instruction that cannot be triggered.
    #[error("`ONBUILD {0}` cannot be triggered")]
    OnBuild(String),
    /// A mount option that is not a comma-separated list.
    #[error("`--mount={0}` is not a comma-separated list of options")]
    Mount(String),
    /// A here-document whose last line is missing.
    #[error("here-document `{0}` never ends")]
    Unterminated(String),
    /// An escape character that is none.
    #[error("`{0}` cannot escape; write `\\` or `` ` ``")]
    Escape(String),
    /// A parser directive that is repeated.
    #[error("directive `{0}` is there twice")]
    RepeatedDirective(String),
    /// The image of a `FROM` or another word cannot be known before the build.
    #[error("`{word}` cannot be resolved: {reason}")]
    Unresolved {
        /// The word as written.
        word: String,
        /// Why.
        reason: ExpandError,
    },
    /// The image of a `FROM` is empty.
    #[error("`{0}` is empty, as no build argument says what it is")]
    NoImage(String),
    /// A copy or mount from a stage that does not exist yet.
    #[error("`{0}` is a stage that does not come before")]
    LaterStage(String),
    /// A copy from a number that no stage has.
    #[error("there is no stage number {0}")]
    NoSuchStage(String),
    /// A copy from something with a variable in it.
    #[error("`{0}` cannot be copied from, as variables have no meaning there")]
    VariableSource(String),
}

impl Problem {
    /// Returns the error that has this problem at `line`.
    pub(super) fn at(self, line: usize) -> DockerfileError {
        DockerfileError {
            line,
            problem: self,
        }
    }
}

impl DockerfileError {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Usage
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.problem {
            Problem::NoImage(_) => Some("give the argument a default, or set it".to_owned()),
            Problem::VariableSource(_) | Problem::Unresolved { .. } => {
                Some("name a stage with `FROM`, and copy from that".to_owned())
            }
            Problem::Unterminated(name) => Some(format!("end it with a line `{name}`")),
            _ => None,
        }
    }
}

/// Why stages cannot be the levels of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelsError {
    /// The Dockerfile itself.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// A level has no stage.
    #[error("no stage is named for level `{0}`")]
    Missing(Level),
    /// A level's stage does not exist.
    #[error("stage `{stage}` of level `{level}` does not exist")]
    NoStage {
        /// The level.
        level: Level,
        /// The stage as given.
        stage: String,
        /// The stages that exist and have a name.
        known: Vec<String>,
    },
    /// Two levels have one stage.
    #[error("levels `{lower}` and `{upper}` are both stage `{stage}`")]
    Same {
        /// The less specific level.
        lower: Level,
        /// The more specific level.
        upper: Level,
        /// Their stage.
        stage: String,
    },
    /// A level's stage takes nothing from the stage of the level below.
    #[error(
        "stage `{stage}` of level `{level}` takes nothing from stage `{below}` of the level below"
    )]
    Apart {
        /// The level.
        level: Level,
        /// Its stage.
        stage: String,
        /// The stage of the level below.
        below: String,
    },
    /// A level's stage is built for the machine that builds.
    #[error("stage `{stage}` of level `{level}` is built for `{platform}`, not for the target")]
    Platform {
        /// The level.
        level: Level,
        /// Its stage.
        stage: String,
        /// What its `--platform` says.
        platform: String,
    },
    /// A level's stage cannot be replaced by an image.
    #[error("stage `{stage}` of level `{level}` cannot be replaced by its image")]
    Cut {
        /// The level.
        level: Level,
        /// Its stage.
        stage: String,
        /// Why not.
        source: CutError,
    },
}

impl LevelsError {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Usage
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Dockerfile(error) => error.hint(),
            Self::Missing(level) => Some(format!(
                "name it under `[dockerfile]`, as in `levels = {{ {level} = \"STAGE\" }}`"
            )),
            Self::NoStage { known, .. } if known.is_empty() => {
                Some("name stages with `FROM IMAGE AS NAME`".to_owned())
            }
            Self::NoStage { known, .. } => Some(format!("there are `{}`", known.join("`, `"))),
            Self::Same { stage, .. } => {
                Some(format!("add a stage that starts with `FROM {stage}`"))
            }
            Self::Apart { stage, below, .. } => Some(format!(
                "let `{stage}` start with `FROM {below}`, or copy from it"
            )),
            Self::Platform { .. } => {
                Some("only stages that are no level can be built for another platform".to_owned())
            }
            Self::Cut { source, .. } => source.hint(),
        }
    }
}

/// Why a stage cannot be replaced by an image without changing what others get from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    /// The Dockerfile itself.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// There is no such stage.
    #[error("stage `{0}` does not exist")]
    NoStage(String),
    /// The stage has triggers, which an image would fire at once.
    #[error("line {line}: `ONBUILD` in stage `{stage}` is meant for stages that build on it")]
    OnBuild {
        /// The line, from 1.
        line: usize,
        /// The stage's name or number.
        stage: String,
    },
    /// The value of a build argument that later stages inherit cannot be had again.
    #[error("line {line}: the value of `{argument}` depends on a variable that changes afterwards")]
    Argument {
        /// The line, from 1.
        line: usize,
        /// The argument's name.
        argument: String,
    },
    /// Later stages inherit build arguments, which a named context does not hand on.
    #[error("stages that build on `{stage}` inherit its build arguments `{}`", arguments.join("`, `"))]
    Inherited {
        /// The stage's name.
        stage: String,
        /// The arguments.
        arguments: Vec<String>,
    },
    /// The stage builds on different stages on different platforms, and not with one text.
    #[error("what stages inherit from `{stage}` differs between platforms")]
    Platforms {
        /// The stage's name or number.
        stage: String,
    },
    /// The platform of the stage's image cannot be written down again.
    #[error("line {line}: `--platform={platform}` holds quotes or blanks")]
    Platform {
        /// The line, from 1.
        line: usize,
        /// The option's value.
        platform: String,
    },
}

impl CutError {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::Usage
    }

    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Dockerfile(error) => error.hint(),
            Self::OnBuild { .. } => {
                Some("move the instruction to the stages that build on this one".to_owned())
            }
            Self::Argument { argument, .. } => Some(format!(
                "declare `ARG {argument}` in the stages that use it, and give the variable one value"
            )),
            Self::Inherited { .. } => {
                Some("rewrite the Dockerfile instead, which keeps them".to_owned())
            }
            Self::Platforms { .. } => Some("build one platform at a time".to_owned()),
            Self::NoStage(_) | Self::Platform { .. } => None,
        }
    }
}
