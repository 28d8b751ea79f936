//! Which tools a project uses, by the files each of them leaves.
//!
//! Only names are looked at, but for `pyproject.toml`, which linters of any project share.

use std::fmt;

use super::error::ProjectError;
use super::manifest::{load_toml, lookup};
use super::tree::{Tree, ends_in};

/// A family of tools that share a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ecosystem {
    /// Python.
    Python,
    /// Node.
    Node,
    /// Rust.
    Rust,
    /// Go.
    Go,
}

impl Ecosystem {
    /// All ecosystems; the first of several that a project has is its main one.
    const ALL: [Self; 4] = [Self::Python, Self::Node, Self::Rust, Self::Go];

    /// Patterns of what its tools write among the code.
    pub(super) fn ignore(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["__pycache__/", "*.pyc", "/*.egg-info/"],
            Self::Node | Self::Rust | Self::Go => &[],
        }
    }

    /// Directories that its tools write beside the code.
    pub(super) fn ignore_beside(self) -> &'static [&'static str] {
        match self {
            Self::Python => &[
                ".mypy_cache",
                ".pytest_cache",
                ".ruff_cache",
                ".venv",
                "venv",
            ],
            Self::Node => &["node_modules"],
            // All code of Rust is in directories of its own.
            Self::Rust => &[],
            Self::Go => &[".build"],
        }
    }
}

/// A tool that resolves a project's dependencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// uv (`uv.lock`).
    Uv,
    /// Poetry (`poetry.lock`).
    Poetry,
    /// pip, and any other tool of Python.
    Pip,
    /// npm (`package-lock.json`), and any other tool of Node.
    Npm,
    /// pnpm (`pnpm-lock.yaml`).
    Pnpm,
    /// Yarn (`yarn.lock`).
    Yarn,
    /// Cargo (`Cargo.lock`).
    Cargo,
    /// Go's modules (`go.mod`).
    Go,
}

impl Tool {
    /// Returns the tool's own name for itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uv => "uv",
            Self::Poetry => "Poetry",
            Self::Pip => "pip",
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn => "Yarn",
            Self::Cargo => "Cargo",
            Self::Go => "Go",
        }
    }

    /// Returns the family the tool belongs to.
    #[must_use]
    pub fn ecosystem(self) -> Ecosystem {
        match self {
            Self::Uv | Self::Poetry | Self::Pip => Ecosystem::Python,
            Self::Npm | Self::Pnpm | Self::Yarn => Ecosystem::Node,
            Self::Cargo => Ecosystem::Rust,
            Self::Go => Ecosystem::Go,
        }
    }

    /// Files that settle the dependencies, in the order they are hashed in.
    fn lock_files(self) -> &'static [&'static str] {
        match self {
            Self::Uv => &["pyproject.toml", "uv.lock", ".python-version"],
            Self::Poetry => &["pyproject.toml", "poetry.lock"],
            Self::Pip => &[
                "pyproject.toml",
                "setup.cfg",
                "setup.py",
                "pdm.lock",
                "Pipfile",
                "Pipfile.lock",
                "constraints.txt",
            ],
            Self::Npm => &[
                "package.json",
                "package-lock.json",
                "npm-shrinkwrap.json",
                "bun.lock",
                "bun.lockb",
            ],
            Self::Pnpm => &["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"],
            Self::Yarn => &["package.json", "yarn.lock"],
            Self::Cargo => &[
                "Cargo.toml",
                "Cargo.lock",
                "rust-toolchain.toml",
                "rust-toolchain",
            ],
            Self::Go => &["go.mod", "go.sum", "go.work", "go.work.sum"],
        }
    }
}

impl Tool {
    /// Returns those of the tool's files that the project has, in the order they are hashed in.
    pub(super) fn present_lock_files(self, tree: &Tree) -> Vec<String> {
        let fixed = self.lock_files().iter().filter(|file| tree.has(file));
        let listed = if self == Self::Pip {
            requirements(tree)
        } else {
            Vec::new()
        };
        fixed.map(|file| (*file).to_owned()).chain(listed).collect()
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Returns one tool for each ecosystem of the project, the main one first: an ecosystem
/// whose versions are settled comes before one whose are not.
pub(super) fn tools(tree: &Tree) -> Result<Vec<Tool>, ProjectError> {
    let mut found: Vec<(bool, Tool)> = Vec::new();
    for ecosystem in Ecosystem::ALL {
        found.extend(match ecosystem {
            Ecosystem::Python => python_tool(tree)?,
            Ecosystem::Node => node_tool(tree),
            Ecosystem::Rust => tree
                .has("Cargo.toml")
                .then(|| (tree.has("Cargo.lock"), Tool::Cargo)),
            Ecosystem::Go => {
                (tree.has("go.mod") || tree.has("go.work")).then_some((true, Tool::Go))
            }
        });
    }
    // The sort is stable, so that ties stay in the order of the ecosystems.
    found.sort_by_key(|(settled, _)| !settled);
    Ok(found.into_iter().map(|(_, tool)| tool).collect())
}

fn python_tool(tree: &Tree) -> Result<Option<(bool, Tool)>, ProjectError> {
    let pyproject = load_toml(&tree.path("pyproject.toml"))?.unwrap_or_default();
    // Linters keep their settings in a pyproject.toml too, in projects of any language.
    let declares = pyproject.contains_key("project") || pyproject.contains_key("build-system");
    let poetry = lookup(&pyproject, "tool.poetry").is_some();
    let requirements = !requirements(tree).is_empty();
    let settled = ["pdm.lock", "Pipfile.lock"]
        .iter()
        .any(|file| tree.has(file));
    let other = ["setup.py", "setup.cfg", "Pipfile"]
        .iter()
        .any(|file| tree.has(file));
    Ok(if tree.has("uv.lock") {
        Some((true, Tool::Uv))
    } else if tree.has("poetry.lock") || poetry {
        Some((tree.has("poetry.lock"), Tool::Poetry))
    } else if requirements || settled {
        Some((true, Tool::Pip))
    } else if declares || other || tree.has_extension(&["py"]) {
        Some((false, Tool::Pip))
    } else {
        None
    })
}

fn node_tool(tree: &Tree) -> Option<(bool, Tool)> {
    let npm = [
        "package-lock.json",
        "npm-shrinkwrap.json",
        "bun.lock",
        "bun.lockb",
    ];
    if tree.has("pnpm-lock.yaml") {
        Some((true, Tool::Pnpm))
    } else if tree.has("yarn.lock") {
        Some((true, Tool::Yarn))
    } else if npm.iter().any(|file| tree.has(file)) {
        Some((true, Tool::Npm))
    } else {
        tree.has("package.json").then_some((false, Tool::Npm))
    }
}

/// Returns the requirement files of pip: `requirements*.txt`, and those in `requirements/`.
fn requirements(tree: &Tree) -> Vec<String> {
    let is_list = |file: &&String| ends_in(file, &["txt"]);
    let top = tree
        .files
        .iter()
        .filter(is_list)
        .filter(|file| file.starts_with("requirements"));
    let dir = tree
        .dirs
        .contains("requirements")
        .then(|| tree.inside("requirements"));
    let inside = dir.iter().flat_map(|dir| &dir.files).filter(is_list);
    top.cloned()
        .chain(inside.map(|file| format!("requirements/{file}")))
        .collect()
}
