//! A Dockerfile recipe, read: its text or template, its build context, the images it names,
//! and what of all that is an input of which level.
//!
//! With levels, a fact counts at the lowest level whose stage depends on it. Without, the text,
//! its arguments, its target and its images are at level versioned, extra dependencies at level
//! lock and the build context at level source: nothing tells what of it is for dependencies,
//! and lock files are inputs of level lock by themselves.
//!
//! Builds nothing, and asks registries for nothing but digests.

mod files;
mod images;

use std::collections::BTreeMap;

use trilith_core::{
    ConfigRecipe, ContextInput, Digest, DockerfileInput, DockerfileText, EntryInput, EntryKind,
    FieldHasher, ImageInput, Level, Platform, Reference,
};

use crate::build_context::BuildContext;
use crate::context::Context;
use crate::dockerfile::{ContextLevels, Dockerfile, LevelsError, StageLevels};
use crate::error::Error;
use crate::load::ResolvedImage;
use crate::project::DockerfileRecipe;
use crate::settings::Settings;
use crate::template::{BuildStart, TemplateVariables};

use files::Source;
pub(crate) use files::{DockerfileFiles, load_dockerfile_files};
use images::{NamedImage, Pinned};

/// The argument that names the base image.
const BASE_IMAGE: &str = "BASE_IMAGE";
/// The argument that holds the extra dependencies.
const EXTRA_DEPS: &str = "EXTRA_DEPS";

/// A Dockerfile recipe with everything it needs.
pub(crate) struct LoadedDockerfile {
    pub(crate) recipe: DockerfileRecipe,
    /// How the base is called where instructions and templates see it.
    pub(crate) base_name: String,
    /// The build arguments, with those that Trilith sets.
    pub(crate) args: BTreeMap<String, String>,
    /// The images that the text names, by digest.
    pub(crate) pins: BTreeMap<String, Reference>,
    /// Everything that instructions can copy.
    pub(crate) context: BuildContext,
    /// What each level sees of it; `None` without levels.
    pub(crate) context_levels: Option<ContextLevels>,
    /// The Dockerfile, as a template makes it for a build from the base.
    pub(crate) dockerfile: Dockerfile,
    pub(crate) input: DockerfileInput,
    /// What the user should know, a sentence each.
    pub(crate) warnings: Vec<String>,
    source: Source,
    settings: Settings,
}

impl DockerfileFiles {
    /// Returns the recipe with its images resolved and its facts at their levels.
    ///
    /// # Errors
    /// The text cannot be understood, its stages cannot be levels, or an image does not exist.
    pub(crate) async fn resolve(
        self,
        context: &Context,
        settings: &Settings,
        base: Option<&ResolvedImage>,
    ) -> Result<LoadedDockerfile, Error> {
        let base_name = images::base_name(settings, base);
        let text = self.text(settings, &base_name)?;
        let dockerfile = self.parse(&text)?;
        let args = arguments(&self.recipe, &dockerfile, &base_name);
        let facts = if self.recipe.levels.is_empty() {
            self.whole(settings, &args, &base_name)?
        } else {
            self.by_level(settings, &dockerfile, &args)?
        };
        let mut warnings = self.warnings;
        warnings.extend(facts.warnings);
        let takes_base = facts
            .images
            .iter()
            .any(|image| image.reference == base_name);
        if !takes_base && base.is_some() {
            warnings.push(format!(
                "nothing in `{}` is built from the base image; begin it with `ARG {BASE_IMAGE}` and \
                 `FROM ${{{BASE_IMAGE}}}`",
                self.source.path().display()
            ));
        }
        let Pinned { digests, pins } =
            images::resolve(context, settings, &facts.images, &base_name, base).await?;
        let images = facts.images.into_iter().filter_map(|image| {
            let digest = digests.get(&image.reference)?.clone();
            let (level, name) = (image.level, image.input);
            Some(ImageInput {
                level,
                name,
                digest,
            })
        });
        let input = DockerfileInput {
            text: facts.text,
            extra_deps: self.recipe.extra_deps.clone(),
            images: images.collect(),
            context: context_inputs(&self.context, facts.context_levels.as_ref()),
        };
        Ok(LoadedDockerfile {
            recipe: self.recipe,
            base_name,
            args,
            pins,
            context: self.context,
            context_levels: facts.context_levels,
            dockerfile,
            input,
            warnings,
            source: self.source,
            settings: settings.clone(),
        })
    }

