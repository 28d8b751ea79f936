//! What an instruction means for stages, build arguments and the build context.
//!
//! The others (`CMD`, `LABEL`, `USER` and so on) count by their text alone.

use super::error::{DockerfileError, Problem};
use super::expand;
use super::heredoc;
use super::lines::Line;
use super::words::{self, Json};

/// An instruction.
#[derive(Clone, Debug)]
pub(super) struct Instruction {
    /// Its text.
    pub(super) line: Line,
    /// Its meaning.
    pub(super) step: Step,
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    From(From),
    Arg(Vec<Declaration>),
    /// `ENV`, with the names it sets.
    Env(Vec<EnvName>),
    Copy(Copy),
    Run(Vec<Mount>),
    /// `ONBUILD`, with what it triggers.
    OnBuild(Box<Step>),
    Other,
}

/// `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct From {
    /// The image or stage as written.
    pub(super) image: String,
    pub(super) platform: Option<String>,
    /// The name in lower case.
    pub(super) name: Option<String>,
}

/// One name of an `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) name: String,
    /// The default as written, with quotes.
    pub(super) default: Option<String>,
}

/// One name of an `ENV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EnvName {
    Known(String),
    /// A name with a variable in it.
    Unknown,
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// What it copies from, where that is not the build context.
    pub(super) from: Option<String>,
    /// The sources that are no here-documents.
    pub(super) sources: Vec<Path>,
    /// Addresses that `ADD` fetches.
    pub(super) remote: Vec<String>,
    /// What `--exclude` leaves out.
    pub(super) excludes: Vec<Path>,
    /// Whether parent directories are kept.
    pub(super) parents: bool,
}

/// `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) kind: MountKind,
    /// The stage or image it is from, where that is not the build context.
    pub(super) from: Option<String>,
    pub(super) source: Path,
}

/// What a mount holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MountKind {
    /// Files of the build context, a stage or an image; or a kind that only the engine knows.
    Bind,
    /// Nothing that is an input, apart from what `from` names.
    Scratch,
    /// The secret with this ID.
    Secret(String),
    /// The agent or key with this ID.
    Ssh(String),
}

/// A path as far as it is known before the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Without variables, quotes and escapes.
    Known(String),
    /// With a variable in it, so it may be any.
    Unknown,
}

impl Path {
    fn new(word: &str, escape: char) -> Self {
        expand::literal(word, escape).map_or(Self::Unknown, Self::Known)
    }
}

/// The instructions whose text alone counts.
const OTHERS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Instruction {
    /// Returns the instruction that `line` is.
    pub(super) fn new(line: Line, escape: char) -> Result<Self, DockerfileError> {
        let step = step(&line, escape).map_err(|problem| problem.at(line.number))?;
        Ok(Self { line, step })
    }
}

fn step(line: &Line, escape: char) -> Result<Step, Problem> {
    Ok(match line.keyword.as_str() {
        "FROM" => Step::From(from(line)?),
        "ARG" => Step::Arg(arguments(line, escape)?),
        "ENV" => Step::Env(environment(line, escape)?),
        "COPY" | "ADD" => Step::Copy(copy(line, escape)?),
        "RUN" => Step::Run(run(line, escape)?),
        "ONBUILD" => Step::OnBuild(Box::new(trigger(line, escape)?)),
        keyword if OTHERS.contains(&keyword) => Step::Other,
        keyword => return Err(Problem::Instruction(keyword.to_owned())),
    })
}

fn from(line: &Line) -> Result<From, Problem> {
    let words = words::blank_separated(&line.arguments);
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(stage_name(name)?)),
        _ => return Err(Problem::From(line.arguments.clone())),
    };
    Ok(From {
        image: image.clone(),
        platform: flag(line, "platform").map(str::to_owned),
        name,
    })
}

/// Returns the name of a stage in lower case, as case does not tell stages apart.
fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_ascii_lowercase();
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let valid = lower.starts_with(|c: char| c.is_ascii_lowercase()) && lower.bytes().all(rest);
    // Both have a meaning of their own where a stage can be named.
    if !valid || lower == "scratch" || lower == "context" {
        return Err(Problem::StageName(name.to_owned()));
    }
    Ok(lower)
}

fn arguments(line: &Line, escape: char) -> Result<Vec<Declaration>, Problem> {
    let words = words::quoted(&line.arguments, escape);
    let declaration = |word: &String| {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.as_str(), None),
        };
        (!name.is_empty()).then(|| Declaration {
            name: name.to_owned(),
            default,
        })
    };
    let declarations: Option<Vec<_>> = words.iter().map(declaration).collect();
    declarations
        .filter(|declarations| !declarations.is_empty())
        .ok_or_else(|| Problem::Arguments(line.keyword.clone()))
}

