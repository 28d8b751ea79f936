//! Build secrets for BuildKit, handed out when a step asks.
//!
//! What was handed out is told to the [`Redactor`]: a step that prints its secret prints it for
//! nobody.

use std::path::Path;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status};

use super::session::OwnFailure;
use crate::engine::redact::Redactor;
use crate::engine::{BuildSecret, EngineError, SecretSource};

/// The most bytes of a secret; BuildKit takes no more.
const MAX_SIZE: u64 = 500 * 1024;

/// The secrets of a build.
pub(super) struct Secrets {
    pub(super) known: Vec<BuildSecret>,
    pub(super) redactor: Redactor,
    pub(super) failure: OwnFailure,
}

impl Secrets {
    /// Answers `Secrets/GetSecret`.
    pub(super) async fn find(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let secret = self.known.iter().find(|secret| secret.id == id);
        let secret = secret.ok_or_else(|| Status::not_found(format!("no secret `{id}`")))?;
        let data = match &secret.source {
            SecretSource::Value(value) => value.expose().as_bytes().to_vec(),
            SecretSource::File(path) => {
                let read = read(path).await;
                read.map_err(|error| self.failure.note(error))?
            }
        };
        self.redactor.hide(&String::from_utf8_lossy(&data));
        Ok(Response::new(GetSecretResponse { data }))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    let failed = |error| EngineError::io("read secret", path)(error);
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut data = Vec::new();
    let mut limited = file.take(MAX_SIZE + 1);
    limited.read_to_end(&mut data).await.map_err(failed)?;
    if data.len() as u64 > MAX_SIZE {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(data)
}
