//! Stages as the levels of an image: what each level's key has to cover.
//!
//! A fact counts at the lowest level whose stage depends on it, so what only the `source` stage
//! copies moves the source key alone. Nothing is read from disk and no image is looked up: the
//! caller hashes the files that [`LevelFacts::context`] sees and resolves
//! [`LevelFacts::images`].

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::{Input, Level, Platform, Reference};

use super::arguments::{self, BuildArguments};
use super::context_files::ContextFiles;
use super::cut;
use super::error::{CutError, LevelsError};
use super::facts::{self, LevelFacts};
use super::file::{Dockerfile, Stage};
use super::graph::StageGraph;

/// The stages that are an image's levels.
#[derive(Clone, Debug)]
pub struct StageLevels<'d> {
    dockerfile: &'d Dockerfile,
    /// One for each platform, at least one.
    graphs: Vec<StageGraph<'d>>,
    /// The numbers of the stages, in the order of [`Level::ALL`].
    stages: [usize; 3],
    facts: [LevelFacts; 3],
    inputs: Vec<Input>,
    unused_args: Vec<String>,
}

impl<'d> StageLevels<'d> {
    /// Returns the levels that `stages` names, built with `args` for `platforms` (the host's
    /// where none is named).
    ///
    /// # Errors
    /// [`LevelsError`] when a level has no stage of its own, takes nothing from the stage of the
    /// level below, directly or through other stages, or cannot be replaced by its image.
    pub fn resolve(
        dockerfile: &'d Dockerfile,
        stages: &BTreeMap<Level, String>,
        args: &BTreeMap<String, String>,
        platforms: &BTreeSet<Platform>,
    ) -> Result<Self, LevelsError> {
        let named = named_stages(dockerfile, stages)?;
        let mut platforms: Vec<Platform> = platforms.iter().cloned().collect();
        if platforms.is_empty() {
            platforms.push(Platform::host());
        }
        let arguments = |platform| BuildArguments {
            args: args.clone(),
            platform,
        };
        let arguments: Vec<BuildArguments> = platforms.into_iter().map(arguments).collect();
        let graph = |arguments| StageGraph::new(dockerfile, arguments);
        let graphs: Vec<StageGraph<'d>> = arguments.iter().map(graph).collect();
        for graph in &graphs {
            check(graph, &named)?;
        }
        for (level, stage) in Level::ALL.into_iter().zip(named).take(2) {
            cut::check(&graphs, stage).map_err(|source| LevelsError::Cut {
                level,
                stage: stage.id(),
                source,
            })?;
        }
        let stages = named.map(Stage::index);
        let collected = facts::collect(&graphs, &arguments, stages)?;
        Ok(Self {
            dockerfile,
            graphs,
            stages,
            facts: collected.levels,
            inputs: collected.inputs,
            unused_args: collected.unused_args,
        })
    }

    /// Returns the stage that is `level`.
    #[must_use]
    pub fn stage(&self, level: Level) -> &'d Stage {
        &self.dockerfile.stages()[self.stages[position(level)]]
    }

    /// Returns what `level` depends on and the levels below do not.
    #[must_use]
    pub fn facts(&self, level: Level) -> &LevelFacts {
        &self.facts[position(level)]
    }

    /// Returns the lowest level that sees the file, symlink or directory at `path` of the build
    /// context (`/` between components); `None` if no level does, so that it is no input.
    #[must_use]
    pub fn level_of(&self, path: &[u8]) -> Option<Level> {
        lowest(self.facts.iter().map(|facts| &facts.context), path)
    }

    /// Returns the facts of the text and the arguments, each at its level and with its own name:
    ///
    /// | name | digest of |
    /// | --- | --- |
    /// | `dockerfile/syntax` | the frontend that the first lines, or the argument `BUILDKIT_SYNTAX`, ask for |
    /// | `dockerfile/stage/ID` | the stage's instructions and what they take from which stage |
    /// | `dockerfile/arg/NAME` | the argument's value, where it is set or comes from an `ARG` before the first stage |
    /// | `dockerfile/global/NAME` | the default of such an `ARG` as written, where only the engine can tell the value |
    ///
    /// `ID` is the stage's name, or its number where it has none. Comments, blank lines and the
    /// way lines are continued do not count. Where platforms differ, a name ends in `@PLATFORM`.
    /// Not covered: the values of secrets, `TARGETPLATFORM` and its parts (the platforms are
    /// inputs themselves), `BUILDPLATFORM` and its parts, proxies that no stage declares, and the
    /// names of images that stages are built from.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Returns the arguments that are set although no stage of the levels uses them.
    #[must_use]
    pub fn unused_args(&self) -> &[String] {
        &self.unused_args
    }

    /// Returns the levels whose images a build of `target` needs so that it runs no step of
    /// `from` or a level below: `from` itself and others that `target` takes something from.
    ///
    /// # Errors
    /// [`LevelsError`] when a stage cannot be resolved.
    pub fn replaced(&self, target: Level, from: Level) -> Result<Vec<Level>, LevelsError> {
        let below = |level: &Level| *level <= from && *level < target;
        let candidates: Vec<Level> = Level::ALL.into_iter().filter(below).collect();
        let stages: BTreeSet<usize> = candidates
            .iter()
            .map(|level| self.stages[position(*level)])
            .collect();
        let mut needed = BTreeSet::new();
        for graph in &self.graphs {
            needed.extend(graph.needed(self.stages[position(target)], &stages)?);
        }
        let reached = |level: &Level| needed.contains(&self.stages[position(*level)]);
        Ok(candidates.into_iter().filter(reached).collect())
    }

    /// Returns the Dockerfile that builds `target` when `images` stand in for the stages of
    /// other levels: it works with every engine. Stages that are not needed any more are empty.
    ///
    /// # Errors
    /// [`CutError`] when a stage cannot be replaced on all platforms with one text.
    pub fn cut(
        &self,
        target: Level,
        images: &BTreeMap<Level, Reference>,
    ) -> Result<String, CutError> {
        let others = images.iter().filter(|(level, _)| **level != target);
        let images = others
            .map(|(level, image)| (self.stages[position(*level)], image.clone()))
            .collect();
        cut::cut_for(&self.graphs, self.stages[position(target)], &images)
    }

    /// Returns the named context that makes `BuildKit` take `image` for the stage of `level`, as
    /// in `deps=docker-image://ghcr.io/acme/agent:v1`; the Dockerfile stays as it is.
    ///
    /// # Errors
    /// [`CutError::Inherited`] when other stages inherit build arguments from this one, which a
    /// named context does not hand on: use [`StageLevels::cut`] then.
    pub fn named_context(&self, level: Level, image: &Reference) -> Result<String, CutError> {
        cut::named_context(&self.graphs, self.stage(level), image)
    }

    /// Returns the files that each level sees, with those that the context's symlinks on the way
    /// to them lead to. `links` are these symlinks, each with its target.
    #[must_use]
    pub fn context_following(&self, links: &[(&[u8], &[u8])]) -> ContextLevels {
        ContextLevels(Level::ALL.map(|level| self.facts(level).context.following(links)))
    }
}

