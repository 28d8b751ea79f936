//! Credentials for BuildKit: it fetches and pushes by itself, and asks who we are.
//!
//! The files and helpers are those of the registry client. What was handed out is told to the
//! [`Redactor`], so that it shows nowhere.

use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use tonic::{Request, Response, Status};
use trilith_core::DEFAULT_REGISTRY;
use trilith_oci::registry::{Credential, RegistryClient, Secret};

use crate::engine::redact::Redactor;

/// Who we are to registries.
pub(super) struct Logins {
    pub(super) registry: RegistryClient,
    pub(super) redactor: Redactor,
}

impl Logins {
    /// Answers `Auth/Credentials`. Who has none is anonymous.
    pub(super) async fn find(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let registry = match host.as_str() {
            "registry-1.docker.io" | "index.docker.io" | "https://index.docker.io/v1/" => {
                DEFAULT_REGISTRY
            }
            other => other,
        };
        let found = self.registry.credential(registry, "").await;
        // A file that cannot be read must not look like a registry that refuses us.
        let found = found.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let (username, secret) = match found {
            Some(Credential::Password { username, password }) => (username, password),
            // The name is empty: BuildKit then takes the secret for a refresh token.
            Some(Credential::Identity(token)) => (String::new(), token),
            // It has no use for those.
            Some(Credential::Bearer(_)) | None => (String::new(), Secret::new("")),
        };
        self.redactor.hide(secret.expose());
        Ok(Response::new(CredentialsResponse {
            username,
            secret: secret.expose().to_owned(),
        }))
    }
}
