//! The version of a project that does not give one in `trilith.toml`.
//!
//! It is read where the project's own tools read it, and never computed: git, build
//! backends and release plug-ins are not asked.

use std::path::{Path, PathBuf};

use super::error::ProjectError;
use super::file::refuse_missing;
use super::manifest::{load_json, load_toml, lookup, path_in};

/// A version and the manifest it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVersion {
    /// The version as written, not empty.
    pub version: String,
    /// The manifest, relative to the project; `../Cargo.toml` for that of a workspace above.
    pub file: PathBuf,
}

/// Returns the version of the project in `directory`: that of `pyproject.toml`, else of
/// `package.json`, else of `Cargo.toml`. A manifest without a version is passed over.
///
/// # Errors
/// [`ProjectError::NoVersion`] where none has one, [`ProjectError::DynamicVersion`] and
/// [`ProjectError::WorkspaceVersion`] where a manifest says that its version is elsewhere
/// and it cannot be had, and whatever is wrong with a manifest itself.
pub fn load_version(directory: &Path) -> Result<FoundVersion, ProjectError> {
    refuse_missing(directory)?;
    let found = |version, file: &str| FoundVersion {
        version,
        file: PathBuf::from(file),
    };
    if let Some(version) = python_version(&path_in(directory, "pyproject.toml"))? {
        return Ok(found(version, "pyproject.toml"));
    }
    if let Some(version) = node_version(&path_in(directory, "package.json"))? {
        return Ok(found(version, "package.json"));
    }
    if let Some(found) = cargo_version(directory)? {
        return Ok(found);
    }
    Err(ProjectError::NoVersion {
        directory: directory.to_owned(),
    })
}

/// Reads `project.version`, else `tool.poetry.version`, which Poetry 2 allows beside
/// `project.dynamic` (packaging specification, "pyproject.toml").
pub(crate) fn python_version(path: &Path) -> Result<Option<String>, ProjectError> {
    let Some(table) = load_toml(path)? else {
        return Ok(None);
    };
    let dynamic = |reason| ProjectError::DynamicVersion {
        path: path.to_owned(),
        reason,
    };
    if let Some(version) = toml_version(&table, "project.version", path)? {
        return Ok(Some(version));
    }
    let plugin = lookup(&table, "tool.poetry-dynamic-versioning.enable");
    if plugin.and_then(toml::Value::as_bool) == Some(true) {
        return Err(dynamic("`tool.poetry-dynamic-versioning` is enabled"));
    }
    if let Some(version) = toml_version(&table, "tool.poetry.version", path)? {
        return Ok(Some(version));
    }
    let names = lookup(&table, "project.dynamic").and_then(toml::Value::as_array);
    if names.is_some_and(|names| names.iter().any(|name| name.as_str() == Some("version"))) {
        return Err(dynamic("it lists `version` under `project.dynamic`"));
    }
    Ok(None)
}

fn node_version(path: &Path) -> Result<Option<String>, ProjectError> {
    let manifest = load_json(path)?;
    match manifest
        .as_ref()
        .and_then(|manifest| manifest.get("version"))
    {
        None => Ok(None),
        Some(serde_json::Value::String(version)) => Ok(not_empty(version)),
        Some(_) => Err(ProjectError::ManifestValue {
            path: path.to_owned(),
            key: "version",
            expected: "a string",
        }),
    }
}

/// Reads `package.version`, and where the workspace has it, or the manifest is a workspace
/// alone, `workspace.package.version`.
fn cargo_version(directory: &Path) -> Result<Option<FoundVersion>, ProjectError> {
    let path = path_in(directory, "Cargo.toml");
    let Some(table) = load_toml(&path)? else {
        return Ok(None);
    };
    let inherits = lookup(&table, "package.version.workspace").is_some();
    let version = match (inherits, table.contains_key("package")) {
        (true, _) => return inherited_version(directory, &table).map(Some),
        (false, true) => toml_version(&table, "package.version", &path)?,
        (false, false) => toml_version(&table, "workspace.package.version", &path)?,
    };
    Ok(version.map(|version| FoundVersion {
        version,
        file: PathBuf::from("Cargo.toml"),
    }))
}

