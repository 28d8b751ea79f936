//! A look at a project: what a `trilith.toml` for it would say.
//!
//! Gives plain data and writes nothing. A graft runs no package manager, so a draft copies
//! what is there: manifests and vendored dependencies at level lock, code at level source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use trilith_core::{LayerRecipe, Level, Owner, Repository};

use super::error::ProjectError;
use super::facts::{self, Facts};
use super::file::{PROJECT_FILE, refuse_missing};
use super::manifest::read_text;
use super::origin;
use super::ranges;
use super::sources::{self, Sources, WHOLE};
use super::tools::{Ecosystem, Tool, tools};
use super::tree::Tree;
use super::version::{FoundVersion, load_version};

/// Where a draft puts the project in the image.
pub(super) const APP_DIR: &str = "/opt/app";
/// Directories of vendored dependencies.
const VENDORED: [&str; 3] = ["vendor", "wheelhouse", "wheels"];
/// The one of them that holds Python's packages unpacked.
const PYTHON_VENDOR: &str = "vendor";
/// Leaves out Node's packages everywhere, so that none can be vendored.
pub(super) const NODE_MODULES: &str = "node_modules/";
/// What no layer should hold: history and secrets.
const IGNORE: [&str; 3] = [".git/", "/.env", "/.env.*"];
/// Minor releases of Python 3 with an image on Debian bookworm, in order of preference.
const PYTHON_MINORS: [u32; 8] = [12, 13, 11, 10, 14, 9, 8, 7];
/// Major releases of Node with an image on Debian bookworm, in order of preference.
const NODE_MAJORS: [u32; 5] = [22, 24, 20, 18, 16];

/// What a `trilith.toml` for a project would say. Paths are relative to the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The project's name, from its manifest or directory.
    pub name: String,
    /// The tool that has the project's dependencies; `None` where nothing is known of it.
    pub tool: Option<Tool>,
    /// Tools of other ecosystems that the project uses too.
    pub others: Vec<Tool>,
    /// Where the tags would live, from the project's git remote; `None` where it does not say.
    pub repository: Option<Repository>,
    /// The version and its manifest, or why there is none.
    pub version: Result<FoundVersion, String>,
    /// The base image.
    pub base: BaseChoice,
    /// Files that settle the dependencies, in hashing order.
    pub lock: Vec<String>,
    /// Directories of code.
    pub source: Vec<String>,
    /// Patterns of what is left out of hashes and layers.
    pub ignore: Vec<String>,
    /// The layers, lock before source.
    pub layers: Vec<LayerRecipe>,
    /// How the program starts.
    pub entrypoint: Entrypoint,
    /// Environment variables the code needs to be found.
    pub env: BTreeMap<String, String>,
}

/// A base image and the reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChoice {
    /// The image.
    pub image: String,
    /// The reason in a sentence without its full stop.
    pub reason: String,
}

/// How a program starts, as far as that can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entrypoint {
    /// This starts it, with nothing but the base and the layers.
    Certain(Vec<String>),
    /// This may start it, or does once its dependencies are there.
    Likely(Vec<String>),
    /// Nothing says.
    Unknown,
}

/// Looks at the project in `directory`.
///
/// # Errors
/// `directory` cannot be listed, or a manifest cannot be read or is malformed.
pub fn suggest(directory: &Path) -> Result<Suggestion, ProjectError> {
    refuse_missing(directory)?;
    let tree = Tree::load(directory)?;
    let mut tools = tools(&tree)?.into_iter();
    let tool = tools.next();
    let facts = tool
        .map(|tool| facts::load(tool.ecosystem(), &tree))
        .transpose()?;
    let facts = facts.unwrap_or_default();
    let sources = tool.map(|tool| sources::guess(tool.ecosystem(), &tree, &facts));
    let sources = sources.unwrap_or_default();
    let lock = tool
        .map(|tool| tool.present_lock_files(&tree))
        .unwrap_or_default();
    let name = facts
        .name
        .clone()
        .unwrap_or_else(|| directory_name(directory));
    let vendored = vendored(&tree);
    Ok(Suggestion {
        name,
        tool,
        others: tools.collect(),
        repository: repository(&tree),
        version: version(directory)?,
        base: base(tool, &facts),
        ignore: ignore(tool, &facts, &sources, &tree),
        layers: layers(&lock, &vendored, &sources, &tree),
        entrypoint: entrypoint(tool, &facts, &sources, &tree, &vendored),
        env: env(tool, &sources),
        lock,
        source: sources.dirs,
    })
}

