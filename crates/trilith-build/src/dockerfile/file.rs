//! A Dockerfile as stages, each by its name and number.
//!
//! Arguments are not known yet, so neither is what a stage builds on: see [`super::StageGraph`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::{DockerfileError, Problem};
use super::instruction::{Declaration, From, Instruction, Step};
use super::lines::{self, Directives};

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    pub(super) text: String,
    pub(super) directives: Directives,
    pub(super) instructions: Vec<Instruction>,
    stages: Vec<Stage>,
}

/// One stage: a `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    index: usize,
    name: Option<String>,
    line: usize,
    /// The instructions, `FROM` first.
    pub(super) range: Range<usize>,
}

impl Stage {
    /// Returns the stage's number, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the stage's name in lower case, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the line of its `FROM`, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the stage's name, or its number where it has none. No two stages share one.
    #[must_use]
    pub fn id(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.index.to_string())
    }
}

impl Dockerfile {
    /// Parses `text`, with `BuildKit`'s grammar and here-documents.
    ///
    /// # Errors
    /// [`DockerfileError`] for an unknown instruction, a stage that is named twice or badly, an
    /// unfinished here-document, or arguments that could hide what an instruction depends on.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let (directives, lines) = lines::split(text)?;
        let instruction = |line| Instruction::new(line, directives.escape);
        let instructions = lines
            .into_iter()
            .map(instruction)
            .collect::<Result<Vec<_>, _>>()?;
        let stages = stages(&instructions)?;
        Ok(Self {
            text: text.to_owned(),
            directives,
            instructions,
            stages,
        })
    }

    /// Returns the stages in order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Returns the stage with this name, in any case.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        let name = name.to_ascii_lowercase();
        let named = |stage: &&Stage| stage.name.as_deref() == Some(name.as_str());
        self.stages.iter().find(named)
    }

    /// Returns the text as it was parsed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the frontend that the first lines ask for, as in `docker/dockerfile:1`.
    #[must_use]
    pub fn syntax(&self) -> Option<&str> {
        self.directives.syntax.as_deref()
    }

    /// Returns the frontend that builds the file with these arguments, `None` for the engine's own.
    pub(crate) fn frontend<'a>(&'a self, args: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let told = args.get("BUILDKIT_SYNTAX").map(String::as_str);
        told.or(self.syntax())
    }

    /// Returns whether an `ARG` declares `name`, before the first stage or in any.
    #[must_use]
    pub fn declares(&self, name: &str) -> bool {
        self.instructions.iter().any(|instruction| {
            matches!(&instruction.step, Step::Arg(declarations)
                if declarations.iter().any(|declaration| declaration.name == name))
        })
    }

    /// Returns the instructions of `stage` after its `FROM`.
    pub(super) fn body(&self, stage: &Stage) -> &[Instruction] {
        &self.instructions[stage.range.start + 1..stage.range.end]
    }

    /// Returns the `FROM` of `stage`, with the line it is on.
    pub(super) fn from(&self, stage: &Stage) -> Option<&From> {
        match &self.instructions[stage.range.start].step {
            Step::From(from) => Some(from),
            _ => None,
        }
    }

    /// Returns the arguments declared before the first stage, with their lines.
    pub(super) fn global_arguments(&self) -> impl Iterator<Item = (usize, &Declaration)> {
        let end = self.stages.first().map_or(0, |stage| stage.range.start);
        self.instructions[..end].iter().flat_map(|instruction| {
            let declarations = match &instruction.step {
                Step::Arg(declarations) => declarations.as_slice(),
                _ => &[],
            };
            declarations
                .iter()
                .map(|declaration| (instruction.line.number, declaration))
        })
    }
}

fn stages(instructions: &[Instruction]) -> Result<Vec<Stage>, DockerfileError> {
    let mut stages: Vec<Stage> = Vec::new();
    for (at, instruction) in instructions.iter().enumerate() {
        let line = instruction.line.number;
        match (&instruction.step, stages.last_mut()) {
            (Step::From(from), _) => {
                if let Some(first) = stages
                    .iter()
                    .find(|s| s.name.is_some() && s.name == from.name)
                {
                    let problem = Problem::DuplicateStage {
                        name: first.id(),
                        line: first.line,
                    };
                    return Err(problem.at(line));
                }
                stages.push(Stage {
                    index: stages.len(),
                    name: from.name.clone(),
                    line,
                    range: at..at + 1,
                });
            }
            (_, Some(stage)) => stage.range.end = at + 1,
            (Step::Arg(_), None) => {}
            (_, None) => {
                return Err(Problem::BeforeStage(instruction.line.keyword.clone()).at(line));
            }
        }
    }
    if stages.is_empty() {
        return Err(Problem::NoStage.at(1));
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_by_name_and_number() {
        let dockerfile = Dockerfile::parse(
            "# syntax=docker/dockerfile:1\nARG A=1 B\nFROM a AS One\nRUN x\n\nFROM one\nFROM b as two\n",
        )
        .unwrap();
        let ids: Vec<String> = dockerfile.stages().iter().map(Stage::id).collect();
        assert_eq!(ids, ["one", "1", "two"]);
        assert_eq!(dockerfile.stage("TWO").unwrap().index(), 2);
        assert_eq!(dockerfile.stage("two").unwrap().line(), 7);
        assert!(dockerfile.stage("1").is_none());
        assert_eq!(dockerfile.syntax(), Some("docker/dockerfile:1"));
        let globals: Vec<&str> = dockerfile
            .global_arguments()
            .map(|(_, d)| d.name.as_str())
            .collect();
        assert_eq!(globals, ["A", "B"]);
        assert_eq!(dockerfile.body(&dockerfile.stages()[0]).len(), 1);
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("", "line 1: there is no `FROM`"),
            ("ARG A\n", "line 1: there is no `FROM`"),
            (
                "RUN a\nFROM b\n",
                "line 1: `RUN` stands before the first `FROM`",
            ),
            (
                "FROM a AS x\nFROM b AS X\n",
                "line 2: stage `x` is there already, at line 1",
            ),
        ] {
            assert_eq!(Dockerfile::parse(text).unwrap_err().to_string(), message);
        }
    }
}
