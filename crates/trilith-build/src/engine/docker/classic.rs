//! The classic builder, for engines before 20.10: one archive in, messages out.
//!
//! It knows no secrets, no SSH and no images in place of stages, and its steps have no numbers but
//! in what they print. What it prints is read for steps, and for nothing else: the image's ID and
//! the failure come in fields of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::StreamExt;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method};
use serde::Deserialize;
use serde_json::json;
use trilith_core::{DEFAULT_REGISTRY, Digest, Platform, Reference};
use trilith_oci::Kind;
use trilith_oci::layer::Compression;

use super::images::login;
use super::{Api, DockerEngine, Doing};
use crate::build_context::BuildContextError;
use crate::dockerfile::{BuildArguments, Dockerfile, Origin, StageGraph};
use crate::engine::redact::Redactor;
use crate::engine::solve::{self, LastLines, exit_code, kind_of};
use crate::engine::{BuildRequest, EngineError, Network, Observer, Progress};

/// How credential files and the classic builder call `docker.io`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A message of a build.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    stream: Option<String>,
    status: Option<String>,
    id: Option<String>,
    error: Option<String>,
    aux: Option<Aux>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Aux {
    #[serde(rename = "ID")]
    id: Option<String>,
}

/// Returns what of `request` the classic builder cannot do.
pub(super) fn refusal(request: &BuildRequest<'_>) -> Option<&'static str> {
    let caches = request
        .cache_from
        .iter()
        .any(|cache| cache.kind != "registry");
    let refused = [
        (
            !request.named_contexts.is_empty(),
            "put images in place of stages",
        ),
        (!request.secrets.is_empty(), "mount build secrets"),
        (!request.ssh.is_empty(), "mount SSH agents"),
        (caches, "use such a cache"),
        (!request.cache_to.is_empty(), "write its cache elsewhere"),
    ];
    refused
        .into_iter()
        .find(|(is, _)| *is)
        .map(|(_, what)| what)
}

impl DockerEngine {
    /// Builds `request`, which is not [refused](refusal), and returns the image's ID.
    pub(super) async fn build_classic(
        &self,
        request: &BuildRequest<'_>,
        native: &Platform,
        observer: Observer<'_>,
    ) -> Result<Digest, EngineError> {
        let doing = Doing("build", "the image");
        let redactor = solve::redactor(request);
        let query = query(request, native);
        let query: Vec<(&str, &str)> = query.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let http = self.api.query(Method::POST, "/build", &query).await?;
        let logins = self.logins(request, &redactor, doing).await?;
        let failure = Arc::new(Mutex::new(None));
        let http = http
            .header(CONTENT_TYPE, "application/x-tar")
            .header("X-Registry-Config", logins)
            .body(archive(request, Arc::clone(&failure)));
        let built = async {
            let response = self.api.call(http, doing).await?;
            let mut steps = Steps::new(observer, &redactor);
            let mut messages = std::pin::pin!(Api::messages::<Message>(response, doing));
            while let Some(message) = messages.next().await {
                steps.take(message?, doing)?;
            }
            steps.finish(doing)
        };
        let built: Result<Digest, EngineError> = built.await;
        built.map_err(|error| {
            let mut own = failure.lock().unwrap_or_else(PoisonError::into_inner);
            own.take().map_or(error, EngineError::Context)
        })
    }

    /// Returns the `X-Registry-Config`: credentials for all registries that the Dockerfile names.
    async fn logins(
        &self,
        request: &BuildRequest<'_>,
        redactor: &Redactor,
        doing: Doing<'_>,
    ) -> Result<String, EngineError> {
        let mut logins = serde_json::Map::new();
        for registry in registries(request)? {
            let found = self.registry.credential(&registry, "").await;
            let found = found.map_err(|error| doing.failed(&error.to_string(), error.kind()))?;
            let Some(found) = found else {
                continue;
            };
            let login = login(&found, redactor);
            let name = if registry == DEFAULT_REGISTRY {
                DOCKER_HUB.to_owned()
            } else {
                registry
            };
            logins.insert(name, login);
        }
        Ok(URL_SAFE.encode(serde_json::Value::Object(logins).to_string()))
    }
}

fn query(request: &BuildRequest<'_>, native: &Platform) -> Vec<(&'static str, String)> {
    let dockerfile = String::from_utf8_lossy(request.context.dockerfile()).into_owned();
    let mut query = vec![
        ("dockerfile", dockerfile),
        // No container is left, whatever happens.
        ("rm", "1".to_owned()),
        ("forcerm", "1".to_owned()),
        ("buildargs", json!(request.args).to_string()),
        ("labels", json!(request.labels).to_string()),
    ];
    if request.platform != native {
        query.push(("platform", request.platform.to_string()));
    }
    if let Some(target) = request.target {
        query.push(("target", target.to_owned()));
    }
    for (name, address) in request.extra_hosts {
        query.push(("extrahosts", format!("{name}:{address}")));
    }
    match request.network {
        Network::Default => {}
        Network::None => query.push(("networkmode", "none".to_owned())),
        Network::Host => query.push(("networkmode", "host".to_owned())),
    }
    let caches = request.cache_from.iter();
    let caches: Vec<&String> = caches
        .filter_map(|cache| cache.options.get("ref"))
        .collect();
    if !caches.is_empty() {
        query.push(("cachefrom", json!(caches).to_string()));
    }
    for (is, name) in [(request.no_cache, "nocache"), (request.pull, "pull")] {
        if is {
            query.push((name, "1".to_owned()));
        }
    }
    query
}

/// Returns the context as the body of a request; what goes wrong with it is put into `failure`.
fn archive(request: &BuildRequest<'_>, failure: Arc<Mutex<Option<BuildContextError>>>) -> Body {
    let pieces = Arc::clone(&request.context).stream(Compression::None);
    Body::wrap_stream(pieces.map(move |piece| {
        piece.map_err(|error| {
            let message = error.to_string();
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            message
        })
    }))
}

/// Returns the registries of the images that the Dockerfile names.
fn registries(request: &BuildRequest<'_>) -> Result<BTreeSet<String>, EngineError> {
    let text = request.context.read_dockerfile()?;
    // A Dockerfile that cannot be read here, the engine refuses with better words.
    let Ok(dockerfile) = Dockerfile::parse(&String::from_utf8_lossy(&text)) else {
        return Ok(BTreeSet::new());
    };
    let arguments = BuildArguments {
        args: request.args.clone(),
        platform: request.platform.clone(),
    };
    let graph = StageGraph::new(&dockerfile, &arguments);
    let mut registries = BTreeSet::new();
    for stage in 0..dockerfile.stages().len() {
        let origins = graph.origins(stage).unwrap_or_default();
        for origin in graph.base(stage).into_iter().chain(origins) {
            if let Origin::Image(name) = origin
                && let Ok(reference) = name.parse::<Reference>()
            {
                registries.insert(reference.registry().to_owned());
            }
        }
    }
    Ok(registries)
}

/// The steps of a classic build, one after the other.
struct Steps<'a> {
    observer: Observer<'a>,
    redactor: &'a Redactor,
    /// Number, title, whether it is cached.
    step: Option<(u64, String, bool)>,
    /// The stage that is built, where it has a name.
    stage: Option<String>,
    next: u64,
    log: LastLines,
    layers: BTreeMap<String, String>,
    id: Option<Digest>,
}

