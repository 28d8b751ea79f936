//! What each stage builds on and copies from, for one set of arguments and one platform.
//!
//! Images are named, never looked up. What cannot be told matters only to stages that need it.

use std::collections::BTreeSet;

use super::arguments::{BuildArguments, Globals};
use super::error::{DockerfileError, Problem};
use super::file::{Dockerfile, Stage};
use super::instruction::{Instruction, MountKind, Step};

/// The stages of a Dockerfile and what they take from each other.
#[derive(Clone, Debug)]
pub struct StageGraph<'d> {
    pub(super) dockerfile: &'d Dockerfile,
    nodes: Vec<Node>,
}

/// Something that a stage builds on or copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: `FROM scratch`.
    Scratch,
    /// The stage with this number.
    Stage(usize),
    /// An image, as it is named.
    Image(String),
}

#[derive(Clone, Debug)]
struct Node {
    base: Result<Origin, DockerfileError>,
    /// What the stage's own instructions and the triggers of its base copy and mount from.
    origins: Result<Vec<Origin>, DockerfileError>,
}

impl<'d> StageGraph<'d> {
    /// Returns the graph of `dockerfile` when it is built with `arguments`.
    #[must_use]
    pub fn new(dockerfile: &'d Dockerfile, arguments: &BuildArguments) -> Self {
        let globals = Globals::new(dockerfile, arguments);
        let mut nodes: Vec<Node> = Vec::with_capacity(dockerfile.stages().len());
        for stage in dockerfile.stages() {
            let base = base(dockerfile, stage, &globals);
            let origins = steps(dockerfile, stage, base.as_ref().ok())
                .into_iter()
                .flat_map(|(line, step)| origins(dockerfile, stage, step, line))
                .collect();
            nodes.push(Node { base, origins });
        }
        Self { dockerfile, nodes }
    }

    /// Returns what stage number `stage` builds on.
    ///
    /// # Errors
    /// [`DockerfileError`] when that cannot be known before the build.
    ///
    /// # Panics
    /// When there is no such stage.
    pub fn base(&self, stage: usize) -> Result<&Origin, DockerfileError> {
        self.nodes[stage].base.as_ref().map_err(Clone::clone)
    }

    /// Returns what stage number `stage` copies and mounts from, in order.
    ///
    /// # Errors
    /// [`DockerfileError`] when one of them is no stage before this one.
    ///
    /// # Panics
    /// When there is no such stage.
    pub fn origins(&self, stage: usize) -> Result<&[Origin], DockerfileError> {
        match &self.nodes[stage].origins {
            Ok(origins) => Ok(origins),
            Err(error) => Err(error.clone()),
        }
    }

    /// Returns whether the `FROM` of stage number `stage` names a platform of its own.
    ///
    /// # Panics
    /// When there is no such stage.
    #[must_use]
    pub fn has_platform(&self, stage: usize) -> bool {
        let from = self.dockerfile.from(&self.dockerfile.stages()[stage]);
        from.is_some_and(|from| from.platform.is_some())
    }

    /// Returns stage number `target` and all stages it depends on, except those that only the
    /// stages in `replaced` need.
    ///
    /// # Errors
    /// [`DockerfileError`] when one of them cannot be resolved.
    ///
    /// # Panics
    /// When there is no such stage.
    pub fn needed(
        &self,
        target: usize,
        replaced: &BTreeSet<usize>,
    ) -> Result<BTreeSet<usize>, DockerfileError> {
        let mut needed = BTreeSet::new();
        let mut next = vec![target];
        while let Some(stage) = next.pop() {
            if !needed.insert(stage) || replaced.contains(&stage) {
                continue;
            }
            let base = std::iter::once(self.base(stage)?);
            let stages = base
                .chain(self.origins(stage)?)
                .filter_map(|origin| match origin {
                    Origin::Stage(stage) => Some(*stage),
                    Origin::Scratch | Origin::Image(_) => None,
                });
            next.extend(stages);
        }
        Ok(needed)
    }

