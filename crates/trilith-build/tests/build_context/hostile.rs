//! What is refused, with which words, and that nothing is left behind.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use trilith_build::build_context::{BuildContextError, Dockerfile};
use trilith_core::HashError;
use trilith_oci::Kind;
use trilith_oci::layer::Compression;
use trilith_testkit::assert_success;

use crate::support::{archived, lay_out, load, load_with};

fn pipe(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap();
}

fn write(context: &trilith_build::build_context::BuildContext) -> Result<(), BuildContextError> {
    context.write(Compression::Gzip(1), io::sink()).map(|_| ())
}

/// Does something to a file.
type Change = fn(&Path);

#[test]
fn files_that_change_after_they_were_listed() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    let changes: [(&str, Change); 6] = [
        ("other content", |file| fs::write(file, "CONTENT").unwrap()),
        ("longer", |file| {
            fs::write(file, "content and more").unwrap();
        }),
        ("shorter", |file| fs::write(file, "").unwrap()),
        ("gone", |file| fs::remove_file(file).unwrap()),
        ("a link to the same", |file| {
            let moved = file.with_file_name("moved");
            fs::rename(file, &moved).unwrap();
            symlink("moved", file).unwrap();
        }),
        ("a pipe", |file| {
            fs::remove_file(file).unwrap();
            pipe(file);
        }),
    ];
    for (what, change) in changes {
        let _ = fs::remove_file(&file);
        lay_out(root.path(), &[("Dockerfile", ""), ("file", "content")]);
        let context = load(root.path()).unwrap();
        write(&context).unwrap();
        change(&file);
        let error = write(&context).unwrap_err();
        assert!(
            matches!(error, BuildContextError::Changed { .. }),
            "{what}: {error}"
        );
        let expected = "file` changed while the build context was sent";
        assert!(error.to_string().ends_with(expected), "{what}: {error}");
        assert!(error.is_retryable() && error.hint().is_some());

        let output = root.path().join("out.tar");
        context.write_file(Compression::None, &output).unwrap_err();
        let names = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names
            .filter(|name| name.as_bytes().starts_with(b".context-"))
            .collect();
        assert!(left.is_empty() && !output.exists(), "{what}: {left:?}");
    }
}

#[test]
fn what_cannot_be_in_a_context() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(root, &[("Dockerfile", ""), ("a/b", "")]);
    pipe(&root.join("a/pipe"));
    let error = load(root).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("a/pipe` is a named pipe, which has no content to hash"),
        "{error}"
    );
    assert_eq!(error.hint().unwrap(), "add it to `.dockerignore`");

    fs::write(root.join(".dockerignore"), "**/pipe").unwrap();
    load(root).unwrap();
}

#[test]
fn ignore_files_that_are_none() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(root, &[("Dockerfile", ""), ("a", "")]);
    let ignore = root.join(".dockerignore");

    fs::write(&ignore, "a\n!\n").unwrap();
    let error = load(root).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().ends_with(".dockerignore`"), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "pattern `!` in line 2 has nothing after the `!`");
    assert!(error.hint().is_some());

    fs::remove_file(&ignore).unwrap();
    pipe(&ignore);
    let error = load(root).unwrap_err();
    assert!(error.to_string().starts_with("ignore file `"), "{error}");
    assert!(error.to_string().ends_with("` is not a file"), "{error}");

    fs::remove_file(&ignore).unwrap();
    fs::create_dir(&ignore).unwrap();
    let error = load(root).unwrap_err();
    assert!(error.to_string().ends_with("` is not a file"), "{error}");

    fs::remove_dir(&ignore).unwrap();
    let endless = fs::File::create(&ignore).unwrap();
    endless.set_len(1 << 40).unwrap();
    let error = load(root).unwrap_err();
    assert!(
        error.to_string().ends_with("is larger than 16 MiB"),
        "{error}"
    );

    // A link that leads nowhere is no ignore file, and goes along as what it is.
    fs::remove_file(&ignore).unwrap();
    symlink("nowhere", &ignore).unwrap();
    assert_eq!(
        archived(&load(root).unwrap())[".dockerignore"].content,
        b"nowhere"
    );
}

