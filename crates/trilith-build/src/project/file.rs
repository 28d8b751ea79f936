//! `trilith.toml`: what a project says about its image, as typed values.
//!
//! One file, one value: nothing is merged here, no default is looked up elsewhere, and no
//! path or image that the file names is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use toml::de::DeTable;
use trilith_core::{ConfigRecipe, LayerRecipe, Level, Platform, Repository, Scheme, UserRecipe};

use super::error::{MAX_PROBLEMS, ProjectError};
use super::manifest::{path_in, read_text};
use super::problem::Mistake;
use super::reader::{Mistakes, Table};
use super::sections;

/// The name of the project file, in the project's directory.
pub const PROJECT_FILE: &str = "trilith.toml";

/// A whole `trilith.toml`. What the file leaves out is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectFile {
    /// `[image]`.
    pub image: ImageSection,
    /// `[inputs]`.
    pub inputs: InputsSection,
    /// `[[layer]]` or `[dockerfile]`.
    pub recipe: Recipe,
    /// `[config]`.
    pub config: ConfigRecipe,
    /// `[agent]`.
    pub agent: AgentSection,
    /// `[user]`.
    pub user: Option<UserRecipe>,
}

/// `[image]`: how the image is called and what it starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSection {
    /// Where the tags live.
    pub repository: Option<Repository>,
    /// The version that begins every tag, not empty. Whether tags may hold it is checked with them.
    pub version: Option<String>,
    /// The base image: a reference, or a place such as `dir:PATH` or `scratch`. Not empty.
    pub base: Option<String>,
    /// What the image is built for, without repetition; empty where the file does not say.
    pub platforms: Vec<Platform>,
    /// The lower levels whose tags builds do not write.
    pub skip_tags: BTreeSet<Level>,
}

/// `[inputs]`: what is hashed, by which rules. `None` leaves it to the scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputsSection {
    /// How inputs become tags.
    pub scheme: Option<Scheme>,
    /// Lock files in hashing order, relative to the project in normal form.
    pub lock: Option<Vec<String>>,
    /// Source directories, relative to the project in normal form.
    pub source: Option<Vec<String>>,
    /// What no hash and no layer holds: patterns of `.gitignore`, from the root of each tree.
    pub ignore: Option<Vec<String>>,
}

/// `[agent]`: the agent in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSection {
    /// Whether it is put below the layers.
    pub inject: Option<bool>,
}

/// How the image is made: from layers without an engine, or from a Dockerfile by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// `[[layer]]`, in the order of the file. Later layers may overwrite earlier ones.
    Layers(Vec<LayerRecipe>),
    /// `[dockerfile]`.
    Dockerfile(DockerfileRecipe),
}

impl Default for Recipe {
    fn default() -> Self {
        Self::Layers(Vec::new())
    }
}

/// `[dockerfile]`: a build that an engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileRecipe {
    /// What is built.
    pub source: DockerfileSource,
    /// The stage that makes each level's image.
    pub levels: BTreeMap<Level, String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// The stage to build; the last one where there is none.
    pub target: Option<String>,
    /// Extra dependencies, told to a template and hashed with the lock level.
    pub extra_deps: Option<String>,
}

/// Where a Dockerfile comes from. Paths are relative to the project in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `path`: a Dockerfile.
    Path(String),
    /// `template`: a Jinja2 template of one.
    Template(String),
}

/// Returns what `text` says. `path` names the file in messages and is not opened.
///
/// # Errors
/// [`ProjectError::Invalid`] with every mistake of the file: where it breaks TOML, the
/// first; else all unknown keys, wrong types, invalid and missing values.
pub fn parse_project(text: &str, path: &Path) -> Result<ProjectFile, ProjectError> {
    let root = DeTable::parse(text).map_err(|error| malformed(&error, path, text))?;
    let mut mistakes = Mistakes::default();
    let file = sections::project(&Table::document(&root), &mut mistakes);
    match (file, mistakes.into_sorted()) {
        (Some(file), mistakes) if mistakes.is_empty() => Ok(file),
        (_, mistakes) => Err(invalid(&mistakes, path, text)),
    }
}

