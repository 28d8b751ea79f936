//! Docker's own client and both of its builders see the same files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use trilith_build::build_context::Dockerfile;
use trilith_oci::layer::Compression;
use trilith_testkit::{Dockerd, assert_success, stdout_of};

use crate::support::{Member, lay_out, load_with, members};

/// What was copied, by path: kind and content or target.
type Copied = BTreeMap<String, (tar::EntryType, Vec<u8>)>;

fn copied(archive: &Path) -> Copied {
    let mut seen = Copied::new();
    let bytes = fs::read(archive).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry
            .path()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_matches('/')
            .to_owned();
        let Some(path) = path.strip_prefix("context/").map(str::to_owned) else {
            continue;
        };
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let mut content = link.unwrap_or_default();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        seen.insert(path, (entry.header().entry_type(), content));
    }
    seen
}

/// Builds with the classic builder from what `build` sends, and returns what was copied.
fn classic(dockerd: &Dockerd, build: &mut Command, scratch: &Path) -> Copied {
    let image = stdout_of(build).trim().to_owned();
    let container = stdout_of(dockerd.docker().args(["create", &image, "none"]));
    let archive = scratch.join("classic.tar");
    let mut export = dockerd.docker();
    export
        .arg("export")
        .arg("--output")
        .arg(&archive)
        .arg(container.trim());
    assert_success(&mut export);
    copied(&archive)
}

#[test]
fn the_same_files_as_with_dockers_client() {
    let dockerd = Dockerd::start();
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("context");
    lay_out(
        &root,
        &[
            ("Dockerfile", "FROM scratch\nCOPY . /context/\n"),
            ("deploy/Dockerfile", "FROM scratch\nCOPY . /context/\n"),
            ("a/b/c.md", "c"),
            ("a/b/d.txt", "d"),
            ("a/x.md", "x"),
            ("empty/", ""),
            ("node_modules/m/index.js", "m"),
            ("src/main.py", "main"),
            ("src/__pycache__/main.pyc", "pyc"),
            ("z .txt", "space"),
        ],
    );
    symlink("src/main.py", root.join("link")).unwrap();
    // No `*` with `!**/x`: this old a Docker looks into directories that are left out only if a
    // `!` pattern starts with their name. Newer ones do look.
    for dockerfile in ["Dockerfile", "deploy/Dockerfile"] {
        for ignore in [
            "",
            "# nothing but a comment\n\n",
            "**/*.md\n!a/x.md\n",
            "/a/\n!a/b/d.txt\n  src/*\n!src/main.py\n",
            "*\n!src\nsrc/__pycache__",
            "Dockerfile\n.dockerignore\nnode_modules\ndeploy",
            "**/Dockerfile\n?ink\n[e]mpty\nz .txt",
            "a/*\nempty/**\n**/m",
        ] {
            fs::write(root.join(".dockerignore"), ignore).unwrap();
            let file = root.join(dockerfile);
            let context = load_with(&root, &Dockerfile::File(file.clone())).unwrap();
            let ours = scratch.path().join("ours.tar");
            context.write_file(Compression::None, &ours).unwrap();

            let mut theirs = dockerd.docker();
            theirs
                .args(["build", "--quiet", "--file"])
                .arg(&file)
                .arg(&root);
            let expected = classic(&dockerd, &mut theirs, scratch.path());

            // The archive, as the classic builder takes it.
            let name = std::str::from_utf8(context.dockerfile()).unwrap();
            let mut build = dockerd.docker();
            build.args(["build", "--quiet", "--no-cache", "--file", name, "-"]);
            let seen = from_archive(&dockerd, &build, &ours, scratch.path());
            assert_eq!(seen, expected, "{dockerfile} {ignore:?}");

            // What instructions see, as BuildKit has it.
            let output = scratch.path().join("buildkit.tar");
            let mut buildkit = dockerd.docker();
            buildkit
                .env("DOCKER_BUILDKIT", "1")
                .args(["build", "--quiet", "--file"])
                .arg(&file)
                .arg("--output")
                .arg(format!("type=tar,dest={}", output.display()))
                .arg(&root);
            assert_success(&mut buildkit);
            let visible = members(&fs::read(&ours).unwrap());
            let visible = context.entries().iter().map(|entry| {
                let path = std::str::from_utf8(&entry.entry.path).unwrap().to_owned();
                let Member { kind, content, .. } = visible[&path].clone();
                (path, (kind, content))
            });
            assert_eq!(
                visible.collect::<Copied>(),
                copied(&output),
                "{dockerfile} {ignore:?}"
            );
        }
    }
}

/// Runs the build `command` with an archive as its input.
fn from_archive(dockerd: &Dockerd, command: &Command, archive: &Path, scratch: &Path) -> Copied {
    // Through a shell, since the input has to come from the file.
    let mut line = Command::new("sh");
    line.arg("-c")
        .arg("archive=$1; shift; exec \"$@\" < \"$archive\"")
        .arg("sh")
        .arg(archive);
    line.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => line.env(name, value),
            None => line.env_remove(name),
        };
    }
    classic(dockerd, &mut line, scratch)
}
