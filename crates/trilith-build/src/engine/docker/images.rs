//! The images that a Docker Engine keeps: looked at, named, pushed, saved.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::StreamExt;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt};
use trilith_core::{Digest, Platform, Reference};
use trilith_oci::registry::Credential;
use trilith_oci::{ImageStore, Kind, Name};

use super::{Api, DockerEngine, Doing};
use crate::engine::redact::Redactor;
use crate::engine::solve::{NewFile, kind_of};
use crate::engine::{BuildRequest, BuiltImage, EngineError, Observer, Progress};

/// Bytes of an archive that are sent at once.
const PIECE: usize = 128 * 1024;

/// What an engine says of an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Inspected {
    /// Returns why it is none for `wanted`. Of the variant not every engine tells.
    fn mismatch(&self, wanted: &Platform) -> Option<String> {
        let own = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        let is_other = (own.os(), own.architecture()) != (wanted.os(), wanted.architecture());
        is_other.then(|| format!("the image is for `{own}`, not for `{wanted}`"))
    }
}

/// A message about a push.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pushing {
    id: Option<String>,
    status: Option<String>,
    #[serde(rename = "progressDetail")]
    progress: Option<Detail>,
    error: Option<String>,
    aux: Option<Aux>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    current: Option<u64>,
    total: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Aux {
    digest: Option<String>,
}

impl Pushing {
    /// Returns the digest that was pushed. With containerd's image store it is only in the last
    /// line for people: `1.0: digest: sha256:… size: 891`.
    fn digest(&self) -> Option<Digest> {
        let told = self.aux.as_ref().and_then(|aux| aux.digest.as_deref());
        let status = self.status.as_deref().unwrap_or_default();
        let shown = || status.split_once("digest: ")?.1.split(' ').next();
        told.or_else(shown)?.parse().ok()
    }
}

impl DockerEngine {
    /// Checks that the engine has the image that it says it built.
    pub(super) async fn verify(
        &self,
        id: &Digest,
        request: &BuildRequest<'_>,
    ) -> Result<(), EngineError> {
        let doing = Doing("build", "the image");
        let corrupt = |reason: String| doing.failed(&reason, Kind::Corrupt);
        let image = self.inspect(id.as_str()).await?;
        let image = image.ok_or_else(|| corrupt(format!("`{id}` is not there afterwards")))?;
        if let Some(reason) = image.mismatch(request.platform) {
            return Err(corrupt(reason));
        }
        let labels = image.config.and_then(|config| config.labels);
        let labels = labels.unwrap_or_default();
        let mut missing = request.labels.iter();
        match missing.find(|(name, value)| labels.get(*name) != Some(*value)) {
            Some((name, _)) => Err(corrupt(format!("the image lacks label `{name}`"))),
            None => Ok(()),
        }
    }

