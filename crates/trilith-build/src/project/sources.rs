//! Which directories and files of a project are its own code, by each ecosystem's habits.
//!
//! A guess for a draft: names are looked at, code is not. Tests, examples, documentation and
//! what tools write are left out; where code lies about in the project's own directory, the
//! whole of it is taken.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::tools::Ecosystem;
use super::tree::{Tree, ends_in};

/// The project itself, as a source.
pub(super) const WHOLE: &str = ".";
/// The most single files that are listed before the whole project is taken.
const MAX_FILES: usize = 4;

/// Directories that are no source of a running program in any language.
const NOT_CODE: [&str; 24] = [
    "__pycache__",
    "bench",
    "benches",
    "benchmarks",
    "build",
    "coverage",
    "dist",
    "doc",
    "docs",
    "env",
    "example",
    "examples",
    "fixtures",
    "htmlcov",
    "node_modules",
    "site",
    "target",
    "test",
    "testdata",
    "tests",
    "third_party",
    "vendor",
    "venv",
    "wheelhouse",
];
const NODE_DIRS: [&str; 19] = [
    "api",
    "app",
    "apps",
    "bin",
    "components",
    "config",
    "controllers",
    "lib",
    "middleware",
    "models",
    "packages",
    "pages",
    "prisma",
    "public",
    "routes",
    "server",
    "services",
    "src",
    "views",
];
/// Scripts in the project's own directory that a Node program starts with.
const NODE_FILES: [&str; 12] = [
    "app.cjs",
    "app.js",
    "app.mjs",
    "index.cjs",
    "index.js",
    "index.mjs",
    "index.ts",
    "main.js",
    "server.cjs",
    "server.js",
    "server.mjs",
    "server.ts",
];
/// Python files that build, test or release a project and are no part of it.
const PYTHON_TOOLS: [&str; 5] = [
    "conftest.py",
    "fabfile.py",
    "noxfile.py",
    "setup.py",
    "tasks.py",
];

/// The sources of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// Directories, relative to the project; [`WHOLE`] alone where all of it is.
    pub(super) dirs: Vec<String>,
    /// Files beside them.
    pub(super) files: Vec<String>,
    /// Where Python finds its packages, relative to the project.
    pub(super) import_roots: Vec<String>,
    /// The modules that `python -m` starts.
    pub(super) modules: Vec<String>,
}

impl Sources {
    /// Returns whether the whole project is the source.
    pub(super) fn is_whole(&self) -> bool {
        self.dirs.iter().any(|dir| dir == WHOLE)
    }

    /// Returns whether the file at `path` is among them.
    pub(super) fn hold(&self, path: &str) -> bool {
        let top = path.split('/').next().unwrap_or(path);
        self.is_whole()
            || self.files.iter().any(|f| f == path)
            || self.dirs.iter().any(|d| d == top)
    }

    /// Takes the whole project instead of many single files of it.
    fn gathered(mut self) -> Self {
        if self.files.len() > MAX_FILES {
            self.dirs = vec![WHOLE.to_owned()];
            self.files.clear();
        }
        self
    }
}

/// Returns the sources of the project in `tree`.
pub(super) fn guess(ecosystem: Ecosystem, tree: &Tree, facts: &Facts) -> Sources {
    match ecosystem {
        Ecosystem::Python => python(tree),
        Ecosystem::Node => node(tree, facts),
        Ecosystem::Rust => rust(tree, facts),
        Ecosystem::Go => go(tree),
    }
}

fn may_be_code(tree: &Tree, dir: &str) -> bool {
    !dir.starts_with('.')
        && !NOT_CODE.contains(&dir)
        && !dir.ends_with(".egg-info")
        && !tree.inside(dir).has("pyvenv.cfg")
}

