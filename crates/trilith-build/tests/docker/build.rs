//! What the tests of engines have in common: a build in a few lines, and what it told.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use trilith_build::build_context::{BuildContext, Dockerfile, IgnoreRules};
use trilith_build::engine::{
    BuildRequest, BuildSecret, BuiltImage, CacheEntry, Engine, EngineError, Export, NamedContext,
    Network, Progress, SshAgent,
};
use trilith_core::{Platform, StatCache};
use trilith_oci::registry::{CredentialSource, RegistryClient, RegistryConfig};

/// A project and how it is built.
pub(crate) struct Build {
    pub(crate) directory: TempDir,
    pub(crate) target: Option<&'static str>,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) platform: Platform,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) named_contexts: Vec<NamedContext>,
    pub(crate) secrets: Vec<BuildSecret>,
    pub(crate) ssh: Vec<SshAgent>,
    pub(crate) extra_hosts: Vec<(String, String)>,
    pub(crate) network: Network,
    pub(crate) cache_from: Vec<CacheEntry>,
    pub(crate) cache_to: Vec<CacheEntry>,
    pub(crate) no_cache: bool,
    pub(crate) pull: bool,
}

/// What an engine told.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<Progress>>);

impl Told {
    /// Returns a function that writes down what it is told.
    pub(crate) fn observer(&self) -> impl Fn(Progress) + Send + Sync {
        |progress| self.0.lock().unwrap().push(progress)
    }

    pub(crate) fn all(&self) -> Vec<Progress> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the log of the step whose title has `part` in it.
    pub(crate) fn log(&self, part: &str) -> String {
        let step = self.step(part);
        let of_step = |progress: &Progress| match progress {
            Progress::Log { step: of, text } if *of == Some(step) => Some(text.clone()),
            _ => None,
        };
        self.all().iter().filter_map(of_step).collect()
    }

    /// Returns how the step whose title has `part` in it ended: cached, and its error.
    pub(crate) fn end(&self, part: &str) -> (bool, Option<String>) {
        let number = self.step(part);
        let end = |progress: &Progress| match progress {
            Progress::Finished {
                step,
                cached,
                error,
            } if *step == number => Some((*cached, error.clone())),
            _ => None,
        };
        let all = self.all();
        let mut ends = all.iter().rev().filter_map(end);
        ends.next()
            .unwrap_or_else(|| panic!("`{part}` did not end: {all:#?}"))
    }

    fn step(&self, part: &str) -> u64 {
        let all = self.all();
        let started = all.iter().find_map(|progress| match progress {
            Progress::Started { step, title } if title.contains(part) => Some(*step),
            _ => None,
        });
        started.unwrap_or_else(|| panic!("no step `{part}`: {all:#?}"))
    }
}

impl Build {
    pub(crate) fn new(dockerfile: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("trilith-build-")
            .tempdir()
            .unwrap();
        let build = Self {
            directory,
            target: None,
            args: BTreeMap::new(),
            platform: Platform::host(),
            labels: BTreeMap::new(),
            named_contexts: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            extra_hosts: Vec::new(),
            // The testkit's engines make no network of their own.
            network: Network::Host,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            no_cache: false,
            pull: false,
        };
        build.file("Dockerfile", dockerfile);
        build
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        self.args.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn context(&self) -> BuildContext {
        let dockerfile = Dockerfile::File(self.path().join("Dockerfile"));
        let cache = StatCache::default();
        BuildContext::load(self.path(), &dockerfile, &IgnoreRules::Find, &cache).unwrap()
    }

    pub(crate) async fn run(
        &self,
        engine: &dyn Engine,
        told: &Told,
    ) -> Result<BuiltImage, EngineError> {
        self.export(engine, Export::Keep, told).await
    }

    pub(crate) async fn export(
        &self,
        engine: &dyn Engine,
        export: Export<'_>,
        told: &Told,
    ) -> Result<BuiltImage, EngineError> {
        let request = self.request(Arc::new(self.context()));
        engine.build(&request, export, &told.observer()).await
    }

    pub(crate) fn request(&self, context: Arc<BuildContext>) -> BuildRequest<'_> {
        BuildRequest {
            context,
            target: self.target,
            args: &self.args,
            platform: &self.platform,
            labels: &self.labels,
            named_contexts: &self.named_contexts,
            secrets: &self.secrets,
            ssh: &self.ssh,
            extra_hosts: &self.extra_hosts,
            network: self.network,
            cache_from: &self.cache_from,
            cache_to: &self.cache_to,
            no_cache: self.no_cache,
            pull: self.pull,
        }
    }
}

/// Returns a client of registries, with the credentials in `files`.
pub(crate) fn registry_client(files: &[&Path]) -> RegistryClient {
    RegistryClient::try_new(RegistryConfig {
        credentials: CredentialSource::Files(files.iter().map(|path| path.to_path_buf()).collect()),
        ..RegistryConfig::default()
    })
    .unwrap()
}