    /// Returns why the image called `name`, where there is one, is none for `platform`.
    pub(super) async fn mismatch(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<String>, EngineError> {
        let image = self.inspect(name).await?;
        Ok(image.and_then(|image| image.mismatch(platform)))
    }

    /// Returns the id of the image called `name`.
    pub(super) async fn find_image(&self, name: &str) -> Result<Option<Digest>, EngineError> {
        let Some(image) = self.inspect(name).await? else {
            return Ok(None);
        };
        let doing = Doing("find", name);
        let malformed = |_| doing.failed("its ID is no digest", Kind::Corrupt);
        image.id.parse().map(Some).map_err(malformed)
    }

    async fn inspect(&self, name: &str) -> Result<Option<Inspected>, EngineError> {
        let path = format!("/images/{name}/json");
        let request = self.api.request(Method::GET, &path).await?;
        self.api.find(request, Doing("find", name)).await
    }

    pub(super) async fn tag_image(
        &self,
        image: &BuiltImage,
        reference: &Reference,
    ) -> Result<(), EngineError> {
        let name = reference.to_string();
        let doing = Doing("tag", &name);
        let path = format!("/images/{}/tag", image.id);
        let repository = reference.repository().to_string();
        let query = [
            ("repo", repository.as_str()),
            ("tag", tag_of(reference, doing)?),
        ];
        let request = self.api.query(Method::POST, &path, &query).await?;
        self.api.call(request, doing).await.map(drop)
    }

    pub(super) async fn untag_image(&self, reference: &Reference) -> Result<(), EngineError> {
        let name = reference.to_string();
        let path = format!("/images/{name}");
        let request = self.api.request(Method::DELETE, &path).await?;
        match self.api.call(request, Doing("untag", &name)).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Fetches an image from its registry.
    pub(super) async fn pull_image(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<(), EngineError> {
        let name = reference.to_string();
        let doing = Doing("pull", &name);
        let redactor = Redactor::default();
        let auth = self.auth(reference, &redactor, doing).await?;
        let platform = platform.map(Platform::to_string).unwrap_or_default();
        let query = [("fromImage", name.as_str()), ("platform", &platform)];
        let path = "/images/create";
        let request = self.api.query(Method::POST, path, &query).await?;
        let request = request.header("X-Registry-Auth", auth);
        let response = self.api.call(request, doing).await?;
        let mut messages = std::pin::pin!(Api::messages::<Pushing>(response, doing));
        while let Some(message) = messages.next().await {
            if let Some(error) = message?.error {
                let reason = redactor.clean(&error);
                return Err(doing.failed(&reason, kind_of(&reason)));
            }
        }
        Ok(())
    }

    /// Pushes what is kept under `reference`, and checks that the registry has it.
    pub(super) async fn push_image(
        &self,
        reference: &Reference,
        observer: Observer<'_>,
    ) -> Result<Digest, EngineError> {
        let name = reference.to_string();
        let doing = Doing("push", &name);
        let redactor = Redactor::default();
        let auth = self.auth(reference, &redactor, doing).await?;
        let repository = reference.repository();
        let path = format!("/images/{repository}/push");
        let query = [("tag", tag_of(reference, doing)?)];
        let request = self.api.query(Method::POST, &path, &query).await?;
        let request = request.header("X-Registry-Auth", auth);
        let response = self.api.call(request, doing).await?;
        let mut told = Told::new(observer, &redactor);
        let mut messages = std::pin::pin!(Api::messages::<Pushing>(response, doing));
        let mut digest = None;
        while let Some(message) = messages.next().await {
            let message = message?;
            if let Some(error) = &message.error {
                let reason = redactor.clean(error);
                return Err(doing.failed(&reason, kind_of(&reason)));
            }
            digest = message.digest().or(digest);
            told.take(message);
        }
        told.finish();
        let digest = digest.ok_or_else(|| doing.failed("it tells no digest", Kind::Corrupt))?;
        self.verify_pushed(reference, &digest, doing).await?;
        Ok(digest)
    }

    /// Asks the registry for what the engine says it has pushed.
    async fn verify_pushed(
        &self,
        reference: &Reference,
        digest: &Digest,
        doing: Doing<'_>,
    ) -> Result<(), EngineError> {
        let looked = async {
            let repository = self.registry.repository(reference.repository())?;
            repository.resolve(&Name::Digest(digest.clone())).await
        };
        let found = looked.await.map_err(|error| {
            let reason = format!("the registry cannot be asked afterwards: {error}");
            doing.failed(&reason, error.kind())
        })?;
        if found.is_some() {
            return Ok(());
        }
        let reason = format!("`{digest}` is not in the registry afterwards");
        Err(doing.failed(&reason, Kind::Corrupt))
    }

    /// Returns the `X-Registry-Auth` for a repository.
    async fn auth(
        &self,
        reference: &Reference,
        redactor: &Redactor,
        doing: Doing<'_>,
    ) -> Result<String, EngineError> {
        let repository = reference.repository();
        let found = self
            .registry
            .credential(repository.registry(), repository.path())
            .await
            .map_err(|error| doing.failed(&error.to_string(), error.kind()))?;
        let auth = found.map_or_else(|| json!({}), |found| login(&found, redactor));
        Ok(URL_SAFE.encode(auth.to_string()))
    }

    pub(super) async fn save_image(
        &self,
        image: &BuiltImage,
        archive: &Path,
    ) -> Result<(), EngineError> {
        let id = image.id.to_string();
        let doing = Doing("save", &id);
        let request = self
            .api
            .request(Method::GET, &format!("/images/{id}/get"))
            .await?;
        let response = self.api.call(request, doing).await?;
        let file = NewFile::beside(archive)?;
        let mut output = file.open().await?;
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| doing.broken(&error))?;
            let written = output.write_all(&piece).await;
            written.map_err(|error| file.failed(error))?;
        }
        let written = output.flush().await;
        written.map_err(|error| file.failed(error))?;
        file.keep()
    }
}

/// Returns a credential as the engine takes it, its secret hidden from now on.
pub(super) fn login(credential: &Credential, redactor: &Redactor) -> Value {
    match credential {
        Credential::Password { username, password } => {
            redactor.hide(password.expose());
            json!({ "username": username, "password": password.expose() })
        }
        Credential::Identity(token) => {
            redactor.hide(token.expose());
            json!({ "identitytoken": token.expose() })
        }
        Credential::Bearer(token) => {
            redactor.hide(token.expose());
            json!({ "registrytoken": token.expose() })
        }
    }
}

impl DockerEngine {
    /// Sends an archive to be taken in.
    pub(super) async fn load_archive(&self, archive: &Path) -> Result<(), EngineError> {
        let name = archive.display().to_string();
        let doing = Doing("load", &name);
        let file = tokio::fs::File::open(archive).await;
        let file = file.map_err(EngineError::io("read", archive))?;
        let pieces = futures_util::stream::try_unfold(file, |mut file| async {
            let mut piece = vec![0; PIECE];
            let count = file.read(&mut piece).await?;
            piece.truncate(count);
            Ok::<_, std::io::Error>((count > 0).then_some((piece, file)))
        });
        let query = [("quiet", "1")];
        let request = self.api.query(Method::POST, "/images/load", &query).await?;
        let request = request
            .header("Content-Type", "application/x-tar")
            .body(reqwest::Body::wrap_stream(pieces));
        let response = self.api.call(request, doing).await?;
        let mut messages = std::pin::pin!(Api::messages::<Pushing>(response, doing));
        while let Some(message) = messages.next().await {
            if let Some(reason) = message?.error {
                return Err(doing.failed(&reason, kind_of(&reason)));
            }
        }
        Ok(())
    }
}

fn tag_of<'r>(reference: &'r Reference, doing: Doing<'_>) -> Result<&'r str, EngineError> {
    match (reference.tag(), reference.digest()) {
        (Some(tag), None) => Ok(tag.as_str()),
        (None, None) => Ok(trilith_core::DEFAULT_TAG),
        (_, Some(_)) => Err(doing.failed("a tag is needed, not a digest", Kind::Usage)),
    }
}

/// The layers of a push, as steps.
struct Told<'a> {
    observer: Observer<'a>,
    redactor: &'a Redactor,
    layers: HashMap<String, u64>,
    open: BTreeMap<u64, bool>,
}

