//! Where the Dockerfile and its ignore file lie, and what the engine gets of them.

use std::fs;
use std::os::unix::fs::symlink;

use trilith_build::build_context::Dockerfile;
use trilith_core::{Digest, DockerIgnore};

use crate::support::{archived, lay_out, load, load_with, names, visible};

#[test]
fn the_ignore_file_beside_the_dockerfile_comes_first() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let context = root.join("context");
    lay_out(
        root,
        &[
            ("context/Dockerfile", ""),
            ("context/.dockerignore", "a"),
            ("context/sub/Dockerfile.dev", ""),
            (
                "context/sub/Dockerfile.dev.dockerignore",
                "b\nsub/*.dockerignore",
            ),
            ("context/a", ""),
            ("context/b", ""),
            ("elsewhere/Containerfile", ""),
            ("elsewhere/Containerfile.dockerignore", "*\n!b"),
            ("elsewhere/Plain", ""),
        ],
    );
    symlink("sub/Dockerfile.dev", context.join("Linked")).unwrap();
    for (dockerfile, expected) in [
        (
            "context/Dockerfile",
            vec![
                ".dockerignore",
                "Dockerfile",
                "Linked",
                "b",
                "sub",
                "sub/Dockerfile.dev",
                "sub/Dockerfile.dev.dockerignore",
            ],
        ),
        (
            "context/sub/Dockerfile.dev",
            vec![
                ".dockerignore",
                "Dockerfile",
                "Linked",
                "a",
                "sub",
                "sub/Dockerfile.dev",
            ],
        ),
        // Beside the link, not beside what it leads to.
        (
            "context/Linked",
            vec![
                ".dockerignore",
                "Dockerfile",
                "Linked",
                "b",
                "sub",
                "sub/Dockerfile.dev",
                "sub/Dockerfile.dev.dockerignore",
            ],
        ),
        ("elsewhere/Containerfile", vec!["b"]),
        (
            "elsewhere/Plain",
            vec![
                ".dockerignore",
                "Dockerfile",
                "Linked",
                "b",
                "sub",
                "sub/Dockerfile.dev",
                "sub/Dockerfile.dev.dockerignore",
            ],
        ),
    ] {
        let found = load_with(&context, &Dockerfile::File(root.join(dockerfile))).unwrap();
        assert_eq!(visible(&found), expected, "{dockerfile}");
    }
    let linked = load_with(&context, &Dockerfile::File(context.join("Linked"))).unwrap();
    assert_eq!(linked.dockerfile(), b"sub/Dockerfile.dev");
}

#[test]
fn a_hidden_dockerfile_is_sent_and_hidden_again() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    lay_out(
        root,
        &[("Dockerfile", "FROM scratch\n"), ("a", ""), ("b", "")],
    );
    for (ignore, sees, sent, hides) in [
        // Nothing is hidden: the file is one like any other.
        (
            "b",
            vec![".dockerignore", "Dockerfile", "a"],
            vec![".dockerignore", "Dockerfile", "a"],
            "b",
        ),
        (
            "b\n.dockerignore",
            vec!["Dockerfile", "a"],
            vec!["Dockerfile", "a"],
            "",
        ),
        // The file there hides it already.
        (
            "Docker*",
            vec![".dockerignore", "a", "b"],
            vec![".dockerignore", "Dockerfile", "a", "b"],
            "Docker*",
        ),
        (
            "*",
            vec![],
            vec![".dockerignore", "Dockerfile"],
            ".dockerignore\n/Dockerfile\n",
        ),
        (
            "*\n!a",
            vec!["a"],
            vec![".dockerignore", "Dockerfile", "a"],
            ".dockerignore\n/Dockerfile\n",
        ),
    ] {
        fs::write(root.join(".dockerignore"), ignore).unwrap();
        let context = load(root).unwrap();
        assert_eq!(visible(&context), sees, "{ignore:?}");
        let members = archived(&context);
        assert_eq!(members.keys().collect::<Vec<_>>(), sent, "{ignore:?}");
        if let Some(file) = members.get(".dockerignore") {
            assert_eq!(file.content, hides.as_bytes(), "{ignore:?}");
        }
        assert_eq!(members["Dockerfile"].content, b"FROM scratch\n");
        assert_eq!(context.dockerfile(), b"Dockerfile");
    }
}

#[test]
fn a_dockerfile_from_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let context = root.join("context");
    lay_out(
        root,
        &[
            ("context/a", ""),
            ("context/Dockerfile", "not this\n"),
            ("Dockerfile", "FROM scratch\n"),
        ],
    );
    let name = format!(".dockerfile.{}", &Digest::of(b"FROM scratch\n").hex()[..20]);
    let file = Dockerfile::File(root.join("Dockerfile"));
    let text = Dockerfile::Text("FROM scratch\n".to_owned());

    let mut hashes = Vec::new();
    for dockerfile in [&file, &text] {
        let found = load_with(&context, dockerfile).unwrap();
        assert_eq!(visible(&found), ["Dockerfile", "a"]);
        assert_eq!(names(&found), [&name, ".dockerignore", "Dockerfile", "a"]);
        let members = archived(&found);
        assert_eq!(members[&name].content, b"FROM scratch\n");
        let rules = &members[".dockerignore"].content;
        assert_eq!(rules, format!(".dockerignore\n/{name}\n").as_bytes());
        assert_eq!(found.dockerfile(), name.as_bytes());
        hashes.push(found.hash());
    }
    assert_eq!(hashes[0], hashes[1]);

    // A file that is there is kept, and added to.
    fs::write(context.join(".dockerignore"), "a").unwrap();
    let found = load_with(&context, &text).unwrap();
    assert_eq!(visible(&found), [".dockerignore", "Dockerfile"]);
    let rules = archived(&found)[".dockerignore"].content.clone();
    assert_eq!(rules, format!("a\n/{name}\n").as_bytes());
    let rules = DockerIgnore::parse(&rules).unwrap();
    assert!(rules.matches(&name) && !rules.matches(".dockerignore"));

    let other = load_with(&context, &Dockerfile::Text("FROM busybox\n".to_owned())).unwrap();
    assert_ne!(other.hash(), found.hash());
}
