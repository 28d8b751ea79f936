//! Random trees and rules against a model that walks them naively.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use trilith_build::build_context::{BuildContext, Dockerfile, IgnoreRules};
use trilith_core::{DockerIgnore, StatCache};

use crate::support::{visible, write};

/// Files by path; `None` is a directory.
type Tree = BTreeMap<String, Option<String>>;

fn tree() -> impl Strategy<Value = Tree> {
    let name = prop::sample::select(vec!["a", "b", "a.b", ".c", "a-"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let content = prop::option::of(prop::sample::select(vec!["", "x", "xy"]));
    let content = content.prop_map(|content| content.map(str::to_owned));
    prop::collection::btree_map(path, content, 0..12).prop_map(|tree| {
        // What has something in it is a directory.
        let paths: Vec<String> = tree.keys().cloned().collect();
        let is_above = |path: &str| {
            paths
                .iter()
                .any(|other| other.starts_with(&format!("{path}/")))
        };
        tree.into_iter()
            .map(|(path, content)| {
                let content = content.filter(|_| !is_above(&path));
                (path, content)
            })
            .collect()
    })
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    let pattern = prop::sample::select(vec![
        "a", "b", "*", "**", "a/b", "*/a", "**/a", "**/*.b", "a/*", "a/**", ".*", "?", "a-", "!a",
        "!b", "!a/b", "!**/b", "!*/a", "!*.b", "![ab]/.c", "!a/**", "!**",
    ]);
    prop::collection::vec(pattern.prop_map(str::to_owned), 0..4)
}

fn lay_out(root: &Path, tree: &Tree) {
    for (path, content) in tree {
        let path = root.join(path);
        match content {
            Some(content) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            None => fs::create_dir_all(path).unwrap(),
        }
    }
}

/// Returns what is in the context, directories with a slash.
fn model(tree: &Tree, rules: &DockerIgnore) -> Vec<String> {
    let mut directories: Vec<&str> = Vec::new();
    for (path, content) in tree {
        directories.extend(path.match_indices('/').map(|(slash, _)| &path[..slash]));
        if content.is_none() {
            directories.push(path);
        }
    }
    let files = tree.iter().filter(|(_, content)| content.is_some());
    let mut kept: Vec<&str> = files
        .map(|(path, _)| path.as_str())
        .chain(directories)
        .filter(|path| !rules.matches(path))
        .collect();
    let above: Vec<&str> = kept
        .iter()
        .flat_map(|path| path.match_indices('/').map(|(slash, _)| &path[..slash]))
        .collect();
    kept.extend(above);
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(str::to_owned).collect()
}

fn load(root: &Path, tree: &Tree, rules: DockerIgnore) -> BuildContext {
    lay_out(root, tree);
    let dockerfile = Dockerfile::Text("FROM scratch\n".to_owned());
    let ignore = IgnoreRules::Given(rules);
    BuildContext::load(root, &dockerfile, &ignore, &StatCache::disabled()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_walk_is_the_model(tree in tree(), rules in rules()) {
        let rules = DockerIgnore::new(&rules).unwrap();
        let root = tempfile::tempdir().unwrap();
        let context = load(root.path(), &tree, rules.clone());
        prop_assert_eq!(visible(&context), model(&tree, &rules));
    }

    #[test]
    fn same_hash_means_same_bytes(
        (one, other) in (tree(), tree()),
        rules in rules(),
    ) {
        let rules = DockerIgnore::new(&rules).unwrap();
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let one = load(roots[0].path(), &one, rules.clone());
        let other = load(roots[1].path(), &other, rules);
        let same = write(&one).1 == write(&other).1;
        prop_assert_eq!(one.hash() == other.hash(), same);
    }
}