impl<'a> Told<'a> {
    fn new(observer: Observer<'a>, redactor: &'a Redactor) -> Self {
        Self {
            observer,
            redactor,
            layers: HashMap::new(),
            open: BTreeMap::new(),
        }
    }

    fn take(&mut self, message: Pushing) {
        let Some(status) = message.status else {
            return;
        };
        let Some(id) = message.id else {
            let text = format!("{}\n", self.redactor.clean(&status));
            (self.observer)(Progress::Log { step: None, text });
            return;
        };
        // `latest: digest: sha256:… size: …`; a layer it is not.
        if message.progress.is_none() && message.aux.is_none() && status.contains("digest:") {
            return;
        }
        let next = self.layers.len() as u64;
        let step = *self.layers.entry(id.clone()).or_insert_with(|| {
            let title = format!("push layer {id}");
            (self.observer)(Progress::Started { step: next, title });
            next
        });
        self.open.entry(step).or_insert(true);
        if let Some(Detail {
            current: Some(done),
            total,
        }) = message.progress
        {
            (self.observer)(Progress::Bytes { step, done, total });
        }
        let cached = match status.as_str() {
            "Pushed" => false,
            "Layer already exists" => true,
            other if other.starts_with("Mounted from") => true,
            _ => return,
        };
        self.end(step, cached);
    }

    fn finish(&mut self) {
        let open: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, open)| **open)
            .map(|(step, _)| *step)
            .collect();
        for step in open {
            self.end(step, false);
        }
    }

    fn end(&mut self, step: u64, cached: bool) {
        if self.open.insert(step, false) == Some(true) {
            (self.observer)(Progress::Finished {
                step,
                cached,
                error: None,
            });
        }
    }
}
