//! Bad input: a clear error or documented handling, and nothing half-written.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use trilith_testkit::{ImageOptions, Project, Registry, RegistryOptions, busybox_image, stdout_of};

use crate::support::{Trilith, lowest_layer, path, project, recipe};

/// A project that is built into the local store on an empty base.
fn local() -> Project {
    let project = Project::python();
    project.write("vendor/x", "1");
    project.write("trilith.toml", recipe("localhost:1/acme/app", "scratch"));
    project
}

fn build(project: &Project) -> [&str; 3] {
    ["build", "--project", path(project)]
}

#[test]
fn a_project_file_with_mistakes() {
    let trilith = Trilith::new();
    let project = local();
    let good = project.read("trilith.toml");
    for (from, to, expected) in [
        ("entrypoint", "entrypont", "did you mean `entrypoint`"),
        ("[image]", "[imago]", "did you mean `image`"),
        ("[image]", "[image", "trilith.toml"),
        ("to = \"/opt/app\"", "to = \"/opt/../app\"", "`..`"),
        ("to = \"/opt/app\"", "to = \"opt/app\"", "absolute"),
        ("copy = \"app\"", "copy = \"../app\"", "`..`"),
        ("10001:10001", "somebody", "numeric owner"),
        ("linux/amd64", "linux", "not a platform"),
    ] {
        project.write("trilith.toml", good.replacen(from, to, 1));
        let error = trilith.error(2, &build(&project));
        assert!(error.contains(expected), "{to}: {error}");
        assert!(error.contains("trilith.toml"), "{to}: {error}");
    }
    assert!(!trilith.store().exists());
}

#[test]
fn payloads_that_cannot_be_read() {
    let trilith = Trilith::new();
    let project = local();
    project.remove("vendor");
    let error = trilith.error(1, &build(&project));
    assert!(
        error.contains("layer payload") && error.contains("vendor"),
        "{error}"
    );

    project.write("vendor/x", "1");
    let fifo = project.path().join("app/pipe");
    stdout_of(std::process::Command::new("mkfifo").arg(&fifo));
    let error = trilith.error(1, &build(&project));
    assert!(
        error.contains("app/pipe") && error.contains("ignore"),
        "{error}"
    );
    project.remove("app/pipe");

    // Root reads everything, so somebody else has to try.
    project.write("app/secret", "x");
    project.set_mode("app/secret", 0o000);
    stdout_of(std::process::Command::new("chmod").args(["0755", path(&project)]));
    let home = tempfile::tempdir().unwrap();
    stdout_of(
        std::process::Command::new("chmod")
            .arg("0777")
            .arg(home.path()),
    );
    let output = trilith_testkit::run(
        std::process::Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_trilith"))
            .args(build(&project))
            .env("HOME", home.path()),
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("app/secret") && error.contains("ermission denied"),
        "{error}"
    );
}

#[test]
fn names_and_links_are_kept_as_they_are() {
    let trilith = Trilith::new();
    let project = local();
    let odd = std::ffi::OsStr::from_bytes(b"app/caf\xe9");
    std::fs::write(project.path().join(odd), "x").unwrap();
    symlink("/etc/passwd", project.path().join("app/absolute")).unwrap();
    symlink("../../../outside", project.path().join("app/outside")).unwrap();
    let out = format!("oci:{}/out:app", path(&project));
    trilith.json(&["build", "--project", path(&project), "--output", &out]);
    let rootfs = project.path().join("rootfs");
    trilith.json(&["copy", &out, &format!("dir:{}", rootfs.display())]);
    assert!(rootfs.join("opt").join(odd).exists());
    let link = std::fs::read_link(rootfs.join("opt/app/outside")).unwrap();
    assert_eq!(link, std::path::Path::new("../../../outside"));
    // The openhands schemes cannot name such a file, as Python cannot.
    let error = trilith.error(1, &["hash", path(&project), "--scheme", "openhands-v1"]);
    assert!(error.contains("UTF-8"), "{error}");
}

#[test]
fn a_sparse_file_of_five_gigabytes() {
    let trilith = Trilith::new();
    let project = local();
    let file = std::fs::File::create(project.path().join("app/sparse")).unwrap();
    file.set_len(5_000_000_000).unwrap();
    let built = trilith.json(&[
        "build",
        "--project",
        path(&project),
        "--compression",
        "zstd",
    ]);
    let layer = &built["layers"][1];
    assert!(layer["size"].as_u64().unwrap() < 5_000_000, "{layer}");
}

