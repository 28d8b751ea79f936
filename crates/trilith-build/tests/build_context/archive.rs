//! The archive's bytes: what they say, and that nothing else leaks in.

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tar::EntryType;
use trilith_build::build_context::{
    ContextOptions, Dockerfile, IgnoreRules, create_build_context_tarball,
};
use trilith_core::{Digest, StatCache};
use trilith_oci::layer::Compression;

use crate::support::{archived, lay_out, load, names, write};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn sample(root: &Path) {
    lay_out(
        root,
        &[
            ("Dockerfile", "FROM scratch\nCOPY . /\n"),
            ("app/main.py", "print('hello')\n"),
            ("app/empty", ""),
            ("app/run", "#!/bin/sh\n"),
            ("app-data/x", "1"),
            ("empty/", ""),
            ("na\u{ef}ve", "y"),
        ],
    );
    symlink("app/run", root.join("link")).unwrap();
    symlink("../outside", root.join("dangling")).unwrap();
    fs::hard_link(root.join("app/main.py"), root.join("hard")).unwrap();
    set_mode(&root.join("app/run"), 0o755);
}

#[test]
fn every_kind_of_entry() {
    let root = tempfile::tempdir().unwrap();
    sample(root.path());
    let context = load(root.path()).unwrap();
    let members = archived(&context);
    let seen: Vec<_> = members
        .iter()
        .map(|(path, member)| (path.as_str(), member.kind, member.mode))
        .collect();
    let expected = [
        ("Dockerfile", EntryType::Regular, 0o644),
        ("app", EntryType::Directory, 0o755),
        ("app-data", EntryType::Directory, 0o755),
        ("app-data/x", EntryType::Regular, 0o644),
        ("app/empty", EntryType::Regular, 0o644),
        ("app/main.py", EntryType::Regular, 0o644),
        ("app/run", EntryType::Regular, 0o755),
        ("dangling", EntryType::Symlink, 0o777),
        ("empty", EntryType::Directory, 0o755),
        ("hard", EntryType::Regular, 0o644),
        ("link", EntryType::Symlink, 0o777),
        (r"na\xc3\xafve", EntryType::Regular, 0o644),
    ];
    assert_eq!(seen, expected);
    for (path, content) in [
        ("app/main.py", "print('hello')\n"),
        ("hard", "print('hello')\n"),
        ("app/empty", ""),
        ("link", "app/run"),
        ("dangling", "../outside"),
    ] {
        assert_eq!(members[path].content, content.as_bytes(), "{path}");
    }
    assert!(
        members
            .values()
            .all(|member| member.mtime == 0 && member.owner == (0, 0))
    );
    assert_eq!(context.dockerfile(), b"Dockerfile");
}

#[test]
fn times_umasks_owners_orders_and_places_do_not_matter() {
    let one = tempfile::tempdir().unwrap();
    sample(one.path());
    let expected = load(one.path()).unwrap();

    let other = tempfile::tempdir().unwrap();
    let root = other.path().join("somewhere/else");
    fs::create_dir_all(&root).unwrap();
    lay_out(
        &root,
        &[("na\u{ef}ve", "y"), ("empty/", ""), ("app-data/x", "1")],
    );
    symlink("../outside", root.join("dangling")).unwrap();
    symlink("app/run", root.join("link")).unwrap();
    lay_out(
        &root,
        &[
            ("app/run", "#!/bin/sh\n"),
            ("app/empty", ""),
            ("hard", "print('hello')\n"),
            ("app/main.py", "print('hello')\n"),
            ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        ],
    );
    for (path, mode) in [
        ("app", 0o700),
        ("app/run", 0o775),
        ("hard", 0o600),
        ("Dockerfile", 0o664),
    ] {
        set_mode(&root.join(path), mode);
    }
    std::os::unix::fs::chown(root.join("hard"), Some(1000), Some(1000)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    File::options()
        .write(true)
        .open(root.join("app/empty"))
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let context = load(&root).unwrap();
    assert_eq!(context.hash(), expected.hash());
    assert_eq!(write(&context), write(&expected));

    // What counts does matter.
    let change = |change: fn(&Path)| {
        change(&root);
        let context = load(&root).unwrap();
        (context.hash(), write(&context).0.tar_digest)
    };
    let changes: [fn(&Path); 5] = [
        |root| set_mode(&root.join("hard"), 0o755),
        |root| fs::write(root.join("app/empty"), "x").unwrap(),
        |root| fs::rename(root.join("hard"), root.join("soft")).unwrap(),
        |root| fs::remove_dir(root.join("empty")).unwrap(),
        |root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("app/run2", root.join("link")).unwrap();
        },
    ];
    let mut seen = vec![(expected.hash(), write(&expected).0.tar_digest)];
    for step in changes {
        let (hash, digest) = change(step);
        assert!(seen.iter().all(|(other, _)| *other != hash));
        assert!(seen.iter().all(|(_, other)| *other != digest));
        seen.push((hash, digest));
    }
}

