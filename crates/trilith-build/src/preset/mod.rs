//! Presets: what other projects' own build scripts know of their checkouts, as settings.
//!
//! A preset finds the checkout, its version, its Dockerfile and the files that an engine needs, and
//! makes [`Settings`] of them; from there on nothing is special. The tags are those of the scheme
//! that the project's own script has. Neither the environment nor the project's `trilith.toml` is
//! read, and git is not run.

mod checkout;
mod git;
mod openhands_v0;
mod openhands_v1;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use trilith_core::{ConfigRecipe, Level, Platform, Repository, StatCache, Tag, Tags};
use trilith_oci::place::Place;

use crate::error::Error;
use crate::inputs::load_openhands_files;
use crate::settings::{Settings, base_in};

pub use git::{GitInfo, GitOverrides};
pub use openhands_v0::{RUNTIME_REPOSITORY, RuntimeBuildConfig, RuntimeOptions};
pub use openhands_v1::{AgentServerBuildConfig, AgentServerOptions};

/// The base image of both presets where none is named.
pub const DEFAULT_BASE_IMAGE: &str = "nikolaik/python-nodejs:python3.12-nodejs22";

/// What every preset can be told; `None` and empty leave it to the preset.
#[derive(Clone, Debug, Default)]
pub struct PresetOptions {
    /// The base image.
    pub base_image: Option<String>,
    /// Where the image is named.
    pub repository: Option<Repository>,
    /// The version in every tag.
    pub version: Option<String>,
    /// What to build for: this machine's platform where there is none.
    pub platforms: Vec<Platform>,
    /// Turns browser support off.
    pub no_browser: bool,
    /// The stage to build.
    pub target: Option<String>,
    /// Tags besides those of the scheme.
    pub other_tags: Vec<Tag>,
    /// See [`Settings::skip_tags`].
    pub skip_tags: BTreeSet<Level>,
    /// Build arguments, over those of the preset.
    pub args: BTreeMap<String, String>,
    /// Extra dependencies.
    pub extra_deps: Option<String>,
    /// What the image says on top of its Dockerfile.
    pub config: ConfigRecipe,
}

impl PresetOptions {
    fn base_image(&self) -> String {
        let base = self.base_image.as_deref();
        base.unwrap_or(DEFAULT_BASE_IMAGE).to_owned()
    }

    fn platforms(&self) -> BTreeSet<Platform> {
        match self.platforms.as_slice() {
            [] => BTreeSet::from([Platform::host()]),
            platforms => platforms.iter().cloned().collect(),
        }
    }
}

/// Returns the base image `text` as a place, relative paths taken from `root`.
fn parse_base(root: &Path, text: &str) -> Result<Place, Error> {
    Ok(base_in(root, text.parse().map_err(Error::Base)?))
}

/// Returns the tags of `settings`, asking nobody.
fn load_tags(settings: &Settings) -> Result<Tags, Error> {
    load_openhands_files(settings, &StatCache::disabled())?.tags(settings)
}

/// Returns `tags` as images of `repository`, from most to least specific, and `others` behind them.
fn image_names(repository: &str, tags: &Tags, others: &[Tag]) -> Vec<String> {
    let levels = Level::ALL.into_iter().rev().map(|level| tags.get(level));
    levels
        .chain(others)
        .map(|tag| format!("{repository}:{tag}"))
        .collect()
}

/// Returns `paths` as they are in settings.
fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests;