fn vendored(tree: &Tree) -> Vec<String> {
    let present = VENDORED.iter().filter(|dir| tree.dirs.contains(**dir));
    present.map(|dir| (*dir).to_owned()).collect()
}

fn directory_name(directory: &Path) -> String {
    let full = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    let name = full.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns the repository that the git remote stands for. A guess needs no error: what cannot be
/// read says nothing.
fn repository(tree: &Tree) -> Option<Repository> {
    let config = read_text(&tree.path(".git").join("config")).ok()??;
    origin::parse_origin(&config)
}

/// Returns the version, or why a draft has to give one itself, without any path of this machine.
fn version(directory: &Path) -> Result<Result<FoundVersion, String>, ProjectError> {
    match load_version(directory) {
        Ok(found) => Ok(Ok(found)),
        Err(ProjectError::NoVersion { .. }) => Ok(Err("no manifest gives one".to_owned())),
        Err(ProjectError::DynamicVersion { path, reason }) => {
            let file = path.file_name().unwrap_or_default().display();
            Ok(Err(format!("that of `{file}` is computed: {reason}")))
        }
        Err(ProjectError::WorkspaceVersion { missing, .. }) => Ok(Err(missing)),
        Err(error) => Err(error),
    }
}

fn base(tool: Option<Tool>, facts: &Facts) -> BaseChoice {
    match tool.map(Tool::ecosystem) {
        Some(Ecosystem::Python) => constrained_base(
            facts,
            |text| {
                let ranges = ranges::parse_python(text)?;
                PYTHON_MINORS
                    .into_iter()
                    .find(|&minor| ranges.allows_minor(3, minor))
            },
            PYTHON_MINORS[0],
            |minor| format!("python:3.{minor}-slim-bookworm"),
        ),
        Some(Ecosystem::Node) => constrained_base(
            facts,
            |text| {
                let ranges = ranges::parse_node(text)?;
                NODE_MAJORS
                    .into_iter()
                    .find(|&major| ranges.allows_major(major))
            },
            NODE_MAJORS[0],
            |major| format!("node:{major}-bookworm-slim"),
        ),
        Some(Ecosystem::Rust | Ecosystem::Go) => BaseChoice {
            image: "debian:bookworm-slim".to_owned(),
            reason: "It runs what is built and has no compiler".to_owned(),
        },
        None => BaseChoice {
            image: "debian:bookworm-slim".to_owned(),
            reason: "Any image with what the program needs to run".to_owned(),
        },
    }
}

/// Returns the base that the first usable one of the constraints allows.
fn constrained_base(
    facts: &Facts,
    choose: impl Fn(&str) -> Option<u32>,
    default: u32,
    image: impl Fn(u32) -> String,
) -> BaseChoice {
    let chosen = facts.constraints.iter().find_map(|(text, from)| {
        let version = choose(text)?;
        Some((version, format!("Allowed by {from}, `{text}`")))
    });
    let (version, reason) = chosen.unwrap_or_else(|| {
        let reason = match facts.constraints.first() {
            Some((text, from)) => format!("Check it against {from}, `{text}`"),
            None => "The project does not say which version it wants".to_owned(),
        };
        (default, reason)
    });
    BaseChoice {
        image: image(version),
        reason,
    }
}

/// Returns what is left out of every layer, those of vendored dependencies among them. So only
/// what tools write again is left out at any depth; the rest has a slash in front, and what
/// packages bring along, as `node_modules/.bin`, stays.
fn ignore(tool: Option<Tool>, facts: &Facts, sources: &Sources, tree: &Tree) -> Vec<String> {
    let ecosystem = tool.map(Tool::ecosystem);
    let own = ecosystem.map_or(&[][..], Ecosystem::ignore);
    let mut patterns: Vec<String> = IGNORE.iter().chain(own).map(|&p| p.to_owned()).collect();
    let is_workspace = !facts.members.is_empty() || tree.has("pnpm-workspace.yaml");
    if ecosystem == Some(Ecosystem::Node) && is_workspace {
        patterns.push(NODE_MODULES.to_owned());
    }
    if sources.is_whole() {
        let beside = ecosystem.map_or(&[][..], Ecosystem::ignore_beside);
        let hidden = tree
            .dirs
            .iter()
            .map(String::as_str)
            .filter(|dir| is_plain_hidden(dir));
        let dirs: BTreeSet<&str> = VENDORED
            .iter()
            .chain(beside)
            .copied()
            .chain(hidden)
            .collect();
        patterns.push(format!("/{PROJECT_FILE}"));
        patterns.extend(dirs.iter().map(|dir| format!("/{dir}/")));
    }
    patterns
}

/// Returns whether `dir` is hidden, other than git's, and means itself in a pattern.
fn is_plain_hidden(dir: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    dir.starts_with('.') && dir != ".git" && dir.bytes().all(plain)
}

/// One layer for each file and directory, so that each is written and sent only when it changes.
fn layers(
    lock: &[String],
    vendored: &[String],
    sources: &Sources,
    tree: &Tree,
) -> Vec<LayerRecipe> {
    // Cargo finds vendored crates by its configuration only.
    let cargo_config = ".cargo/config.toml";
    let config = !vendored.is_empty() && tree.path(cargo_config).is_file();
    let lock_files = lock
        .iter()
        .filter(|_| !sources.is_whole())
        .map(String::as_str);
    let lock_layers = lock_files
        .chain(config.then_some(cargo_config))
        .chain(vendored.iter().map(String::as_str))
        .map(|path| (Level::Lock, path));
    let code = sources
        .dirs
        .iter()
        .chain(&sources.files)
        .map(String::as_str);
    let code = code.filter(|path| !lock.iter().chain(vendored).any(|other| other == path));
    lock_layers
        .chain(code.map(|path| (Level::Source, path)))
        .filter_map(|(level, path)| {
            Some(LayerRecipe {
                level,
                copy: path.to_owned(),
                from: None,
                to: in_image(path).parse().ok()?,
                owner: Owner::default(),
            })
        })
        .collect()
}

/// Returns where `path` of the project is in the image.
fn in_image(path: &str) -> String {
    match path {
        WHOLE => APP_DIR.to_owned(),
        path => format!("{APP_DIR}/{path}"),
    }
}

fn entrypoint(
    tool: Option<Tool>,
    facts: &Facts,
    sources: &Sources,
    tree: &Tree,
    vendored: &[String],
) -> Entrypoint {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match tool.map(Tool::ecosystem) {
        Some(Ecosystem::Python) => {
            let ready = !facts.has_dependencies || vendored.iter().any(|dir| dir == PYTHON_VENDOR);
            match sources.modules.as_slice() {
                [module] if ready => Entrypoint::Certain(words(&["python", "-m", module])),
                [module] => Entrypoint::Likely(words(&["python", "-m", module])),
                [] if tree.has("main.py") => {
                    Entrypoint::Likely(words(&["python", &in_image("main.py")]))
                }
                _ => Entrypoint::Unknown,
            }
        }
        Some(Ecosystem::Node) => {
            let copied = |path: &&String| sources.hold(path) && tree.path(path).is_file();
            let program = facts.program.as_ref().filter(copied);
            match (program, facts.main.as_ref().filter(copied)) {
                (Some(script), _) if !facts.has_dependencies => {
                    Entrypoint::Certain(words(&["node", &in_image(script)]))
                }
                (Some(script), _) | (None, Some(script)) => {
                    Entrypoint::Likely(words(&["node", &in_image(script)]))
                }
                (None, None) => Entrypoint::Unknown,
            }
        }
        Some(Ecosystem::Rust | Ecosystem::Go) | None => Entrypoint::Unknown,
    }
}

/// Returns the variables that make code found which is copied rather than installed. The
/// directory of vendored packages may come later and does no harm until then.
fn env(tool: Option<Tool>, sources: &Sources) -> BTreeMap<String, String> {
    if tool.map(Tool::ecosystem) != Some(Ecosystem::Python) {
        return BTreeMap::new();
    }
    let roots = sources.import_roots.iter().map(String::as_str);
    let path: Vec<String> = roots.chain([PYTHON_VENDOR]).map(in_image).collect();
    [("PYTHONPATH".to_owned(), path.join(":"))].into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn suggested(files: &[(&str, &str)]) -> Suggestion {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        suggest(dir.path()).unwrap()
    }

    #[test]
    fn tools_and_lock_files() {
        let pyproject = ("pyproject.toml", "[project]\nname = \"a\"");
        let package = ("package.json", "{}");
        let cargo = ("Cargo.toml", "[package]\nname = \"a\"");
        for (files, tool, lock) in [
            (&[][..], None, &[][..]),
            (&[("README.md", "")], None, &[]),
            (&[("pyproject.toml", "[tool.ruff]")], None, &[]),
            (
                &[pyproject, ("uv.lock", ""), ("poetry.lock", "")],
                Some(Tool::Uv),
                &["pyproject.toml", "uv.lock"],
            ),
            (
                &[pyproject, ("poetry.lock", "")],
                Some(Tool::Poetry),
                &["pyproject.toml", "poetry.lock"],
            ),
            (
                &[("pyproject.toml", "[tool.poetry]")],
                Some(Tool::Poetry),
                &["pyproject.toml"],
            ),
            (&[pyproject], Some(Tool::Pip), &["pyproject.toml"]),
            (&[("a.py", "")], Some(Tool::Pip), &[]),
            (
                &[
                    ("requirements.txt", ""),
                    ("requirements-dev.txt", ""),
                    ("requirements/base.txt", ""),
                    ("setup.py", ""),
                ],
                Some(Tool::Pip),
                &[
                    "setup.py",
                    "requirements-dev.txt",
                    "requirements.txt",
                    "requirements/base.txt",
                ],
            ),
            (
                &[package, ("package-lock.json", "")],
                Some(Tool::Npm),
                &["package.json", "package-lock.json"],
            ),
            (&[package], Some(Tool::Npm), &["package.json"]),
            (
                &[package, ("pnpm-lock.yaml", "")],
                Some(Tool::Pnpm),
                &["package.json", "pnpm-lock.yaml"],
            ),
            (
                &[package, ("yarn.lock", "")],
                Some(Tool::Yarn),
                &["package.json", "yarn.lock"],
            ),
            (
                &[cargo, ("Cargo.lock", "")],
                Some(Tool::Cargo),
                &["Cargo.toml", "Cargo.lock"],
            ),
            (
                &[("go.mod", "module a"), ("go.sum", "")],
                Some(Tool::Go),
                &["go.mod", "go.sum"],
            ),
        ] {
            let suggestion = suggested(files);
            assert_eq!(suggestion.tool, tool, "{files:?}");
            assert_eq!(suggestion.lock, lock, "{files:?}");
            assert_eq!(suggestion.others, [], "{files:?}");
        }
    }

    #[test]
    fn of_several_ecosystems_one_is_the_main_one() {
        for (files, tool, others) in [
            (
                &["pyproject.toml", "uv.lock", "package.json", "yarn.lock"][..],
                Tool::Uv,
                &[Tool::Yarn][..],
            ),
            (
                &["a.py", "package.json", "yarn.lock"],
                Tool::Yarn,
                &[Tool::Pip],
            ),
            (
                &["Cargo.toml", "Cargo.lock", "package.json"],
                Tool::Cargo,
                &[Tool::Npm],
            ),
            (
                &["go.mod", "Cargo.toml", "Cargo.lock", "requirements.txt"],
                Tool::Pip,
                &[Tool::Cargo, Tool::Go],
            ),
        ] {
            let empty = |name: &&'static str| match *name {
                "package.json" => (*name, "{}"),
                _ => (*name, ""),
            };
            let suggestion = suggested(&files.iter().map(empty).collect::<Vec<_>>());
            assert_eq!(
                (suggestion.tool, suggestion.others.as_slice()),
                (Some(tool), others)
            );
        }
    }

    #[test]
    fn base_images() {
        let python = |text: &'static str| [("pyproject.toml", text), ("uv.lock", "")];
        let node = |text: &'static str| [("package.json", text), ("yarn.lock", "")];
        for (files, image, reason) in [
            (&python("")[..], "python:3.12-slim-bookworm", "does not say"),
            (
                &python("[project]\nrequires-python = \">=3.13\""),
                "python:3.13-slim-bookworm",
                "`>=3.13`",
            ),
            (
                &python("[tool.poetry.dependencies]\npython = \"~3.10\""),
                "python:3.10-slim-bookworm",
                "`~3.10`",
            ),
            (
                &python("[project]\nrequires-python = \"<3\""),
                "python:3.12-slim-bookworm",
                "Check it against",
            ),
            (
                &[
                    ("a.py", ""),
                    (".python-version", "# pinned\ncpython-3.11.4\n"),
                ],
                "python:3.11-slim-bookworm",
                "`.python-version`",
            ),
            (&node("{}"), "node:22-bookworm-slim", "does not say"),
            (
                &node("{\"engines\": {\"node\": \">=18 <21\"}}"),
                "node:20-bookworm-slim",
                "`engines.node`",
            ),
            (
                &[("package.json", "{}"), (".nvmrc", "v18.19.0\n")],
                "node:18-bookworm-slim",
                "`.nvmrc`",
            ),
            (
                &[("package.json", "{}"), (".nvmrc", "lts/*")],
                "node:22-bookworm-slim",
                "Check it against",
            ),
            (&[("Cargo.toml", "")], "debian:bookworm-slim", "no compiler"),
            (&[("go.mod", "")], "debian:bookworm-slim", "no compiler"),
        ] {
            let base = suggested(files).base;
            assert_eq!(base.image, image, "{files:?}");
            assert!(base.reason.contains(reason), "{}", base.reason);
        }
    }

    #[test]
    fn sources_and_layers() {
        let poetry = ("poetry.lock", "");
        for (files, source, copied) in [
            (
                &[poetry, ("src/a/__init__.py", ""), ("tests/__init__.py", "")][..],
                &["src"][..],
                &["poetry.lock", "src"][..],
            ),
            (
                &[
                    poetry,
                    ("a/__init__.py", ""),
                    ("b/x.py", ""),
                    ("main.py", ""),
                ],
                &["a"],
                &["poetry.lock", "a", "main.py"],
            ),
            (
                &[
                    poetry,
                    ("app/x.py", ""),
                    ("docs/conf.py", ""),
                    ("env/pyvenv.cfg", ""),
                ],
                &["app"],
                &["poetry.lock", "app"],
            ),
            (
                &[
                    poetry,
                    ("a.py", ""),
                    ("b.py", ""),
                    ("c.py", ""),
                    ("d.py", ""),
                    ("e.py", ""),
                ],
                &["."],
                &["."],
            ),
            (
                &[
                    ("requirements.txt", ""),
                    ("app/x.py", ""),
                    ("wheelhouse/x.whl", ""),
                ],
                &["app"],
                &["requirements.txt", "wheelhouse", "app"],
            ),
            (
                &[
                    (
                        "package.json",
                        "{\"main\": \"out/x.js\", \"workspaces\": [\"./libs/*\"]}",
                    ),
                    ("out/x.js", ""),
                    ("libs/a/x.js", ""),
                    ("src/x.ts", ""),
                    ("node_modules/x/x.js", ""),
                ],
                &["libs", "out", "src"],
                &["package.json", "libs", "out", "src"],
            ),
            (
                &[("package.json", "{}"), ("index.js", ""), (".x/x.js", "")],
                &[],
                &["package.json", "index.js"],
            ),
            (
                &[
                    ("Cargo.toml", "[workspace]\nmembers = [\"*\"]"),
                    ("one/Cargo.toml", ""),
                    ("docs/x", ""),
                    ("build.rs", ""),
                    ("vendor/x/x.rs", ""),
                    (".cargo/config.toml", ""),
                ],
                &["one"],
                &[
                    "Cargo.toml",
                    ".cargo/config.toml",
                    "vendor",
                    "one",
                    "build.rs",
                ],
            ),
            (
                &[
                    ("go.mod", ""),
                    ("cmd/a/main.go", ""),
                    ("internal/b/b.go", ""),
                    ("util/c.go", ""),
                    ("docs/x.md", ""),
                ],
                &["cmd", "internal", "util"],
                &["go.mod", "cmd", "internal", "util"],
            ),
            (
                &[("go.mod", ""), ("main.go", ""), ("vendor/modules.txt", "")],
                &["."],
                &["vendor", "."],
            ),
        ] {
            let suggestion = suggested(files);
            assert_eq!(suggestion.source, source, "{files:?}");
            let layers: Vec<&str> = suggestion
                .layers
                .iter()
                .map(|layer| layer.copy.as_str())
                .collect();
            assert_eq!(layers, copied, "{files:?}");
        }
    }

    #[test]
    fn what_is_ignored_never_reaches_into_vendored_packages() {
        let whole = suggested(&[("go.mod", ""), ("main.go", ""), (".github/x", "")]);
        assert_eq!(
            whole.ignore,
            [
                ".git/",
                "/.env",
                "/.env.*",
                "/trilith.toml",
                "/.build/",
                "/.github/",
                "/vendor/",
                "/wheelhouse/",
                "/wheels/"
            ]
        );
        let workspace = suggested(&[("package.json", "{\"workspaces\": [\"packages/*\"]}")]);
        assert_eq!(
            workspace.ignore,
            [".git/", "/.env", "/.env.*", "node_modules/"]
        );
        let single = suggested(&[("package.json", "{}"), ("src/x.js", "")]);
        assert_eq!(single.ignore, [".git/", "/.env", "/.env.*"]);
    }

    #[test]
    fn entrypoints() {
        use Entrypoint::{Certain, Likely, Unknown};
        let argv =
            |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
        let module = argv(&["python", "-m", "a"]);
        let script = argv(&["node", "/opt/app/x.js"]);
        let main = ("src/a/__main__.py", "");
        for (files, expected) in [
            (
                &[("pyproject.toml", "[project]"), main][..],
                Certain(module.clone()),
            ),
            (&[("requirements.txt", ""), main], Likely(module.clone())),
            (
                &[("requirements.txt", ""), main, ("vendor/x/x.py", "")],
                Certain(module),
            ),
            (
                &[
                    main,
                    ("src/b/__main__.py", ""),
                    ("pyproject.toml", "[project]"),
                ],
                Unknown,
            ),
            (
                &[("main.py", "")],
                Likely(argv(&["python", "/opt/app/main.py"])),
            ),
            (
                &[("package.json", "{\"bin\": \"./x.js\"}"), ("x.js", "")],
                Certain(script.clone()),
            ),
            (
                &[
                    ("package.json", "{\"scripts\": {\"start\": \"node x.js\"}}"),
                    ("x.js", ""),
                ],
                Certain(script.clone()),
            ),
            (
                &[
                    (
                        "package.json",
                        "{\"bin\": \"x.js\", \"dependencies\": {\"a\": \"1\"}}",
                    ),
                    ("x.js", ""),
                ],
                Likely(script.clone()),
            ),
            (
                &[("package.json", "{\"main\": \"x.js\"}"), ("x.js", "")],
                Likely(script),
            ),
            (&[("package.json", "{\"bin\": \"x.js\"}")], Unknown),
            (
                &[(
                    "package.json",
                    "{\"bin\": \"../x.js\", \"main\": \"/etc/passwd\"}",
                )],
                Unknown,
            ),
            (
                &[
                    (
                        "package.json",
                        "{\"scripts\": {\"start\": \"node x.js --port 1\"}}",
                    ),
                    ("x.js", ""),
                ],
                Unknown,
            ),
            (&[("Cargo.toml", ""), ("src/main.rs", "")], Unknown),
            (&[("go.mod", ""), ("main.go", "")], Unknown),
        ] {
            assert_eq!(suggested(files).entrypoint, expected, "{files:?}");
        }
    }

    #[test]
    fn names_and_versions() {
        for (files, name, version) in [
            (
                &[("pyproject.toml", "[project]\nname = \"a\"\nversion = \"1\"")][..],
                "a",
                Ok("1"),
            ),
            (
                &[(
                    "package.json",
                    "{\"name\": \"@scope/b\", \"version\": \"2\"}",
                )],
                "b",
                Ok("2"),
            ),
            (
                &[("Cargo.toml", "[package]\nname = \"c\"")],
                "c",
                Err("no manifest gives one"),
            ),
            (
                &[("go.mod", "// x\nmodule \"example.com/d/v2\"")],
                "d",
                Err("no manifest gives one"),
            ),
            (
                &[(
                    "pyproject.toml",
                    "[project]\nname = \"e\"\ndynamic = [\"version\"]",
                )],
                "e",
                Err(
                    "that of `pyproject.toml` is computed: it lists `version` under `project.dynamic`",
                ),
            ),
        ] {
            let suggestion = suggested(files);
            assert_eq!(suggestion.name, name);
            let found = suggestion
                .version
                .as_ref()
                .map(|found| found.version.as_str());
            assert_eq!(found.map_err(String::as_str), version);
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for (file, text) in [
            ("pyproject.toml", "["),
            ("package.json", "["),
            ("Cargo.toml", "["),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(file), text).unwrap();
            assert!(
                matches!(suggest(dir.path()), Err(ProjectError::Invalid { .. })),
                "{file}"
            );
        }
        assert!(suggest(Path::new("/nonexistent/project")).is_err());
        assert!(matches!(
            suggest(Path::new("/dev/null")),
            Err(ProjectError::NotADirectory(_))
        ));
    }
}
