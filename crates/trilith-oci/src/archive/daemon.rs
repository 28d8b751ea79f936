//! `docker-daemon`: the images of a Docker engine, through its API.
//!
//! Asks whether an image is there, saves one and loads one; builds and runs nothing. Images
//! pass through a temporary file, never through memory. The engine's address is given by the
//! caller; the environment is not read. Podman's service answers the same requests.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use trilith_core::{Digest, Reference};

use super::docker::{DockerArchiveSource, open_docker_file};
use super::docker_write::{DockerArchiveOptions, ImageToSave};
use super::members::Part;
use crate::copy::CopyReport;
use crate::error::{Error, Kind};
use crate::place::DaemonImage;
use crate::reading::{off_thread, write_failure};
use crate::store::{ImageStore, Name};

/// Where an engine listens unless the caller says otherwise.
pub const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";

/// How long to wait for a connection; for answers there is no limit, as an engine
/// may take minutes to save a large image.
const CONNECT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read where a short one is expected.
const MAX_ANSWER: usize = 1 << 20;

/// A Docker engine.
#[derive(Clone, Debug)]
pub struct Daemon {
    client: Client,
    /// What requests start with, `http://host` without a slash at the end.
    base: String,
    host: String,
}

/// What an engine says of an image.
#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "Id")]
    id: String,
}

/// An error of an engine, or a line of its progress.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

