//! What BuildKit exports, received into a file.

use std::path::PathBuf;

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use futures_util::{StreamExt, stream};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Streaming};

use super::session::{Answers, OwnFailure};
use crate::engine::EngineError;

/// Where an export goes.
pub(super) struct Receiver {
    pub(super) path: PathBuf,
    pub(super) failure: OwnFailure,
}

impl Receiver {
    /// Answers `FileSend/DiffCopy`. The answer ends when all that was sent is written.
    pub(super) fn receive(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Response<Answers<BytesMessage>> {
        let (path, failure) = (self.path.clone(), self.failure.clone());
        let mut incoming = request.into_inner();
        let written = async move {
            let failed = |source| {
                failure.note(EngineError::Io {
                    operation: "write",
                    path: path.clone(),
                    source,
                })
            };
            let mut file = File::create(&path).await.map_err(failed)?;
            while let Some(message) = incoming.message().await? {
                file.write_all(&message.data).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)
        };
        let answers = stream::once(written).filter_map(|written| async { written.err().map(Err) });
        Response::new(answers.boxed())
    }
}
