//! The minimal context of an agent server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use trilith_build::build_context::{
    AGENT_SERVER_DOCKERFILE, Dockerfile, create_agent_server_context_tarball,
    load_agent_server_context,
};
use trilith_core::StatCache;
use trilith_oci::layer::Compression;

use crate::support::{archived, lay_out, members, visible};

fn checkout(root: &Path) -> Dockerfile {
    lay_out(
        root,
        &[
            (AGENT_SERVER_DOCKERFILE, "FROM base\n"),
            (".git/config", ""),
            (".dockerignore", "*"),
            ("LICENSE", "MIT"),
            ("Makefile", ""),
            ("README.md", "read me"),
            ("pyproject.toml", "[project]\n"),
            ("uv.lock", "version = 1\n"),
            ("openhands/.hidden", ""),
            ("openhands/.cache/x.py", ""),
            ("openhands/README.md", ""),
            ("openhands/__init__.py", ""),
            ("openhands/__pycache__/x", ""),
            ("openhands/agent_server/a.py", "a"),
            ("openhands/agent_server/a.pyc", ""),
            ("openhands/agent_server/__pycache__/a.cpython-312.pyc", ""),
            ("openhands/docs/only.md", ""),
            ("openhands/empty/", ""),
            ("openhands/skills/x.txt", "skill"),
            ("tests/test.py", ""),
        ],
    );
    symlink("a.py", root.join("openhands/agent_server/link.py")).unwrap();
    Dockerfile::File(root.join(AGENT_SERVER_DOCKERFILE))
}

const EXPECTED: [&str; 15] = [
    "Dockerfile",
    "LICENSE",
    "README.md",
    "openhands",
    "openhands/__init__.py",
    "openhands/agent_server",
    "openhands/agent_server/a.py",
    "openhands/agent_server/docker",
    "openhands/agent_server/docker/Dockerfile",
    "openhands/agent_server/link.py",
    "openhands/empty",
    "openhands/skills",
    "openhands/skills/x.txt",
    "pyproject.toml",
    "uv.lock",
];

#[test]
fn no_more_than_is_needed() {
    let root = tempfile::tempdir().unwrap();
    let dockerfile = checkout(root.path());
    let cache = StatCache::disabled();
    let loaded = load_agent_server_context(root.path(), &dockerfile, &cache).unwrap();
    assert_eq!(visible(&loaded.context), EXPECTED);
    assert_eq!(loaded.context.dockerfile(), b"Dockerfile");
    assert!(loaded.missing.is_empty());
    let members = archived(&loaded.context);
    assert_eq!(members.keys().collect::<Vec<_>>(), EXPECTED);
    assert_eq!(members["Dockerfile"].content, b"FROM base\n");
    assert_eq!(members["README.md"].content, b"read me");
    assert_eq!(members["openhands/agent_server/link.py"].content, b"a.py");

    // What is not sent changes nothing, and what is sent does.
    let hash = loaded.context.hash();
    let load = || {
        load_agent_server_context(root.path(), &dockerfile, &cache)
            .unwrap()
            .context
            .hash()
    };
    for path in [
        "openhands/docs/more.md",
        "tests/x",
        "openhands/x.pyc",
        "openhands/.x",
    ] {
        fs::write(root.path().join(path), "x").unwrap();
        assert_eq!(load(), hash, "{path}");
    }
    for path in ["openhands/skills/y", "LICENSE"] {
        fs::write(root.path().join(path), "x").unwrap();
        assert_ne!(load(), hash, "{path}");
    }
}

#[test]
fn what_may_and_what_must_be_there() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let dockerfile = checkout(root);
    let cache = StatCache::disabled();
    fs::remove_file(root.join("uv.lock")).unwrap();
    fs::remove_file(root.join("LICENSE")).unwrap();
    fs::rename(root.join("README.md"), root.join("docs.md")).unwrap();
    symlink("docs.md", root.join("README.md")).unwrap();

    let output = root.join("context.tar");
    let compression = Compression::None;
    let (archive, loaded) =
        create_agent_server_context_tarball(root, &dockerfile, &output, compression, &cache)
            .unwrap();
    let missing = ["uv.lock", "LICENSE"].map(|name| root.canonicalize().unwrap().join(name));
    assert_eq!(loaded.missing, missing);
    assert_eq!(archive.files, 7);
    let members = members(&fs::read(&output).unwrap());
    assert_eq!(members["README.md"].content, b"read me");

    let text = Dockerfile::Text("FROM other\n".to_owned());
    let loaded = load_agent_server_context(root, &text, &cache).unwrap();
    assert_eq!(
        archived(&loaded.context)["Dockerfile"].content,
        b"FROM other\n"
    );

    let nowhere = Dockerfile::File(root.join("nowhere"));
    let error = load_agent_server_context(root, &nowhere, &cache).unwrap_err();
    assert!(error.to_string().starts_with("cannot find `"), "{error}");
    fs::remove_dir_all(root.join("openhands")).unwrap();
    let error = load_agent_server_context(root, &text, &cache).unwrap_err();
    assert!(
        error.to_string().ends_with("openhands` does not exist"),
        "{error}"
    );
}
