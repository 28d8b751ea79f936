//! What a project says about its image: `trilith.toml`, and its version.
//!
//! - [`parse_project`] and [`load_project`] read `trilith.toml`;
//! - [`load_version`] finds the version in the project's own manifests;
//! - [`values`] holds the grammars of single values, for the file and the command line alike.
//!
//! Nothing here resolves an image, hashes an input or starts a program.

mod error;
mod file;
mod manifest;
mod problem;
mod reader;
mod sections;
pub mod values;
mod version;

pub use error::ProjectError;
pub use file::{
    DockerfileRecipe, DockerfileSource, ImageSection, InputsSection, PROJECT_FILE, ProjectFile,
    Recipe, load_project, parse_project,
};
pub use problem::Problem;
pub use version::{FoundVersion, load_version};
