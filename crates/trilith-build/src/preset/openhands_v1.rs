//! The agent server of the `OpenHands` software agent SDK (V1).
//!
//! Facts are those of the reference's `AgentServerBuildConfig`, for both layouts that the SDK has
//! had. In the first one `openhands/` at the root holds all packages. In the second one each of four
//! directories at the root does, and the reference, which names images by commit there, has no hash
//! for them: they are hashed as a directory that holds nothing but the four, and with their
//! Markdown, since packages declare some of it as data.
//!
//! The commit is no input, and not told to the Dockerfile: else every commit would be a new image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trilith_core::{Repository, Scheme, Tags};

use super::checkout::{find_root, installed_version};
use super::git::{GitInfo, GitOverrides};
use super::{PresetOptions, image_names, load_tags, parse_base, paths};
use crate::build::{BuildOptions, build};
use crate::build_context::{AGENT_SERVER_DOCKERFILE, ContextParts, agent_server_parts, parts_of};
use crate::context::Context;
use crate::error::Error;
use crate::project::{DockerfileRecipe, DockerfileSource, python_version};
use crate::report::BuildReport;
use crate::settings::{LockFiles, Settings};

/// The Python package whose version counts.
const PACKAGE: &str = "openhands-sdk";
/// The repository where none is named.
const REPOSITORY: &str = "agent-server";
/// The variant where none is named.
const VARIANT: &str = "python";
/// The stage that makes the image for production, which is the default.
const BINARY: &str = "binary";
/// The stage that makes the image for development.
const SOURCE: &str = "source";

/// Where the files of a checkout are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// All packages in `openhands/`.
    OneDirectory,
    /// Each package in a directory of its own.
    Workspace,
}

/// The packages of a workspace.
const PACKAGES: [&str; 4] = [
    "openhands-agent-server",
    "openhands-sdk",
    "openhands-tools",
    "openhands-workspace",
];
/// What of them is neither hashed nor sent.
const WORKSPACE_IGNORE: [&str; 3] = [".*", "__pycache__/", "*.pyc"];

impl Layout {
    /// Returns the layout of the checkout whose root `directory` is, if it is one.
    fn of(directory: &Path) -> Option<Self> {
        let has = |name: &str| directory.join(name).is_file();
        if !has("pyproject.toml") {
            return None;
        }
        if PACKAGES
            .iter()
            .all(|name| has(&format!("{name}/pyproject.toml")))
        {
            return Some(Self::Workspace);
        }
        // A package of a workspace has an `openhands/` too, but no lock file.
        (has("uv.lock") && directory.join("openhands").is_dir()).then_some(Self::OneDirectory)
    }

    fn sources(self) -> Vec<PathBuf> {
        match self {
            Self::OneDirectory => paths(&["openhands"]),
            Self::Workspace => paths(&PACKAGES),
        }
    }

    fn ignore(self) -> Vec<String> {
        let patterns = match self {
            Self::OneDirectory => Scheme::OpenHandsV1.default_ignore(),
            Self::Workspace => &WORKSPACE_IGNORE,
        };
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    fn parts(self) -> ContextParts {
        match self {
            Self::OneDirectory => agent_server_parts(),
            Self::Workspace => parts_of(&PACKAGES, &WORKSPACE_IGNORE),
        }
    }

    fn dockerfile(self) -> String {
        match self {
            Self::OneDirectory => AGENT_SERVER_DOCKERFILE.to_owned(),
            Self::Workspace => format!("openhands-agent-server/{AGENT_SERVER_DOCKERFILE}"),
        }
    }

    /// Returns the manifests that may have the version, the likeliest first.
    fn manifests(self) -> [&'static str; 2] {
        match self {
            Self::OneDirectory => ["openhands/sdk/pyproject.toml", "pyproject.toml"],
            Self::Workspace => ["openhands-sdk/pyproject.toml", "pyproject.toml"],
        }
    }
}

/// What an agent server's image can be told; `None` and empty leave it to the preset.
#[derive(Clone, Debug, Default)]
pub struct AgentServerOptions {
    /// What every preset can be told. `repository` is the reference's `registry_prefix`, and
    /// `target` is `binary` unless another stage is named.
    pub preset: PresetOptions,
    /// What the image is a variant of, told to the Dockerfile as `VARIANT`; `python` by default.
    pub variant: Option<String>,
    /// What is known of the commit.
    pub git: GitOverrides,
}

/// An agent server's image, as the reference's class of this name describes one.
#[derive(Clone, Debug)]
pub struct AgentServerBuildConfig {
    root: PathBuf,
    layout: Layout,
    options: PresetOptions,
    base_image: String,
    variant: String,
    target: String,
    version: String,
    git: GitInfo,
}

impl AgentServerBuildConfig {
    /// Finds the SDK checkout that `directory` is in, its version and its commit.
    ///
    /// The version is that of `options`, else of the package `openhands-sdk` installed in the
    /// checkout's `.venv`, else of its manifest, else of the manifest at the root.
    ///
    /// # Errors
    /// `directory` is in no checkout, or there is no version.
    pub fn new(directory: &Path, options: AgentServerOptions) -> Result<Self, Error> {
        let AgentServerOptions {
            preset: options,
            variant,
            git,
        } = options;
        let root = find_root(
            directory,
            "OpenHands SDK",
            "`pyproject.toml`, `uv.lock` and `openhands/`, or the four packages of the workspace",
            |directory| Layout::of(directory).is_some(),
        )?;
        let layout = Layout::of(&root).unwrap_or(Layout::OneDirectory);
        Ok(Self {
            version: match &options.version {
                Some(version) => version.clone(),
                None => find_version(&root, layout)?,
            },
            base_image: options.base_image(),
            variant: variant.unwrap_or_else(|| VARIANT.to_owned()),
            target: options.target.clone().unwrap_or_else(|| BINARY.to_owned()),
            git: GitInfo::load(&root, git),
            root,
            layout,
            options,
        })
    }

