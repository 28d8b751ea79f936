//! What is to be built: `trilith.toml`, the command line over it, and defaults under both.
//!
//! Nothing here reads the files that are hashed or copied; see [`crate::load_inputs`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use trilith_core::{
    ConfigRecipe, LayerRecipe, Level, Platform, Repository, Scheme, Tag, UserRecipe,
};
use trilith_oci::place::Place;

use crate::build_context::ContextParts;
use crate::error::Error;
use crate::project::{DockerfileRecipe, DockerfileSource, Recipe, load_project, load_version};
use crate::{agent, user};

/// Everything that decides what is built, with all defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project's directory, absolute.
    pub project: PathBuf,
    /// Where the image is named. Only commands that name an image need it.
    pub repository: Option<Repository>,
    /// The version in every tag.
    pub version: String,
    /// The base image as the user wrote it: an input of the openhands schemes.
    pub base_text: String,
    /// The base image.
    pub base: Place,
    /// What to build for. One platform makes an image, several make an index.
    pub platforms: BTreeSet<Platform>,
    /// How inputs become tags.
    pub scheme: Scheme,
    /// Lock files.
    pub lock_files: LockFiles,
    /// Source directories, relative to the project or absolute.
    pub sources: Vec<PathBuf>,
    /// Patterns of what no hash and no layer holds.
    pub ignore: Vec<String>,
    /// Appended to every tag.
    pub suffix: String,
    /// Tags besides those of the scheme that the image has too. They are no inputs.
    pub other_tags: Vec<Tag>,
    /// The lower levels whose tags builds do not write. They are looked for all the same, and no
    /// input says so.
    pub skip_tags: BTreeSet<Level>,
    /// Whether the image has browser support (openhands schemes).
    pub browser: bool,
    /// The recipe's layers, in order.
    pub layers: Vec<LayerRecipe>,
    /// Whether the image has the agent.
    pub agent: bool,
    /// The user that is put below both.
    pub user: Option<UserRecipe>,
    /// What the source image says on top of its base.
    pub config: ConfigRecipe,
    /// The recipe that an engine builds.
    pub dockerfile: Option<DockerfileRecipe>,
    /// What of the project the engine is sent; `None` for all that its ignore file lets through.
    pub parts: Option<ContextParts>,
}

/// What the command line says over `trilith.toml`; `None` and empty say nothing.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// See [`Settings::repository`].
    pub repository: Option<Repository>,
    /// See [`Settings::version`].
    pub version: Option<String>,
    /// See [`Settings::base_text`].
    pub base: Option<String>,
    /// See [`Settings::platforms`].
    pub platforms: Vec<Platform>,
    /// See [`Settings::scheme`].
    pub scheme: Option<Scheme>,
    /// See [`LockFiles::paths`].
    pub lock_files: Vec<PathBuf>,
    /// See [`Settings::sources`].
    pub sources: Vec<PathBuf>,
    /// See [`Settings::ignore`].
    pub ignore: Vec<String>,
    /// See [`Settings::suffix`].
    pub suffix: Option<String>,
    /// See [`Settings::other_tags`].
    pub other_tags: Vec<Tag>,
    /// See [`Settings::skip_tags`].
    pub skip_tags: BTreeSet<Level>,
    /// Turns browser support off.
    pub no_browser: bool,
    /// Replace the layers of the file.
    pub layers: Vec<LayerRecipe>,
    /// See [`Settings::agent`].
    pub agent: Option<bool>,
    /// Each set field replaces the file's; maps are merged by name, ports are added.
    pub config: ConfigRecipe,
    /// See [`Settings::dockerfile`].
    pub dockerfile: DockerfileOverrides,
}

/// What the command line says over `[dockerfile]`; `None` and empty say nothing.
#[derive(Clone, Debug, Default)]
pub struct DockerfileOverrides {
    /// The Dockerfile or template, which replaces the file's, or its layers.
    pub source: Option<DockerfileSource>,
    /// See [`DockerfileRecipe::target`].
    pub target: Option<String>,
    /// Build arguments, merged with the file's by name.
    pub args: BTreeMap<String, String>,
    /// See [`DockerfileRecipe::extra_deps`].
    pub extra_deps: Option<String>,
}

impl DockerfileOverrides {
    /// Returns `recipe` with these over it.
    fn apply(self, recipe: Option<DockerfileRecipe>) -> Result<Option<DockerfileRecipe>, Error> {
        let Self {
            source,
            target,
            args,
            extra_deps,
        } = self;
        let is_set = target.is_some() || !args.is_empty() || extra_deps.is_some();
        let mut recipe = match (recipe, source) {
            (Some(recipe), Some(source)) => DockerfileRecipe { source, ..recipe },
            (Some(recipe), None) => recipe,
            (None, Some(source)) => DockerfileRecipe {
                source,
                levels: BTreeMap::new(),
                args: BTreeMap::new(),
                target: None,
                extra_deps: None,
            },
            (None, None) if is_set => {
                return Err(Error::Unset {
                    what: "the Dockerfile",
                    how: "set `path` under `[dockerfile]` in `trilith.toml`, or pass `--dockerfile`",
                });
            }
            (None, None) => return Ok(None),
        };
        recipe.target = target.or(recipe.target);
        recipe.extra_deps = extra_deps.or(recipe.extra_deps);
        recipe.args.extend(args);
        Ok(Some(recipe))
    }
}

