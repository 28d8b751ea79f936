//! A first `trilith.toml`: the draft as commented text, and the writing of it.
//!
//! Whatever the project is called or holds, the text can be parsed; a test sees to it. An
//! existing file is replaced only by [`write_over`].

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use trilith_core::{LayerRecipe, Level};

use super::detect::{APP_DIR, Entrypoint, NODE_MODULES, Suggestion};
use super::error::ProjectError;
use super::file::PROJECT_FILE;
use super::manifest::path_in;
use super::origin;
use super::problem::visible;
use super::reader::quoted;
use super::tools::{Ecosystem, Tool};

/// The version of a draft for a project that has none.
const FIRST_VERSION: &str = "0.1.0";

/// Returns the text of a `trilith.toml` that says what `suggestion` says.
#[must_use]
pub fn render(suggestion: &Suggestion) -> String {
    let mut draft = Draft::default();
    heading(&mut draft, suggestion);
    image(&mut draft, suggestion);
    inputs(&mut draft, suggestion);
    layers(&mut draft, suggestion);
    config(&mut draft, suggestion);
    draft.0
}

/// Writes `text` as the [`PROJECT_FILE`] of `directory`, all of it or nothing; returns its path.
///
/// # Errors
/// [`ProjectError::Exists`] where there is one, and what the system says.
pub fn write_new(directory: &Path, text: &str) -> Result<PathBuf, ProjectError> {
    let path = path_in(directory, PROJECT_FILE);
    let written = write_beside(directory, &path, text)?;
    match written.persist_noclobber(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(ProjectError::Exists(path))
        }
        Err(error) => Err(ProjectError::io("create", &path)(error.error)),
    }
}

/// Writes `text` as the [`PROJECT_FILE`] of `directory`, in place of one that exists.
pub fn write_over(directory: &Path, text: &str) -> Result<PathBuf, ProjectError> {
    let path = path_in(directory, PROJECT_FILE);
    match write_beside(directory, &path, text)?.persist(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(ProjectError::io("replace", &path)(error.error)),
    }
}

