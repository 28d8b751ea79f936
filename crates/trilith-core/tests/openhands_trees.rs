//! What Python's `dirhash` 0.5.0 answers for the trees recorded in `golden/openhands.json`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use trilith_core::{
    DirHash, HashError, Saved, StatCache, hex, load_dirhash, shorten, walk_dirhash,
};

#[test]
fn every_tree_has_the_hash_of_the_reference() {
    let golden: Value = serde_json::from_str(include_str!("golden/openhands.json")).unwrap();
    let cases = golden["trees"].as_array().unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        let work = tempfile::tempdir().unwrap();
        let root = work.path().join("tree");
        lay_out(&root, case["tree"].as_array().unwrap());
        check(case, &root, &StatCache::disabled());
        let kept = work.path().join("cache");
        let cold = StatCache::load(&kept);
        check(case, &root, &cold);
        assert!(!matches!(cold.save(), Saved::Failed(_)));
        let warm = StatCache::load(&kept);
        check(case, &root, &warm);
        assert_eq!(warm.files_read(), 0, "{}", case["name"]);
    }
}

#[test]
fn directories_are_joined_as_if_they_were_in_one() {
    let work = tempfile::tempdir().unwrap();
    let cache = StatCache::disabled();
    let names = ["sdk", "agent-server", "tools"];
    let mut parts = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        let directory = work.path().join(name);
        fs::create_dir_all(directory.join("inner")).unwrap();
        fs::write(directory.join("inner/file"), format!("{at}")).unwrap();
        fs::write(directory.join("left.md"), "out").unwrap();
        parts.push((name, load_dirhash(&directory, &["*.md"], &cache).unwrap()));
    }
    let whole = load_dirhash(work.path(), &["*.md"], &cache).unwrap();
    let parts: Vec<_> = parts.iter().map(|(name, hash)| (*name, hash)).collect();
    assert_eq!(DirHash::joined(&parts), Some(whole));
    assert_eq!(DirHash::joined(&[]), None);
}

fn check(case: &Value, root: &Path, cache: &StatCache) {
    let name = &case["name"];
    let ignore = texts(&case["ignore"]);
    let answer = load_dirhash(root, &ignore, cache);
    match case["error"].as_str() {
        None => {
            let hash = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(hash.digest, case["dirhash_md5"], "{name}");
            assert_eq!(shorten(&hash.digest), case["short"], "{name}");
            let mut included: Vec<PathBuf> = walk_dirhash(root, &ignore).unwrap();
            assert_eq!(hash.files, included.len(), "{name}");
            let mut expected: Vec<_> = texts(&case["included"]).iter().map(PathBuf::from).collect();
            included.sort();
            expected.sort();
            assert_eq!(included, expected, "{name}");
        }
        Some("SymlinkRecursionError") => {
            assert!(matches!(answer, Err(HashError::Cycle { .. })), "{name}");
            let answer = walk_dirhash(root, &ignore);
            assert!(matches!(answer, Err(HashError::Cycle { .. })), "{name}");
        }
        Some("ValueError") => {
            assert!(
                matches!(answer, Err(HashError::NothingToHash { .. })),
                "{name}"
            );
        }
        Some(other) => panic!("{name}: {other}"),
    }
}

fn lay_out(root: &Path, tree: &[Value]) {
    fs::create_dir(root).unwrap();
    for entry in tree {
        let path = root.join(entry["path"].as_str().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = entry["symlink"].as_str() {
            symlink(target, path).unwrap();
        } else if entry["dir"] == true {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::write(path, content(&entry["content"])).unwrap();
        }
    }
}

fn content(spec: &Value) -> Vec<u8> {
    if let Some(text) = spec.as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(digits) = spec["hex"].as_str() {
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        assert_eq!(hex(&bytes), digits);
        return bytes;
    }
    let Some([byte, count]) = spec["repeat"].as_array().map(Vec::as_slice) else {
        return Vec::new();
    };
    let byte = u8::try_from(byte.as_u64().unwrap()).unwrap();
    vec![byte; usize::try_from(count.as_u64().unwrap()).unwrap()]
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}
