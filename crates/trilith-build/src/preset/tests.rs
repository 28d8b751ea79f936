//! Presets of invented checkouts. The hashes in the tags are what the reference's own functions
//! answer for the same files.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use trilith_core::{Level, Scheme};

use super::*;
use crate::build_context::{Dockerfile, load_parts};
use crate::error::Error;
use crate::project::DockerfileSource;

fn checkout(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), files);
    directory
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const V1: [(&str, &str); 6] = [
    ("pyproject.toml", "[project]\nname='x'\n"),
    ("uv.lock", "version = 1\n"),
    ("README.md", "read me"),
    ("LICENSE", "MIT"),
    ("openhands/a.py", "print(1)\n"),
    (
        ".venv/lib/python3.12/site-packages/openhands_sdk-1.0.0.dist-info/METADATA",
        "Metadata-Version: 2.4\nName: openhands-sdk\nVersion: 1.0.0\n\nVersion: 9.9.9\n",
    ),
];

const WORKSPACE: [(&str, &str); 9] = [
    ("pyproject.toml", "[tool.uv.workspace]\n"),
    ("uv.lock", "version = 1\n"),
    (
        "openhands-agent-server/pyproject.toml",
        "[project]\nname = \"openhands-agent-server\"\nversion = \"1.4.0\"\n",
    ),
    (
        "openhands-sdk/pyproject.toml",
        "[project]\nname = \"openhands-sdk\"\nversion = \"1.4.0\"\n",
    ),
    (
        "openhands-tools/pyproject.toml",
        "[project]\nname = \"openhands-tools\"\nversion = \"1.4.0\"\n",
    ),
    (
        "openhands-workspace/pyproject.toml",
        "[project]\nname = \"openhands-workspace\"\nversion = \"1.4.0\"\n",
    ),
    ("openhands-sdk/openhands/sdk/__init__.py", "A = 1\n"),
    ("openhands-tools/openhands/tools/subagent.md", "# Agent\n"),
    ("tests/test.py", "not hashed\n"),
];

const V0: [(&str, &str); 7] = [
    (
        "pyproject.toml",
        "[tool.poetry]\nname = \"openhands-ai\"\nversion = \"0.62.0\"\n",
    ),
    ("poetry.lock", "lock\n"),
    (
        "openhands/runtime/utils/runtime_templates/Dockerfile.j2",
        "FROM {{ base_image }}\n",
    ),
    ("openhands/__init__.py", "A = 1\n"),
    ("openhands/README.md", "# Read me\n"),
    ("openhands/.cache/x", "hidden\n"),
    ("skills/one.md", "# Skill\n"),
];

fn v1(directory: &Path, options: PresetOptions) -> AgentServerBuildConfig {
    let options = AgentServerOptions {
        preset: options,
        ..AgentServerOptions::default()
    };
    AgentServerBuildConfig::new(directory, options).unwrap()
}

fn v0(directory: &Path, options: PresetOptions) -> RuntimeBuildConfig {
    let options = RuntimeOptions {
        preset: options,
        ..RuntimeOptions::default()
    };
    RuntimeBuildConfig::new(directory, options).unwrap()
}

fn on(base: &str) -> PresetOptions {
    PresetOptions {
        base_image: Some(base.to_owned()),
        ..PresetOptions::default()
    }
}

/// Returns the paths of what an engine is sent.
fn sent(settings: &Settings) -> Vec<String> {
    let parts = settings.parts.as_ref().unwrap();
    let dockerfile = Dockerfile::Text(String::new());
    let cache = StatCache::disabled();
    let loaded = load_parts(&settings.project, parts, &dockerfile, &cache).unwrap();
    let entries = loaded.context.entries().iter();
    entries
        .map(|entry| String::from_utf8(entry.entry.path.clone()).unwrap())
        .collect()
}

