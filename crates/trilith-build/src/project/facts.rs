//! What a draft needs to know of a project's manifests, whatever the language.
//!
//! Only facts that are written down; nothing is evaluated and no other tool is asked.

use serde_json::Value as Json;
use toml::Value as Toml;

use super::error::ProjectError;
use super::manifest::{load_json, load_toml, lookup, read_text};
use super::tools::Ecosystem;
use super::tree::Tree;
use super::values::parse_project_path;

/// Facts of one ecosystem's manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The project's name, without scope or path.
    pub(super) name: Option<String>,
    /// The ranges of the language's version, most binding first, and what each comes from.
    pub(super) constraints: Vec<(String, &'static str)>,
    /// Whether the project runs only with other packages.
    pub(super) has_dependencies: bool,
    /// The script that starts the program, where the manifest says it does nothing else.
    pub(super) program: Option<String>,
    /// The script that others import.
    pub(super) main: Option<String>,
    /// Patterns of the workspace's members.
    pub(super) members: Vec<String>,
}

/// Reads the facts of `ecosystem` in `tree`.
pub(super) fn load(ecosystem: Ecosystem, tree: &Tree) -> Result<Facts, ProjectError> {
    match ecosystem {
        Ecosystem::Python => python(tree),
        Ecosystem::Node => node(tree),
        Ecosystem::Rust => rust(tree),
        Ecosystem::Go => go(tree),
    }
}

fn python(tree: &Tree) -> Result<Facts, ProjectError> {
    let table = load_toml(&tree.path("pyproject.toml"))?.unwrap_or_default();
    let name = text_at(&table, "project.name").or(text_at(&table, "tool.poetry.name"));
    let pinned = first_line(tree, ".python-version")?.map(|line| {
        let bare = ["cpython-", "cpython@", "python-"]
            .iter()
            .find_map(|prefix| line.strip_prefix(prefix));
        bare.unwrap_or(&line).to_owned()
    });
    let constraints = [
        (pinned, "`.python-version`"),
        (
            owned(text_at(&table, "project.requires-python")),
            "`requires-python`",
        ),
        (
            owned(text_at(&table, "tool.poetry.dependencies.python")),
            "Poetry's `python`",
        ),
    ];
    let lists = |key| lookup(&table, key).and_then(Toml::as_array);
    let dynamic = lists("project.dynamic").is_some_and(|names| {
        names
            .iter()
            .any(|name| name.as_str() == Some("dependencies"))
    });
    let poetry = lookup(&table, "tool.poetry.dependencies").and_then(Toml::as_table);
    Ok(Facts {
        name: owned(name),
        constraints: present(constraints),
        has_dependencies: dynamic
            || lists("project.dependencies").is_some_and(|list| !list.is_empty())
            || poetry.is_some_and(|table| table.keys().any(|name| name != "python"))
            || tree
                .files
                .iter()
                .any(|file| file.starts_with("requirements"))
            || tree.dirs.contains("requirements")
            || ["setup.py", "setup.cfg", "Pipfile"]
                .iter()
                .any(|file| tree.has(file)),
        ..Facts::default()
    })
}

fn node(tree: &Tree) -> Result<Facts, ProjectError> {
    let json = load_json(&tree.path("package.json"))?.unwrap_or_default();
    let text = |pointer: &str| owned(json.pointer(pointer).and_then(Json::as_str));
    let constraints = [
        (first_line(tree, ".nvmrc")?, "`.nvmrc`"),
        (first_line(tree, ".node-version")?, "`.node-version`"),
        (text("/engines/node"), "`engines.node`"),
    ];
    let some = |key| {
        json.get(key)
            .and_then(Json::as_object)
            .is_some_and(|map| !map.is_empty())
    };
    let workspaces = json
        .pointer("/workspaces/packages")
        .or(json.get("workspaces"));
    let members = workspaces.and_then(Json::as_array).into_iter().flatten();
    let bin = match json.get("bin") {
        Some(Json::String(file)) => Some(file.as_str()),
        Some(Json::Object(map)) if map.len() == 1 => map.values().next().and_then(Json::as_str),
        _ => None,
    };
    let start = text("/scripts/start");
    let started = start
        .as_deref()
        .and_then(|start| start.strip_prefix("node "));
    Ok(Facts {
        name: text("/name").map(|name| match name.rsplit_once('/') {
            Some((_, bare)) => bare.to_owned(),
            None => name,
        }),
        constraints: present(constraints),
        has_dependencies: some("dependencies") || some("optionalDependencies"),
        program: started.or(bin).and_then(script),
        main: text("/main").as_deref().and_then(script),
        members: members
            .filter_map(|member| owned(member.as_str()))
            .collect(),
    })
}

fn rust(tree: &Tree) -> Result<Facts, ProjectError> {
    let table = load_toml(&tree.path("Cargo.toml"))?.unwrap_or_default();
    let members = lookup(&table, "workspace.members").and_then(Toml::as_array);
    let members = members.into_iter().flatten();
    Ok(Facts {
        name: owned(text_at(&table, "package.name")),
        members: members
            .filter_map(|member| owned(member.as_str()))
            .collect(),
        has_dependencies: true,
        ..Facts::default()
    })
}

fn go(tree: &Tree) -> Result<Facts, ProjectError> {
    let text = read_text(&tree.path("go.mod"))?.unwrap_or_default();
    let module = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("module "));
    let path = module.unwrap_or_default().trim().trim_matches('"');
    // A major version ends the path and is not the name: `example.com/tool/v2`.
    let is_major = |part: &&str| {
        part.strip_prefix('v')
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let name = path.rsplit('/').find(|part| !is_major(part));
    Ok(Facts {
        name: owned(name.filter(|name| !name.is_empty())),
        has_dependencies: true,
        ..Facts::default()
    })
}

/// Returns a script's path without `./`, `None` where it has arguments or leaves the project.
fn script(path: &str) -> Option<String> {
    let path = parse_project_path(path).ok()?;
    (path != "." && !path.contains(char::is_whitespace)).then_some(path)
}

/// Returns the first line of the file that is neither empty nor a comment.
fn first_line(tree: &Tree, file: &str) -> Result<Option<String>, ProjectError> {
    if !tree.has(file) {
        return Ok(None);
    }
    let text = read_text(&tree.path(file))?.unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    Ok(owned(
        lines.find(|line| !line.is_empty() && !line.starts_with('#')),
    ))
}

fn present<const N: usize>(
    constraints: [(Option<String>, &'static str); N],
) -> Vec<(String, &'static str)> {
    constraints
        .into_iter()
        .filter_map(|(text, from)| Some((text?, from)))
        .collect()
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

/// Returns the text at the dotted `key`, `None` also where it is not a text.
fn text_at<'t>(table: &'t toml::Table, key: &str) -> Option<&'t str> {
    lookup(table, key)?.as_str()
}