fn environment(line: &Line, escape: char) -> Result<Vec<EnvName>, Problem> {
    let words = words::quoted(&line.arguments, escape);
    let first = words
        .first()
        .ok_or_else(|| Problem::Arguments(line.keyword.clone()))?;
    let name = |word: &str| match expand::literal(word, escape) {
        Some(name) => EnvName::Known(name),
        None => EnvName::Unknown,
    };
    if !first.contains('=') {
        // `ENV NAME VALUE`, where the value is the rest of the line.
        return Ok(vec![name(words::keyword(&line.arguments).0)]);
    }
    let names = words.iter().map(|word| word.split('=').next());
    Ok(names.flatten().map(name).collect())
}

fn copy(line: &Line, escape: char) -> Result<Copy, Problem> {
    let words = match words::json(&line.arguments) {
        Json::Strings(words) => words,
        Json::No => words::blank_separated(&line.arguments),
        Json::Mixed => return Err(Problem::Json(line.keyword.clone())),
    };
    let (_, sources) = words
        .split_last()
        .filter(|(_, sources)| !sources.is_empty())
        .ok_or_else(|| Problem::Arguments(line.keyword.clone()))?;
    let paths = sources
        .iter()
        .filter(|word| heredoc::marker(word).is_none());
    let fetched = |word: &&String| line.keyword == "ADD" && is_remote(word);
    let (remote, local): (Vec<&String>, Vec<&String>) = paths.partition(fetched);
    let path = |word: &str| Path::new(word, escape);
    Ok(Copy {
        from: flag(line, "from")
            .filter(|from| !from.is_empty())
            .map(str::to_owned),
        sources: local.into_iter().map(|word| path(word)).collect(),
        remote: remote.into_iter().cloned().collect(),
        excludes: flags(line, "exclude").map(path).collect(),
        parents: flag(line, "parents").is_some_and(|value| value != "false"),
    })
}

/// Returns whether `ADD` fetches this source from elsewhere.
fn is_remote(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@")
}

fn run(line: &Line, escape: char) -> Result<Vec<Mount>, Problem> {
    flags(line, "mount")
        .map(|value| mount(value, escape))
        .collect()
}

fn mount(value: &str, escape: char) -> Result<Mount, Problem> {
    let fields = words::comma_separated(value).ok_or_else(|| Problem::Mount(value.to_owned()))?;
    let last = |names: &[&str]| {
        let field = |field: &&String| {
            let (name, _) = field.split_once('=')?;
            names.contains(&name.to_lowercase().as_str()).then_some(())
        };
        let field = fields.iter().rev().find(|f| field(f).is_some())?;
        field.split_once('=').map(|(_, value)| value)
    };
    let source = last(&["source", "src"]);
    let target = last(&["target", "dst", "destination"]);
    let id = last(&["id"]);
    let from = last(&["from"]).filter(|from| !from.is_empty());
    let secret = || id.or(source).or(target.and_then(|t| t.rsplit('/').next()));
    let kind = match last(&["type"]).map(str::to_lowercase).as_deref() {
        Some("cache" | "tmpfs") => MountKind::Scratch,
        Some("secret") => MountKind::Secret(secret().unwrap_or_default().to_owned()),
        Some("ssh") => MountKind::Ssh(id.unwrap_or("default").to_owned()),
        _ => MountKind::Bind,
    };
    Ok(Mount {
        kind,
        from: from.map(str::to_owned),
        source: Path::new(source.unwrap_or("."), escape),
    })
}

fn trigger(line: &Line, escape: char) -> Result<Step, Problem> {
    let inner = Line::of(&line.arguments, escape, line.span.clone(), line.number);
    match inner.keyword.as_str() {
        "FROM" | "ONBUILD" | "MAINTAINER" => Err(Problem::OnBuild(inner.keyword)),
        _ => step(&inner, escape),
    }
}

/// Returns the last value of the flag `--name`; empty where it has none.
fn flag<'l>(line: &'l Line, name: &str) -> Option<&'l str> {
    flags(line, name).last()
}