    /// Returns stage number `stage` and the stages it builds on by `FROM`, nearest first.
    pub(super) fn chain(&self, stage: usize) -> Result<Vec<&'d Stage>, DockerfileError> {
        let mut chain = vec![&self.dockerfile.stages()[stage]];
        let mut at = stage;
        while let Origin::Stage(base) = self.base(at)? {
            at = *base;
            chain.push(&self.dockerfile.stages()[at]);
        }
        Ok(chain)
    }

    /// Returns what runs in stage number `stage`, with its lines: the triggers of the stage it
    /// builds on, and its own instructions.
    pub(super) fn steps(&self, stage: usize) -> Result<Vec<(usize, &'d Step)>, DockerfileError> {
        let base = self.base(stage)?;
        Ok(steps(
            self.dockerfile,
            &self.dockerfile.stages()[stage],
            Some(base),
        ))
    }
}

fn base(
    dockerfile: &Dockerfile,
    stage: &Stage,
    globals: &Globals<'_>,
) -> Result<Origin, DockerfileError> {
    let Some(from) = dockerfile.from(stage) else {
        return Err(Problem::NoStage.at(stage.line()));
    };
    let image = globals
        .expand(&from.image, dockerfile.directives.escape)
        .map_err(|reason| {
            let word = from.image.clone();
            Problem::Unresolved { word, reason }.at(stage.line())
        })?;
    if image.is_empty() {
        return Err(Problem::NoImage(from.image.clone()).at(stage.line()));
    }
    // A stage of that name further down is not meant, but an image.
    let earlier = dockerfile
        .stage(&image)
        .filter(|base| base.index() < stage.index());
    Ok(match earlier {
        Some(base) => Origin::Stage(base.index()),
        None if image == "scratch" => Origin::Scratch,
        None => Origin::Image(image),
    })
}

/// Returns what runs in `stage` when it builds on `base`, with its lines.
fn steps<'d>(
    dockerfile: &'d Dockerfile,
    stage: &Stage,
    base: Option<&Origin>,
) -> Vec<(usize, &'d Step)> {
    let trigger = |instruction: &'d Instruction| match &instruction.step {
        Step::OnBuild(step) => Some((instruction.line.number, &**step)),
        _ => None,
    };
    let triggering = match base {
        Some(Origin::Stage(base)) => dockerfile.body(&dockerfile.stages()[*base]),
        _ => &[],
    };
    let own = dockerfile
        .body(stage)
        .iter()
        .map(|i| (i.line.number, &i.step));
    triggering.iter().filter_map(trigger).chain(own).collect()
}

/// Returns what a step of `stage` copies or mounts from, if not from the build context.
fn origins(
    dockerfile: &Dockerfile,
    stage: &Stage,
    step: &Step,
    line: usize,
) -> Vec<Result<Origin, DockerfileError>> {
    let named = |name: &str| named_origin(dockerfile, stage, name).map_err(|p| p.at(line));
    match step {
        Step::Copy(copy) => {
            let from = copy.from.iter().map(|from| {
                let numbered = numbered_origin(dockerfile, stage, from);
                numbered.map_or_else(|| named(from), |origin| origin.map_err(|p| p.at(line)))
            });
            from.collect()
        }
        Step::Run(mounts) => {
            let from = mounts
                .iter()
                .filter(|mount| !matches!(mount.kind, MountKind::Secret(_) | MountKind::Ssh(_)))
                .filter_map(|mount| mount.from.as_deref());
            from.map(named).collect()
        }
        _ => Vec::new(),
    }
}

fn numbered_origin(
    dockerfile: &Dockerfile,
    stage: &Stage,
    from: &str,
) -> Option<Result<Origin, Problem>> {
    let number: i64 = from.parse().ok()?;
    let index = usize::try_from(number).ok();
    Some(
        match index.filter(|index| *index < dockerfile.stages().len()) {
            Some(index) if index < stage.index() => Ok(Origin::Stage(index)),
            Some(_) => Err(Problem::LaterStage(from.to_owned())),
            None => Err(Problem::NoSuchStage(from.to_owned())),
        },
    )
}

