//! Replacing stages by images: in the text, for engines that know nothing better, or by a named
//! context.
//!
//! Other stages mean the same afterwards. An image hands on files, variables and settings, but
//! no build arguments, which `BuildKit` (and not Buildah) lets a stage inherit from the one it
//! builds on: they are declared again where the stage was cut.

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::Reference;

use super::arguments::BuildArguments;
use super::error::{CutError, DockerfileError};
use super::expand;
use super::file::{Dockerfile, Stage};
use super::graph::{Origin, StageGraph};
use super::instruction::{EnvName, Step};

/// Returns the text of `dockerfile` with the instructions of the stage named `stage` replaced by
/// `FROM REFERENCE AS stage`. All else stays as it is.
///
/// # Errors
/// [`CutError`] when there is no such stage, or others would not get from the image what they
/// get from the stage.
pub fn cut_stage(
    dockerfile: &Dockerfile,
    arguments: &BuildArguments,
    stage: &str,
    reference: &Reference,
) -> Result<String, CutError> {
    let cut = dockerfile
        .stage(stage)
        .ok_or_else(|| CutError::NoStage(stage.to_owned()))?;
    let graph = StageGraph::new(dockerfile, arguments);
    let text = replacement(&graph, cut, reference)?;
    Ok(rewritten(
        dockerfile,
        &BTreeMap::from([(cut.index(), text)]),
    ))
}

