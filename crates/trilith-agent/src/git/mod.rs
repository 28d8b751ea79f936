//! The routes below `/api/git`: what has changed in a repository, read with the image's own git.
//!
//! What a change is compared with is chosen as `OpenHands`' server chooses it, so that both show the same.

mod base;
mod changes;
mod diff;
mod run;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use crate::failure::{Failure, Outcome, json as json_response};
use crate::server::{Agent, Parameters};
use run::Git;

pub(crate) fn routes() -> Router<Agent> {
    Router::new()
        .route("/changes", get(changes))
        .route("/diff", get(diff))
}

#[derive(Debug, Deserialize)]
struct Query {
    path: PathBuf,
    /// What to compare with.
    #[serde(rename = "ref")]
    reference: Option<String>,
}

impl Query {
    /// Returns what to run git with. A name that is none must not become an option.
    fn git(&self, agent: &Agent) -> Outcome<Git> {
        match self.reference.as_deref() {
            Some(name) if name.starts_with('-') || name.is_empty() || name.contains('\0') => {
                Err(Failure::invalid(format!("`ref` cannot be `{name}`")))
            }
            _ if !Path::is_absolute(&self.path) => Err(Failure::bad("Path must be absolute")),
            _ => Ok(Git::new(
                Arc::clone(&agent.commands.children),
                Arc::clone(&agent.root),
            )),
        }
    }
}

async fn changes(
    State(agent): State<Agent>,
    Parameters(query): Parameters<Query>,
) -> Outcome<Response> {
    let git = query.git(&agent)?;
    let changes = changes::changes(&git, &query.path, query.reference.as_deref()).await?;
    serde_json::to_string(&changes)
        .map(json_response)
        .map_err(Failure::internal)
}

async fn diff(
    State(agent): State<Agent>,
    Parameters(query): Parameters<Query>,
) -> Outcome<Response> {
    let git = query.git(&agent)?;
    let diff = diff::diff(&git, &query.path, query.reference.as_deref()).await?;
    serde_json::to_string(&diff)
        .map(json_response)
        .map_err(Failure::internal)
}