fn named_origin(dockerfile: &Dockerfile, stage: &Stage, name: &str) -> Result<Origin, Problem> {
    if name.contains(['$', '\'', '"', dockerfile.directives.escape]) {
        return Err(Problem::VariableSource(name.to_owned()));
    }
    match dockerfile.stage(name) {
        Some(origin) if origin.index() < stage.index() => Ok(Origin::Stage(origin.index())),
        Some(_) => Err(Problem::LaterStage(name.to_owned())),
        None if name == "scratch" => Ok(Origin::Scratch),
        None => Ok(Origin::Image(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let dockerfile = Dockerfile::parse(
            "ARG BASE=debian\nARG NEXT\nFROM ${BASE}:1 AS a\nFROM A AS b\nFROM scratch\nFROM b-$TARGETARCH AS c\nFROM b AS b-amd64\nFROM b-$TARGETARCH\nFROM $NEXT\nFROM x-$BUILDARCH\nFROM 0\n",
        )
        .unwrap();
        let arguments = BuildArguments::of(&[], "linux/amd64");
        let graph = StageGraph::new(&dockerfile, &arguments);
        let image = |name: &str| Ok(Origin::Image(name.to_owned()));
        for (stage, expected) in [
            image("debian:1"),
            Ok(Origin::Stage(0)),
            Ok(Origin::Scratch),
            image("b-amd64"),
            Ok(Origin::Stage(1)),
            Ok(Origin::Stage(4)),
            Err("line 9: `$NEXT` is empty, as no build argument says what it is"),
            Err("line 10: `x-$BUILDARCH` cannot be resolved: only the engine knows `BUILDARCH`"),
            image("0"),
        ]
        .into_iter()
        .enumerate()
        {
            let base = graph
                .base(stage)
                .cloned()
                .map_err(|error| error.to_string());
            assert_eq!(base, expected.map_err(str::to_owned), "{stage}");
        }
        let chain: Vec<usize> = graph.chain(5).unwrap().iter().map(|s| s.index()).collect();
        assert_eq!(chain, [5, 4, 1, 0]);
        assert!(graph.needed(6, &BTreeSet::new()).is_err());
    }

    #[test]
    fn origins_and_needs() {
        let dockerfile = Dockerfile::parse(
            "FROM x AS a\nFROM x AS tools\nONBUILD COPY --from=a /t /t\nFROM x AS unused\nCOPY --from=nowhere:1 /x /x\nFROM tools AS b\nCOPY --from=0 /a /a\nRUN --mount=from=Tools,target=/t --mount=type=secret,id=k --mount=from=1,target=/o make\nFROM a AS c\nCOPY --from=B /b /b\n",
        )
        .unwrap();
        let arguments = BuildArguments::of(&[], "linux/amd64");
        let graph = StageGraph::new(&dockerfile, &arguments);
        let image = |name: &str| Origin::Image(name.to_owned());
        assert_eq!(graph.origins(2).unwrap(), [image("nowhere:1")]);
        assert_eq!(
            graph.origins(3).unwrap(),
            // The trigger's, then its own; a mount knows no numbers.
            [
                Origin::Stage(0),
                Origin::Stage(0),
                Origin::Stage(1),
                image("1")
            ]
        );
        let needed = |target, replaced: &[usize]| {
            let replaced = replaced.iter().copied().collect();
            graph
                .needed(target, &replaced)
                .unwrap()
                .into_iter()
                .collect::<Vec<_>>()
        };
        assert_eq!(needed(4, &[]), [0, 1, 3, 4]);
        assert_eq!(needed(4, &[3]), [0, 3, 4]);
        assert_eq!(needed(4, &[3, 0]), [0, 3, 4]);
        assert_eq!(needed(1, &[]), [1]);
    }

    #[test]
    fn refused_origins() {
        for (instruction, message) in [
            (
                "COPY --from=b /a /a",
                "line 2: `b` is a stage that does not come before",
            ),
            (
                "COPY --from=a /a /a",
                "line 2: `a` is a stage that does not come before",
            ),
            (
                "COPY --from=1 /a /a",
                "line 2: `1` is a stage that does not come before",
            ),
            ("COPY --from=9 /a /a", "line 2: there is no stage number 9"),
            (
                "COPY --from=-1 /a /a",
                "line 2: there is no stage number -1",
            ),
            (
                "COPY --from=$A /a /a",
                "line 2: `$A` cannot be copied from, as variables have no meaning there",
            ),
            (
                "RUN --mount=from=b,target=/a x",
                "line 2: `b` is a stage that does not come before",
            ),
        ] {
            let text = format!("FROM x AS a\n{instruction}\nFROM x AS b\n");
            let dockerfile = Dockerfile::parse(&text).unwrap();
            let arguments = BuildArguments::of(&[], "linux/amd64");
            let graph = StageGraph::new(&dockerfile, &arguments);
            assert_eq!(
                graph.needed(0, &BTreeSet::new()).unwrap_err().to_string(),
                message
            );
            assert!(graph.needed(1, &BTreeSet::new()).is_ok());
        }
    }
}
