//! Dockerfiles, read to be hashed and rewritten: stages, what they see, and stages as levels.
//!
//! - [`Dockerfile::parse`] reads the text as `BuildKit` does;
//! - [`StageGraph`] says what each stage builds on and copies from;
//! - [`StageLevels`] makes stages the levels of an image, each with what its key must cover, and
//!   replaces stages by images that exist.
//!
//! Nothing here builds, reads a file or asks a registry.

mod arguments;
mod context_files;
mod cut;
mod error;
mod expand;
mod facts;
mod file;
mod glob;
mod graph;
mod heredoc;
mod instruction;
mod levels;
mod lines;
mod pin;
mod settings;
mod words;

pub use arguments::BuildArguments;
pub use context_files::ContextFiles;
pub use cut::cut_stage;
pub use error::{CutError, DockerfileError, LevelsError, Problem};
pub use expand::ExpandError;
pub use facts::{ImageUse, LevelFacts};
pub use file::{Dockerfile, Stage};
pub use graph::{Origin, StageGraph};
pub use levels::{ContextLevels, StageLevels};
pub use pin::pin_images;
pub use settings::{SettingsError, with_settings};

#[cfg(test)]
mod tests;