#[test]
fn tags_are_those_of_the_reference() {
    let directory = checkout(&V1);
    let with = |change: fn(&mut PresetOptions)| {
        let mut options = on("ubuntu:22.04");
        change(&mut options);
        options
    };
    for (options, lock, suffix) in [
        (with(|_| {}), "ayo96luyqh37tqnf", ""),
        (with(|o| o.no_browser = true), "f6rp5k4h8fabahau", ""),
        (
            with(|o| o.target = Some("source".to_owned())),
            "ayo96luyqh37tqnf",
            "-dev",
        ),
        (
            with(|o| o.target = Some("source-minimal".to_owned())),
            "ayo96luyqh37tqnf",
            "-source-minimal",
        ),
    ] {
        let tags = v1(directory.path(), options).tags().unwrap();
        let source = format!("v1.0.0_{lock}_j02w4lbg2inwc3z6{suffix}");
        assert_eq!(tags.get(Level::Source).as_str(), source);
        let lock = format!("v1.0.0_{lock}{suffix}");
        assert_eq!(tags.get(Level::Lock).as_str(), lock);
        let versioned = format!("v1.0.0_ubuntu_tag_22.04{suffix}");
        assert_eq!(tags.get(Level::Versioned).as_str(), versioned);
    }
    let tags = v1(directory.path(), PresetOptions::default())
        .tags()
        .unwrap();
    assert_eq!(tags.get(Level::Lock).as_str(), "v1.0.0_8vsactwezaidebzy");

    // A workspace is hashed as a directory that holds its packages alone.
    let directory = checkout(&WORKSPACE);
    let tags = v1(directory.path(), on("debian:12")).tags().unwrap();
    assert_eq!(
        tags.get(Level::Source).as_str(),
        "v1.4.0_lcyi8ov5u8wzbf1l_eu6zzhtvxxmdu3ud"
    );

    let directory = checkout(&V0);
    for (no_browser, lock) in [(false, "21evmqvhdkg3422r"), (true, "r3inft4crr9p919i")] {
        let options = PresetOptions {
            no_browser,
            ..on("ubuntu:22.04")
        };
        let tags = v0(directory.path(), options).tags().unwrap();
        let source = format!("oh_v0.62.0_{lock}_av6nun6ke8mvmsqo");
        assert_eq!(tags.get(Level::Source).as_str(), source);
        assert_eq!(
            tags.get(Level::Versioned).as_str(),
            "oh_v0.62.0_ubuntu_t_22.04"
        );
    }
}

#[test]
fn an_agent_server_is_described_as_the_reference_does() {
    let directory = checkout(&V1);
    let root = directory.path().canonicalize().unwrap();
    let options = AgentServerOptions {
        preset: PresetOptions {
            repository: Some("ghcr.io/acme/agent-server".parse().unwrap()),
            other_tags: vec!["latest".parse().unwrap()],
            args: [("VERSION".to_owned(), "mine".to_owned())].into(),
            ..on("ubuntu:22.04")
        },
        variant: Some("golang".to_owned()),
        git: GitOverrides {
            sha: Some("0123456789abcdef".to_owned()),
            reference: Some("refs/heads/main".to_owned()),
        },
    };
    let config = AgentServerBuildConfig::new(&root.join("openhands"), options).unwrap();
    assert_eq!(config.root(), root);
    let document = config.to_json().unwrap();
    let lock = "v1.0.0_ayo96luyqh37tqnf";
    let tag = |tag: &str| format!("ghcr.io/acme/agent-server:{tag}");
    assert_eq!(
        document,
        json!({
            "base_image": "ubuntu:22.04",
            "variant": "golang",
            "target": "binary",
            "registry_prefix": "ghcr.io/acme/agent-server",
            "custom_tags": ["latest"],
            "build_context": root.display().to_string(),
            "dockerfile": root.join("openhands/agent_server/docker/Dockerfile"),
            "tags": [
                tag(&format!("{lock}_j02w4lbg2inwc3z6")),
                tag(lock),
                tag("v1.0.0_ubuntu_tag_22.04"),
                tag("latest"),
            ],
            "version": "1.0.0",
            "git_info": {
                "sha": "0123456789abcdef",
                "short_sha": "0123456",
                "ref": "refs/heads/main",
            },
        })
    );
    let settings = config.settings().unwrap();
    let recipe = settings.dockerfile.as_ref().unwrap();
    assert_eq!(recipe.target.as_deref(), Some("binary"));
    assert_eq!(recipe.args["VARIANT"], "golang");
    assert_eq!(recipe.args["VERSION"], "mine");

    let plain = v1(&root, PresetOptions::default()).to_json().unwrap();
    assert_eq!(plain["registry_prefix"], json!(null));
    assert_eq!(plain["tags"][1], "agent-server:v1.0.0_8vsactwezaidebzy");
}

