//! Project flags as values: each grammar is the one of `trilith.toml`.

use std::path::{Path, PathBuf};

use trilith_build::project::DockerfileSource;
use trilith_build::project::values::{
    ValueError, parse_argument, parse_argument_name, parse_env_name, parse_label_name, parse_port,
    parse_project_path, parse_stage, parse_user,
};
use trilith_build::{DockerfileOverrides, Overrides, Settings};
use trilith_core::{ConfigRecipe, LayerRecipe};

use crate::args::ProjectArgs;
use crate::environment;
use crate::output::Failure;
use crate::presets;

/// Returns the settings of the project that the flags name, with the flags over its file,
/// or those of the preset.
pub(crate) fn settings(args: &ProjectArgs) -> Result<Settings, Failure> {
    if let Some(config) = presets::config(args)? {
        return config.settings();
    }
    let project = &args.project;
    let overrides = Overrides {
        repository: args.repository.clone(),
        version: args.version.clone(),
        base: args.base_image.clone(),
        platforms: args.platform.clone(),
        scheme: args.scheme,
        lock_files: args
            .lock_file
            .iter()
            .map(|path| in_project(project, path))
            .collect(),
        sources: args
            .source
            .iter()
            .map(|path| in_project(project, path))
            .collect(),
        ignore: args.ignore.clone(),
        suffix: args.suffix.clone(),
        other_tags: args.tag.clone(),
        skip_tags: args.skip_tags.iter().copied().collect(),
        no_browser: args.no_browser,
        layers: args
            .layer
            .iter()
            .map(|text| layer(text))
            .collect::<Result<_, _>>()?,
        agent: args.inject_agent,
        config: config(args)?,
        dockerfile: dockerfile(args)?,
    };
    Ok(Settings::load(project, overrides)?)
}

/// Takes a relative path from the project, or, where nothing is there but something is here,
/// from the current directory, which is what completion offers.
fn in_project(project: &Path, path: &Path) -> PathBuf {
    if path.is_relative() && !project.join(path).exists() && path.exists() {
        return std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    }
    path.to_owned()
}

/// Parses `LEVEL=COPY:TO[:UID:GID]`.
fn layer(text: &str) -> Result<LayerRecipe, Failure> {
    let malformed = || Failure::usage(format!("`--layer {text}` is not LEVEL=COPY:TO[:UID:GID]"));
    let (level, rest) = text.split_once('=').ok_or_else(malformed)?;
    let level = level.parse().map_err(|_| malformed())?;
    let mut parts = rest.splitn(3, ':');
    let copy = parse_project_path(parts.next().unwrap_or_default()).map_err(option("--layer"))?;
    let to = parts
        .next()
        .ok_or_else(malformed)?
        .parse()
        .map_err(Failure::usage)?;
    let owner = match parts.next() {
        Some(owner) => owner.parse().map_err(Failure::usage)?,
        None => trilith_core::Owner::default(),
    };
    Ok(LayerRecipe {
        level,
        copy,
        from: None,
        to,
        owner,
    })
}

pub(crate) fn dockerfile(args: &ProjectArgs) -> Result<DockerfileOverrides, Failure> {
    let file = |path: &PathBuf| {
        let path = in_project(&args.project, path);
        path.into_os_string()
            .into_string()
            .map_err(|path| Failure::usage(format!("`{}` is not UTF-8", path.display())))
    };
    let path = args.dockerfile.as_ref().map(file).transpose()?;
    let template = args.template.as_ref().map(file).transpose()?;
    let target = args.target.as_deref().map(parse_stage).transpose();
    Ok(DockerfileOverrides {
        source: path
            .map(DockerfileSource::Path)
            .or(template.map(DockerfileSource::Template)),
        target: target.map_err(option("--target"))?,
        args: args
            .build_arg
            .iter()
            .filter_map(|text| build_arg(text).transpose())
            .collect::<Result<_, _>>()?,
        extra_deps: args.extra_deps.clone(),
    })
}

/// Parses `NAME=VALUE`, or `NAME` for the value of the environment, where it has one.
fn build_arg(text: &str) -> Result<Option<(String, String)>, Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, environment::text(text)),
    };
    let name = parse_argument_name(name).map_err(option("--build-arg"))?;
    let value = value.map(|value| parse_argument(&value)).transpose();
    let value = value.map_err(option("--build-arg"))?;
    Ok(value.map(|value| (name, value)))
}

pub(crate) fn config(args: &ProjectArgs) -> Result<ConfigRecipe, Failure> {
    let workdir = args
        .workdir
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(Failure::usage)?;
    Ok(ConfigRecipe {
        entrypoint: args.entrypoint.as_deref().map(argv).transpose()?,
        cmd: args.cmd.as_deref().map(argv).transpose()?,
        env: pairs("--env", &args.env, parse_env_name)?
            .into_iter()
            .collect(),
        labels: pairs("--label", &args.label, parse_label_name)?
            .into_iter()
            .collect(),
        user: args
            .user
            .as_deref()
            .map(parse_user)
            .transpose()
            .map_err(option("--user"))?,
        workdir,
        expose: args
            .expose
            .iter()
            .map(|port| parse_port(port))
            .collect::<Result<_, _>>()
            .map_err(option("--expose"))?,
        stop_signal: None,
    })
}

/// Returns the words of a JSON array, or the text as the only word.
fn argv(text: &str) -> Result<Vec<String>, Failure> {
    if !text.trim_start().starts_with('[') {
        return Ok(vec![text.to_owned()]);
    }
    serde_json::from_str(text)
        .map_err(|_| Failure::usage(format!("`{text}` is not a JSON array of strings")))
}

fn pairs(
    flag: &'static str,
    texts: &[String],
    parse_name: fn(&str) -> Result<String, ValueError>,
) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`{flag} {text}` is not NAME=VALUE")))?;
        let name = parse_name(name).map_err(option(flag))?;
        Ok((name, parse_argument(value).map_err(option(flag))?))
    };
    texts.iter().map(pair).collect()
}

fn option(option: &'static str) -> impl Fn(ValueError) -> Failure {
    move |source| trilith_build::Error::Option { option, source }.into()
}
