//! Variants: what else each base image is built with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use trilith_core::{Platform, Repository};

use crate::project::values::{parse_argument, parse_argument_name, parse_stage};

/// One variant of every image of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// What it is called; empty where there is one variant only.
    pub name: String,
    /// Appended to every tag: by default a hyphen and the name.
    pub suffix: String,
    /// The repository in place of the project's.
    pub repository: Option<Repository>,
    /// The version in place of the project's.
    pub version: Option<String>,
    /// Platforms in place of the project's; those if empty.
    pub platforms: BTreeSet<Platform>,
    /// The stage to build of a Dockerfile without levels.
    pub target: Option<String>,
    /// Build arguments over the project's, under those of a base.
    pub args: BTreeMap<String, String>,
}

/// Why a matrix cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("matrix `{}`: {reason}", path.display())]
pub struct MatrixError {
    path: PathBuf,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    variant: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    suffix: Option<String>,
    repository: Option<String>,
    version: Option<String>,
    #[serde(default)]
    platforms: Vec<String>,
    target: Option<String>,
    #[serde(default)]
    args: BTreeMap<String, String>,
}

/// Reads the variants of `path`, TOML with a table `[[variant]]` for each, or the same as JSON
/// where the file's name ends in `.json`.
///
/// # Errors
/// The file cannot be read or understood, or two variants would have the same tags.
pub fn load_matrix(path: &Path) -> Result<Vec<Variant>, MatrixError> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let variants = text.and_then(|text| parse(&text, is_json));
    variants.map_err(|reason| MatrixError {
        path: path.to_owned(),
        reason,
    })
}

fn parse(text: &str, is_json: bool) -> Result<Vec<Variant>, String> {
    let file: File = if is_json {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string())?
    };
    let variants = file.variant.into_iter().map(variant);
    let variants: Vec<Variant> = variants.collect::<Result<_, _>>()?;
    if variants.is_empty() {
        return Err("it has no variant".to_owned());
    }
    let mut seen: BTreeMap<(&Option<Repository>, &str), &str> = BTreeMap::new();
    for variant in &variants {
        let place = (&variant.repository, variant.suffix.as_str());
        if let Some(other) = seen.insert(place, &variant.name) {
            return Err(format!(
                "variants `{other}` and `{}` have the same tags: give one another `suffix`",
                variant.name
            ));
        }
    }
    Ok(variants)
}

fn variant(entry: Entry) -> Result<Variant, String> {
    let name = entry.name;
    let within = |reason: String| format!("variant `{name}`: {reason}");
    if name.is_empty() {
        return Err("a variant has no name".to_owned());
    }
    let suffix = entry.suffix.unwrap_or_else(|| format!("-{name}"));
    // What may follow in a tag.
    if let Err(error) = format!("v{suffix}").parse::<trilith_core::Tag>() {
        return Err(within(format!("suffix `{suffix}`: {error}")));
    }
    let repository = entry.repository.map(|text| text.parse()).transpose();
    let platforms = entry.platforms.iter().map(|text| text.parse());
    let args = entry
        .args
        .into_iter()
        .map(|(name, value)| Ok((parse_argument_name(&name)?, parse_argument(&value)?)));
    let args: Result<_, crate::project::values::ValueError> = args.collect();
    let target = entry.target.as_deref().map(parse_stage).transpose();
    Ok(Variant {
        suffix,
        repository: repository
            .map_err(|error: trilith_core::ReferenceError| within(error.to_string()))?,
        version: entry.version,
        platforms: platforms
            .collect::<Result<_, trilith_core::PlatformError>>()
            .map_err(|error| within(error.to_string()))?,
        target: target.map_err(|error| within(error.to_string()))?,
        args: args.map_err(|error| within(error.to_string()))?,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants() {
        let toml = "[[variant]]\nname = \"py312\"\nargs = { PYTHON = \"3.12\" }\n\
                    [[variant]]\nname = \"dev\"\nsuffix = \"\"\nplatforms = [\"linux/arm64\"]\n";
        let variants = parse(toml, false).unwrap();
        assert_eq!(variants[0].suffix, "-py312");
        assert_eq!(variants[0].args["PYTHON"], "3.12");
        assert_eq!(variants[1].suffix, "");
        let json = "{\"variant\": [{\"name\": \"py312\", \"args\": {\"PYTHON\": \"3.12\"}}]}";
        assert_eq!(parse(json, true).unwrap(), variants[..1]);
    }

    #[test]
    fn refused() {
        for (toml, expected) in [
            ("", "missing field `variant`"),
            ("variant = []", "no variant"),
            ("[[variant]]\nname = \"\"", "no name"),
            (
                "[[variant]]\nname = \"a b\"",
                "variant `a b`: suffix `-a b`",
            ),
            (
                "[[variant]]\nname = \"a\"\nnope = 1",
                "unknown field `nope`",
            ),
            (
                "[[variant]]\nname = \"a\"\nsuffix = \"\"\n[[variant]]\nname = \"b\"\nsuffix = \"\"",
                "variants `a` and `b` have the same tags",
            ),
            (
                "[[variant]]\nname = \"a\"\nplatforms = [\"x\"]",
                "variant `a`: ",
            ),
        ] {
            let error = parse(toml, false).unwrap_err();
            assert!(error.contains(expected), "{toml:?}: {error}");
        }
    }
}