#[test]
fn versions_are_found_where_the_reference_finds_them() {
    let installed = V1[5].0;
    let sdk = (
        "openhands/sdk/pyproject.toml",
        "[project]\nversion = '2.0.0'",
    );
    let own = ("pyproject.toml", "[project]\nversion = '3.0.0'");
    let directory = checkout(&V1);
    let version = || {
        let options = AgentServerOptions::default();
        AgentServerBuildConfig::new(directory.path(), options)
            .map(|config| config.version().to_owned())
    };
    write(directory.path(), &[sdk, own]);
    assert_eq!(version().unwrap(), "1.0.0");
    fs::remove_file(directory.path().join(installed)).unwrap();
    assert_eq!(version().unwrap(), "2.0.0");
    fs::remove_file(directory.path().join(sdk.0)).unwrap();
    assert_eq!(version().unwrap(), "3.0.0");
    write(directory.path(), &[("pyproject.toml", "")]);
    let error = version().unwrap_err();
    assert_eq!(error.to_string(), "the version of the SDK is not set");
    assert_eq!(error.hint().as_deref(), Some("pass `--version`"));

    // V0 reads lines, so that a table of another tool's may come first.
    let directory = checkout(&V0);
    let text = "[tool.x]\n version = '1.1'\n[tool.poetry]\nversion = \"0.62.0\"\n";
    write(directory.path(), &[("pyproject.toml", text)]);
    assert_eq!(
        v0(directory.path(), PresetOptions::default()).version(),
        "1.1"
    );
}

#[test]
fn what_is_sent_is_what_the_dockerfiles_copy_from() {
    let directory = checkout(&V1);
    let more = [
        ("openhands/agent_server/docker/Dockerfile", "FROM x\n"),
        ("openhands/.hidden", ""),
        ("openhands/notes.md", ""),
        (".git/HEAD", "ref: refs/heads/main\n"),
    ];
    write(directory.path(), &more);
    let settings = v1(directory.path(), PresetOptions::default())
        .settings()
        .unwrap();
    assert_eq!(
        sent(&settings),
        [
            "Dockerfile",
            "LICENSE",
            "README.md",
            "openhands",
            "openhands/a.py",
            "openhands/agent_server",
            "openhands/agent_server/docker",
            "openhands/agent_server/docker/Dockerfile",
            "pyproject.toml",
            "uv.lock",
        ]
    );

    let directory = checkout(&WORKSPACE);
    // A package looks like a checkout of the first layout, and is none.
    let package = directory.path().join("openhands-sdk/openhands/sdk");
    let settings = v1(&package, PresetOptions::default()).settings().unwrap();
    assert_eq!(settings.project, directory.path().canonicalize().unwrap());
    assert_eq!(
        settings.dockerfile.as_ref().unwrap().source,
        DockerfileSource::Path(
            "openhands-agent-server/openhands/agent_server/docker/Dockerfile".to_owned()
        )
    );
    let paths = sent(&settings);
    assert!(paths.contains(&"openhands-tools/openhands/tools/subagent.md".to_owned()));
    assert!(!paths.iter().any(|path| path.starts_with("tests")));

    let directory = checkout(&V0);
    let settings = v0(directory.path(), PresetOptions::default())
        .settings()
        .unwrap();
    assert_eq!(settings.scheme, Scheme::OpenHandsV0);
    assert_eq!(
        sent(&settings),
        [
            "code",
            "code/openhands",
            "code/openhands/__init__.py",
            "code/openhands/runtime",
            "code/openhands/runtime/utils",
            "code/openhands/runtime/utils/runtime_templates",
            "code/openhands/runtime/utils/runtime_templates/Dockerfile.j2",
            "code/poetry.lock",
            "code/pyproject.toml",
            "code/skills",
            "code/skills/one.md",
        ]
    );
}

#[test]
fn a_runtime_image_goes_where_the_reference_puts_it() {
    let directory = checkout(&V0);
    let repository = Some("ghcr.io/acme/runtime".to_owned());
    let config = |base: &str, runtime_repository: Option<String>| {
        let options = RuntimeOptions {
            preset: on(base),
            runtime_repository,
        };
        RuntimeBuildConfig::new(directory.path(), options).unwrap()
    };
    for (config, image) in [
        (
            config("ubuntu:22.04", None),
            "ghcr.io/openhands/runtime:oh_v0.62.0_image_ubuntu_tag_22.04",
        ),
        (
            config("ubuntu:22.04", repository.clone()),
            "ghcr.io/acme/runtime:oh_v0.62.0_image_ubuntu_tag_22.04",
        ),
        // A runtime image already.
        (
            config("ghcr.io/acme/runtime:custom", repository),
            "ghcr.io/acme/runtime:custom",
        ),
    ] {
        let document = config.to_json().unwrap();
        assert_eq!(document["runtime_image"], image);
        let (repository, _) = image.rsplit_once(':').unwrap();
        assert_eq!(document["runtime_image_repo"], repository);
        let settings = config.settings().unwrap();
        assert_eq!(settings.repository.unwrap().to_string(), repository);
    }
}

