//! Finding the root of a checkout, and the version of a package that is installed beside it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::project::manifest::read_text;

/// Returns the nearest directory at or above `start` that `is_root` is true of.
///
/// # Errors
/// There is none, or `start` does not exist.
pub(super) fn find_root(
    start: &Path,
    what: &'static str,
    has: &'static str,
    is_root: impl Fn(&Path) -> bool,
) -> Result<PathBuf, Error> {
    let start = start
        .canonicalize()
        .map_err(trilith_oci::Error::io("open", start))?;
    let found = start.ancestors().find(|directory| is_root(directory));
    let none = || Error::NoCheckout {
        what,
        has,
        start: start.clone(),
    };
    found.map(Path::to_owned).ok_or_else(none)
}

/// Returns the version of `package` that is installed in the virtual environment `.venv` of the
/// checkout at `root`, if one is.
///
/// The directory of a package's metadata is `{name}-{version}.dist-info`, its name with `_` for `-`
/// (packaging specification, "Recording installed projects").
pub(super) fn installed_version(root: &Path, package: &str) -> Option<String> {
    let prefix = format!("{}-", package.replace('-', "_"));
    let pythons = names_in(&root.join(".venv/lib")).into_iter();
    let packages = pythons
        .filter(|python| python.starts_with("python"))
        .map(|python| root.join(".venv/lib").join(python).join("site-packages"));
    let metadata = packages.flat_map(|directory| {
        let names = names_in(&directory).into_iter();
        names
            .filter(|name| name.starts_with(&prefix) && name.ends_with(".dist-info"))
            .map(|name| directory.join(name).join("METADATA"))
            .collect::<Vec<_>>()
    });
    let mut versions = metadata.filter_map(|path| version_in(&read_text(&path).ok()??));
    versions.next()
}

/// Returns the version in the headers of a package's metadata.
fn version_in(metadata: &str) -> Option<String> {
    let mut headers = metadata.lines().take_while(|line| !line.trim().is_empty());
    let version = headers.find_map(|line| line.strip_prefix("Version:"))?;
    Some(version.trim().to_owned()).filter(|version| !version.is_empty())
}

/// Returns the names in a directory, sorted; none where there is no such directory.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}
