//! The directories of local caches, as BuildKit reads and writes them: the content service of
//! containerd, as far as it is asked for.
//!
//! A directory is an OCI layout. A blob is there whole and with the digest that it is called by,
//! or not at all.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use prost::Message;
use tempfile::TempPath;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use trilith_core::{Digest, Digester};

use super::session::{Answers, OwnFailure};
use crate::engine::EngineError;

/// What a request names its directory by.
const STORE: &str = "buildkit-attachable-store-id";
/// Bytes that are sent at once.
const PIECE: usize = 128 * 1024;

/// `containerd.services.content.v1.Info`, without times.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Info {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    size: i64,
    #[prost(map = "string, string", tag = "5")]
    labels: HashMap<String, String>,
}

/// `InfoRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InfoRequest {
    #[prost(string, tag = "1")]
    digest: String,
}

/// `InfoResponse`, and with the same fields `UpdateRequest` and `UpdateResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    info: Option<Info>,
}

/// `ReadContentRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadRequest {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(int64, tag = "3")]
    size: i64,
}

/// `ReadContentResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadResponse {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

/// `WriteContentRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
}

/// `WriteContentResponse`, without times.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteResponse {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
    #[prost(string, tag = "6")]
    digest: String,
}

/// `WriteAction.COMMIT`.
const COMMIT: i32 = 2;

/// The directories of a build, by what BuildKit calls them.
#[derive(Clone, Debug, Default)]
pub(super) struct Stores {
    pub(super) directories: BTreeMap<String, PathBuf>,
    pub(super) failure: OwnFailure,
}

impl Stores {
    /// Answers `Content/Info`.
    pub(super) async fn info(
        &self,
        request: Request<InfoRequest>,
    ) -> Result<Response<InfoResponse>, Status> {
        let directory = self.directory(request.metadata())?;
        let digest = parse(&request.get_ref().digest)?;
        let path = blob(directory, &digest);
        let size = match fs::metadata(&path).await {
            Ok(metadata) => metadata.len(),
            Err(error) => return Err(self.unread(&path, error)),
        };
        Ok(Response::new(InfoResponse {
            info: Some(Info {
                digest: digest.to_string(),
                size: i64::try_from(size).unwrap_or(i64::MAX),
                labels: HashMap::new(),
            }),
        }))
    }

    /// Answers `Content/Read`.
    pub(super) async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Answers<ReadResponse>>, Status> {
        let directory = self.directory(request.metadata())?;
        let ReadRequest {
            digest,
            offset,
            size,
        } = request.get_ref().clone();
        let path = blob(directory, &parse(&digest)?);
        let opened = async {
            let mut file = File::open(&path).await?;
            let start = u64::try_from(offset).unwrap_or_default();
            file.seek(io::SeekFrom::Start(start)).await?;
            Ok(file)
        };
        let file = opened.await.map_err(|error| self.unread(&path, error))?;
        let limit = u64::try_from(size).ok().filter(|&size| size > 0);
        let state = (file.take(limit.unwrap_or(u64::MAX)), offset);
        let answers = stream::try_unfold(state, |(mut file, offset)| async move {
            let mut data = Vec::with_capacity(PIECE);
            let mut piece = (&mut file).take(PIECE as u64);
            let read = piece.read_to_end(&mut data).await?;
            let next = offset.saturating_add(i64::try_from(read).unwrap_or(i64::MAX));
            Ok((read > 0).then_some((ReadResponse { offset, data }, (file, next))))
        });
        Ok(Response::new(answers.boxed()))
    }

    /// Answers `Content/Write`: each message of a blob with how far it has got.
    pub(super) fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<Answers<WriteResponse>>, Status> {
        let directory = self.directory(request.metadata())?.clone();
        let write = Write {
            incoming: request.into_inner(),
            directory,
            failure: self.failure.clone(),
            file: None,
            digester: Digester::default(),
            offset: 0,
        };
        let answers = stream::try_unfold(write, |mut write| async move {
            let answer = write.next().await?;
            Ok(answer.map(|answer| (answer, write)))
        });
        Ok(Response::new(answers.boxed()))
    }