/// The files of a build context that each level sees, symlinks followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextLevels([ContextFiles; 3]);

impl ContextLevels {
    /// Returns the lowest level that sees `path`, as [`StageLevels::level_of`] does.
    #[must_use]
    pub fn level_of(&self, path: &[u8]) -> Option<Level> {
        lowest(self.0.iter(), path)
    }
}

/// Returns the lowest level whose files, given in the order of the levels, hold `path`.
fn lowest<'f>(files: impl Iterator<Item = &'f ContextFiles>, path: &[u8]) -> Option<Level> {
    let mut levels = Level::ALL.into_iter().zip(files);
    levels.find_map(|(level, files)| files.sees(path).then_some(level))
}

fn position(level: Level) -> usize {
    match level {
        Level::Versioned => 0,
        Level::Lock => 1,
        Level::Source => 2,
    }
}

/// Returns the stages named for the levels, which are three.
fn named_stages<'d>(
    dockerfile: &'d Dockerfile,
    stages: &BTreeMap<Level, String>,
) -> Result<[&'d Stage; 3], LevelsError> {
    let named = |level| {
        let name = stages.get(&level).ok_or(LevelsError::Missing(level))?;
        dockerfile.stage(name).ok_or_else(|| LevelsError::NoStage {
            level,
            stage: name.clone(),
            known: dockerfile
                .stages()
                .iter()
                .filter_map(|stage| stage.name().map(str::to_owned))
                .collect(),
        })
    };
    let [versioned, lock, source] = Level::ALL.map(named);
    let named = [versioned?, lock?, source?];
    for (lower, upper) in [(0, 1), (1, 2), (0, 2)] {
        if named[lower] == named[upper] {
            return Err(LevelsError::Same {
                lower: Level::ALL[lower],
                upper: Level::ALL[upper],
                stage: named[lower].id(),
            });
        }
    }
    Ok(named)
}

/// Checks that each level takes something from the one below and is built for the target.
fn check(graph: &StageGraph<'_>, named: &[&Stage; 3]) -> Result<(), LevelsError> {
    for (at, stage) in named.iter().enumerate() {
        let level = Level::ALL[at];
        if let Some(below) = at.checked_sub(1).map(|below| named[below]) {
            let needed = graph.needed(stage.index(), &BTreeSet::new())?;
            if !needed.contains(&below.index()) {
                return Err(LevelsError::Apart {
                    level,
                    stage: stage.id(),
                    below: below.id(),
                });
            }
        }
        let platform = cut::platform(graph, stage).map_err(|source| LevelsError::Cut {
            level,
            stage: stage.id(),
            source,
        })?;
        let builder = |platform: &&str| {
            arguments::global_names(graph.dockerfile, platform)
                .is_none_or(|names| names.iter().any(|name| arguments::is_of_the_builder(name)))
        };
        if let Some(platform) = platform.filter(builder) {
            return Err(LevelsError::Platform {
                level,
                stage: stage.id(),
                platform: platform.to_owned(),
            });
        }
    }
    Ok(())
}