impl Daemon {
    /// Returns the engine at `host`, which is written as `DOCKER_HOST` is: `unix:///path`,
    /// `tcp://host:port` or `http://host:port`. Opens no connection.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for other addresses; TLS and SSH among them.
    pub fn try_new(host: &str) -> Result<Self, Error> {
        let builder = plain_http()?.connect_timeout(CONNECT).no_proxy();
        let (builder, base) = match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => {
                (builder.unix_socket(path), "http://engine".to_owned())
            }
            Some(("tcp" | "http", address)) if !address.trim_end_matches('/').is_empty() => {
                (builder, format!("http://{}", address.trim_end_matches('/')))
            }
            _ => {
                return Err(Error::Unsupported {
                    object: format!("engine `{host}`"),
                    reason: "its address is no `unix:///path`, `tcp://host:port` or \
                             `http://host:port`"
                        .to_owned(),
                    advice: "forward the engine's socket, as with `ssh -L`, and name that",
                });
            }
        };
        let client = builder.build().map_err(|error| Error::Engine {
            host: host.to_owned(),
            task: "speak".to_owned(),
            reason: root_cause(&error),
            kind: Kind::System,
        })?;
        Ok(Self {
            client,
            base,
            host: host.to_owned(),
        })
    }

    /// Returns the ID of `image`, `None` where the engine does not have it.
    ///
    /// An engine with containerd's image store gives the digest of the manifest or index,
    /// others that of the config.
    pub async fn image_id(&self, image: &DaemonImage) -> Result<Option<Digest>, Error> {
        let task = format!("look for image `{}`", name_of(image));
        let url = format!("{}/images/{}/json", self.base, name_of(image));
        let response = self.send(self.client.get(url), &task).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = self
            .body(self.succeeded(response, &task).await?, &task)
            .await?;
        let inspected = serde_json::from_slice::<Inspected>(&body);
        let id = inspected.map_err(|error| error.to_string());
        let id = id.and_then(|i| i.id.parse().map_err(|e| format!("its ID: {e}")));
        id.map(Some)
            .map_err(|reason| self.error(&task, reason, Kind::Corrupt))
    }

    /// Saves `image` into a temporary file and opens that.
    ///
    /// # Errors
    /// [`Error::Engine`] where the engine does not have it or does not answer.
    pub async fn open(
        &self,
        image: &DaemonImage,
        options: &DockerArchiveSource,
    ) -> Result<(Arc<dyn ImageStore>, Name), Error> {
        let task = format!("save image `{}`", name_of(image));
        let url = format!("{}/images/{}/get", self.base, name_of(image));
        let response = self.send(self.client.get(url), &task).await?;
        let response = self.succeeded(response, &task).await?;
        let temp_dir = &options.temp_dir;
        let mut file = tempfile::tempfile_in(temp_dir)
            .map_err(Error::io("create a temporary file in", temp_dir))?;
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.unreachable(&task, &error))?;
            let directory = temp_dir.clone();
            file = off_thread(move || match file.write_all(&piece) {
                Ok(()) => Ok(file),
                Err(error) => Err(write_failure(&directory, error)),
            })
            .await?;
        }
        let name = format!("docker-daemon:{}", name_of(image));
        open_docker_file(file, name, options).await
    }

    /// Loads the image `from` of `source` into the engine, by way of a file in `temp_dir`.
    ///
    /// An image the engine has under all the names already is not sent again.
    ///
    /// # Errors
    /// [`Error::Engine`] where the engine refuses it, or does not have it afterwards.
    pub async fn load(
        &self,
        source: Arc<dyn ImageStore>,
        from: &Name,
        options: &DockerArchiveOptions,
        temp_dir: &Path,
    ) -> Result<CopyReport, Error> {
        let image = ImageToSave::find(source.as_ref(), from, options.platform.as_ref()).await?;
        if self.has_all(&options.references, &image.id()).await? {
            return Ok(image.skipped());
        }
        let id = image.id();
        let directory =
            tempfile::tempdir_in(temp_dir).map_err(Error::io("create a directory in", temp_dir))?;
        let path = directory.path().join("image.tar");
        let report = image
            .write(vec![source], &path, &options.references)
            .await?;
        self.send_archive(&path).await?;
        let loaded = match options.references.first() {
            Some(reference) => DaemonImage::Reference(reference.clone()),
            None => DaemonImage::Id(id),
        };
        if self.image_id(&loaded).await?.is_some() {
            return Ok(report);
        }
        let task = format!("load image `{}`", name_of(&loaded));
        let reason = "it is not there afterwards".to_owned();
        Err(self.error(&task, reason, Kind::Unavailable))
    }

    /// Returns whether all of `references` name the image with `id`.
    async fn has_all(&self, references: &[Reference], id: &Digest) -> Result<bool, Error> {
        for reference in references {
            let image = DaemonImage::Reference(reference.clone());
            if self.image_id(&image).await?.as_ref() != Some(id) {
                return Ok(false);
            }
        }
        Ok(!references.is_empty())
    }

    async fn send_archive(&self, path: &Path) -> Result<(), Error> {
        let task = "load an image";
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let body = Part::whole(Arc::new(file), size).stream("the image to load".to_owned());
        let request = self
            .client
            .post(format!("{}/images/load?quiet=1", self.base))
            .header(reqwest::header::CONTENT_TYPE, "application/x-tar")
            .body(reqwest::Body::wrap_stream(body));
        let response = self.send(request, task).await?;
        let answer = self
            .body(self.succeeded(response, task).await?, task)
            .await?;
        // The status says nothing: it was sent before the engine had seen the image.
        for line in answer.split(|&byte| byte == b'\n') {
            if let Ok(Said {
                error: Some(reason),
                ..
            }) = serde_json::from_slice::<Said>(line)
            {
                return Err(self.error(task, reason, Kind::Unavailable));
            }
        }
        Ok(())
    }

    async fn send(&self, request: RequestBuilder, task: &str) -> Result<Response, Error> {
        let sent = request.send().await;
        sent.map_err(|error| self.unreachable(task, &error))
    }

    /// Returns `response` where it is a success, else the engine's error.
    async fn succeeded(&self, response: Response, task: &str) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response, task).await?;
        let said = serde_json::from_slice::<Said>(&body).ok();
        let reason = said
            .and_then(|said| said.message)
            .unwrap_or_else(|| format!("it answered {status}"));
        let kind = match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
            _ => Kind::Unavailable,
        };
        Err(self.error(task, reason, kind))
    }

    /// Reads a short answer.
    async fn body(&self, mut response: Response, task: &str) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            let piece = response.chunk().await;
            match piece.map_err(|error| self.unreachable(task, &error))? {
                Some(piece) if body.len() + piece.len() <= MAX_ANSWER => {
                    body.extend_from_slice(&piece);
                }
                Some(_) => {
                    let reason = "its answer is longer than 1 MiB".to_owned();
                    return Err(self.error(task, reason, Kind::Corrupt));
                }
                None => return Ok(body),
            }
        }
    }

    fn unreachable(&self, task: &str, error: &reqwest::Error) -> Error {
        let reason = root_cause(error);
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied).to_string();
        let is_denied = reason.to_ascii_lowercase().contains(&denied);
        let kind = if is_denied {
            Kind::Denied
        } else {
            Kind::Unavailable
        };
        self.error(task, reason, kind)
    }

    fn error(&self, task: &str, reason: String, kind: Kind) -> Error {
        Error::Engine {
            host: self.host.clone(),
            task: task.to_owned(),
            reason,
            kind,
        }
    }
}

/// Returns a client that will never speak TLS.
fn plain_http() -> Result<reqwest::ClientBuilder, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Engine {
            host: "any".to_owned(),
            task: "speak".to_owned(),
            reason: error.to_string(),
            kind: Kind::System,
        })?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    // Given only so that no backend is looked for.
    Ok(Client::builder().tls_backend_preconfigured(config))
}

fn name_of(image: &DaemonImage) -> String {
    match image {
        DaemonImage::Reference(reference) => reference.to_string(),
        DaemonImage::Id(id) => id.to_string(),
    }
}

/// Returns the innermost message of `error`, which says what went wrong.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