/// Finds the workspace of the package in `directory` as Cargo does: in the same file, where
/// `package.workspace` says, or in the nearest directory above; not beyond the repository.
fn inherited_version(
    directory: &Path,
    package: &toml::Table,
) -> Result<FoundVersion, ProjectError> {
    let path = path_in(directory, "Cargo.toml");
    let missing = |missing: String| ProjectError::WorkspaceVersion {
        path: path.clone(),
        missing,
    };
    let (root, file) = match lookup(package, "package.workspace") {
        _ if package.contains_key("workspace") => (package.clone(), PathBuf::from("Cargo.toml")),
        Some(toml::Value::String(root)) => {
            let file = Path::new(root).join("Cargo.toml");
            let table = load_toml(&directory.join(&file))?
                .ok_or_else(|| missing(format!("`{}` does not exist", file.display())))?;
            (table, file)
        }
        Some(_) => {
            return Err(ProjectError::ManifestValue {
                path,
                key: "package.workspace",
                expected: "a string",
            });
        }
        None => workspace_above(directory)?
            .ok_or_else(|| missing("no `Cargo.toml` above it has a `[workspace]`".to_owned()))?,
    };
    match toml_version(&root, "workspace.package.version", &directory.join(&file))? {
        Some(version) => Ok(FoundVersion { version, file }),
        None => Err(missing(format!(
            "`{}` has no `workspace.package.version`",
            file.display()
        ))),
    }
}

/// Returns the nearest manifest above `directory` that is a workspace's root.
fn workspace_above(directory: &Path) -> Result<Option<(toml::Table, PathBuf)>, ProjectError> {
    let directory = directory
        .canonicalize()
        .map_err(ProjectError::io("resolve", directory))?;
    let mut file = PathBuf::from("Cargo.toml");
    for (below, above) in directory.ancestors().zip(directory.ancestors().skip(1)) {
        if below.join(".git").exists() {
            break;
        }
        file = Path::new("..").join(file);
        match load_toml(&above.join("Cargo.toml"))? {
            Some(table) if table.contains_key("workspace") => return Ok(Some((table, file))),
            _ => {}
        }
    }
    Ok(None)
}

fn toml_version(
    table: &toml::Table,
    key: &'static str,
    path: &Path,
) -> Result<Option<String>, ProjectError> {
    match lookup(table, key) {
        None => Ok(None),
        Some(toml::Value::String(version)) => Ok(not_empty(version)),
        Some(_) => Err(ProjectError::ManifestValue {
            path: path.to_owned(),
            key,
            expected: "a string",
        }),
    }
}