#[test]
fn lock_files_and_directories_have_to_be_there() {
    let directory = checkout(&V0);
    write(
        directory.path(),
        &[("openhands/poetry.lock", "installed\n")],
    );
    let settings = v0(directory.path(), PresetOptions::default())
        .settings()
        .unwrap();
    let expected = paths(&["pyproject.toml", "openhands/poetry.lock"]);
    assert_eq!(settings.lock_files.paths, expected);

    fs::remove_file(directory.path().join("openhands/poetry.lock")).unwrap();
    fs::remove_file(directory.path().join("poetry.lock")).unwrap();
    let error = RuntimeBuildConfig::new(directory.path(), RuntimeOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("lock file `"), "{error}");

    let directory = checkout(&V0);
    fs::rename(
        directory.path().join("skills"),
        directory.path().join("microagents"),
    )
    .unwrap();
    let older = v0(directory.path(), PresetOptions::default());
    assert!(sent(&older.settings().unwrap()).contains(&"code/microagents/one.md".to_owned()));
    fs::remove_dir_all(directory.path().join("microagents")).unwrap();
    let error = older.settings().unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn a_directory_in_no_checkout_is_refused() {
    let directory = checkout(&[("pyproject.toml", ""), ("openhands/a.py", "")]);
    let error = AgentServerBuildConfig::new(directory.path(), AgentServerOptions::default());
    let error = error.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is in no checkout of OpenHands SDK"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("`--sdk-root`"));
    let missing = directory.path().join("nothing");
    let error = RuntimeBuildConfig::new(&missing, RuntimeOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot open `{}`", missing.display())
    );
}

/// The files of a repository, and the commit and branch that they say.
type CommitCase<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn the_commit_is_read_from_gits_files() {
    const SHA: &str = "0123456789012345678901234567890123456789";
    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";
    let loose = format!("{SHA}\n");
    let packed =
        format!("# pack-refs with: peeled\n{OTHER} refs/heads/x\n^{SHA}\n{SHA} refs/heads/a/b\n");
    let table: [CommitCase<'_>; 9] = [
        (&[], "unknown", "unknown"),
        (&[(".git/HEAD", &loose)], SHA, "unknown"),
        (
            &[
                (".git/HEAD", "ref: refs/heads/main\n"),
                (".git/refs/heads/main", &loose),
            ],
            SHA,
            "main",
        ),
        (
            &[
                (".git/HEAD", "ref: refs/heads/a/b\n"),
                (".git/packed-refs", &packed),
            ],
            SHA,
            "a/b",
        ),
        // Nothing is committed yet.
        (
            &[(".git/HEAD", "ref: refs/heads/main\n")],
            "unknown",
            "main",
        ),
        // A second work tree.
        (
            &[
                (".git", "gitdir: repo/worktrees/w\n"),
                ("repo/worktrees/w/HEAD", "ref: refs/heads/main\n"),
                ("repo/worktrees/w/commondir", "../..\n"),
                ("repo/refs/heads/main", &loose),
            ],
            SHA,
            "main",
        ),
        // References that lead to each other, or out of the directory.
        (
            &[
                (".git/HEAD", "ref: refs/heads/main\n"),
                (".git/refs/heads/main", "ref: refs/heads/main\n"),
            ],
            "unknown",
            "main",
        ),
        (
            &[
                (".git/HEAD", "ref: refs/../../secret\n"),
                ("secret", &loose),
            ],
            "unknown",
            "refs/../../secret",
        ),
        (&[(".git/HEAD", "nonsense")], "unknown", "unknown"),
    ];
    for (files, sha, reference) in table {
        let directory = checkout(files);
        let inside = directory.path().join("a/b");
        fs::create_dir_all(&inside).unwrap();
        let info = GitInfo::load(&inside, GitOverrides::default());
        assert_eq!(
            (&*info.sha, &*info.reference),
            (sha, reference),
            "{files:?}"
        );
        assert_eq!(info.short_sha(), &sha[..7]);
        let overrides = GitOverrides {
            sha: Some("abc".to_owned()),
            reference: None,
        };
        let info = GitInfo::load(&inside, overrides);
        assert_eq!((&*info.sha, info.short_sha()), ("abc", "abc"));
        assert_eq!(info.reference, reference);
    }
}
