//! What a project says about its image: `trilith.toml`, its version, and a first draft of both.
//!
//! - [`parse_project`] and [`load_project`] read `trilith.toml`;
//! - [`load_version`] finds the version in the project's own manifests;
//! - [`suggest`] and [`render`] draft a `trilith.toml` for a project that has none;
//! - [`values`] holds the grammars of single values, for the file and the command line alike.
//!
//! Nothing here resolves an image, hashes an input or starts a program.

mod detect;
mod error;
mod facts;
mod file;
mod init;
pub(crate) mod manifest;
mod origin;
mod problem;
mod ranges;
mod reader;
mod sections;
mod sources;
mod tools;
mod tree;
pub mod values;
mod version;

pub use detect::{BaseChoice, Entrypoint, Suggestion, suggest};
pub use error::ProjectError;
pub use file::{
    AgentSection, DockerfileRecipe, DockerfileSource, ImageSection, InputsSection, PROJECT_FILE,
    ProjectFile, Recipe, load_project, parse_project,
};
pub use init::{render, write_new, write_over};
pub use problem::Problem;
pub use tools::{Ecosystem, Tool};
pub(crate) use version::python_version;
pub use version::{FoundVersion, load_version};