impl Settings {
    /// Returns what `trilith.toml` in `project` and `overrides` say together.
    ///
    /// # Errors
    /// The file is invalid, a value is not one of its kind, there is no base image or version, or
    /// the agent or the user cannot be put into the image.
    pub fn load(project: &Path, overrides: Overrides) -> Result<Self, Error> {
        let file = load_project(project)?.unwrap_or_default();
        let project = std::path::absolute(project)
            .and_then(|path| path.canonicalize())
            .map_err(trilith_oci::Error::io("open", project))?;
        let version = match overrides.version.or(file.image.version) {
            Some(version) => version,
            None => load_version(&project)?.version,
        };
        let base_text = overrides.base.or(file.image.base).ok_or(Error::Unset {
            what: "the base image",
            how: "set `base` under `[image]` in `trilith.toml`, or pass `--base-image`",
        })?;
        let base = base_in(&project, base_text.parse().map_err(Error::Base)?);
        let scheme = overrides.scheme.or(file.inputs.scheme).unwrap_or_default();
        let (layers, dockerfile) = match file.recipe {
            Recipe::Layers(layers) => (layers, None),
            Recipe::Dockerfile(recipe) => (Vec::new(), Some(recipe)),
        };
        let own_layers = !overrides.layers.is_empty();
        let own_dockerfile = overrides.dockerfile.source.is_some();
        let dockerfile = dockerfile.filter(|_| !own_layers);
        let dockerfile = overrides.dockerfile.apply(dockerfile)?;
        let mut config = merge_config(file.config, overrides.config);
        if let (None, Some(user)) = (&config.user, &file.user) {
            // As numbers, which whoever runs the image can check without looking into it.
            config.user = Some(user.owner.to_string());
        }
        let settings = Self {
            repository: overrides.repository.or(file.image.repository),
            version,
            base_text,
            base,
            platforms: first_not_empty([overrides.platforms, file.image.platforms])
                .unwrap_or_else(|| vec![Platform::host()])
                .into_iter()
                .collect(),
            scheme,
            lock_files: LockFiles::choose(overrides.lock_files, file.inputs.lock, scheme),
            sources: first_not_empty([overrides.sources, paths(file.inputs.source)])
                .unwrap_or_default(),
            ignore: first_not_empty([overrides.ignore])
                .or(file.inputs.ignore)
                .unwrap_or_else(|| {
                    scheme
                        .default_ignore()
                        .iter()
                        .map(|&pattern| pattern.to_owned())
                        .collect()
                }),
            suffix: overrides.suffix.unwrap_or_default(),
            other_tags: overrides.other_tags,
            skip_tags: if overrides.skip_tags.is_empty() {
                file.image.skip_tags
            } else {
                overrides.skip_tags
            },
            browser: !overrides.no_browser,
            layers: match (own_layers, own_dockerfile) {
                (true, _) => overrides.layers,
                (false, true) => Vec::new(),
                (false, false) => layers,
            },
            agent: overrides.agent.or(file.agent.inject).unwrap_or_default(),
            user: file.user,
            config,
            dockerfile,
            parts: None,
            project,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks that what is asked for beside the recipe can be put into the image.
    ///
    /// # Errors
    /// The agent or the user cannot.
    pub(crate) fn check(&self) -> Result<(), Error> {
        agent::check(self)?;
        user::check(self)
    }

    /// Returns the repository.
    ///
    /// # Errors
    /// None is set.
    pub fn repository(&self) -> Result<&Repository, Error> {
        self.repository.as_ref().ok_or(Error::Unset {
            what: "the repository",
            how: "set `repository` under `[image]` in `trilith.toml`, or pass `--repository`",
        })
    }
}

/// The lock files of a project, and whether somebody asked for each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFiles {
    /// Relative to the project, in the order they are hashed.
    pub paths: Vec<PathBuf>,
    /// Whether one that does not exist is worth a warning.
    pub expected: bool,
}

impl LockFiles {
    fn choose(flags: Vec<PathBuf>, file: Option<Vec<String>>, scheme: Scheme) -> Self {
        if let Some(paths) = first_not_empty([flags]).or(file.map(|names| to_paths(&names))) {
            return Self {
                paths,
                expected: true,
            };
        }
        let defaults = scheme
            .default_lock_files()
            .iter()
            .map(PathBuf::from)
            .collect();
        Self {
            paths: defaults,
            expected: scheme != Scheme::Trilith,
        }
    }
}

/// Returns `base` with a relative path taken from the project, as everything in the file is.
pub(crate) fn base_in(project: &Path, mut base: Place) -> Place {
    if let Place::Layout { path, .. }
    | Place::OciArchive { path, .. }
    | Place::DockerArchive { path, .. }
    | Place::RootFs(path) = &mut base
    {
        *path = project.join(&*path);
    }
    base
}

fn first_not_empty<T, const N: usize>(lists: [Vec<T>; N]) -> Option<Vec<T>> {
    lists.into_iter().find(|list| !list.is_empty())
}

fn paths(names: Option<Vec<String>>) -> Vec<PathBuf> {
    to_paths(&names.unwrap_or_default())
}

fn to_paths(names: &[String]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

fn merge_config(file: ConfigRecipe, over: ConfigRecipe) -> ConfigRecipe {
    let ConfigRecipe {
        entrypoint,
        cmd,
        env,
        labels,
        user,
        workdir,
        expose,
        stop_signal,
    } = over;
    let mut merged = ConfigRecipe {
        entrypoint: entrypoint.or(file.entrypoint),
        cmd: cmd.or(file.cmd),
        user: user.or(file.user),
        workdir: workdir.or(file.workdir),
        stop_signal: stop_signal.or(file.stop_signal),
        ..file
    };
    merged.env.extend(env);
    merged.labels.extend(labels);
    for port in expose {
        if !merged.expose.contains(&port) {
            merged.expose.push(port);
        }
    }
    merged
}