    /// Returns the text for a build from the base, the same for all platforms where its stages
    /// are levels.
    fn text(&self, settings: &Settings, base_name: &str) -> Result<String, Error> {
        let mut texts = settings.platforms.iter().map(|platform| {
            let variables = variables(&self.recipe, settings, base_name, platform);
            self.source.text(&variables)
        });
        let first = texts.next().unwrap_or_else(|| {
            let host = Platform::host();
            self.source
                .text(&variables(&self.recipe, settings, base_name, &host))
        })?;
        if !self.recipe.levels.is_empty() {
            for other in texts {
                if other? != first {
                    let path = self.source.path().to_owned();
                    return Err(Error::TemplatePlatforms { path });
                }
            }
        }
        Ok(first)
    }

    fn parse(&self, text: &str) -> Result<Dockerfile, Error> {
        Dockerfile::parse(text).map_err(|source| Error::Dockerfile {
            path: self.source.path().to_owned(),
            source,
        })
    }

    /// Returns the facts of a Dockerfile whose stages are levels.
    fn by_level(
        &self,
        settings: &Settings,
        dockerfile: &Dockerfile,
        args: &BTreeMap<String, String>,
    ) -> Result<Facts, Error> {
        let path = || self.source.path().to_owned();
        if self.recipe.target.is_some() {
            return Err(Error::TargetWithLevels { path: path() });
        }
        let levels =
            StageLevels::resolve(dockerfile, &self.recipe.levels, args, &settings.platforms)
                .map_err(|source| Error::Levels {
                    path: path(),
                    source,
                })?;
        let mut images = Vec::new();
        let mut warnings: Vec<String> = levels
            .unused_args()
            .iter()
            .map(|name| format!("no stage uses the build argument `{name}`"))
            .collect();
        for level in Level::ALL {
            let facts = levels.facts(level);
            images.extend(facts.images.iter().map(|image| NamedImage {
                level,
                input: image.input.clone(),
                reference: image.reference.clone(),
            }));
            warnings.extend(facts.remote.iter().map(|url| {
                format!(
                    "what `ADD {url}` fetches is no input: nothing is built anew when it changes"
                )
            }));
        }
        Ok(Facts {
            text: DockerfileText::Stages(levels.inputs().to_vec()),
            images,
            context_levels: Some(levels.context_following(&links(&self.context))),
            warnings,
        })
    }

    /// Returns the facts of a Dockerfile that knows no levels.
    fn whole(
        &self,
        settings: &Settings,
        args: &BTreeMap<String, String>,
        base_name: &str,
    ) -> Result<Facts, Error> {
        let mut contents = BTreeMap::new();
        let mut images = std::collections::BTreeSet::new();
        for platform in &settings.platforms {
            let variables = variables(&self.recipe, settings, base_name, platform);
            // Extra dependencies are an input of level lock, not of the text.
            let without = TemplateVariables {
                extra_deps: None,
                ..variables.clone()
            };
            contents.insert(platform, self.source.content(&without)?);
            for start in self.source.starts() {
                let variables = TemplateVariables {
                    build_from: *start,
                    ..variables.clone()
                };
                let dockerfile = self.parse(&self.source.text(&variables)?)?;
                let used =
                    images::of_whole(&dockerfile, args, platform, self.recipe.target.as_deref());
                images.extend(used.map_err(|source| Error::Dockerfile {
                    path: self.source.path().to_owned(),
                    source,
                })?);
            }
        }
        Ok(Facts {
            text: DockerfileText::Whole {
                content: content_of_all(&contents),
                args: self.recipe.args.clone(),
                target: self.recipe.target.clone(),
            },
            images: images.into_iter().collect(),
            context_levels: None,
            warnings: Vec::new(),
        })
    }
}