/// Writes `text` to a temporary file beside `path`, with the permissions of any new file.
fn write_beside(directory: &Path, path: &Path, text: &str) -> Result<NamedTempFile, ProjectError> {
    let mut file = tempfile::Builder::new()
        .prefix(".trilith-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(ProjectError::io("create a file in", directory))?;
    file.write_all(text.as_bytes())
        .map_err(ProjectError::io("write", path))?;
    Ok(file)
}

/// The text so far.
#[derive(Default)]
struct Draft(String);

impl Draft {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Adds a comment; what is quoted in it cannot end it.
    fn comment(&mut self, text: &str) {
        self.line(&format!("# {}", visible(text)));
    }

    fn table(&mut self, header: &str) {
        self.line("");
        self.line(header);
    }

    fn value(&mut self, key: &str, text: &str) {
        self.line(&format!("{key} = {}", quoted(text)));
    }

    fn list<T: AsRef<str>>(&mut self, key: &str, items: &[T]) {
        self.line(&format!("{key} = {}", array(items)));
    }
}

fn array<T: AsRef<str>>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

fn heading(draft: &mut Draft, suggestion: &Suggestion) {
    if let Some(tool) = suggestion.tool {
        draft.comment(&format!(
            "How `trilith build` makes the image of `{}`, a project with {tool}.",
            suggestion.name
        ));
    } else {
        draft.comment("How `trilith build` makes an image of this project.");
        draft.comment("Nothing tells what kind of project it is: fill in what is commented out.");
    }
    if !suggestion.others.is_empty() {
        let names: Vec<&str> = suggestion.others.iter().map(|tool| tool.as_str()).collect();
        draft.comment(&format!(
            "It also uses {}; what belongs to that is not part of this draft.",
            names.join(", ")
        ));
    }
}

fn image(draft: &mut Draft, suggestion: &Suggestion) {
    draft.table("[image]");
    if let Some(repository) = &suggestion.repository {
        draft.comment("Where the tags live, guessed from the git remote `origin`.");
        draft.value("repository", &repository.to_string());
    } else {
        draft.comment("Where the tags live: change this before you push.");
        draft.value("repository", &origin::example(&suggestion.name));
    }
    match &suggestion.version {
        Ok(found) => {
            let (file, version) = (found.file.display(), &found.version);
            draft.comment(&format!(
                "The version is that of `{file}`, now `{version}`; to give another:"
            ));
            draft.line("# version = \"1.0.0\"");
        }
        Err(reason) => {
            draft.comment(&format!("Given here, as {reason}."));
            draft.value("version", FIRST_VERSION);
        }
    }
    draft.comment(&format!("{}.", suggestion.base.reason));
    draft.value("base", &suggestion.base.image);
    draft.line("# platforms = [\"linux/amd64\", \"linux/arm64\"]");
}

fn inputs(draft: &mut Draft, suggestion: &Suggestion) {
    draft.table("[inputs]");
    draft.comment("What settles the dependencies: a change here makes a new lock image.");
    if suggestion.lock.is_empty() {
        draft.line("# lock = [\"requirements.txt\"]");
    } else {
        draft.list("lock", &suggestion.lock);
    }
    draft.comment("Where the code is: a change here makes a new source image only.");
    if suggestion.source.is_empty() {
        draft.line("# source = [\"src\"]");
    } else {
        draft.list("source", &suggestion.source);
    }
    draft.comment("What no hash or layer holds: patterns of .gitignore, from the root of each.");
    draft.list("ignore", &suggestion.ignore);
}

fn layers(draft: &mut Draft, suggestion: &Suggestion) {
    for layer in &suggestion.layers {
        draft.table("[[layer]]");
        layer_lines(draft, layer);
    }
    let has = |level| suggestion.layers.iter().any(|layer| layer.level == level);
    if !has(Level::Source) {
        draft.line("");
        draft.comment("The code; each of these is a layer of its own:");
        commented_layer(draft, Level::Source, "src");
    }
    if let Some(advice) = suggestion.tool.and_then(|tool| vendoring(tool, suggestion)) {
        draft.line("");
        draft.comment(
            "Files are copied and nothing is run, so dependencies are in the base, or vendored:",
        );
        draft.comment(&format!("    {advice}"));
        commented_layer(draft, Level::Lock, vendor_dir(suggestion));
    }
    if let Some((command, binary)) = compilation(suggestion) {
        draft.line("");
        draft.comment("To ship the program rather than its code, build it first:");
        draft.comment(&format!("    {command}"));
        commented_layer(draft, Level::Source, &binary);
    }
}

fn layer_lines(draft: &mut Draft, layer: &LayerRecipe) {
    draft.value("level", layer.level.as_str());
    draft.value("copy", &layer.copy);
    draft.value("to", layer.to.as_str());
}

fn commented_layer(draft: &mut Draft, level: Level, copy: &str) {
    let name = copy.rsplit('/').next().unwrap_or(copy);
    for line in [
        "[[layer]]".to_owned(),
        format!("level = {}", quoted(level.as_str())),
        format!("copy = {}", quoted(copy)),
        format!("to = {}", quoted(&format!("{APP_DIR}/{name}"))),
    ] {
        draft.comment(&line);
    }
}

fn vendor_dir(suggestion: &Suggestion) -> &'static str {
    match suggestion.tool.map(Tool::ecosystem) {
        Some(Ecosystem::Node) => "node_modules",
        _ => "vendor",
    }
}

/// Returns the command that puts the dependencies into a directory, unless they are in one or
/// it would be left out.
fn vendoring(tool: Tool, suggestion: &Suggestion) -> Option<&'static str> {
    let dir = vendor_dir(suggestion);
    let is_there = suggestion.layers.iter().any(|layer| layer.copy == dir);
    let is_ignored = dir == "node_modules" && suggestion.ignore.iter().any(|p| p == NODE_MODULES);
    if is_there || is_ignored {
        return None;
    }
    Some(match tool {
        Tool::Uv => "uv export --no-dev --no-emit-project | uv pip install --target vendor -r -",
        Tool::Poetry => "poetry export | pip install --target vendor -r /dev/stdin",
        Tool::Pip
            if suggestion
                .lock
                .iter()
                .any(|file| file == "requirements.txt") =>
        {
            "pip install --target vendor -r requirements.txt"
        }
        Tool::Pip => "pip install --target vendor .",
        Tool::Npm => "npm ci --omit=dev",
        Tool::Pnpm => "pnpm install --prod --frozen-lockfile --node-linker=hoisted",
        Tool::Yarn => "yarn install --production --frozen-lockfile",
        Tool::Cargo => "cargo vendor",
        Tool::Go => "go mod vendor",
    })
}

