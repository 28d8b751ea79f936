//! Facts of each level: the text of its stages, arguments, images, files, secrets.
//!
//! [`super::StageLevels::inputs`] says what is covered; this follows it.

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::{Digest, FieldHasher, Input, Level};

use super::arguments::{self, BuildArguments, Globals};
use super::context_files::ContextFiles;
use super::error::DockerfileError;
use super::expand::Variable;
use super::file::{Dockerfile, Stage};
use super::graph::{Origin, StageGraph};
use super::instruction::{Copy, Declaration, Mount, MountKind, Step};
use super::lines::Line;

/// The domain that the text of a stage is hashed under; its version is the format's.
const STAGE_DOMAIN: &str = "trilith/dockerfile/v1";

/// What one level depends on and the levels below do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelFacts {
    /// The images its stages are built from and copy from.
    pub images: BTreeSet<ImageUse>,
    /// The files of the build context that its stages see.
    pub context: ContextFiles,
    /// The addresses that `ADD` fetches; their content is covered by no key.
    pub remote: BTreeSet<String>,
    /// The IDs of the secrets its steps are given.
    pub secrets: BTreeSet<String>,
    /// The IDs of the SSH agents or keys its steps are given.
    pub ssh: BTreeSet<String>,
}

/// An image that a stage is built from or copies from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageUse {
    /// The name of the input that holds its digest: `dockerfile/base/ID` for the base of a
    /// stage, `dockerfile/image/REFERENCE` for a copy.
    pub input: String,
    /// The image as the Dockerfile names it, with arguments replaced.
    pub reference: String,
}

/// What [`collect`] returns.
pub(super) struct Collected {
    pub(super) levels: [LevelFacts; 3],
    pub(super) inputs: Vec<Input>,
    pub(super) unused_args: Vec<String>,
}

