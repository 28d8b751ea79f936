//! From a project to tagged images: settings, inputs, plan, graft, publish, explain.
//!
//! Knows `trilith.toml` and the local machine's files; prints nothing, reads no environment
//! and starts no sandbox.

mod agent;
mod ahead;
pub mod batch;
mod build;
pub mod build_context;
mod builder;
mod carried;
mod context;
pub mod dockerfile;
mod doctor;
pub mod engine;
mod error;
mod explain;
mod flight;
mod inputs;
mod inspect;
mod known;
mod labels;
mod layers;
mod listing;
mod load;
mod on_top;
pub mod preset;
pub mod project;
mod prune;
mod rebase;
mod recipe;
mod records;
mod report;
mod settings;
mod subtree;
mod target;
mod telemetry;
pub mod template;
mod transfer;
mod user;

pub use build::{BuildOptions, EngineOptions, build, plan_anywhere};
pub use builder::{BuilderChoice, Engines};
pub use context::{Context, Event, stat_cache};
pub use doctor::{CredentialReport, Diagnosis, EngineReport, StoreReport, diagnose};
pub use error::Error;
pub use explain::{CostlyLayer, CostlySteps, Explanation, explain};
pub use inspect::{Inspection, inspect};
pub use load::{TagReport, tags};
pub use prune::{
    PruneOptions, PruneReport, PrunedImage, RegistryPruneReport, prune, prune_registry,
};
pub use rebase::{RebaseOptions, RebaseReport, rebase};
pub use records::LayerRecord;
pub use report::{BuildReport, ReportedLayer};
pub use settings::{DockerfileOverrides, LockFiles, Overrides, Settings};
pub use target::Destination;
pub use telemetry::Telemetry;
pub use transfer::{copy, export};
pub use user::AccountError;