/// `src` if it holds code, packages beside it, and modules in the project's own directory.
fn python(tree: &Tree) -> Sources {
    let src = tree.inside("src");
    let in_src = named(&src, |dir| src.inside(dir).has_extension(&["py"]));
    let src_has_code = src.has_extension(&["py"]) || !in_src.is_empty();
    // Without packages, a directory of scripts is the code.
    let packages = match beside_src(tree, |dir| dir.has("__init__.py")) {
        packages if packages.is_empty() && !src_has_code => {
            beside_src(tree, |dir| dir.has_extension(&["py"]))
        }
        packages => packages,
    };
    let is_module =
        |file: &&String| ends_in(file, &["py"]) && !PYTHON_TOOLS.contains(&file.as_str());
    let files: Vec<String> = tree.files.iter().filter(is_module).cloned().collect();
    // `src` is where packages are found, unless it is one itself.
    let src_is_package = src.has("__init__.py");
    let src_is_root = src_has_code && !src_is_package;
    let whole_is_root = src_is_package || !packages.is_empty() || !files.is_empty();
    let roots = [("src", src_is_root), (WHOLE, whole_is_root)];
    let starts =
        |tree: &Tree, name: &str| is_identifier(name) && tree.inside(name).has("__main__.py");
    let src_modules = in_src
        .into_iter()
        .filter(|name| src_is_root && starts(&src, name));
    let modules = packages.iter().filter(|name| starts(tree, name)).cloned();
    Sources {
        modules: modules.chain(src_modules).collect(),
        import_roots: roots
            .iter()
            .filter(|root| root.1)
            .map(|root| root.0.to_owned())
            .collect(),
        dirs: src_has_code
            .then(|| "src".to_owned())
            .into_iter()
            .chain(packages)
            .collect(),
        files,
    }
    .gathered()
}

/// Returns the directories that may be code, other than `src`, and for which `test` holds.
fn beside_src(tree: &Tree, test: impl Fn(&Tree) -> bool) -> Vec<String> {
    named(tree, |dir| {
        dir != "src" && may_be_code(tree, dir) && test(&tree.inside(dir))
    })
}

/// Returns the directories for whose name `test` holds.
fn named(tree: &Tree, test: impl Fn(&str) -> bool) -> Vec<String> {
    tree.dirs.iter().filter(|dir| test(dir)).cloned().collect()
}

/// Returns whether `name` can follow `python -m`.
fn is_identifier(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Directories by their usual names, those of workspaces, and the scripts that start it.
fn node(tree: &Tree, facts: &Facts) -> Sources {
    let scripts = [&facts.program, &facts.main].into_iter().flatten();
    let scripts = scripts
        .map(String::as_str)
        .filter(|path| tree.path(path).is_file());
    let around = scripts
        .clone()
        .filter_map(|path| Some(path.split_once('/')?.0));
    let dirs = NODE_DIRS
        .into_iter()
        .chain(around)
        .chain(member_dirs(facts));
    let files = scripts.chain(NODE_FILES).filter(|file| tree.has(file));
    Sources {
        dirs: present(tree, dirs),
        files: once(files),
        ..Sources::default()
    }
    .gathered()
}

/// `src`, `crates`, the directories of workspace members, and the build script.
fn rust(tree: &Tree, facts: &Facts) -> Sources {
    // A pattern in the first component may mean any directory that holds a package.
    let any = member_dirs(facts).any(|top| top.contains(['*', '?', '[']));
    let packages = named(tree, |dir| any && tree.inside(dir).has("Cargo.toml"));
    let packages = packages.iter().map(String::as_str);
    let dirs = ["src", "crates"]
        .into_iter()
        .chain(member_dirs(facts))
        .chain(packages);
    Sources {
        dirs: present(tree, dirs),
        files: once(["build.rs"].into_iter().filter(|file| tree.has(file))),
        ..Sources::default()
    }
}

/// Returns the first component of each member's pattern.
fn member_dirs(facts: &Facts) -> impl Iterator<Item = &str> {
    facts
        .members
        .iter()
        .filter_map(|member| member.trim_start_matches("./").split('/').next())
}

/// Returns those of `dirs` that exist, once each; hidden ones and installed packages are no code.
fn present<'a>(tree: &Tree, dirs: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_code =
        |dir: &&str| tree.dirs.contains(*dir) && !dir.starts_with('.') && *dir != "node_modules";
    once(dirs.filter(is_code))
}

/// Returns `names` in order, once each.
fn once<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The whole project where it has code of its own, else every directory that does.
fn go(tree: &Tree) -> Sources {
    if tree.has_extension(&["go"]) {
        return Sources {
            dirs: vec![WHOLE.to_owned()],
            ..Sources::default()
        };
    }
    let usual = ["cmd", "internal", "pkg", "src"];
    let is_source = |dir: &str| {
        may_be_code(tree, dir) && (usual.contains(&dir) || tree.inside(dir).has_extension(&["go"]))
    };
    Sources {
        dirs: named(tree, is_source),
        ..Sources::default()
    }
}
