//! Contexts that are put together of some directories and files of a checkout, each at a place of
//! its own. Ignore files do not apply: the parts say what is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trilith_core::{Patterns, StatCache, load_tree};

use super::context::{BuildContext, Dockerfile, load_file, resolve_directory};
use super::error::BuildContextError;

/// What a context is put together of. Where something comes from is relative to the checkout,
/// where it goes is relative to the context, without a slash at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextParts {
    /// Directories, which have to be there.
    pub trees: Vec<TreePart>,
    /// Files. One that is not there is left out.
    pub files: Vec<FilePart>,
    /// Where instructions see the Dockerfile; nowhere if `None`.
    pub dockerfile: Option<String>,
}

/// A directory of a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreePart {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes.
    pub to: String,
    /// Patterns of what is left out, in the `gitwildmatch` dialect.
    pub ignore: Vec<String>,
}

/// A file of a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePart {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes.
    pub to: String,
}

/// A context of parts.
#[derive(Clone, Debug)]
pub struct PartsContext {
    /// The context.
    pub context: BuildContext,
    /// The files that are not there, which is worth a warning.
    pub missing: Vec<PathBuf>,
}

/// Lists and hashes the context that `parts` of the checkout at `root` make.
///
/// # Errors
/// As [`BuildContext::load`].
pub fn load_parts(
    root: &Path,
    parts: &ContextParts,
    dockerfile: &Dockerfile,
    cache: &StatCache,
) -> Result<PartsContext, BuildContextError> {
    let root = resolve_directory(root)?;
    let mut context = BuildContext::empty();
    let places = parts.trees.iter().map(|part| part.to.as_str());
    let places = places.chain(parts.files.iter().map(|part| part.to.as_str()));
    for directory in directories_above(places) {
        context.add_directory(directory.as_bytes());
    }
    for part in &parts.trees {
        let ignore = Patterns::parse(&part.ignore).map_err(trilith_core::HashError::from)?;
        let source = resolve_directory(&root.join(&part.from))?;
        let tree = load_tree(&source, &ignore, cache)?;
        context.add_tree(part.to.as_bytes(), &source, &tree);
    }
    let mut missing = Vec::new();
    for part in &parts.files {
        let path = root.join(&part.from);
        match load_file("project file", &path, cache) {
            Ok((_, file)) => context.add_file(part.to.as_bytes(), file),
            Err(error) if error.kind() == trilith_oci::Kind::NotFound => missing.push(path),
            Err(error) => return Err(error),
        }
    }
    match &parts.dockerfile {
        Some(place) => context.add_visible_dockerfile(place.as_bytes(), dockerfile, cache)?,
        None => context.add_hidden_dockerfile(&root, dockerfile, cache)?,
    }
    Ok(PartsContext { context, missing })
}

/// Returns the directories that `places` lie in, each once.
fn directories_above<'a>(places: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let above = |place: &'a str| place.match_indices('/').map(move |(end, _)| &place[..end]);
    places.flat_map(above).collect()
}
