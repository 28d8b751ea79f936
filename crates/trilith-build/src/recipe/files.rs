//! The files of a Dockerfile recipe: the text or template, and the build context, hashed.

use std::path::{Path, PathBuf};

use trilith_core::{Digest, StatCache};

use crate::build_context::{self, BuildContext, IgnoreRules, PartsContext, load_parts};
use crate::error::Error;
use crate::project::{DockerfileRecipe, DockerfileSource};
use crate::settings::Settings;
use crate::template::{BuildStart, Template, TemplateVariables, load_template};

/// A recipe's files, read and hashed; no image is resolved yet.
pub(crate) struct DockerfileFiles {
    pub(super) recipe: DockerfileRecipe,
    pub(super) source: Source,
    pub(super) context: BuildContext,
    /// What the user should know, a sentence each.
    pub(super) warnings: Vec<String>,
}

/// Where the text comes from.
pub(super) enum Source {
    /// A Dockerfile.
    Plain { path: PathBuf, text: String },
    /// A template of one.
    Template(Template),
}

/// Reads the Dockerfile or template that `settings` name, and hashes the build context, which
/// is the project; `None` for a recipe of layers.
///
/// # Errors
/// A file does not exist, cannot be read, or is no text.
pub(crate) fn load_dockerfile_files(
    settings: &Settings,
    cache: &StatCache,
) -> Result<Option<DockerfileFiles>, Error> {
    let Some(recipe) = &settings.dockerfile else {
        return Ok(None);
    };
    let (source, dockerfile) = match &recipe.source {
        DockerfileSource::Path(name) => {
            let path = settings.project.join(name);
            let text = read_text(&path)?;
            let dockerfile = build_context::Dockerfile::File(path.clone());
            (Source::Plain { path, text }, dockerfile)
        }
        DockerfileSource::Template(name) => {
            let path = settings.project.join(name);
            let template = load_template(&path)?;
            // The texts it makes are put in when they are known.
            let dockerfile = build_context::Dockerfile::Text(String::new());
            (Source::Template(template), dockerfile)
        }
    };
    let (context, warnings) = load_context(settings, &dockerfile, cache)?;
    Ok(Some(DockerfileFiles {
        recipe: recipe.clone(),
        source,
        context,
        warnings,
    }))
}

/// Lists and hashes what instructions can copy.
fn load_context(
    settings: &Settings,
    dockerfile: &build_context::Dockerfile,
    cache: &StatCache,
) -> Result<(BuildContext, Vec<String>), Error> {
    let root = &settings.project;
    let Some(parts) = &settings.parts else {
        let context = BuildContext::load(root, dockerfile, &IgnoreRules::Find, cache)?;
        return Ok((context, Vec::new()));
    };
    let PartsContext { context, missing } = load_parts(root, parts, dockerfile, cache)?;
    let warning = |path: &PathBuf| format!("`{}` does not exist and is not sent", path.display());
    Ok((context, missing.iter().map(warning).collect()))
}

fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Missing {
            what: "Dockerfile",
            path: path.to_owned(),
        },
        _ => trilith_oci::Error::io("read", path)(error).into(),
    })?;
    String::from_utf8(bytes).map_err(|_| Error::NotText {
        path: path.to_owned(),
    })
}

impl Source {
    /// Returns the file the text comes from.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Plain { path, .. } => path,
            Self::Template(template) => template.path(),
        }
    }

    /// Returns the text of the Dockerfile.
    pub(super) fn text(&self, variables: &TemplateVariables) -> Result<String, Error> {
        match self {
            Self::Plain { text, .. } => Ok(text.clone()),
            Self::Template(template) => Ok(template.render(variables)?),
        }
    }

    /// Returns the digest of the text, whatever a build starts from.
    pub(super) fn content(&self, variables: &TemplateVariables) -> Result<Digest, Error> {
        match self {
            Self::Plain { text, .. } => Ok(Digest::of(text.as_bytes())),
            Self::Template(template) => Ok(template.content(variables)?),
        }
    }

    /// Returns the starts that may have texts of their own.
    pub(super) fn starts(&self) -> &'static [BuildStart] {
        match self {
            Self::Plain { .. } => &[BuildStart::Scratch],
            Self::Template(_) => &BuildStart::ALL,
        }
    }
}