#[test]
fn nothing_to_send() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(root, &[("file", ""), ("dir/", "")]);
    let dockerfile = Dockerfile::Text(String::new());
    let error = load_with(&root.join("missing"), &dockerfile).unwrap_err();
    assert!(
        error.to_string().ends_with("missing` does not exist"),
        "{error}"
    );
    assert_eq!(error.kind(), Kind::NotFound);
    let error = load_with(&root.join("file"), &dockerfile).unwrap_err();
    assert!(
        error.to_string().ends_with("file` is not a directory"),
        "{error}"
    );

    let error = load(root).unwrap_err();
    assert!(error.to_string().ends_with("Dockerfile`"), "{error}");
    assert_eq!(error.kind(), Kind::NotFound);
    let error = load_with(root, &Dockerfile::File(root.join("dir"))).unwrap_err();
    assert!(error.to_string().starts_with("Dockerfile `"), "{error}");
    assert!(error.to_string().ends_with("dir` is not a file"), "{error}");
    pipe(&root.join("pipe"));
    load_with(root, &Dockerfile::File(root.join("pipe"))).unwrap_err();
}

#[test]
fn outputs_that_fail() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(root, &[("Dockerfile", ""), ("dir/", "")]);
    let context = load(root).unwrap();
    let error = context.write(Compression::None, Full).unwrap_err();
    assert_eq!(error.to_string(), "cannot write the build context");
    let error = context
        .write_file(Compression::None, &root.join("missing/x.tar"))
        .unwrap_err();
    assert!(
        error.to_string().starts_with("cannot write into `"),
        "{error}"
    );
    let error = context
        .write_file(Compression::None, &root.join("dir"))
        .unwrap_err();
    assert!(error.to_string().starts_with("cannot create `"), "{error}");
}

#[test]
fn names_in_other_encodings() {
    let root = tempfile::tempdir().unwrap();
    lay_out(root.path(), &[("Dockerfile", "")]);
    for name in [&b"caf\xe9"[..], b"line\nfeed", b"caf\xe8"] {
        fs::write(root.path().join(OsStr::from_bytes(name)), "").unwrap();
    }
    fs::write(root.path().join(".dockerignore"), b"caf\xe8\n.dockerignore").unwrap();
    let names: Vec<_> = archived(&load(root.path()).unwrap()).into_keys().collect();
    assert_eq!(names, ["Dockerfile", r"caf\xe9", r"line\nfeed"]);
}

#[test]
fn unreadable_files() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(
        root,
        &[("Dockerfile", ""), ("secret/key", "x"), ("plain", "")],
    );
    let lock =
        |path: &str| fs::set_permissions(root.join(path), Permissions::from_mode(0o000)).unwrap();
    lock("plain");
    if fs::File::open(root.join("plain")).is_ok() {
        // Whoever may read everything runs this again as somebody who may not.
        let itself = std::env::current_exe().unwrap();
        assert_success(
            Command::new("setpriv")
                .arg("--bounding-set=-dac_override,-dac_read_search")
                .arg(itself)
                .args(["--exact", "hostile::unreadable_files"]),
        );
        return;
    }
    let error = load(root).unwrap_err();
    assert!(error.to_string().starts_with("cannot read `"), "{error}");
    assert!(error.to_string().ends_with("plain`"), "{error}");
    assert!(matches!(
        error,
        BuildContextError::Hash(HashError::Io { .. })
    ));
    assert_eq!(
        error.hint().unwrap(),
        "make it readable, or add it at the end of `.dockerignore`"
    );

    lock("secret");
    for (ignore, ends_with) in [
        ("plain", Some("secret`")),
        ("plain\nsecret", None),
        ("*\n!Dockerfile", None),
        ("*\n!**/key", Some("secret`")),
        ("*\n!**/key\nsecret", None),
    ] {
        fs::write(root.join(".dockerignore"), ignore).unwrap();
        match (load(root), ends_with) {
            (Ok(_), None) => {}
            (Err(error), Some(end)) => assert!(error.to_string().ends_with(end), "{error}"),
            (Ok(_), Some(_)) => panic!("{ignore:?} needs `secret`"),
            (Err(error), None) => panic!("{ignore:?}: {error}"),
        }
    }
    fs::set_permissions(root.join("secret"), Permissions::from_mode(0o700)).unwrap();
    fs::write(root.join(".dockerignore"), "plain").unwrap();
    let context = load(root).unwrap();
    lock("secret/key");
    let error = write(&context).unwrap_err();
    assert!(error.to_string().starts_with("cannot open `"), "{error}");
}