impl<'a> Steps<'a> {
    fn new(observer: Observer<'a>, redactor: &'a Redactor) -> Self {
        Self {
            observer,
            redactor,
            step: None,
            stage: None,
            next: 0,
            log: LastLines::default(),
            layers: BTreeMap::new(),
            id: None,
        }
    }

    fn take(&mut self, message: Message, doing: Doing<'_>) -> Result<(), EngineError> {
        if let Some(error) = message.error {
            let error = self.redactor.clean(&error);
            self.end(Some(&error));
            return Err(self.failure(&error, doing));
        }
        if let Some(id) = message.aux.and_then(|aux| aux.id) {
            self.id = id.parse().ok();
        }
        if let Some(text) = message.stream {
            self.said(&text);
        }
        if let (Some(status), Some(id)) = (message.status, message.id)
            && self.layers.get(&id) != Some(&status)
        {
            self.log(&format!("{id}: {status}\n"));
            self.layers.insert(id, status);
        }
        Ok(())
    }

    fn said(&mut self, text: &str) {
        // What a step writes to stderr comes in red.
        let red = text.strip_prefix("\x1b[91m");
        let red = red.and_then(|text| text.strip_suffix("\x1b[0m"));
        let text = red.unwrap_or(text);
        if let Some((number, instruction)) = begins(text) {
            self.end(None);
            if instruction.starts_with("FROM ") {
                self.stage = stage_name(instruction).map(str::to_owned);
            }
            let title = title(self.stage.as_deref(), number, instruction);
            let title = self.redactor.clean(&title);
            let step = self.next;
            self.next += 1;
            self.step = Some((step, title.clone(), false));
            self.log = LastLines::default();
            (self.observer)(Progress::Started { step, title });
        } else if text.starts_with(" ---> ") {
            if text.trim_end() == " ---> Using cache"
                && let Some((_, _, cached)) = &mut self.step
            {
                *cached = true;
            }
        } else if !text.trim().is_empty() && !text.starts_with("Removing intermediate container ") {
            self.log(text);
        }
    }

