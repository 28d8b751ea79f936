//! What an engine exports, received into a file that is there whole or not at all.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use futures_util::{StreamExt, stream};
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Streaming};

use super::session::{Answers, OwnFailure};
use crate::engine::EngineError;

/// A file that is not there before it is whole.
#[derive(Debug)]
pub(in crate::engine) struct NewFile {
    temporary: TempPath,
    path: PathBuf,
}

impl NewFile {
    /// Returns a file that will be at `path`, and is made in the same directory.
    pub(in crate::engine) fn beside(path: &Path) -> Result<Self, EngineError> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let temporary = tempfile::Builder::new()
            .prefix(".image-")
            // Less what the umask takes away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .map_err(EngineError::io("create a file in", directory))?;
        Ok(Self {
            temporary: temporary.into_temp_path(),
            path: path.to_owned(),
        })
    }

    /// Returns where it is until it is whole.
    pub(in crate::engine) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Opens it to be written.
    pub(in crate::engine) async fn open(&self) -> Result<File, EngineError> {
        let opened = File::create(&self.temporary).await;
        opened.map_err(|error| self.failed(error))
    }

    /// Puts it in its place.
    pub(in crate::engine) fn keep(self) -> Result<(), EngineError> {
        let kept = self.temporary.persist(&self.path);
        kept.map_err(|error| EngineError::io("create", &self.path)(error.error))
    }

    /// Returns that it cannot be written.
    pub(in crate::engine) fn failed(&self, error: io::Error) -> EngineError {
        EngineError::io("write", &self.path)(error)
    }
}

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
            let failed = |error| failure.note(EngineError::io("write", &path)(error));
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