/// Returns what [`PROJECT_FILE`] in `directory` says, `None` where there is no such file.
///
/// # Errors
/// `directory` is none, the file cannot be read, or [`parse_project`] refuses it.
pub fn load_project(directory: &Path) -> Result<Option<ProjectFile>, ProjectError> {
    refuse_missing(directory)?;
    let path = path_in(directory, PROJECT_FILE);
    match read_text(&path)? {
        Some(text) => parse_project(&text, &path).map(Some),
        None => Ok(None),
    }
}

/// Checks that `directory` is one, so that its absence is not taken for an empty project.
pub(super) fn refuse_missing(directory: &Path) -> Result<(), ProjectError> {
    let metadata = fs::metadata(directory).map_err(ProjectError::io("open project", directory))?;
    if metadata.is_dir() {
        Ok(())
    } else {
        Err(ProjectError::NotADirectory(directory.to_owned()))
    }
}

/// Returns the error for a text that is not TOML.
pub(super) fn malformed(error: &toml::de::Error, path: &Path, text: &str) -> ProjectError {
    let mistake = Mistake {
        span: error.span().unwrap_or(0..0),
        before: "malformed TOML".to_owned(),
        after: format!(": {}", error.message()),
    };
    invalid(&[mistake], path, text)
}

fn invalid(mistakes: &[Mistake], path: &Path, text: &str) -> ProjectError {
    let shown = mistakes.len().min(MAX_PROBLEMS);
    ProjectError::Invalid {
        path: path.to_owned(),
        problems: mistakes[..shown]
            .iter()
            .map(|mistake| mistake.locate(path, text))
            .collect(),
        omitted: mistakes.len() - shown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trilith_core::Owner;

    use super::*;

    const FULL: &str = r#"
[image]
repository = "ghcr.io/acme/agent-runtime"
skip_tags = ["versioned", "versioned"]
version = "1.0.0"
base = "debian:bookworm-slim"
platforms = ["linux/amd64", "linux/arm64", "linux/x86_64"]

[inputs]
scheme = "trilith"
lock = ["pyproject.toml", "./uv.lock"]
source = ["app/"]
ignore = [".*/", "*.md"]

[[layer]]
level = "lock"
copy = "./vendor/"
to = "/opt/app/vendor/"

[[layer]]
level = "source"
copy = "."
to = "/opt/app"
owner = "10001:10001"

[[layer]]
level = "lock"
from = "ghcr.io/acme/builder:abc"
copy = "/agent-server"
to = "/agent-server"

[user]
name = "agent"
uid = 10001
gid = 10002
home = "/data/agent/"
shell = "/bin/bash"

[config]
entrypoint = ["/opt/app/run"]
cmd = []
env = { LANG = "C.UTF-8" }
labels = { "org.opencontainers.image.title" = "agent" }
user = "10001:10001"
workdir = "/workspace"
expose = [8000, "53/udp"]
stop_signal = "int"
"#;

    const DOCKERFILE: &str = r#"
[dockerfile]
template = "Dockerfile.j2"
levels = { versioned = "base", lock = "deps", source = "runtime" }
args = { PYTHON = "3.12" }
target = "runtime"
extra_deps = "apt-get install -y jq"
"#;

    fn parse(text: &str) -> Result<ProjectFile, ProjectError> {
        parse_project(text, Path::new(PROJECT_FILE))
    }

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn every_key_is_read() {
        let file = parse(FULL).unwrap();
        assert_eq!(
            file.image,
            ImageSection {
                repository: Some("ghcr.io/acme/agent-runtime".parse().unwrap()),
                skip_tags: [Level::Versioned].into(),
                version: Some("1.0.0".to_owned()),
                base: Some("debian:bookworm-slim".to_owned()),
                platforms: vec![
                    "linux/amd64".parse().unwrap(),
                    "linux/arm64".parse().unwrap()
                ],
            }
        );
        assert_eq!(
            file.inputs,
            InputsSection {
                scheme: Some(Scheme::Trilith),
                lock: Some(strings(&["pyproject.toml", "uv.lock"])),
                source: Some(strings(&["app"])),
                ignore: Some(strings(&[".*/", "*.md"])),
            }
        );
        let layer = |level, copy: &str, to: &str, owner: &str, from: Option<&str>| LayerRecipe {
            level,
            copy: copy.to_owned(),
            from: from.map(|from| from.parse().unwrap()),
            to: to.parse().unwrap(),
            owner: owner.parse::<Owner>().unwrap(),
        };
        let builder = Some("ghcr.io/acme/builder:abc");
        assert_eq!(
            file.recipe,
            Recipe::Layers(vec![
                layer(Level::Lock, "vendor", "/opt/app/vendor", "0:0", None),
                layer(Level::Source, ".", "/opt/app", "10001:10001", None),
                layer(
                    Level::Lock,
                    "/agent-server",
                    "/agent-server",
                    "0:0",
                    builder
                ),
            ])
        );
        assert_eq!(
            file.user,
            Some(UserRecipe {
                name: "agent".to_owned(),
                owner: "10001:10002".parse().unwrap(),
                home: "/data/agent".parse().unwrap(),
                shell: "/bin/bash".parse().unwrap(),
            })
        );
        let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        assert_eq!(
            file.config,
            ConfigRecipe {
                entrypoint: Some(strings(&["/opt/app/run"])),
                cmd: Some(Vec::new()),
                env: pair("LANG", "C.UTF-8"),
                labels: pair("org.opencontainers.image.title", "agent"),
                user: Some("10001:10001".to_owned()),
                workdir: Some("/workspace".parse().unwrap()),
                expose: strings(&["8000", "53/udp"]),
                stop_signal: Some("SIGINT".to_owned()),
            }
        );
    }

    #[test]
    fn a_dockerfile_is_the_other_recipe() {
        let expected = DockerfileRecipe {
            source: DockerfileSource::Template("Dockerfile.j2".to_owned()),
            levels: [
                (Level::Versioned, "base".to_owned()),
                (Level::Lock, "deps".to_owned()),
                (Level::Source, "runtime".to_owned()),
            ]
            .into(),
            args: [("PYTHON".to_owned(), "3.12".to_owned())].into(),
            target: Some("runtime".to_owned()),
            extra_deps: Some("apt-get install -y jq".to_owned()),
        };
        assert_eq!(
            parse(DOCKERFILE).unwrap().recipe,
            Recipe::Dockerfile(expected)
        );
    }

    #[test]
    fn a_user_needs_a_name_and_a_number() {
        let user = parse("[user]\nname = 'agent'\nuid = 7").unwrap().user;
        let user = user.unwrap();
        assert_eq!(user.owner.to_string(), "7:7");
        assert_eq!(user.home.as_str(), "/home/agent");
        assert_eq!(user.shell.as_str(), "/bin/sh");
        for (text, reason) in [
            ("", "missing `user.name`"),
            ("name = 'a'", "missing `user.uid`"),
            ("name = 'a'\nuid = 0", "invalid `user.uid`"),
            ("name = 'a'\nuid = 4294967295", "4294967295 is no number"),
            ("name = 'a'\nuid = '1'", "must be an integer"),
            ("name = 'a'\nuid = 1\ngid = -1", "invalid `user.gid`"),
            ("name = 'a:b'\nuid = 1", "`a:b` is not a user's name"),
            ("name = '-a'\nuid = 1", "`-a` is not a user's name"),
            ("name = ''\nuid = 1", "`` is not a user's name"),
            ("name = 'a'\nuid = 1\nhome = '/'", "invalid `user.home`"),
            (
                "name = 'a'\nuid = 1\nhome = 'a'",
                "must be an absolute path",
            ),
            ("name = 'a'\nuid = 1\nhome = '/a:b'", "invalid `user.home`"),
            (
                "name = 'a'\nuid = 1\nshell = \"/a\\nb\"",
                "`/a\\nb` cannot be",
            ),
            (
                "name = 'a'\nuid = 1\nuser = 'b'",
                "it belongs under `[config]`",
            ),
        ] {
            let message = refused(&format!("[user]\n{text}"));
            assert!(message.contains(reason), "{text}\n{message}");
        }
    }

    #[test]
    fn everything_may_be_left_out() {
        for text in [
            "",
            "\u{feff}# nothing\r\n",
            "[image]\n[inputs]\n[config]\n",
            "layer = []",
        ] {
            assert_eq!(parse(text).unwrap(), ProjectFile::default(), "{text:?}");
        }
    }

    #[test]
    fn tables_may_be_written_in_any_way_toml_allows() {
        let tables = parse(
            "image.base = \"scratch\"\nlayer = [{ level = \"lock\", copy = \"a\", to = \"/a\" }]",
        );
        let headers =
            parse("[[layer]]\nlevel = 'lock'\ncopy = 'a'\nto = '/a'\n[image]\nbase = 'scratch'\n");
        assert_eq!(tables.unwrap(), headers.unwrap());
    }

    #[test]
    fn an_unknown_key_is_pointed_at() {
        insta::assert_snapshot!(refused(
            "[image]\nbase = \"debian\"\n\n[config]\nentrypont = [\"/run\"]\n"
        ), @r#"
        unknown key `entrypont` at `trilith.toml`:5:1, did you mean `entrypoint`?
          |
        5 | entrypont = ["/run"]
          | ^^^^^^^^^
        "#);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        insta::assert_snapshot!(refused(
            r#"repository = "ghcr.io/a/b"
[image]
platform = 1
entrypoint = ["x"]
xyz = 1
[[layer]]
level = "locks"
copy = "../x"
own = "root"
owner = "root"
[layers]
"#
        ), @r#"
        `trilith.toml` has 10 mistakes

        unknown key `repository` at `trilith.toml`:1:1, it belongs under `[image]`
          |
        1 | repository = "ghcr.io/a/b"
          | ^^^^^^^^^^

        unknown key `platform` at `trilith.toml`:3:1, did you mean `platforms`?
          |
        3 | platform = 1
          | ^^^^^^^^

        unknown key `entrypoint` at `trilith.toml`:4:1, it belongs under `[config]`
          |
        4 | entrypoint = ["x"]
          | ^^^^^^^^^^

        unknown key `xyz` at `trilith.toml`:5:1; known are `base`, `platforms`, `repository`, `skip_tags`, `version`
          |
        5 | xyz = 1
          | ^^^

        missing `layer.to` at `trilith.toml`:6:1
          |
        6 | [[layer]]
          | ^^^^^^^^^

        invalid `layer.level` at `trilith.toml`:7:9: `locks` is none of `versioned`, `lock`, `source`, did you mean `lock`?
          |
        7 | level = "locks"
          |         ^^^^^^^

        invalid `layer.copy` at `trilith.toml`:8:8: `../x` must not hold `..`
          |
        8 | copy = "../x"
          |        ^^^^^^

        unknown key `own` at `trilith.toml`:9:1, did you mean `owner`?
          |
        9 | own = "root"
          | ^^^

        invalid `layer.owner` at `trilith.toml`:10:9: `root` is not a numeric owner; write `uid:gid`, as in `10001:10001`
           |
        10 | owner = "root"
           |         ^^^^^^

        unknown key `layers` at `trilith.toml`:11:2, did you mean `layer`?
           |
        11 | [layers]
           |  ^^^^^^
        "#);
    }

    #[test]
    fn wrong_values_are_pointed_at() {
        insta::assert_snapshot!(refused(
            r#"[image]
repository = "ghcr.io/Acme/b"
base = 1
platforms = "linux/amd64"
[config]
expose = [0, true]
env = { A = 1, "B=" = "x" }
labels = { "dev.trilith.level" = "mine" }
workdir = "workspace"
"#
        ), @r#"
        `trilith.toml` has 9 mistakes

        invalid `image.repository` at `trilith.toml`:2:14: `ghcr.io/Acme/b`: repository component `Acme` must be lower-case letters and digits, with single `.`, `_`, `__` or `-` between them
          |
        2 | repository = "ghcr.io/Acme/b"
          |              ^^^^^^^^^^^^^^^^

        `image.base` at `trilith.toml`:3:8 must be a string, not an integer; put it in quotes
          |
        3 | base = 1
          |        ^

        `image.platforms` at `trilith.toml`:4:13 must be an array, not a string; write `["linux/amd64"]`
          |
        4 | platforms = "linux/amd64"
          |             ^^^^^^^^^^^^^

        invalid `config.expose` at `trilith.toml`:6:11: `0` is not a port; write `8000` or `8000/udp`
          |
        6 | expose = [0, true]
          |           ^

        `config.expose` at `trilith.toml`:6:14 must be a port as an integer or string, not a boolean
          |
        6 | expose = [0, true]
          |              ^^^^

        `config.env.A` at `trilith.toml`:7:13 must be a string, not an integer; put it in quotes
          |
        7 | env = { A = 1, "B=" = "x" }
          |             ^

        invalid name in `config.env` at `trilith.toml`:7:16: `B=` is not a variable's name
          |
        7 | env = { A = 1, "B=" = "x" }
          |                ^^^^

        invalid name in `config.labels` at `trilith.toml`:8:12: labels under `dev.trilith.` are written by the build, `dev.trilith.level` among them
          |
        8 | labels = { "dev.trilith.level" = "mine" }
          |            ^^^^^^^^^^^^^^^^^^^

        invalid `config.workdir` at `trilith.toml`:9:11: `workspace` must be an absolute path in the image
          |
        9 | workdir = "workspace"
          |           ^^^^^^^^^^^
        "#);
    }

    #[test]
    fn layers_and_dockerfile_exclude_each_other() {
        insta::assert_snapshot!(refused(
            r#"[[layer]]
level = "lock"
copy = "a"
to = "/a"
[dockerfile]
levels = { runtime = "x" }
"#
        ), @r#"
        `trilith.toml` has 3 mistakes

        `[dockerfile]` at `trilith.toml`:5:1 stands beside `[[layer]]`; an image is made by one of them
          |
        5 | [dockerfile]
          | ^^^^^^^^^^^^

        `[dockerfile]` at `trilith.toml`:5:1 has neither `path` nor `template`
          |
        5 | [dockerfile]
          | ^^^^^^^^^^^^

        unknown key `runtime` at `trilith.toml`:6:12; known are `versioned`, `lock`, `source`
          |
        6 | levels = { runtime = "x" }
          |            ^^^^^^^
        "#);
    }

    #[test]
    fn what_is_no_toml_is_shown() {
        insta::assert_snapshot!(refused("[image]\nbase = \"debian\nversion = 1\n"), @r#"
        malformed TOML at `trilith.toml`:2:15: invalid basic string, expected `"`
          |
        2 | base = "debian
          |               ^
        "#);
        insta::assert_snapshot!(refused("a = 1\na = 2"), @"
        malformed TOML at `trilith.toml`:2:1: duplicate key
          |
        2 | a = 2
          | ^
        ");
    }

    #[test]
    fn refusals_name_the_reason() {
        for (text, reason) in [
            (
                "[layer]\nlevel = 'lock'",
                "`layer` at `trilith.toml`:1:1 must be written `[[layer]]`",
            ),
            (
                "layer = 1",
                "`layer` at `trilith.toml`:1:9 must be tables `[[layer]]`, not an integer",
            ),
            (
                "layer = [1]",
                "`layer` at `trilith.toml`:1:10 must be a table, not an integer",
            ),
            (
                "image = 'x'",
                "`image` at `trilith.toml`:1:9 must be a table, not a string",
            ),
            (
                "[image]\nversion = ''",
                "invalid `image.version` at `trilith.toml`:2:11: a version cannot be empty",
            ),
            (
                "[inputs]\nlock = ['/etc/passwd']",
                "`/etc/passwd` must be relative to the project",
            ),
            (
                "[inputs]\nsource = ['a/../..']",
                "`a/../..` must not hold `..`",
            ),
            (
                "[inputs]\nscheme = 'openhands'",
                "invalid `inputs.scheme` at `trilith.toml`:2:10: `openhands` is not a scheme",
            ),
            (
                "[inputs]\nlock = ['a', './a']",
                "invalid `inputs.lock` at `trilith.toml`:2:14: `a` is there twice",
            ),
            (
                "[[layer]]\nlevel='lock'\ncopy='a'",
                "missing `layer.to` at `trilith.toml`:1:1",
            ),
            (
                "[[layer]]\nfrom='a:b c'\nlevel='lock'\ncopy='/a'\nto='/'",
                "invalid `layer.from` at `trilith.toml`:2:6",
            ),
            (
                "[[layer]]\nfrom='a'\nlevel='lock'\ncopy='a'\nto='/'",
                "`a` must be an absolute path in the image",
            ),
            (
                "[[layer]]\nlevel='lock'\ncopy='/a'\nto='/'",
                "`/a` must be relative to the project",
            ),
            (
                "[[layer]]\nlevel='lock'\ncopy='a'\nto='/a/../b'",
                "`/a/../b` must not hold `..`",
            ),
            (
                "[dockerfile]\npath='a'\ntemplate='b'",
                "`[dockerfile]` at `trilith.toml`:1:1 has both",
            ),
            (
                "[dockerfile]\ntarget='a'",
                "`[dockerfile]` at `trilith.toml`:1:1 has neither",
            ),
            (
                "[config]\nentrypoint='run'",
                "must be an array, not a string; write `[\"run\"]`",
            ),
            ("[config]\nstop_signal='SIGX'", "`SIGX` is not a signal"),
            (
                "[config.env]\nA = 1",
                "`config.env.A` at `trilith.toml`:2:5 must be a string, not an integer",
            ),
            ("x = \"\u{1b}\"", "malformed TOML at `trilith.toml`:1:6"),
        ] {
            let message = refused(text);
            assert!(message.contains(reason), "{text}\n{message}");
        }
    }

    #[test]
    fn a_flood_of_mistakes_is_cut() {
        let lines: Vec<String> = (0..1000).map(|n| format!("k{n} = 1")).collect();
        let text = lines.join("\n");
        let error = parse(&text).unwrap_err();
        assert_eq!(error.problems().len(), MAX_PROBLEMS);
        assert_eq!(error.problems()[19].line, 20);
        let message = error.to_string();
        assert!(
            message.starts_with("`trilith.toml` has 1000 mistakes\n"),
            "{message}"
        );
        assert!(message.ends_with("\n\nand 980 more"), "{message}");
        let deep = format!("a = {}", "[".repeat(100_000));
        assert!(refused(&deep).len() < 2000);
        let long = format!("{} = 1", "k".repeat(1_000_000));
        assert!(refused(&long).len() < 2000);
    }

    #[test]
    fn loading_tells_absence_from_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_project(dir.path()).unwrap().is_none());
        let missing = load_project(&dir.path().join("nowhere")).unwrap_err();
        assert_eq!(missing.kind(), trilith_oci::Kind::NotFound);
        let path = dir.path().join(PROJECT_FILE);
        fs::write(&path, FULL).unwrap();
        assert_eq!(
            load_project(dir.path()).unwrap(),
            Some(parse(FULL).unwrap())
        );
        assert!(matches!(
            load_project(&path),
            Err(ProjectError::NotADirectory(_))
        ));
        fs::write(&path, "[imag]").unwrap();
        let error = load_project(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{}`:1:2", path.display())),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = parse(&text).map_err(|error| error.to_string());
        }

        #[test]
        fn any_damage_is_answered(at in 0..FULL.len(), cut in 0..40_usize, put in "[\\PC\n\"]{0,6}") {
            let end = (at + cut).min(FULL.len());
            let _ = parse(&format!("{}{put}{}", &FULL[..at], &FULL[end..]))
                .map_err(|error| error.to_string());
        }

        #[test]
        fn any_value_of_any_key_is_answered(
            table in "(image|inputs|layer|config|dockerfile|dockerfile.levels|config.env)",
            key in "(base|platforms|lock|level|copy|to|owner|env|expose|levels|args|source|A)",
            value in "(1|-1|1e9|true|\"\"|\"a\"|\\[\\]|\\[1\\]|\\[\"\"\\]|\\{\\}|\\{a=1\\}|2020-01-01|\\[\\[\\]\\])",
        ) {
            for header in [format!("[{table}]"), format!("[[{table}]]")] {
                let _ = parse(&format!("{header}\n{key} = {value}"))
                    .map_err(|error| error.to_string());
            }
        }
    }
}
