//! What `podman build` can be told, read off its own help.
//!
//! Versions tell little: distributions add and remove, and a remote Podman offers less.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Feature;

/// The flags of `podman build`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Parses what `podman build --help` prints: `-f, --file pathname or URL    what it is`.
    pub(super) fn parse(help: &str) -> Self {
        let flag = |line: &str| {
            let line = line.trim_start();
            let line = line.split_once(", --").map_or(line, |(_, long)| long);
            let line = line.strip_prefix("--").unwrap_or(line);
            let (head, _) = line.split_once("  ")?;
            let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
            Some((name.to_owned(), kind.to_owned()))
        };
        let is_flag = |line: &&str| {
            let line = line.trim_start();
            line.starts_with("--") || line.starts_with('-') && line.contains(", --")
        };
        Self(help.lines().filter(is_flag).filter_map(flag).collect())
    }

    /// Returns whether there is a flag of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns whether a flag can be given several times.
    pub(super) fn is_list(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|kind| kind.ends_with("Array"))
    }

    /// Returns what the flags come to.
    pub(super) fn features(&self) -> BTreeSet<Feature> {
        let flags = [
            ("build-context", Feature::NamedContexts),
            ("secret", Feature::Secrets),
            ("ssh", Feature::Ssh),
            ("cache-from", Feature::CacheImport),
            ("cache-to", Feature::CacheExport),
        ];
        let there = flags.into_iter().filter(|(flag, _)| self.has(flag));
        there
            .map(|(_, feature)| feature)
            .chain([Feature::Load, Feature::Push])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_read() {
        let flags = Flags::parse(
            "Usage:\n  podman build [options] [CONTEXT]\n\nExamples:\n  podman build --layers .\n\n\
             Options:\n\
             \x20     --build-context argument=value    argument=value to supply\n\
             \x20     --cache-from string               remote repository, see --ssh\n\
             \x20     --label stringArray               set metadata\n\
             \x20 -q, --quiet                           refrain\n\
             \x20     --pull string[=\"true\"]            Always\n",
        );
        for (name, expected) in [
            ("build-context", true),
            ("cache-from", true),
            ("quiet", true),
            ("pull", true),
            ("layers", false),
            ("ssh", false),
        ] {
            assert_eq!(flags.has(name), expected, "{name}");
        }
        assert!(flags.is_list("label") && !flags.is_list("cache-from"));
        assert_eq!(
            flags.features().into_iter().collect::<Vec<_>>(),
            [
                Feature::NamedContexts,
                Feature::CacheImport,
                Feature::Load,
                Feature::Push
            ]
        );
    }
}