/// Returns how a compiled program is built, and where it is then.
fn compilation(suggestion: &Suggestion) -> Option<(String, String)> {
    let name = &suggestion.name;
    match suggestion.tool? {
        Tool::Cargo => Some((
            "cargo build --release".to_owned(),
            format!("target/release/{name}"),
        )),
        Tool::Go => Some((
            "CGO_ENABLED=0 go build -o .build/ ./...".to_owned(),
            format!(".build/{name}"),
        )),
        _ => None,
    }
}

fn config(draft: &mut Draft, suggestion: &Suggestion) {
    draft.table("[config]");
    match &suggestion.entrypoint {
        Entrypoint::Certain(argv) => draft.list("entrypoint", argv),
        Entrypoint::Likely(argv) => {
            draft.comment("Likely; check that its dependencies are in the image:");
            draft.comment(&format!("entrypoint = {}", array(argv)));
        }
        Entrypoint::Unknown => {
            draft.line("# entrypoint = [\"/opt/app/run\"]");
        }
    }
    if !suggestion.env.is_empty() {
        let pairs = suggestion
            .env
            .iter()
            .map(|(name, value)| format!("{name} = {}", quoted(value)));
        draft.line(&format!(
            "env = {{ {} }}",
            pairs.collect::<Vec<_>>().join(", ")
        ));
    }
    draft.value("workdir", APP_DIR);
    draft.line("# user = \"10001:10001\"");
    draft.line("# expose = [8000]");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::detect::suggest;
    use super::super::file::{ProjectFile, Recipe, load_project, parse_project};
    use super::*;

    /// Writes `files` into a new directory called `demo`; a name that ends in `/` is a directory.
    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("demo");
        fs::create_dir(&root).unwrap();
        for (name, text) in files {
            let path = root.join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        (dir, root)
    }

    /// Returns the draft for `files`, after checking that it can be parsed.
    fn drafted(files: &[(&str, &str)]) -> String {
        let (_dir, root) = project(files);
        let text = render(&suggest(&root).unwrap());
        reparsed(&text, &root);
        text
    }

    /// Parses a draft, and checks that all it copies is there.
    fn reparsed(text: &str, root: &Path) -> ProjectFile {
        let file = parse_project(text, Path::new(PROJECT_FILE))
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        let Recipe::Layers(layers) = &file.recipe else {
            panic!("{text}")
        };
        for layer in layers {
            assert!(root.join(&layer.copy).exists(), "{} in\n{text}", layer.copy);
        }
        file
    }

    const UV: &[(&str, &str)] = &[
        (
            "pyproject.toml",
            "[project]\nname = \"Agent_Runtime\"\nversion = \"1.2.3\"\nrequires-python = \">=3.11\"\n\
             dependencies = [\"httpx\"]\n",
        ),
        ("uv.lock", ""),
        ("src/agent_runtime/__init__.py", ""),
        ("src/agent_runtime/__main__.py", ""),
        ("tests/test_a.py", ""),
        (
            ".git/config",
            "[remote \"origin\"]\n\turl = git@github.com:Acme/agent-runtime.git\n",
        ),
    ];

    #[test]
    fn a_draft_of_a_python_project() {
        insta::assert_snapshot!(drafted(UV), @r#"
        # How `trilith build` makes the image of `Agent_Runtime`, a project with uv.

        [image]
        # Where the tags live, guessed from the git remote `origin`.
        repository = "ghcr.io/acme/agent-runtime"
        # The version is that of `pyproject.toml`, now `1.2.3`; to give another:
        # version = "1.0.0"
        # Allowed by `requires-python`, `>=3.11`.
        base = "python:3.12-slim-bookworm"
        # platforms = ["linux/amd64", "linux/arm64"]

        [inputs]
        # What settles the dependencies: a change here makes a new lock image.
        lock = ["pyproject.toml", "uv.lock"]
        # Where the code is: a change here makes a new source image only.
        source = ["src"]
        # What no hash or layer holds: patterns of .gitignore, from the root of each.
        ignore = [".git/", "/.env", "/.env.*", "__pycache__/", "*.pyc", "/*.egg-info/"]

        [[layer]]
        level = "lock"
        copy = "pyproject.toml"
        to = "/opt/app/pyproject.toml"

        [[layer]]
        level = "lock"
        copy = "uv.lock"
        to = "/opt/app/uv.lock"

        [[layer]]
        level = "source"
        copy = "src"
        to = "/opt/app/src"

        # Files are copied and nothing is run, so dependencies are in the base, or vendored:
        #     uv export --no-dev --no-emit-project | uv pip install --target vendor -r -
        # [[layer]]
        # level = "lock"
        # copy = "vendor"
        # to = "/opt/app/vendor"

        [config]
        # Likely; check that its dependencies are in the image:
        # entrypoint = ["python", "-m", "agent_runtime"]
        env = { PYTHONPATH = "/opt/app/src:/opt/app/vendor" }
        workdir = "/opt/app"
        # user = "10001:10001"
        # expose = [8000]
        "#);
    }

    #[test]
    fn a_draft_of_a_rust_project_that_uses_npm_too() {
        insta::assert_snapshot!(drafted(&[
            ("Cargo.toml", "[package]\nname = \"tool\"\nversion.workspace = true\n[workspace]\nmembers = [\"crates/*\"]\n"),
            ("Cargo.lock", ""),
            ("src/main.rs", ""),
            ("crates/a/src/lib.rs", ""),
            ("package.json", "{}"),
        ]), @r#"
        # How `trilith build` makes the image of `tool`, a project with Cargo.
        # It also uses npm; what belongs to that is not part of this draft.

        [image]
        # Where the tags live: change this before you push.
        repository = "registry.example.com/tool"
        # Given here, as `Cargo.toml` has no `workspace.package.version`.
        version = "0.1.0"
        # It runs what is built and has no compiler.
        base = "debian:bookworm-slim"
        # platforms = ["linux/amd64", "linux/arm64"]

        [inputs]
        # What settles the dependencies: a change here makes a new lock image.
        lock = ["Cargo.toml", "Cargo.lock"]
        # Where the code is: a change here makes a new source image only.
        source = ["crates", "src"]
        # What no hash or layer holds: patterns of .gitignore, from the root of each.
        ignore = [".git/", "/.env", "/.env.*"]

        [[layer]]
        level = "lock"
        copy = "Cargo.toml"
        to = "/opt/app/Cargo.toml"

        [[layer]]
        level = "lock"
        copy = "Cargo.lock"
        to = "/opt/app/Cargo.lock"

        [[layer]]
        level = "source"
        copy = "crates"
        to = "/opt/app/crates"

        [[layer]]
        level = "source"
        copy = "src"
        to = "/opt/app/src"

        # Files are copied and nothing is run, so dependencies are in the base, or vendored:
        #     cargo vendor
        # [[layer]]
        # level = "lock"
        # copy = "vendor"
        # to = "/opt/app/vendor"

        # To ship the program rather than its code, build it first:
        #     cargo build --release
        # [[layer]]
        # level = "source"
        # copy = "target/release/tool"
        # to = "/opt/app/tool"

        [config]
        # entrypoint = ["/opt/app/run"]
        workdir = "/opt/app"
        # user = "10001:10001"
        # expose = [8000]
        "#);
    }

    #[test]
    fn a_draft_of_nothing() {
        insta::assert_snapshot!(drafted(&[]), @r#"
        # How `trilith build` makes an image of this project.
        # Nothing tells what kind of project it is: fill in what is commented out.

        [image]
        # Where the tags live: change this before you push.
        repository = "registry.example.com/demo"
        # Given here, as no manifest gives one.
        version = "0.1.0"
        # Any image with what the program needs to run.
        base = "debian:bookworm-slim"
        # platforms = ["linux/amd64", "linux/arm64"]

        [inputs]
        # What settles the dependencies: a change here makes a new lock image.
        # lock = ["requirements.txt"]
        # Where the code is: a change here makes a new source image only.
        # source = ["src"]
        # What no hash or layer holds: patterns of .gitignore, from the root of each.
        ignore = [".git/", "/.env", "/.env.*"]

        # The code; each of these is a layer of its own:
        # [[layer]]
        # level = "source"
        # copy = "src"
        # to = "/opt/app/src"

        [config]
        # entrypoint = ["/opt/app/run"]
        workdir = "/opt/app"
        # user = "10001:10001"
        # expose = [8000]
        "#);
    }

    #[test]
    fn a_draft_of_each_tool_can_be_loaded() {
        for files in [
            UV,
            &[
                (
                    "pyproject.toml",
                    "[tool.poetry]\nname = \"a\"\nversion = \"1\"",
                ),
                ("poetry.lock", ""),
                ("a/__init__.py", ""),
            ],
            &[
                ("requirements.txt", ""),
                ("main.py", ""),
                ("vendor/x/__init__.py", ""),
            ],
            &[
                ("package.json", "{}"),
                ("package-lock.json", "{}"),
                ("index.js", ""),
            ],
            &[
                ("package.json", "{}"),
                ("pnpm-lock.yaml", ""),
                ("packages/a/index.js", ""),
            ],
            &[
                ("package.json", "{}"),
                ("yarn.lock", ""),
                ("src/index.ts", ""),
            ],
            &[
                ("Cargo.toml", "[package]\nname = \"a\""),
                ("Cargo.lock", ""),
                ("src/main.rs", ""),
                ("vendor/b/Cargo.toml", ""),
                (".cargo/config.toml", ""),
            ],
            &[("go.mod", "module a"), ("go.sum", ""), ("main.go", "")],
            &[("README.md", "")],
        ] {
            let (_dir, root) = project(files);
            let suggestion = suggest(&root).unwrap();
            let path = write_new(&root, &render(&suggestion)).unwrap();
            let file = load_project(&root).unwrap().unwrap();
            let Recipe::Layers(layers) = file.recipe else {
                panic!("{files:?}")
            };
            assert_eq!(layers, suggestion.layers);
            assert_eq!(file.inputs.ignore, Some(suggestion.ignore));
            assert_eq!(file.inputs.lock.unwrap_or_default(), suggestion.lock);
            assert_eq!(file.inputs.source.unwrap_or_default(), suggestion.source);
            assert_eq!(file.config.env, suggestion.env);
            assert_eq!(path, root.join(PROJECT_FILE));
        }
    }

    #[test]
    fn what_is_commented_out_can_be_used() {
        for files in [
            UV,
            &[],
            &[("go.mod", "module a/b\"c"), ("cmd/x/main.go", "")],
        ] {
            let (_dir, root) = project(files);
            let text = render(&suggest(&root).unwrap());
            let is_toml = |line: &str| line.contains(" = ") || line == "[[layer]]";
            let used: Vec<&str> = text
                .lines()
                .map(|line| {
                    line.strip_prefix("# ")
                        .filter(|rest| is_toml(rest))
                        .unwrap_or(line)
                })
                .collect();
            let used = used.join("\n");
            parse_project(&used, Path::new(PROJECT_FILE))
                .unwrap_or_else(|error| panic!("{error}\n{used}"));
        }
    }

    #[test]
    fn writing_never_replaces_unasked() {
        let (_dir, root) = project(&[("other", "")]);
        let path = write_new(&root, "a").unwrap();
        assert!(matches!(write_new(&root, "b"), Err(ProjectError::Exists(found)) if found == path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a");
        assert_eq!(write_over(&root, "c").unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "c");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&root.join("other")));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(matches!(
            write_new(&root, "d"),
            Err(ProjectError::Exists(_))
        ));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 2);
        let error = write_new(&root.join("missing"), "e").unwrap_err();
        assert!(
            error.to_string().starts_with("cannot create a file in `"),
            "{error}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_draft_can_be_parsed(
            manifests in proptest::sample::subsequence(vec![
                ("pyproject.toml", "[project]\nname = \"\\u0000\\n\\\"x\"\nversion = \"\\u001b\"\nrequires-python = \"\\n\""),
                ("uv.lock", ""), ("poetry.lock", ""), ("requirements-\n.txt", ""),
                ("package.json", "{\"name\": \"@a/\\n\\\"]\", \"main\": \"a b/\\n.js\", \"engines\": {\"node\": \"\\n18\"}}"),
                ("yarn.lock", ""), ("Cargo.toml", "[package]\nname = \"\\r\\n\"\n[workspace]\nmembers = [\"*\", \"../x\", \"/\"]"),
                ("go.mod", "module \"\\/\u{7}\""), (".python-version", "3.13\u{1b}"), ("main.py", ""), ("main.go", ""),
            ], 0..8),
            names in proptest::collection::vec("[ a-c\"'\\\\\n\t#=.é-]{1,6}", 0..5),
            inner in proptest::sample::select(vec!["__init__.py", "__main__.py", "x.go", "Cargo.toml", "index.js"]),
        ) {
            let (_dir, root) = project(&manifests);
            for name in names.iter().filter(|name| !matches!(name.as_str(), "." | "..")) {
                let inner = root.join(name).join(inner);
                fs::create_dir_all(inner.parent().unwrap()).unwrap();
                fs::write(inner, "").unwrap();
            }
            reparsed(&render(&suggest(&root).unwrap()), &root);
        }
    }
}