#[test]
fn bases_that_will_not_do() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let push = ["build", "--push", "--project", path(&project)];

    let error = trilith.error(1, &[&push[..], &["--platform", "linux/s390x"]].concat());
    assert!(
        error.contains("no image for linux/s390x") && error.contains("linux/amd64"),
        "{error}"
    );

    let missing = registry.reference("base:none");
    let error = trilith.error(1, &[&push[..], &["--base-image", &missing]].concat());
    assert!(
        error.contains("base:none") && error.contains("does not exist"),
        "{error}"
    );

    for odd in [
        "",
        "https://debian",
        "debian:",
        "debian@sha256:00",
        "debian/UPPER",
    ] {
        let error = trilith.error(2, &[&push[..], &["--base-image", odd]].concat());
        assert!(error.contains("base image"), "{odd}: {error}");
    }
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
}

#[test]
fn a_base_whose_blobs_are_damaged() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let digest = lowest_layer(&registry, "base", &base.digest);
    let layer = registry.blob_path(&digest);
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    // The local store takes the base's blobs, and takes none that is not what its digest says.
    let error = trilith.error(1, &build(&project));
    assert!(error.contains(&digest), "{error}");
    let plan = trilith.json(&["build", "--dry-run", "--project", path(&project)]);
    assert_eq!(plan["existence"]["source"], "absent");
}

#[test]
fn a_store_whose_blobs_are_damaged() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let built = trilith.json(&build(&project));
    let digest = built["layers"][1]["digest"].as_str().unwrap();
    let blob = trilith.store().join("blobs").join(digest.replace(':', "/"));
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let error = trilith.error(1, &["build", "--push", "--project", path(&project)]);
    assert!(error.contains(digest), "{error}");
    assert_eq!(registry.tags("acme/app"), Vec::<String>::new());
}

#[test]
fn a_store_that_is_full() {
    let project = local();
    project.write(
        "app/noise",
        (0..3_000_000_u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<u8>>(),
    );
    let dir = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        stdout_of(
            std::process::Command::new(arguments[0])
                .args(&arguments[1..])
                .arg(dir.path()),
        );
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    let trilith = Trilith::new();
    let store = dir.path().to_str().unwrap();
    let output = trilith.run(&["build", "--store", store, "--project", path(&project)]);
    let left = std::fs::read_dir(dir.path().join("blobs/sha256")).map_or(0, Iterator::count);
    mount(&["umount"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("No space left on device") && error.contains(store),
        "{error}"
    );
    assert!(left <= 1, "{left} blobs are left");
}

#[test]
fn commands_without_what_they_need() {
    let trilith = Trilith::new();
    let project = Project::empty();
    let error = trilith.error(
        2,
        &[
            "tags",
            "--project",
            path(&project),
            "--base-image",
            "scratch",
        ],
    );
    assert!(
        error.contains("version") && error.contains("hint: "),
        "{error}"
    );
    let error = trilith.error(2, &["tags", "--project", path(&project), "--version", "1"]);
    assert!(
        error.contains("base image is not set") && error.contains("--base-image"),
        "{error}"
    );
    let error = trilith.error(1, &["tags", "--project", "/nowhere"]);
    assert!(error.contains("/nowhere"), "{error}");
    project.write("trilith.toml", "[image]\nbase = \"scratch\"\nversion = \"1\"\nrepository = \"a/b\"\n[dockerfile]\npath = \"Dockerfile\"\n");
    project.write("Dockerfile", "FROM scratch\n");
    let mut graft = build(&project).to_vec();
    graft.extend(["--builder", "graft"]);
    let error = trilith.error(2, &graft);
    assert!(
        error.contains("Dockerfile") && error.contains("[[layer]]"),
        "{error}"
    );
}

#[test]
fn a_layer_that_would_hide_a_link_of_the_base() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    let good = project.read("trilith.toml");
    project.write("app/lib/x", "1");
    for (to, warned) in [
        ("/bin/tool", true),
        ("/", true),
        ("/usr/bin/tool", false),
        ("/opt/bin", false),
    ] {
        project.write(
            "trilith.toml",
            good.replace("to = \"/opt/app\"", &format!("to = \"{to}\"")),
        );
        let output = trilith.run(&["plan", "--project", path(&project)]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        assert_eq!(told.contains("would be hidden"), warned, "{to}: {told}");
    }
}
