//! Project files, recipes and the build that turns them into tagged images.

pub mod project;