fn not_empty(version: &str) -> Option<String> {
    let version = version.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes `files` into a new directory.
    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn found_where_the_tools_find_it() {
        let node = ("package.json", "\u{feff}{\"version\": \"2.0.0\"}");
        let cargo = ("Cargo.toml", "[package]\nname = \"a\"\nversion = \"3.0.0\"");
        let python = |text: &'static str| ("pyproject.toml", text);
        for (files, version, file) in [
            (
                &[python("[project]\nversion = \"1.0.0\""), node, cargo][..],
                "1.0.0",
                "pyproject.toml",
            ),
            (
                &[python("[tool.poetry]\nversion = \"1.1.0\"")],
                "1.1.0",
                "pyproject.toml",
            ),
            (
                &[python(
                    "[project]\ndynamic = [\"version\"]\n[tool.poetry]\nversion = \"1.2.0\"",
                )],
                "1.2.0",
                "pyproject.toml",
            ),
            (
                &[python("[tool.ruff]\nline-length = 100"), node, cargo],
                "2.0.0",
                "package.json",
            ),
            (
                &[("package.json", "{\"private\": true}"), cargo],
                "3.0.0",
                "Cargo.toml",
            ),
            (
                &[("package.json", "{\"version\": \" \"}"), cargo],
                "3.0.0",
                "Cargo.toml",
            ),
            (
                &[(
                    "Cargo.toml",
                    "[package]\nversion.workspace = true\n[workspace.package]\nversion = \"4.0.0\"",
                )],
                "4.0.0",
                "Cargo.toml",
            ),
            (
                &[("Cargo.toml", "[workspace.package]\nversion = \"5.0.0\"")],
                "5.0.0",
                "Cargo.toml",
            ),
        ] {
            let dir = project(files);
            let expected = FoundVersion {
                version: version.to_owned(),
                file: file.into(),
            };
            assert_eq!(load_version(dir.path()).unwrap(), expected, "{files:?}");
        }
    }

    #[test]
    fn a_member_takes_the_version_of_its_workspace() {
        let root = (
            "Cargo.toml",
            "[workspace]\n[workspace.package]\nversion = \"1.0.0\"",
        );
        let member = "[package]\nversion = { workspace = true }";
        let dir = project(&[
            root,
            ("crates/a/Cargo.toml", member),
            ("crates/Cargo.toml", ""),
        ]);
        let found = load_version(&dir.path().join("crates/a")).unwrap();
        assert_eq!(found.file, Path::new("../../Cargo.toml"));
        let named = "[package]\nversion.workspace = true\nworkspace = \"../b\"";
        fs::write(dir.path().join("crates/a/Cargo.toml"), named).unwrap();
        let error = load_version(&dir.path().join("crates/a")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("and `../b/Cargo.toml` does not exist"),
            "{error}"
        );
    }

    #[test]
    fn a_workspace_beyond_the_repository_is_not_asked() {
        let root = (
            "Cargo.toml",
            "[workspace]\n[workspace.package]\nversion = \"1.0.0\"",
        );
        let member = ("a/Cargo.toml", "[package]\nversion.workspace = true");
        let dir = project(&[root, member, ("a/.git/HEAD", "")]);
        let error = load_version(&dir.path().join("a")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("no `Cargo.toml` above it has a `[workspace]`"),
            "{error}"
        );
    }

    #[test]
    fn refusals_name_the_reason() {
        for (file, text, reason) in [
            ("setup.py", "", "no version is given, and none is found in"),
            (
                "go.mod",
                "module a",
                "no version is given, and none is found in",
            ),
            (
                "pyproject.toml",
                "[project]\ndynamic = [\"version\"]",
                "it lists `version` under `project.dynamic`",
            ),
            (
                "pyproject.toml",
                "[tool.poetry]\nversion = \"0.0.0\"\n[tool.poetry-dynamic-versioning]\nenable = true",
                "`tool.poetry-dynamic-versioning` is enabled",
            ),
            (
                "pyproject.toml",
                "[project]\nversion = 1",
                "`project.version` in",
            ),
            ("pyproject.toml", "[project", "malformed TOML at"),
            ("package.json", "{\"version\": 1}", "`version` in"),
            ("package.json", "{", "malformed JSON at"),
            (
                "Cargo.toml",
                "[package]\nversion = []",
                "`package.version` in",
            ),
            (
                "Cargo.toml",
                "[package]\nversion.workspace = true\n[workspace]",
                "`Cargo.toml` has no `workspace.package.version`",
            ),
            (
                "Cargo.toml",
                "[package]\nversion.workspace = true\nworkspace = 1",
                "`package.workspace` in",
            ),
        ] {
            let dir = project(&[(file, text)]);
            let error = load_version(dir.path()).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}\n{error}");
            let hinted = !matches!(
                error,
                ProjectError::Invalid { .. } | ProjectError::ManifestValue { .. }
            );
            assert_eq!(
                error.hint().is_some_and(|hint| hint.contains("`[image]`")),
                hinted,
                "{error}"
            );
        }
    }

    #[test]
    fn no_project_is_not_an_empty_one() {
        let error = load_version(Path::new("/nonexistent/project")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot open project `/nonexistent/project`"
        );
    }
}