    fn log(&mut self, text: &str) {
        let text = self.redactor.clean(text);
        self.log.add(&text);
        let step = self.step.as_ref().map(|(step, _, _)| *step);
        (self.observer)(Progress::Log { step, text });
    }

    fn end(&mut self, error: Option<&str>) {
        if let Some((step, _, cached)) = &self.step {
            (self.observer)(Progress::Finished {
                step: *step,
                cached: *cached,
                error: error.map(str::to_owned),
            });
        }
        if error.is_none() {
            self.step = None;
        }
    }

    fn failure(&mut self, error: &str, doing: Doing<'_>) -> EngineError {
        let code = error
            .rsplit_once("returned a non-zero code: ")
            .and_then(|(_, code)| exit_code(&format!("exit code: {code}")));
        match (self.step.take(), code) {
            (Some((_, step, _)), Some(reason)) => EngineError::Step {
                step,
                reason,
                log: self.log.lines(),
            },
            (Some((_, step, _)), None) if !is_from(&step) => EngineError::Step {
                step,
                reason: error.to_owned(),
                log: self.log.lines(),
            },
            _ => doing.failed(error, kind_of(error)),
        }
    }

    fn finish(mut self, doing: Doing<'_>) -> Result<Digest, EngineError> {
        self.end(None);
        self.id
            .ok_or_else(|| doing.failed("it tells no ID", Kind::Corrupt))
    }
}

/// Returns the number and the instruction of the step that `Step 2/3 : RUN x` begins.
fn begins(text: &str) -> Option<(&str, &str)> {
    let (number, instruction) = text.strip_prefix("Step ")?.split_once(" : ")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (step, of) = number.split_once('/')?;
    (is_number(step) && is_number(of)).then_some((number, instruction.trim_end()))
}

/// Returns the name that `FROM x AS name` gives the stage.
fn stage_name(from: &str) -> Option<&str> {
    let mut words = from.split_whitespace().rev();
    let (name, between) = (words.next()?, words.next()?);
    between.eq_ignore_ascii_case("as").then_some(name)
}

/// Returns the title of a step as BuildKit writes it: `[deps 2/3] RUN x`.
fn title(stage: Option<&str>, number: &str, instruction: &str) -> String {
    match stage {
        Some(stage) => format!("[{stage} {number}] {instruction}"),
        None => format!("[{number}] {instruction}"),
    }
}

/// Returns whether the step only looks for its base.
fn is_from(title: &str) -> bool {
    title
        .split_once("] ")
        .is_some_and(|(_, instruction)| instruction.starts_with("FROM "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        for (text, expected) in [
            ("Step 2/3 : RUN x : y\n", Some(("2/3", "RUN x : y"))),
            ("Step 2/3: RUN x\n", None),
            ("Step two/3 : RUN x\n", None),
            ("Stepping 1/2 : x", None),
            ("", None),
        ] {
            assert_eq!(begins(text), expected, "{text:?}");
        }
        for (from, expected) in [
            ("FROM a AS b", Some("b")),
            ("FROM --platform=x a as B", Some("B")),
            ("FROM as", None),
            ("FROM a", None),
        ] {
            assert_eq!(stage_name(from), expected, "{from}");
        }
        assert_eq!(
            title(Some("b"), "1/3", "FROM a AS b"),
            "[b 1/3] FROM a AS b"
        );
        assert!(is_from("[1/3] FROM a AS b") && !is_from("[2/3] RUN echo FROM x"));
    }
}
