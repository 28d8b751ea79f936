//! Dockerfiles made from templates, as Python's Jinja2 renders them.
//!
//! [`load_template`] reads a template, [`Template::render`] fills it in for one build. Templates
//! see the variables that [`TemplateVariables`] lists and the files of their own directory;
//! nothing of the environment, the clock or the rest of the disk.

mod engine;
mod error;
mod variables;

pub use engine::{Template, load_template};
pub use error::TemplateError;
pub use variables::{BuildStart, TemplateVariables};

#[cfg(test)]
mod tests;
