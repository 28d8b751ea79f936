//! The runtime image of `OpenHands` V0.
//!
//! Facts are those of the reference's `runtime_build.py`. Unlike there, what is sent and has no part
//! in the tags (`skills/`, the template, extra dependencies) is an input of the image's key, so that
//! an image under the right tag that is made of something else is built anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use trilith_core::{Repository, RuntimeImage, Scheme, Tags, runtime_image_repo_and_tag_v0};

use super::checkout::find_root;
use super::{PresetOptions, image_names, load_tags, parse_base};
use crate::build::{BuildOptions, build};
use crate::build_context::{ContextParts, FilePart, TreePart};
use crate::context::Context;
use crate::error::Error;
use crate::project::manifest::read_text;
use crate::project::{DockerfileRecipe, DockerfileSource};
use crate::report::BuildReport;
use crate::settings::{LockFiles, Settings};

/// The repository of runtime images where none is named.
pub const RUNTIME_REPOSITORY: &str = "ghcr.io/openhands/runtime";
/// The package.
const SOURCE: &str = "openhands";
/// The template of the Dockerfile.
const TEMPLATE: &str = "openhands/runtime/utils/runtime_templates/Dockerfile.j2";
/// What is left out of the package. The reference means to leave out hidden directories and caches
/// as well, but hands their patterns to a function that compares them with bare names.
const IGNORE: [&str; 4] = [".*/", "__pycache__/", "*.pyc", "*.md"];
/// What lies beside the package; a checkout has one of them, the second until 2025.
const SKILLS: [&str; 2] = ["skills", "microagents"];

/// What a runtime image can be told; `None` and empty leave it to the preset.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// What every preset can be told.
    pub preset: PresetOptions,
    /// The repository of runtime images where `preset` names none, as in
    /// `OH_RUNTIME_RUNTIME_IMAGE_REPO`.
    pub runtime_repository: Option<String>,
}

/// A runtime image of V0.
#[derive(Clone, Debug)]
pub struct RuntimeBuildConfig {
    root: PathBuf,
    options: PresetOptions,
    base_image: String,
    version: String,
    lock_files: Vec<PathBuf>,
    runtime_image: RuntimeImage,
}

