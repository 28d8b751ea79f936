//! `trilith hash`: what a scheme makes of a directory.

use serde::Serialize;
use trilith_core::{EntryKind, HashError, Patterns, Scheme, load_dirhash, load_tree, shorten};

use crate::args::Hash;
use crate::environment::Environment;
use crate::output::{Failure, Output};

#[derive(Serialize)]
struct Document {
    digest: String,
    short: String,
    files: usize,
}

pub(crate) fn run(args: Hash, environment: &Environment, output: Output) -> Result<(), Failure> {
    let defaults = || {
        args.scheme
            .default_ignore()
            .iter()
            .map(|&p| p.to_owned())
            .collect()
    };
    let ignore: Vec<String> = args.ignore.unwrap_or_else(defaults);
    let cache = environment.stat_cache(&args.directory);
    let (digest, files) = match args.scheme {
        Scheme::OpenHandsV0 | Scheme::OpenHandsV1 => {
            let hash = load_dirhash(&args.directory, &ignore, &cache)?;
            (hash.digest, hash.files)
        }
        Scheme::Trilith => {
            let patterns = Patterns::parse(&ignore).map_err(HashError::from)?;
            let tree = load_tree(&args.directory, &patterns, &cache)?;
            let is_file = |kind: &EntryKind| !matches!(kind, EntryKind::Directory { .. });
            let files = tree
                .entries()
                .iter()
                .filter(|entry| is_file(&entry.kind))
                .count();
            (tree.hash().to_hex(), files)
        }
    };
    // A cache that cannot be written costs the next run some time and nobody anything else.
    let _saved_or_not = cache.save();
    let document = Document {
        short: shorten(&digest),
        digest,
        files,
    };
    output.result(&document, || format!("{}\n", document.digest))
}