    /// Returns the root of the checkout.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the version in every tag.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the commit.
    #[must_use]
    pub fn git(&self) -> &GitInfo {
        &self.git
    }

    /// Returns what every tag ends in: nothing for the target `binary`, `-dev` for `source`, and
    /// for any other its name, as different images must not share a tag.
    #[must_use]
    pub fn suffix(&self) -> String {
        match self.target.as_str() {
            BINARY => String::new(),
            SOURCE => "-dev".to_owned(),
            other => format!("-{other}"),
        }
    }

    /// Returns what is built.
    ///
    /// # Errors
    /// The base image is not one.
    pub fn settings(&self) -> Result<Settings, Error> {
        let options = &self.options;
        let mut args = BTreeMap::from([
            ("VARIANT".to_owned(), self.variant.clone()),
            ("VERSION".to_owned(), self.version.clone()),
        ]);
        args.extend(options.args.clone());
        let scheme = Scheme::OpenHandsV1;
        Ok(Settings {
            project: self.root.clone(),
            repository: Some(self.repository()?),
            version: self.version.clone(),
            base: parse_base(&self.root, &self.base_image)?,
            base_text: self.base_image.clone(),
            platforms: options.platforms(),
            scheme,
            lock_files: LockFiles {
                paths: paths(scheme.default_lock_files()),
                expected: true,
            },
            sources: self.layout.sources(),
            ignore: self.layout.ignore(),
            suffix: self.suffix(),
            other_tags: options.other_tags.clone(),
            skip_tags: options.skip_tags.clone(),
            browser: !options.no_browser,
            layers: Vec::new(),
            agent: false,
            user: None,
            config: options.config.clone(),
            dockerfile: Some(DockerfileRecipe {
                source: DockerfileSource::Path(self.layout.dockerfile()),
                levels: BTreeMap::new(),
                args,
                target: Some(self.target.clone()),
                extra_deps: options.extra_deps.clone(),
            }),
            parts: Some(self.layout.parts()),
        })
    }

    /// Returns the three tags.
    ///
    /// # Errors
    /// A file cannot be read, or a tag would break the grammar.
    pub fn tags(&self) -> Result<Tags, Error> {
        load_tags(&self.settings()?)
    }

    /// Makes sure that the image exists.
    ///
    /// # Errors
    /// As [`crate::build`].
    pub async fn build(
        &self,
        context: &Context,
        options: &BuildOptions,
    ) -> Result<BuildReport, Error> {
        build(context, &self.settings()?, options).await
    }

    /// Returns what the reference's `to_dict` tells.
    ///
    /// # Errors
    /// As [`Self::tags`].
    pub fn to_json(&self) -> Result<Value, Error> {
        Ok(self.describe(&self.tags()?))
    }

    /// Returns what [`Self::to_json`] does where the tags are known.
    #[must_use]
    pub fn describe(&self, tags: &Tags) -> Value {
        let prefix = self.options.repository.as_ref().map(ToString::to_string);
        let repository = prefix.as_deref().unwrap_or(REPOSITORY);
        let custom = &self.options.other_tags;
        json!({
            "base_image": self.base_image,
            "variant": self.variant,
            "target": self.target,
            "registry_prefix": prefix,
            "custom_tags": custom.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "build_context": self.root.display().to_string(),
            "dockerfile": self.root.join(self.layout.dockerfile()).display().to_string(),
            "tags": image_names(repository, tags, custom),
            "version": self.version,
            "git_info": {
                "sha": self.git.sha,
                "short_sha": self.git.short_sha(),
                "ref": self.git.reference,
            },
        })
    }

    fn repository(&self) -> Result<Repository, Error> {
        match &self.options.repository {
            Some(repository) => Ok(repository.clone()),
            None => REPOSITORY.parse().map_err(|source| Error::ImageName {
                image: REPOSITORY.to_owned(),
                source,
            }),
        }
    }
}

fn find_version(root: &Path, layout: Layout) -> Result<String, Error> {
    if let Some(version) = installed_version(root, PACKAGE) {
        return Ok(version);
    }
    for manifest in layout.manifests() {
        if let Some(version) = python_version(&root.join(manifest))? {
            return Ok(version);
        }
    }
    Err(Error::Unset {
        what: "the version of the SDK",
        how: "pass `--version`",
    })
}