/// Returns the facts of the levels whose stages have the numbers `stages`, over all platforms.
pub(super) fn collect(
    graphs: &[StageGraph<'_>],
    arguments: &[BuildArguments],
    stages: [usize; 3],
) -> Result<Collected, DockerfileError> {
    let mut levels = <[LevelFacts; 3]>::default();
    let mut inputs: BTreeMap<String, Vec<(usize, Value)>> = BTreeMap::new();
    let mut unused: BTreeSet<&String> = BTreeSet::new();
    for (platform, (graph, arguments)) in graphs.iter().zip(arguments).enumerate() {
        let mut collector = Collector::new(graph, arguments, &mut levels);
        collector.collect(stages)?;
        let Collector {
            inputs: found,
            used,
            ..
        } = collector;
        for (name, value) in found {
            inputs.entry(name).or_default().push((platform, value));
        }
        let needless = |name: &&String| {
            !used.contains(name.as_str())
                && !arguments::needs_no_declaration(name, &arguments.platform)
        };
        unused.extend(arguments.args.keys().filter(needless));
    }
    Ok(Collected {
        levels,
        inputs: merged(inputs, arguments),
        unused_args: unused.into_iter().cloned().collect(),
    })
}

/// The level of an input and the digest of its value.
type Value = (Level, Digest);

/// Returns the inputs, once where all platforms agree.
fn merged(
    inputs: BTreeMap<String, Vec<(usize, Value)>>,
    arguments: &[BuildArguments],
) -> Vec<Input> {
    let input = |name, (level, digest)| Input {
        level,
        name,
        digest,
        size: 0,
    };
    let mut merged = Vec::new();
    for (name, mut values) in inputs {
        let everywhere = values.len() == arguments.len();
        if everywhere && values.iter().all(|(_, value)| *value == values[0].1) {
            merged.extend(values.pop().map(|(_, value)| input(name, value)));
            continue;
        }
        merged.extend(values.into_iter().map(|(platform, value)| {
            input(format!("{name}@{}", arguments[platform].platform), value)
        }));
    }
    merged
}

struct Collector<'c, 'd> {
    graph: &'c StageGraph<'d>,
    arguments: &'c BuildArguments,
    globals: Globals<'c>,
    levels: &'c mut [LevelFacts; 3],
    inputs: BTreeMap<String, Value>,
    /// The arguments that stages use.
    used: BTreeSet<String>,
}

impl<'c, 'd: 'c> Collector<'c, 'd> {
    fn new(
        graph: &'c StageGraph<'d>,
        arguments: &'c BuildArguments,
        levels: &'c mut [LevelFacts; 3],
    ) -> Self {
        Self {
            graph,
            arguments,
            globals: Globals::new(graph.dockerfile, arguments),
            levels,
            inputs: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    fn collect(&mut self, stages: [usize; 3]) -> Result<(), DockerfileError> {
        if let Some(frontend) = self.graph.dockerfile.frontend(&self.arguments.args) {
            self.input(Level::Versioned, "dockerfile/syntax".to_owned(), frontend);
        }
        let mut below = BTreeSet::new();
        for (at, (level, stage)) in Level::ALL.into_iter().zip(stages).enumerate() {
            let needed = self.graph.needed(stage, &BTreeSet::new())?;
            for stage in needed.difference(&below) {
                self.stage(level, at, *stage)?;
            }
            below.extend(needed);
        }
        Ok(())
    }

    /// Adds an input, unless a lower level has it already.
    fn input(&mut self, level: Level, name: String, value: &str) {
        let digest = Digest::of(value.as_bytes());
        self.inputs.entry(name).or_insert((level, digest));
    }

    fn stage(&mut self, level: Level, at: usize, index: usize) -> Result<(), DockerfileError> {
        let dockerfile = self.graph.dockerfile;
        let stage = &dockerfile.stages()[index];
        let digest = self.text(stage)?;
        self.inputs
            .insert(format!("dockerfile/stage/{}", stage.id()), (level, digest));
        if let Origin::Image(reference) = self.graph.base(index)? {
            self.levels[at].images.insert(ImageUse {
                input: format!("dockerfile/base/{}", stage.id()),
                reference: reference.clone(),
            });
        }
        for origin in self.graph.origins(index)? {
            if let Origin::Image(reference) = origin {
                self.levels[at].images.insert(ImageUse {
                    input: format!("dockerfile/image/{reference}"),
                    reference: reference.clone(),
                });
            }
        }
        if let Some(from) = dockerfile.from(stage) {
            self.used.extend(global_names(dockerfile, &from.image));
            if let Some(platform) = &from.platform {
                for name in global_names(dockerfile, platform) {
                    self.argument(level, &name, None);
                }
            }
        }
        for (_, step) in self.graph.steps(index)? {
            self.step(level, at, step);
        }
        Ok(())
    }

    fn step(&mut self, level: Level, at: usize, step: &Step) {
        match step {
            Step::Arg(declarations) => {
                for Declaration { name, default } in declarations {
                    self.argument(level, name, default.as_deref());
                }
            }
            Step::Copy(copy) => self.copy(at, copy),
            Step::Run(mounts) => {
                for mount in mounts {
                    self.mount(at, mount);
                }
            }
            // What a trigger needs counts where it is triggered.
            Step::OnBuild(_) | Step::From(_) | Step::Env(_) | Step::Other => {}
        }
    }

    fn copy(&mut self, at: usize, copy: &Copy) {
        let Copy {
            from,
            sources,
            remote,
            excludes,
            parents,
        } = copy;
        if from.is_some() {
            return;
        }
        // With parents, what is left out is relative to another directory.
        let excludes = if *parents { &[][..] } else { excludes };
        let facts = &mut self.levels[at];
        for source in sources {
            facts.context.add(source, excludes);
        }
        facts.remote.extend(remote.iter().cloned());
    }

    fn mount(&mut self, at: usize, mount: &Mount) {
        let Mount { kind, from, source } = mount;
        let facts = &mut self.levels[at];
        match kind {
            MountKind::Bind if from.is_none() => facts.context.add(source, &[]),
            MountKind::Bind | MountKind::Scratch => {}
            MountKind::Secret(id) => {
                facts.secrets.insert(id.clone());
            }
            MountKind::Ssh(id) => {
                facts.ssh.insert(id.clone());
            }
        }
    }

    /// Adds the value of the argument `name`, unless the stage's text has it as `default`.
    fn argument(&mut self, level: Level, name: &str, default: Option<&str>) {
        self.used.insert(name.to_owned());
        let dockerfile = self.graph.dockerfile;
        let input = format!("dockerfile/arg/{}", name.escape_debug());
        if let Some(value) = self.arguments.args.get(name) {
            return self.input(level, input, value);
        }
        let mut globals = dockerfile.global_arguments();
        if default.is_some() || !globals.any(|(_, global)| global.name == name) {
            return;
        }
        match self.globals.get(name) {
            Variable::Set(value) => self.input(level, input, &value),
            Variable::Unset => {}
            Variable::Unknown => self.global_text(level, name),
        }
    }

    /// Adds the text of the argument `name` before the first stage, and of all it depends on.
    fn global_text(&mut self, level: Level, name: &str) {
        let dockerfile = self.graph.dockerfile;
        let names = global_names(dockerfile, &format!("${{{name}}}"));
        for (_, Declaration { name, default }) in dockerfile.global_arguments() {
            if !names.contains(name) {
                continue;
            }
            let text = format!("dockerfile/global/{}", name.escape_debug());
            self.input(level, text, default.as_deref().unwrap_or_default());
            if let Some(value) = self.arguments.args.get(name) {
                let set = format!("dockerfile/arg/{}", name.escape_debug());
                self.input(level, set, value);
            }
        }
    }

    /// Returns the digest of the text of `stage`, and of which stages its names mean.
    fn text(&self, stage: &Stage) -> Result<Digest, DockerfileError> {
        let dockerfile = self.graph.dockerfile;
        let mut hasher = FieldHasher::new(STAGE_DOMAIN);
        let mut escape = [0; 4];
        hasher.field(
            "escape",
            dockerfile.directives.escape.encode_utf8(&mut escape),
        );
        let platform = dockerfile
            .from(stage)
            .and_then(|from| from.platform.as_deref());
        hasher.field("platform", platform.unwrap_or_default());
        hasher.field(
            "base",
            match self.graph.base(stage.index())? {
                Origin::Scratch => "scratch".to_owned(),
                // Its digest is an input of its own.
                Origin::Image(_) => "image".to_owned(),
                Origin::Stage(base) => format!("stage {}", dockerfile.stages()[*base].id()),
            },
        );
        for origin in self.graph.origins(stage.index())? {
            hasher.field(
                "from",
                match origin {
                    Origin::Scratch => "scratch".to_owned(),
                    Origin::Image(reference) => format!("image {reference}"),
                    Origin::Stage(stage) => format!("stage {}", dockerfile.stages()[*stage].id()),
                },
            );
        }
        for instruction in dockerfile.body(stage) {
            line(&mut hasher, &instruction.line);
        }
        Ok(hasher.finish().to_digest())
    }
}

fn line(hasher: &mut FieldHasher, line: &Line) {
    let Line {
        keyword,
        flags,
        arguments,
        heredocs,
        // Where it stands changes nothing.
        span: _,
        number: _,
    } = line;
    hasher.field("instruction", keyword);
    for flag in flags {
        hasher.field("flag", flag);
    }
    hasher.field("arguments", arguments);
    for heredoc in heredocs {
        hasher.field("here-document", &heredoc.content);
    }
}

/// Returns the arguments before the first stage that `word` depends on; all of them where that
/// cannot be told.
fn global_names(dockerfile: &Dockerfile, word: &str) -> BTreeSet<String> {
    arguments::global_names(dockerfile, word).unwrap_or_else(|| {
        dockerfile
            .global_arguments()
            .map(|(_, global)| global.name.clone())
            .collect()
    })
}