    fn directory(&self, metadata: &MetadataMap) -> Result<&PathBuf, Status> {
        let name = metadata.get(STORE).and_then(|name| name.to_str().ok());
        let directory = self.directories.get(name.unwrap_or_default());
        directory.ok_or_else(|| Status::not_found("there is no such cache"))
    }

    /// Returns what BuildKit is told of a blob that cannot be read.
    fn unread(&self, path: &Path, source: io::Error) -> Status {
        if source.kind() == io::ErrorKind::NotFound {
            return Status::not_found("there is no such blob");
        }
        self.failure.note(EngineError::io("read", path)(source))
    }
}

/// A blob that is being written.
struct Write {
    incoming: Streaming<WriteRequest>,
    directory: PathBuf,
    failure: OwnFailure,
    file: Option<(File, TempPath)>,
    digester: Digester,
    offset: i64,
}

impl Write {
    async fn next(&mut self) -> Result<Option<WriteResponse>, Status> {
        let Some(message) = self.incoming.message().await? else {
            return Ok(None);
        };
        if !message.expected.is_empty() {
            let expected = parse(&message.expected)?;
            if blob(&self.directory, &expected).exists() {
                return Err(Status::already_exists("the blob is there"));
            }
        }
        if !message.data.is_empty() {
            if message.offset != self.offset {
                return Err(Status::out_of_range("the blob is written in order"));
            }
            let written = self.append(&message.data).await;
            written.map_err(|error| self.failed(error))?;
        }
        let mut digest = String::new();
        if message.action == COMMIT {
            digest = self.commit(&message).await?.to_string();
        }
        Ok(Some(WriteResponse {
            action: message.action,
            offset: self.offset,
            total: message.total,
            digest,
        }))
    }

    async fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.digester.update(data);
        self.offset += i64::try_from(data.len()).unwrap_or(i64::MAX);
        let (file, _) = match &mut self.file {
            Some(file) => file,
            none => {
                let temporary = tempfile::Builder::new()
                    .prefix(".blob-")
                    .tempfile_in(&self.directory)?;
                let (file, path) = temporary.into_parts();
                none.insert((File::from_std(file), path))
            }
        };
        file.write_all(data).await
    }

    async fn commit(&mut self, message: &WriteRequest) -> Result<Digest, Status> {
        let digest = std::mem::take(&mut self.digester).finish();
        let is_expected = message.expected.is_empty() || message.expected == digest.as_str();
        let is_whole = message.total == 0 || message.total == self.offset;
        if !is_expected || !is_whole {
            return Err(Status::failed_precondition(
                "the blob is not what it should be",
            ));
        }
        // Without a file, it is empty.
        self.append(&[]).await.map_err(|error| self.failed(error))?;
        if let Some((mut file, temporary)) = self.file.take() {
            let path = blob(&self.directory, &digest);
            let kept = async {
                file.flush().await?;
                fs::create_dir_all(path.parent().unwrap_or(&self.directory)).await?;
                temporary.persist(&path).map_err(|error| error.error)
            };
            kept.await.map_err(|error| self.failed(error))?;
        }
        Ok(digest)
    }

    fn failed(&self, source: io::Error) -> Status {
        let error = EngineError::io("write a cache into", &self.directory)(source);
        self.failure.note(error)
    }
}

fn blob(directory: &Path, digest: &Digest) -> PathBuf {
    let algorithm = digest.algorithm().as_str();
    directory.join("blobs").join(algorithm).join(digest.hex())
}

fn parse(digest: &str) -> Result<Digest, Status> {
    let parsed = digest.parse();
    parsed.map_err(|_| Status::invalid_argument("that is no digest"))
}
