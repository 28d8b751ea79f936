//! A build in a few lines, and what the engine told of it.

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

/// A project and how it is built.
pub(crate) struct Build {
    directory: TempDir,
    pub(crate) target: Option<&'static str>,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) platform: Platform,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) named_contexts: Vec<NamedContext>,
    pub(crate) secrets: Vec<BuildSecret>,
    pub(crate) ssh: Vec<SshAgent>,
    pub(crate) extra_hosts: Vec<(String, String)>,
    pub(crate) cache_from: Vec<CacheEntry>,
    pub(crate) cache_to: Vec<CacheEntry>,
    pub(crate) network: Network,
    pub(crate) no_cache: bool,
    pub(crate) pull: bool,
}

impl Build {
    /// Returns a build whose steps have no network.
    pub(crate) fn new(dockerfile: &str) -> Self {
        let build = Self {
            directory: tempfile::Builder::new()
                .prefix("trilith-project-")
                .tempdir()
                .unwrap(),
            target: None,
            args: BTreeMap::new(),
            platform: Platform::host(),
            labels: BTreeMap::new(),
            named_contexts: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            extra_hosts: Vec::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            network: Network::None,
            no_cache: false,
            pull: false,
        };
        build.file("Dockerfile", dockerfile);
        build
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) async fn run(
        &self,
        engine: &dyn Engine,
        told: &Told,
    ) -> Result<BuiltImage, EngineError> {
        let observer = |progress| told.0.lock().unwrap().push(progress);
        engine.build(&self.request(), Export::Keep, &observer).await
    }

    /// Builds, which has to succeed.
    pub(crate) async fn image(&self, engine: &dyn Engine) -> (BuiltImage, Told) {
        let told = Told::default();
        let built = self.run(engine, &told).await;
        (
            built.unwrap_or_else(|error| panic!("{error:?} {told:#?}")),
            told,
        )
    }

    /// Builds, which has to fail.
    pub(crate) async fn error(&self, engine: &dyn Engine) -> (EngineError, Told) {
        let told = Told::default();
        let built = self.run(engine, &told).await;
        (built.expect_err("the build has to fail"), told)
    }

    pub(crate) fn request(&self) -> BuildRequest<'_> {
        let dockerfile = Dockerfile::File(self.path().join("Dockerfile"));
        let rules = IgnoreRules::Find;
        let context =
            BuildContext::load(self.path(), &dockerfile, &rules, &StatCache::disabled()).unwrap();
        BuildRequest {
            context: Arc::new(context),
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

/// What an engine told.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Vec<Progress>>);

impl Told {
    pub(crate) fn all(&self) -> Vec<Progress> {
        self.0.lock().unwrap().clone()
    }

    /// Returns everything that was written.
    pub(crate) fn log(&self) -> String {
        let all = self.all().into_iter();
        all.filter_map(|progress| match progress {
            Progress::Log { text, .. } => Some(text),
            _ => None,
        })
        .collect()
    }

    /// Returns whether the step whose title has `part` in it was cached.
    pub(crate) fn is_cached(&self, part: &str) -> bool {
        let all = self.all();
        let started = all.iter().find_map(|progress| match progress {
            Progress::Started { step, title } if title.contains(part) => Some(*step),
            _ => None,
        });
        let number = started.unwrap_or_else(|| panic!("no step `{part}`: {all:#?}"));
        let ended = all.iter().find_map(|progress| match progress {
            Progress::Finished { step, cached, .. } if *step == number => Some(*cached),
            _ => None,
        });
        ended.unwrap_or_else(|| panic!("`{part}` did not end: {all:#?}"))
    }

    /// Returns the titles of the steps that began.
    pub(crate) fn titles(&self) -> Vec<String> {
        let all = self.all().into_iter();
        all.filter_map(|progress| match progress {
            Progress::Started { title, .. } => Some(title),
            _ => None,
        })
        .collect()
    }
}