/// Returns the text for building stage number `target` when `images` stand in for the stages
/// with these numbers, on the platforms of `graphs`.
///
/// Stages that are not needed any more become empty and keep their number and name, as engines
/// without `BuildKit` build every stage on the way.
pub(super) fn cut_for(
    graphs: &[StageGraph<'_>],
    target: usize,
    images: &BTreeMap<usize, Reference>,
) -> Result<String, CutError> {
    let Some(graph) = graphs.first() else {
        return Err(CutError::NoStage(target.to_string()));
    };
    let replaced: BTreeSet<usize> = images.keys().copied().collect();
    let mut needed = BTreeSet::new();
    for graph in graphs {
        needed.extend(graph.needed(target, &replaced)?);
    }
    let mut texts = BTreeMap::new();
    for stage in graph.dockerfile.stages() {
        let index = stage.index();
        if !needed.contains(&index) {
            texts.insert(index, from_line(None, "scratch", stage));
        } else if let Some(reference) = images.get(&index) {
            texts.insert(index, replacement_on(graphs, stage, reference)?);
        }
    }
    Ok(rewritten(graph.dockerfile, &texts))
}

/// Returns the named context that makes `BuildKit` take `reference` for `stage`, as in
/// `deps=docker-image://ghcr.io/acme/agent:v1`.
///
/// # Errors
/// [`CutError`] when stages that build on `stage` would miss something: rewrite the Dockerfile
/// then.
pub(super) fn named_context(
    graphs: &[StageGraph<'_>],
    stage: &Stage,
    reference: &Reference,
) -> Result<String, CutError> {
    for graph in graphs {
        let inherited = inherited_arguments(graph, stage)?;
        if !inherited.is_empty() {
            return Err(CutError::Inherited {
                stage: stage.id(),
                arguments: inherited.into_iter().map(|(name, _)| name).collect(),
            });
        }
    }
    Ok(format!("{}=docker-image://{reference}", stage.id()))
}

/// Checks that an image can stand in for `stage`.
pub(super) fn check(graphs: &[StageGraph<'_>], stage: &Stage) -> Result<(), CutError> {
    for graph in graphs {
        header(graph, stage, "scratch")?;
    }
    Ok(())
}

/// Returns the replacement of `stage` that holds for all `graphs`.
fn replacement_on(
    graphs: &[StageGraph<'_>],
    stage: &Stage,
    reference: &Reference,
) -> Result<String, CutError> {
    let mut texts = BTreeSet::new();
    for graph in graphs {
        texts.insert(replacement(graph, stage, reference)?);
    }
    match texts.pop_first() {
        Some(text) if texts.is_empty() => Ok(text),
        _ => Err(CutError::Platforms { stage: stage.id() }),
    }
}

fn replacement(
    graph: &StageGraph<'_>,
    stage: &Stage,
    reference: &Reference,
) -> Result<String, CutError> {
    header(graph, stage, &reference.to_string())
}

/// Returns the `FROM image` that replaces `stage`, and the arguments that others inherit.
fn header(graph: &StageGraph<'_>, stage: &Stage, image: &str) -> Result<String, CutError> {
    let platform = platform(graph, stage)?;
    let mut text = from_line(platform, image, stage);
    for (name, default) in inherited_arguments(graph, stage)? {
        text.push_str("\nARG ");
        text.push_str(&name);
        if let Some(default) = default {
            text.push('=');
            text.push_str(default);
        }
    }
    Ok(text)
}

fn from_line(platform: Option<&str>, image: &str, stage: &Stage) -> String {
    let mut text = "FROM ".to_owned();
    if let Some(platform) = platform {
        text.push_str("--platform=");
        text.push_str(platform);
        text.push(' ');
    }
    text.push_str(image);
    if let Some(name) = stage.name() {
        text.push_str(" AS ");
        text.push_str(name);
    }
    text
}

/// Returns what `--platform` says for `stage`, itself or the nearest stage it builds on.
pub(super) fn platform<'d>(
    graph: &StageGraph<'d>,
    stage: &Stage,
) -> Result<Option<&'d str>, CutError> {
    for stage in graph.chain(stage.index())? {
        let from = graph.dockerfile.from(stage);
        let Some(platform) = from.and_then(|from| from.platform.as_deref()) else {
            continue;
        };
        // It is written without the quotes it may have had.
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-:${}".contains(c);
        if !platform.chars().all(plain) {
            return Err(CutError::Platform {
                line: stage.line(),
                platform: platform.to_owned(),
            });
        }
        return Ok(Some(platform));
    }
    Ok(None)
}

/// A step that gives variables their values.
enum Assignment<'d> {
    Argument(usize, &'d str, Option<&'d str>),
    Environment(&'d [EnvName]),
}

/// Returns the arguments that stages which build on `stage` inherit, each with its default as
/// written; none if no stage does.
fn inherited_arguments<'d>(
    graph: &StageGraph<'d>,
    stage: &Stage,
) -> Result<Vec<(String, Option<&'d str>)>, CutError> {
    let triggering = |instruction: &&super::instruction::Instruction| {
        matches!(instruction.step, Step::OnBuild(_))
    };
    if let Some(trigger) = graph.dockerfile.body(stage).iter().find(triggering) {
        return Err(CutError::OnBuild {
            line: trigger.line.number,
            stage: stage.id(),
        });
    }
    let here = Origin::Stage(stage.index());
    let later = &graph.dockerfile.stages()[stage.index() + 1..];
    // A base that cannot be told is not needed, or is an error elsewhere.
    if !later
        .iter()
        .any(|later| graph.base(later.index()).is_ok_and(|base| *base == here))
    {
        return Ok(Vec::new());
    }
    let assignments = assignments(graph, stage)?;
    let mut inherited = Vec::new();
    for (at, assignment) in assignments.iter().enumerate() {
        let Assignment::Argument(line, name, default) = assignment else {
            continue;
        };
        let lost = || CutError::Argument {
            line: *line,
            argument: (*name).to_owned(),
        };
        let changed = changed_later(&assignments[at + 1..]).ok_or_else(lost)?;
        if changed.contains(name) {
            // The image holds the variable.
            continue;
        }
        let escape = graph.dockerfile.directives.escape;
        let uses = expand::names(default.unwrap_or_default(), escape).ok_or_else(lost)?;
        if uses.iter().any(|used| changed.contains(used.as_str())) {
            return Err(lost());
        }
        inherited.push(((*name).to_owned(), *default));
    }
    Ok(inherited)
}

/// Returns what sets variables in `stage` and the stages it builds on, in order.
fn assignments<'d>(
    graph: &StageGraph<'d>,
    stage: &Stage,
) -> Result<Vec<Assignment<'d>>, DockerfileError> {
    let mut assignments = Vec::new();
    for stage in graph.chain(stage.index())?.into_iter().rev() {
        for (line, step) in graph.steps(stage.index())? {
            match step {
                Step::Arg(declarations) => assignments.extend(
                    declarations
                        .iter()
                        .map(|d| Assignment::Argument(line, d.name.as_str(), d.default.as_deref())),
                ),
                Step::Env(names) => assignments.push(Assignment::Environment(names)),
                _ => {}
            }
        }
    }
    Ok(assignments)
}

/// Returns the variables that `ENV` sets in `assignments`; `None` where that cannot be told.
fn changed_later<'d>(assignments: &[Assignment<'d>]) -> Option<BTreeSet<&'d str>> {
    let names = assignments.iter().flat_map(|assignment| match assignment {
        Assignment::Environment(names) => *names,
        Assignment::Argument(..) => &[],
    });
    names
        .map(|name| match name {
            EnvName::Known(name) => Some(name.as_str()),
            EnvName::Unknown => None,
        })
        .collect()
}

/// Returns the text with the stages of these numbers replaced.
fn rewritten(dockerfile: &Dockerfile, texts: &BTreeMap<usize, String>) -> String {
    let text = dockerfile.text();
    let line_end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (stage, replacement) in texts {
        let stage = &dockerfile.stages()[*stage];
        let lines = &dockerfile.instructions[stage.range.clone()];
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
            continue;
        };
        out.push_str(&text[at..first.line.span.start]);
        out.push_str(&replacement.replace('\n', line_end));
        at = last.line.span.end;
    }
    out.push_str(&text[at..]);
    out
}