impl RuntimeBuildConfig {
    /// Finds the V0 checkout that `directory` is in, its version and its lock files.
    ///
    /// # Errors
    /// `directory` is in no checkout, there is no version or lock file, or the base image cannot be
    /// part of a name.
    pub fn new(directory: &Path, options: RuntimeOptions) -> Result<Self, Error> {
        let RuntimeOptions {
            preset: options,
            runtime_repository,
        } = options;
        let has = "`pyproject.toml` and the template of a Dockerfile";
        let root = find_root(directory, "OpenHands V0", has, |directory| {
            directory.join("pyproject.toml").is_file() && directory.join(TEMPLATE).is_file()
        })?;
        let version = match &options.version {
            Some(version) => version.clone(),
            None => find_version(&root)?,
        };
        let repository = options.repository.as_ref().map(ToString::to_string);
        let repository = repository.or(runtime_repository);
        let repository = repository.as_deref().unwrap_or(RUNTIME_REPOSITORY);
        let base_image = options.base_image();
        Ok(Self {
            runtime_image: runtime_image_repo_and_tag_v0(&base_image, repository, &version)?,
            lock_files: lock_files(&root)?,
            root,
            options,
            base_image,
            version,
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

    /// Returns what `get_runtime_image_repo_and_tag` answers: the repository, and the tag that says
    /// which base image a runtime image is of.
    #[must_use]
    pub fn runtime_image(&self) -> &RuntimeImage {
        &self.runtime_image
    }

    /// Returns what is built.
    ///
    /// # Errors
    /// The base image or the repository is not one, or what the image is made of is not there.
    pub fn settings(&self) -> Result<Settings, Error> {
        let options = &self.options;
        let scheme = Scheme::OpenHandsV0;
        let ignore = scheme.default_ignore().iter();
        Ok(Settings {
            project: self.root.clone(),
            repository: Some(self.repository()?),
            version: self.version.clone(),
            base: parse_base(&self.root, &self.base_image)?,
            base_text: self.base_image.clone(),
            platforms: options.platforms(),
            scheme,
            lock_files: LockFiles {
                paths: self.lock_files.clone(),
                expected: true,
            },
            sources: vec![PathBuf::from(SOURCE)],
            ignore: ignore.map(|&pattern| pattern.to_owned()).collect(),
            suffix: String::new(),
            other_tags: options.other_tags.clone(),
            skip_tags: options.skip_tags.clone(),
            browser: !options.no_browser,
            layers: Vec::new(),
            agent: false,
            user: None,
            config: options.config.clone(),
            dockerfile: Some(DockerfileRecipe {
                source: DockerfileSource::Template(TEMPLATE.to_owned()),
                levels: BTreeMap::new(),
                args: options.args.clone(),
                target: options.target.clone(),
                extra_deps: options.extra_deps.clone(),
            }),
            parts: Some(self.parts()?),
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

    /// Returns what the image is, in the form of [`super::AgentServerBuildConfig::to_json`].
    ///
    /// # Errors
    /// As [`Self::tags`].
    pub fn to_json(&self) -> Result<Value, Error> {
        Ok(self.describe(&self.tags()?))
    }

    /// Returns what [`Self::to_json`] does where the tags are known.
    #[must_use]
    pub fn describe(&self, tags: &Tags) -> Value {
        let repository = &self.runtime_image.repository;
        json!({
            "base_image": self.base_image,
            "enable_browser": !self.options.no_browser,
            "extra_deps": self.options.extra_deps,
            "runtime_image_repo": repository,
            "runtime_image": self.runtime_image.to_string(),
            "build_context": self.root.display().to_string(),
            "dockerfile": self.root.join(TEMPLATE).display().to_string(),
            "tags": image_names(repository, tags, &self.options.other_tags),
            "version": self.version,
        })
    }

    fn repository(&self) -> Result<Repository, Error> {
        let name = &self.runtime_image.repository;
        name.parse().map_err(|source| Error::ImageName {
            image: name.clone(),
            source,
        })
    }

    /// Returns what the template copies from: all below `code/`.
    fn parts(&self) -> Result<ContextParts, Error> {
        let skills: Vec<&str> = SKILLS
            .into_iter()
            .filter(|name| self.root.join(name).is_dir())
            .collect();
        if skills.is_empty() {
            return Err(Error::Missing {
                what: "directory",
                path: self.root.join(SKILLS[0]),
            });
        }
        let tree = |name: &str, ignore: &[&str]| TreePart {
            from: name.into(),
            to: format!("code/{name}"),
            ignore: ignore.iter().map(|&pattern| pattern.to_owned()).collect(),
        };
        let mut trees = vec![tree(SOURCE, &IGNORE)];
        trees.extend(skills.into_iter().map(|name| tree(name, &[])));
        let file = |path: &PathBuf| FilePart {
            from: path.clone(),
            to: format!("code/{}", name_of(path)),
        };
        Ok(ContextParts {
            trees,
            files: self.lock_files.iter().map(file).collect(),
            dockerfile: None,
        })
    }
}

/// Returns the version as the reference reads it, which knows no TOML: what follows the first
/// `version =` at the beginning of a line, without quotes.
fn find_version(root: &Path) -> Result<String, Error> {
    for manifest in ["pyproject.toml", "openhands/pyproject.toml"] {
        let text = read_text(&root.join(manifest))?.unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        if let Some(value) = lines.find_map(|line| line.strip_prefix("version =")) {
            let version = value.trim().trim_matches('"').trim_matches('\'');
            return Ok(version.to_owned());
        }
    }
    Err(Error::Unset {
        what: "the version of OpenHands",
        how: "pass `--version`",
    })
}

/// Returns the lock files, each in the package if it is there, where an installation has it, else at
/// the root.
fn lock_files(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let find = |name: &&str| {
        let places = [Path::new(SOURCE).join(name), PathBuf::from(name)];
        let found = places.into_iter().find(|place| root.join(place).is_file());
        found.ok_or_else(|| Error::Missing {
            what: "lock file",
            path: root.join(name),
        })
    };
    let names = Scheme::OpenHandsV0.default_lock_files();
    names.iter().map(find).collect()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