fn flags<'l>(line: &'l Line, name: &str) -> impl Iterator<Item = &'l str> {
    line.flags.iter().filter_map(move |flag| {
        let rest = flag.strip_prefix("--")?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None => rest.is_empty().then_some(""),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    fn parse(text: &str) -> Result<Step, String> {
        let (directives, mut lines) = lines::split(text).unwrap();
        Instruction::new(lines.remove(0), directives.escape)
            .map(|instruction| instruction.step)
            .map_err(|error| error.to_string())
    }

    fn known(paths: &[&str]) -> Vec<Path> {
        paths
            .iter()
            .map(|&path| Path::Known(path.to_owned()))
            .collect()
    }

    #[test]
    fn stages() {
        let Ok(Step::From(from)) = parse("from --platform=$BUILDPLATFORM a:1 as B-1\n") else {
            panic!("not a FROM");
        };
        assert_eq!(from.platform.as_deref(), Some("$BUILDPLATFORM"));
        assert_eq!(
            (from.image.as_str(), from.name.as_deref()),
            ("a:1", Some("b-1"))
        );
        for (text, message) in [
            (
                "FROM",
                "line 1: `FROM ` is not `FROM IMAGE` or `FROM IMAGE AS NAME`",
            ),
            (
                "FROM a b c",
                "line 1: `FROM a b c` is not `FROM IMAGE` or `FROM IMAGE AS NAME`",
            ),
            ("FROM a AS 1", "line 1: `1` cannot name a stage"),
            ("FROM a AS Scratch", "line 1: `Scratch` cannot name a stage"),
            ("FORM a", "line 1: unknown instruction `FORM`"),
            ("\\\n", "line 1: unknown instruction ``"),
            ("ARG", "line 1: `ARG` lacks arguments"),
            ("ARG =1", "line 1: `ARG` lacks arguments"),
            ("COPY a", "line 1: `COPY` lacks arguments"),
            (
                "COPY [1, \"a\"]",
                "line 1: the JSON array of `COPY` holds something else than strings",
            ),
            (
                "ONBUILD FROM a",
                "line 1: `ONBUILD FROM` cannot be triggered",
            ),
            (
                "RUN --mount=a\\\"b x",
                "line 1: `--mount=a\"b` is not a comma-separated list of options",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn arguments_and_variables() {
        let Ok(Step::Arg(declarations)) = parse("ARG A B= C=\"x y\"") else {
            panic!("not an ARG");
        };
        let pairs: Vec<_> = declarations
            .iter()
            .map(|d| (d.name.as_str(), d.default.as_deref()))
            .collect();
        assert_eq!(
            pairs,
            [("A", None), ("B", Some("")), ("C", Some("\"x y\""))]
        );
        for (text, expected) in [
            ("ENV A b c=d", &["A"][..]),
            ("ENV A=1 'B'=\"x C=y\" D=$A", &["A", "B", "D"]),
        ] {
            let names = expected
                .iter()
                .map(|&n| EnvName::Known(n.to_owned()))
                .collect();
            assert_eq!(parse(text), Ok(Step::Env(names)), "{text}");
        }
        assert_eq!(parse("ENV $A=1"), Ok(Step::Env(vec![EnvName::Unknown])));
    }

    #[test]
    fn copies() {
        for (text, from, sources, excludes) in [
            ("COPY . /x", None, &["."][..], &[][..]),
            (
                "COPY --from=b --chown=a:b a b /x",
                Some("b"),
                &["a", "b"],
                &[],
            ),
            (
                "COPY --exclude=*.md --exclude=a a /x",
                None,
                &["a"],
                &["*.md", "a"],
            ),
            ("COPY [\"a b\", \"/x\"]", None, &["a b"], &[]),
            ("COPY 'a' b\\c /x", None, &["a", "bc"], &[]),
            ("COPY <<E a /x\nE\n", None, &["a"], &[]),
        ] {
            let Ok(Step::Copy(copy)) = parse(text) else {
                panic!("not a copy: {text}");
            };
            assert_eq!(copy.from.as_deref(), from, "{text}");
            assert_eq!(copy.sources, known(sources), "{text}");
            assert_eq!(copy.excludes, known(excludes), "{text}");
        }
        let Ok(Step::Copy(copy)) = parse("ADD https://a/b git@a:b c $D /x") else {
            panic!("not a copy");
        };
        assert_eq!(copy.remote, ["https://a/b", "git@a:b"]);
        assert_eq!(copy.sources, [Path::Known("c".to_owned()), Path::Unknown]);
    }

    #[test]
    fn mounts() {
        let bind = |source: &str| (MountKind::Bind, Path::Known(source.to_owned()));
        for (options, from, (kind, source)) in [
            ("target=/a", None, bind(".")),
            ("type=bind,source=a,target=/a", None, bind("a")),
            ("from=b,src=/c,dst=/a", Some("b"), bind("/c")),
            ("type=$T,target=/a", None, bind(".")),
            (
                "type=bind,source=$S,target=/a",
                None,
                (MountKind::Bind, Path::Unknown),
            ),
            (
                "type=cache,target=/a",
                None,
                (MountKind::Scratch, Path::Known(".".to_owned())),
            ),
            (
                "Type=Cache,from=b",
                Some("b"),
                (MountKind::Scratch, Path::Known(".".to_owned())),
            ),
            (
                "type=secret,target=/run/key",
                None,
                (
                    MountKind::Secret("key".to_owned()),
                    Path::Known(".".to_owned()),
                ),
            ),
            (
                "type=ssh",
                None,
                (
                    MountKind::Ssh("default".to_owned()),
                    Path::Known(".".to_owned()),
                ),
            ),
        ] {
            let expected = Mount {
                kind,
                from: from.map(str::to_owned),
                source,
            };
            let text = format!("RUN --mount={options} make");
            assert_eq!(parse(&text), Ok(Step::Run(vec![expected])), "{text}");
        }
        let Ok(Step::OnBuild(step)) = parse("ONBUILD COPY a /b") else {
            panic!("not a trigger");
        };
        assert!(matches!(*step, Step::Copy(_)));
    }
}
