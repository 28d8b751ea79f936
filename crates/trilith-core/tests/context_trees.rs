//! Which files of a directory are in a build context.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use trilith_core::{DockerIgnore, EntryKind, HashError, StatCache, load_context};

/// Lays out files, given as paths; one that ends in a slash is an empty directory.
fn lay_out(root: &Path, paths: &[&str]) {
    for path in paths {
        let target = root.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(&target).unwrap();
        } else {
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(&target, path).unwrap();
        }
    }
}

fn load(root: &Path, ignore: &str) -> Result<Vec<String>, HashError> {
    let ignore = DockerIgnore::parse(ignore).unwrap();
    let tree = load_context(root, &ignore, &StatCache::disabled())?;
    let names = tree.entries().iter().map(|entry| {
        let slash = match entry.kind {
            EntryKind::Directory { .. } => "/",
            EntryKind::File { .. } | EntryKind::Symlink { .. } => "",
        };
        format!("{}{slash}", entry.path.escape_ascii())
    });
    Ok(names.collect())
}

#[test]
fn directories_stay_where_something_in_them_does() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(root, &["a/b/c", "a/x", "e/", "f/g", "f/h/", "s"]);
    for (ignore, expected) in [
        (
            "",
            vec![
                "/", "a/", "a/b/", "a/b/c", "a/x", "e/", "f/", "f/g", "f/h/", "s",
            ],
        ),
        ("a", vec!["/", "e/", "f/", "f/g", "f/h/", "s"]),
        // Everything in it is left out, but not the directory.
        ("a/*\nf/g", vec!["/", "a/", "e/", "f/", "f/h/", "s"]),
        (
            "**/c",
            vec!["/", "a/", "a/b/", "a/x", "e/", "f/", "f/g", "f/h/", "s"],
        ),
        // A directory that is left out comes back with what is in it.
        ("*\n!a/b/c", vec!["/", "a/", "a/b/", "a/b/c"]),
        ("*\n!a/b", vec!["/", "a/", "a/b/", "a/b/c"]),
        ("*\n!**/c", vec!["/", "a/", "a/b/", "a/b/c"]),
        ("*\n!f/h", vec!["/", "f/", "f/h/"]),
        ("a\ne\n!a/nothing", vec!["/", "f/", "f/g", "f/h/", "s"]),
        ("**", vec!["/"]),
    ] {
        assert_eq!(load(root, ignore).unwrap(), expected, "{ignore:?}");
    }
}

#[test]
fn what_is_left_out_is_not_looked_at() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(root, &["vendor/deep/x", "src/a"]);
    let pipe = root.join("vendor/deep/pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    for ignore in [
        "vendor",
        "*\n!src",
        "vendor\n!src/**",
        "**/pipe",
        "*\n!*/a",
        "*/*/*",
    ] {
        let entries = load(root, ignore).unwrap();
        assert!(entries.contains(&"src/a".to_owned()), "{ignore:?}");
    }
    for ignore in ["", "vendor\n!vendor/deep", "*\n!**/pipe"] {
        let error = load(root, ignore).unwrap_err();
        assert!(
            matches!(error, HashError::SpecialFile { .. }),
            "{ignore:?}: {error}"
        );
        assert!(
            error
                .to_string()
                .contains("vendor/deep/pipe` is a named pipe"),
            "{error}"
        );
    }
}

#[test]
fn odd_entries() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    symlink("/nowhere", root.join("link")).unwrap();
    symlink("..", root.join("up")).unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"\xff.md");
    fs::write(root.join(raw), "").unwrap();
    fs::write(root.join("run"), "").unwrap();
    fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(
        load(root, "").unwrap(),
        ["/", "link", "run", "up", r"\xff.md"]
    );
    assert_eq!(load(root, "?.md\n*k").unwrap(), ["/", "run", "up"]);

    let missing = load(&root.join("missing"), "").unwrap_err();
    assert!(matches!(missing, HashError::Missing { .. }), "{missing}");
}
