//! `trilith doctor`: what this machine has, and how to get the rest.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use trilith_build::project::load_project;
use trilith_build::{Context, CredentialReport, Diagnosis, EngineReport, StoreReport, diagnose};
use trilith_core::{Platform, Repository};

use crate::args;
use crate::output::{Failure, Output};

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    /// What builds a Dockerfile where no builder is named.
    auto: Option<String>,
    engines: Vec<Engine<'a>>,
    store: Store<'a>,
    /// `null` where there is no repository.
    credentials: Option<Credentials<'a>>,
}

#[derive(Serialize)]
struct Engine<'a> {
    #[serde(rename = "engine")]
    name: String,
    answers: bool,
    version: Option<&'a str>,
    address: Option<&'a str>,
    platforms: &'a [Platform],
    features: Vec<&'static str>,
    /// What to do instead, by feature.
    missing: BTreeMap<&'static str, &'static str>,
    problem: Option<String>,
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct Store<'a> {
    path: &'a Path,
    exists: bool,
    writable: bool,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Credentials<'a> {
    repository: String,
    found: bool,
    origin: Option<&'a str>,
    searched: &'a [String],
    problem: Option<String>,
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Doctor,
    output: Output,
) -> Result<(), Failure> {
    let repository = repository(args)?;
    let diagnosis = diagnose(context, repository.as_ref()).await;
    let document = Document::new(&diagnosis);
    output.result(&document, || document.text())
}

fn repository(args: &args::Doctor) -> Result<Option<Repository>, Failure> {
    if args.repository.is_some() {
        return Ok(args.repository.clone());
    }
    let project = load_project(&args.project)?;
    Ok(project.and_then(|project| project.image.repository))
}

impl<'a> Document<'a> {
    fn new(diagnosis: &'a Diagnosis) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            auto: diagnosis.automatic().map(|kind| kind.to_string()),
            engines: diagnosis.engines.iter().map(Engine::new).collect(),
            store: Store::new(&diagnosis.store),
            credentials: diagnosis.credentials.as_ref().map(Credentials::new),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("trilith {}\n", self.version);
        let mut line = |indent: usize, line: &str| {
            let _infallible = writeln!(text, "{:indent$}{line}", "");
        };
        line(0, "graft: needs no engine, builds recipes of layers");
        for engine in &self.engines {
            engine.lines(&mut line);
        }
        match &self.auto {
            Some(engine) => line(
                0,
                &format!("Dockerfiles are built by {engine} unless told otherwise"),
            ),
            None => line(0, "Dockerfiles cannot be built: no engine answers"),
        }
        let Store {
            path,
            exists,
            problem,
            ..
        } = &self.store;
        let state = match (problem, exists) {
            (Some(problem), _) => format!("cannot be written to: {problem}"),
            (None, true) => "writable".to_owned(),
            (None, false) => "will be made".to_owned(),
        };
        line(0, &format!("store: {}, {state}", path.display()));
        if let Some(credentials) = &self.credentials {
            credentials.lines(&mut line);
        }
        text
    }
}

impl<'a> Engine<'a> {
    fn new(report: &'a EngineReport) -> Self {
        let info = report.info.as_ref().ok();
        let capabilities = info.map(|info| &info.capabilities);
        Self {
            name: report.kind.to_string(),
            answers: info.is_some(),
            version: info.map(|info| info.version.as_str()),
            address: info.map(|info| info.address.as_str()),
            platforms: capabilities.map_or(&[], |can| can.platforms.as_slice()),
            features: capabilities.map_or_else(Vec::new, |can| {
                can.features
                    .iter()
                    .map(|feature| feature.as_str())
                    .collect()
            }),
            missing: report
                .missing
                .iter()
                .map(|(feature, instead)| (feature.as_str(), *instead))
                .collect(),
            problem: report.info.as_ref().err().map(|error| with_causes(error)),
            remedy: report.remedy,
        }
    }

    fn lines(&self, line: &mut impl FnMut(usize, &str)) {
        let name = &self.name;
        if let Some(problem) = &self.problem {
            line(0, &format!("{name}: {problem}"));
        } else {
            let version = self.version.unwrap_or_default();
            let address = self.address.unwrap_or_default();
            line(0, &format!("{name}: {version} at {address}"));
            let platforms: Vec<String> = self.platforms.iter().map(ToString::to_string).collect();
            line(2, &format!("platforms: {}", platforms.join(", ")));
            line(2, &format!("can: {}", self.features.join(", ")));
        }
        for (feature, instead) in &self.missing {
            line(2, &format!("cannot: {feature}; {instead}"));
        }
        if let Some(remedy) = self.remedy {
            line(2, &format!("to have it: {remedy}"));
        }
    }
}

impl<'a> Store<'a> {
    fn new(report: &'a StoreReport) -> Self {
        Self {
            path: &report.path,
            exists: report.exists,
            writable: report.problem.is_none(),
            problem: report.problem.as_ref().map(ToString::to_string),
        }
    }
}

impl<'a> Credentials<'a> {
    fn new(report: &'a CredentialReport) -> Self {
        Self {
            repository: report.repository.to_string(),
            found: report.origin.is_some(),
            origin: report.origin.as_deref(),
            searched: &report.searched,
            problem: report.problem.as_ref().map(|error| with_causes(error)),
        }
    }

    fn lines(&self, line: &mut impl FnMut(usize, &str)) {
        let repository = &self.repository;
        line(
            0,
            &match (&self.problem, self.origin) {
                (Some(problem), _) => format!("credentials for {repository}: {problem}"),
                (None, Some(origin)) => format!("credentials for {repository}: from {origin}"),
                (None, None) => format!(
                    "credentials for {repository}: none in {}; `docker login` and `podman login` write them",
                    self.searched.join(", ")
                ),
            },
        );
    }
}

/// Returns an error and what caused it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _infallible = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