impl LoadedDockerfile {
    /// Returns the stages that are levels, `None` where the recipe names none.
    ///
    /// # Errors
    /// None that loading the recipe did not have.
    pub(crate) fn levels(&self) -> Result<Option<StageLevels<'_>>, Error> {
        if self.recipe.levels.is_empty() {
            return Ok(None);
        }
        let platforms = &self.settings.platforms;
        StageLevels::resolve(&self.dockerfile, &self.recipe.levels, &self.args, platforms)
            .map(Some)
            .map_err(|source| self.levels_error(source))
    }

    /// Returns whether a build can start from the image of a lower level: stages that are levels
    /// can be replaced, and a template is told.
    pub(crate) fn can_start_from_levels(&self) -> bool {
        !self.recipe.levels.is_empty() || matches!(self.source, Source::Template(_))
    }

    /// Returns whether the Dockerfile asks for a frontend other than the engine's own, of which
    /// nobody can say what it knows.
    pub(crate) fn names_frontend(&self) -> bool {
        self.dockerfile.frontend(&self.args).is_some()
    }

    /// Returns the text of a recipe without levels for a build on `base`, which `start` says
    /// more of.
    pub(crate) fn whole_text(
        &self,
        base: &str,
        start: BuildStart,
        platform: &Platform,
    ) -> Result<String, Error> {
        let variables = TemplateVariables {
            build_from: start,
            ..variables(&self.recipe, &self.settings, base, platform)
        };
        self.source.text(&variables)
    }

    /// Returns the parsed form of a text that was made of this recipe's.
    pub(crate) fn parse(&self, text: &str) -> Result<Dockerfile, Error> {
        Dockerfile::parse(text).map_err(|source| Error::Dockerfile {
            path: self.source.path().to_owned(),
            source,
        })
    }

    /// Returns an error of the stages that are levels.
    pub(crate) fn levels_error(&self, source: LevelsError) -> Error {
        Error::Levels {
            path: self.source.path().to_owned(),
            source,
        }
    }

    /// Returns what the source image says on top of the Dockerfile.
    pub(crate) fn config(&self) -> &ConfigRecipe {
        &self.settings.config
    }
}

/// What a recipe depends on.
struct Facts {
    text: DockerfileText,
    images: Vec<NamedImage>,
    context_levels: Option<ContextLevels>,
    warnings: Vec<String>,
}

/// Returns the arguments of the recipe, with those that Trilith sets where they are declared.
fn arguments(
    recipe: &DockerfileRecipe,
    dockerfile: &Dockerfile,
    base_name: &str,
) -> BTreeMap<String, String> {
    let mut args = recipe.args.clone();
    let mut set = |name: &str, value: &str| {
        if dockerfile.declares(name) {
            args.entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    };
    set(BASE_IMAGE, base_name);
    if let Some(extra_deps) = &recipe.extra_deps {
        set(EXTRA_DEPS, extra_deps);
    }
    args
}

fn variables(
    recipe: &DockerfileRecipe,
    settings: &Settings,
    base: &str,
    platform: &Platform,
) -> TemplateVariables {
    TemplateVariables {
        base_image: base.to_owned(),
        build_from: BuildStart::Scratch,
        extra_deps: recipe.extra_deps.clone(),
        enable_browser: settings.browser,
        platform: platform.clone(),
        args: recipe.args.clone(),
    }
}

/// Returns one digest for the contents on all platforms; their own where they have the same.
fn content_of_all(contents: &BTreeMap<&Platform, Digest>) -> Digest {
    let mut distinct = contents.values().collect::<std::collections::BTreeSet<_>>();
    match distinct.pop_first() {
        Some(only) if distinct.is_empty() => only.clone(),
        _ => {
            let mut hasher = FieldHasher::new("trilith/dockerfile-platforms/v1");
            for (platform, content) in contents {
                hasher.field(&platform.to_string(), content.as_str());
            }
            hasher.finish().to_digest()
        }
    }
}

/// Returns the entries of the context, each at its level; those that no level sees are none.
fn context_inputs(context: &BuildContext, levels: Option<&ContextLevels>) -> Vec<ContextInput> {
    let entries = context.entries().iter().map(|entry| &entry.entry);
    let input = |entry: &trilith_core::TreeEntry| {
        let level = match levels {
            Some(levels) => levels.level_of(&entry.path)?,
            None => Level::Source,
        };
        let entry = EntryInput {
            path: entry.path.clone(),
            hash: entry.hash(),
            size: match entry.kind {
                EntryKind::File { size, .. } => size,
                _ => 0,
            },
        };
        Some(ContextInput { level, entry })
    };
    entries.filter_map(input).collect()
}

/// Returns the symbolic links of a context with their targets.
fn links(context: &BuildContext) -> Vec<(&[u8], &[u8])> {
    let entries = context.entries().iter();
    let link = entries.filter_map(|entry| match &entry.entry.kind {
        EntryKind::Symlink { target } => Some((&entry.entry.path[..], &target[..])),
        _ => None,
    });
    link.collect()
}
