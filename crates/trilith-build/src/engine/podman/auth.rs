//! Credentials for Podman: a private file with what Trilith found.
//!
//! Podman does not look everywhere that Docker does (`DOCKER_CONFIG`, the store for all
//! registries), so that it could be refused what Trilith can read. Where Trilith finds nothing,
//! Podman looks by itself.

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use trilith_core::Repository;
use trilith_oci::Kind;
use trilith_oci::registry::{Credential, RegistryClient};

use super::super::redact::Redactor;
use super::super::{EngineError, EngineKind};
use super::workspace::Workspace;

/// Writes the credentials for `repositories` into `workspace`, and returns the file; `None`
/// where there are none that Podman could use.
pub(super) async fn write(
    client: &RegistryClient,
    repositories: &BTreeSet<Repository>,
    workspace: &Workspace,
    redactor: &Redactor,
) -> Result<Option<PathBuf>, EngineError> {
    let mut auths = Map::new();
    for repository in repositories {
        let found = client
            .credential(repository.registry(), repository.path())
            .await;
        let found = found.map_err(|error| EngineError::Failed {
            engine: EngineKind::Podman,
            operation: "find credentials for",
            object: repository.to_string(),
            reason: error.to_string(),
            kind: Kind::Denied,
        })?;
        if let Some(entry) = found.and_then(|credential| entry(&credential, redactor)) {
            auths.insert(repository.to_string(), entry);
        }
    }
    if auths.is_empty() {
        return Ok(None);
    }
    let file = json!({ "auths": auths }).to_string();
    workspace.write("auth.json", file.as_bytes()).map(Some)
}

/// Returns an entry as `containers-auth.json(5)` has it. There is none for bearer tokens.
fn entry(credential: &Credential, redactor: &Redactor) -> Option<Value> {
    match credential {
        Credential::Password { username, password } => {
            redactor.hide(password.expose());
            let auth = STANDARD.encode(format!("{username}:{}", password.expose()));
            redactor.hide(&auth);
            Some(json!({ "auth": auth }))
        }
        Credential::Identity(token) => {
            redactor.hide(token.expose());
            // Podman wants a user with it, and sends the token alone.
            let auth = STANDARD.encode("<token>:");
            Some(json!({ "auth": auth, "identitytoken": token.expose() }))
        }
        Credential::Bearer(_) => None,
    }
}
