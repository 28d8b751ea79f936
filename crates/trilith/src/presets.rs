//! Preset flags, and what the environment says over a checkout, as the reference reads it.

use std::path::Path;

use serde_json::Value;
use trilith_build::preset::{
    AgentServerBuildConfig, AgentServerOptions, GitOverrides, PresetOptions, RuntimeBuildConfig,
    RuntimeOptions,
};
use trilith_build::{DockerfileOverrides, Settings};
use trilith_core::Tags;

use crate::args::{Preset, ProjectArgs};
use crate::environment;
use crate::output::Failure;
use crate::overrides::{config as image_config, dockerfile};

/// What a preset builds.
pub(crate) enum PresetConfig {
    V0(RuntimeBuildConfig),
    V1(AgentServerBuildConfig),
}

/// Returns what the preset that `args` name builds, `None` where they name none.
pub(crate) fn config(args: &ProjectArgs) -> Result<Option<PresetConfig>, Failure> {
    let Some(preset) = args.preset else {
        return Ok(None);
    };
    let root = args.sdk_root.as_deref().unwrap_or(Path::new("."));
    let options = options(args)?;
    let config = match preset {
        Preset::OpenHandsV0 if args.variant.is_some() => {
            let problem = "`--variant` is for `--preset openhands-v1`".to_owned();
            return Err(Failure::usage(problem));
        }
        Preset::OpenHandsV0 => {
            let options = RuntimeOptions {
                preset: options,
                runtime_repository: environment::text("OH_RUNTIME_RUNTIME_IMAGE_REPO"),
            };
            PresetConfig::V0(RuntimeBuildConfig::new(root, options)?)
        }
        Preset::OpenHandsV1 => {
            let options = AgentServerOptions {
                preset: options,
                variant: args.variant.clone(),
                git: commit(),
            };
            PresetConfig::V1(AgentServerBuildConfig::new(root, options)?)
        }
    };
    Ok(Some(config))
}

impl PresetConfig {
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        Ok(match self {
            Self::V0(config) => config.settings()?,
            Self::V1(config) => config.settings()?,
        })
    }

    /// Returns what the preset is, as JSON, given its tags.
    pub(crate) fn describe(&self, tags: &Tags) -> Value {
        match self {
            Self::V0(config) => config.describe(tags),
            Self::V1(config) => config.describe(tags),
        }
    }
}

fn options(args: &ProjectArgs) -> Result<PresetOptions, Failure> {
    let DockerfileOverrides {
        source: _,
        target,
        args: build_args,
        extra_deps,
    } = dockerfile(args)?;
    Ok(PresetOptions {
        base_image: args.base_image.clone(),
        repository: args.repository.clone(),
        version: args.version.clone(),
        platforms: args.platform.clone(),
        no_browser: args.no_browser,
        target,
        other_tags: args.tag.clone(),
        skip_tags: args.skip_tags.iter().copied().collect(),
        args: build_args,
        extra_deps,
        config: image_config(args)?,
    })
}

/// Returns what the environment knows of the commit: of a submodule first, then of the workflow.
fn commit() -> GitOverrides {
    let first = |names: [&str; 2]| names.into_iter().find_map(environment::text);
    GitOverrides {
        sha: first(["SDK_SHA", "GITHUB_SHA"]),
        reference: first(["SDK_REF", "GITHUB_REF"]),
    }
}