#[test]
fn files_are_whole_or_not_there() {
    let root = tempfile::tempdir().unwrap();
    sample(root.path());
    let dockerfile = Dockerfile::File(root.path().join("Dockerfile"));
    let outputs = tempfile::tempdir().unwrap();
    let create = |name: &str, compression| {
        let output = outputs.path().join(name);
        let options = ContextOptions {
            compression,
            ..ContextOptions::default()
        };
        let cache = StatCache::disabled();
        create_build_context_tarball(root.path(), &dockerfile, &output, &options, &cache)
            .map(|archive| (archive, fs::read(&output).unwrap()))
    };
    let (plain, tar) = create("plain.tar", Compression::None).unwrap();
    let (gzip, zipped) = create("context.tar.gz", Compression::Gzip(5)).unwrap();
    let mut unzipped = Vec::new();
    flate2::read::MultiGzDecoder::new(&zipped[..])
        .read_to_end(&mut unzipped)
        .unwrap();
    assert_eq!(unzipped, tar);
    for (archive, bytes) in [(&plain, &tar), (&gzip, &zipped)] {
        assert_eq!(archive.digest, Digest::of(bytes));
        assert_eq!(archive.size, bytes.len() as u64);
        assert_eq!(archive.tar_digest, Digest::of(&tar));
        assert_eq!((archive.files, archive.content_size), (7, 64));
    }
    // Over what was there before.
    assert_eq!(create("plain.tar", Compression::None).unwrap().1, tar);

    fs::write(root.path().join(".dockerignore"), "[").unwrap();
    create("refused.tar", Compression::None).unwrap_err();
    fs::remove_file(root.path().join(".dockerignore")).unwrap();
    create("refused.tar", Compression::Gzip(10)).unwrap_err();
    let mut left: Vec<_> = fs::read_dir(outputs.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["context.tar.gz", "plain.tar"]);
}

#[test]
fn names_that_layers_cannot_hold() {
    let root = tempfile::tempdir().unwrap();
    lay_out(
        root.path(),
        &[("Dockerfile", ""), (".wh.x", "a"), ("a/.wh..wh..opq", "")],
    );
    let context = load(root.path()).unwrap();
    assert_eq!(
        names(&context),
        [".wh.x", "Dockerfile", "a", "a/.wh..wh..opq"]
    );
}

#[test]
fn rules_given_or_none() {
    let root = tempfile::tempdir().unwrap();
    lay_out(
        root.path(),
        &[
            ("Dockerfile", ""),
            (".dockerignore", "a"),
            ("a", ""),
            ("b", ""),
        ],
    );
    let dockerfile = Dockerfile::File(root.path().join("Dockerfile"));
    let given = trilith_core::DockerIgnore::parse("b").unwrap();
    for (ignore, expected) in [
        (IgnoreRules::Find, vec![".dockerignore", "Dockerfile", "b"]),
        (
            IgnoreRules::Given(given),
            vec![".dockerignore", "Dockerfile", "a"],
        ),
        (
            IgnoreRules::Nothing,
            vec![".dockerignore", "Dockerfile", "a", "b"],
        ),
    ] {
        let cache = StatCache::disabled();
        let context = trilith_build::build_context::BuildContext::load(
            root.path(),
            &dockerfile,
            &ignore,
            &cache,
        );
        assert_eq!(names(&context.unwrap()), expected, "{ignore:?}");
    }
}
