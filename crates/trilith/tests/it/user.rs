//! Named users: what is read of a base for them, what is written, and that engines know them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trilith_testkit::{
    Compression, Dockerd, FaultProxy, Format, ImageOptions, Podman, Project, Registry,
    RegistryOptions, assert_success, busybox_image, many_bases, push_image, stdout_of,
};

use crate::support::{Trilith, assert_complete, path, tag};

/// Of busybox's base, before anything is added.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nagent:x:10001:10001::/data:/bin/sh\n";
const GROUP: &str = "root:x:0:\nagent:x:10001:\n";
const USER: &str = "name = \"box\"\nuid = 20001\ngid = 20002\n";
const LINE: &str = "box:*:20001:20002::/home/box:/bin/sh\n";
const GROUP_LINE: &str = "box:*:20002:\n";

/// A project of one layer on `base` with `user`.
fn project(repository: &str, base: &str, user: &str) -> Project {
    let project = Project::python();
    project.write(
        "trilith.toml",
        format!(
            "[image]\nrepository = \"{repository}\"\nversion = \"1.0.0\"\nbase = \"{base}\"\n\
             platforms = [\"linux/amd64\"]\n[user]\n{user}\
             [[layer]]\nlevel = \"source\"\ncopy = \"app\"\nto = \"/opt/app\"\n"
        ),
    );
    project
}

/// A registry with busybox as `base:1`.
fn registry() -> (Registry, String) {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    (registry, base.reference)
}

/// Packs what is in a directory, made by `fill`, as the tar of a layer in `place`.
fn layer(place: &Path, name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let directory = place.join(name);
    fs::create_dir(&directory).unwrap();
    fill(&directory);
    let tar = place.join(format!("{name}.tar"));
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    assert_success(
        command
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&directory)
            .arg("."),
    );
    tar
}

fn etc(directory: &Path, files: &[(&str, &str)]) {
    fs::create_dir(directory.join("etc")).unwrap();
    for (name, text) in files {
        fs::write(directory.join("etc").join(name), text).unwrap();
    }
}

/// Returns what the lowest of the layers that were built holds at `path`.
fn content(registry: &Registry, built: &Value, path: &str) -> String {
    let digest = built["layers"][0]["digest"].as_str().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xzOf").arg(registry.blob_path(digest)).arg(path);
    let output = assert_success(&mut tar);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the members of the lowest of the layers that were built: mode, owner, path.
fn members(registry: &Registry, built: &Value) -> Vec<String> {
    let digest = built["layers"][0]["digest"].as_str().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-tvzf"]);
    let listing = stdout_of(tar.arg(registry.blob_path(digest)));
    let words = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {} {}", words[0], words[1], words[words.len() - 1])
    };
    listing.lines().map(words).collect()
}

#[test]
fn one_layer_holds_the_user() {
    let (registry, base) = registry();
    let repository = registry.reference("acme/app");
    let plain = Project::python();
    let one = project(&repository, &base, USER);
    let recipe = one.read("trilith.toml");
    plain.write(
        "trilith.toml",
        recipe.replace(&format!("[user]\n{USER}"), ""),
    );
    let without = Trilith::new().push(&plain);

    let trilith = Trilith::new();
    let image = without["reference"].as_str().unwrap();
    let why = trilith.json(&["explain", image, "--project", path(&one)]);
    let change = |change: &Value| {
        ["level", "change", "input"].map(|key| change[key].as_str().unwrap().to_owned())
    };
    let told: Vec<_> = why["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(change)
        .collect();
    let expected = [
        ["versioned", "added", "user"],
        ["source", "added", "config/user"],
    ];
    assert_eq!(told, expected);

    let built = trilith.push(&one);
    assert_eq!(
        content(&registry, &built, "etc/passwd"),
        format!("{PASSWD}{LINE}")
    );
    assert_eq!(
        content(&registry, &built, "etc/group"),
        format!("{GROUP}{GROUP_LINE}")
    );
    let expected = [
        "-rw-r--r-- 0/0 etc/group",
        "-rw-r--r-- 0/0 etc/passwd",
        "drwxr-xr-x 20001/20002 home/box/",
    ];
    assert_eq!(members(&registry, &built), expected);
    let layers = built["layers"].as_array().unwrap();
    assert_eq!(
        (layers.len(), &layers[0]["level"]),
        (2, &"versioned".into())
    );
    assert_eq!(layers[1]["digest"], without["layers"][0]["digest"]);
    let reference = built["reference"].as_str().unwrap();
    assert_eq!(
        trilith.json(&["inspect", reference])["config"]["user"],
        "20001:20002"
    );
    assert_complete(&registry, "acme/app");

    // It is the same on another machine, found again, and stays when the source changes.
    let again = Trilith::new();
    let flags = ["build", "--push", "--force", "--project", path(&one)];
    assert_eq!(again.json(&flags)["digest"], built["digest"]);
    assert_eq!(again.push(&one)["action"], "reuse");
    one.write("app/main.py", "print('newer')\n");
    let newer = trilith.push(&one);
    let layer = &newer["layers"][0];
    assert_eq!(layer["digest"], built["layers"][0]["digest"]);
    assert_eq!(layer["reused"], true);
    assert_eq!(newer["tags"].as_array().unwrap().len(), 1);

    // No other user shares a tag with it, and `[config]` goes over it.
    let tags = |project: &Project| {
        let tags = trilith.json(&["tags", "--project", path(project)]);
        ["source", "lock", "versioned"].map(|level| tags[level].as_str().unwrap().to_owned())
    };
    let own = tags(&one);
    for other in [
        "name = \"bax\"\nuid = 20001\ngid = 20002\nhome = \"/home/box\"\n",
        "name = \"box\"\nuid = 20001\n",
        "name = \"box\"\nuid = 20001\ngid = 20002\nhome = \"/data\"\n",
        "name = \"box\"\nuid = 20001\ngid = 20002\nshell = \"/bin/ash\"\n",
    ] {
        let other = tags(&project(&repository, &base, other));
        assert!(own.iter().all(|tag| !other.contains(tag)), "{other:?}");
    }
    let named = trilith.json(&["build", "--push", "--user", "box", "--project", path(&one)]);
    assert_eq!(named["layers"][0]["digest"], built["layers"][0]["digest"]);
    let named = trilith.json(&["inspect", named["reference"].as_str().unwrap()]);
    assert_eq!(named["config"]["user"], "box");
}

#[test]
fn no_more_of_a_base_is_read_than_is_needed() {
    const LARGE: u64 = 64 << 20;
    let registry = Registry::start(RegistryOptions::default());
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let large = |path: PathBuf| fs::File::create(path).unwrap().set_len(LARGE).unwrap();
    let layers = [
        layer(place, "lowest", |directory| {
            etc(
                directory,
                &[("passwd", "old:x:20001:1::/:\n"), ("group", "")],
            );
        }),
        layer(place, "middle", |directory| {
            etc(directory, &[("passwd", PASSWD), ("group", GROUP)]);
            large(directory.join("usr"));
        }),
        layer(place, "top", |directory| {
            etc(directory, &[("motd", "hello\n")]);
        }),
    ];
    let options = ImageOptions {
        compression: Compression::None,
        ..ImageOptions::default()
    };
    push_image(&registry, "base:1", &layers, &options);
    let proxy = FaultProxy::start(registry.host());
    let base = proxy.reference("base:1");
    let manifest = registry.manifest("base", "1").unwrap().json();
    let digests = [0, 1, 2].map(|at| {
        manifest["layers"][at]["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    let read = |digest: &str| {
        let requests = proxy.requests();
        let reading = requests
            .iter()
            .filter(|r| r.method == "GET" && r.path.contains(digest));
        reading
            .map(|request| request.received)
            .collect::<Vec<u64>>()
    };

    let project = project(&proxy.reference("acme/app"), &base, USER);
    let trilith = Trilith::new();
    let built = trilith.push(&project);
    assert_eq!(
        content(&registry, &built, "etc/passwd"),
        format!("{PASSWD}{LINE}")
    );
    let [lowest, middle, top] = digests.each_ref().map(|digest| read(digest));
    assert_eq!((lowest.len(), middle.len(), top.len()), (0, 1, 1));
    // What was on its way when the connection ended counts too.
    assert!(middle[0] < LARGE / 4, "{} bytes were read", middle[0]);

    // Of another base on top of it that layer is known to have nothing.
    let more = [&layers[..], &[layer(place, "more", |_| ())]].concat();
    push_image(&registry, "base:2", &more, &options);
    proxy.forget_requests();
    let base = proxy.reference("base:2");
    let flags = [
        "build",
        "--push",
        "--project",
        path(&project),
        "--base-image",
        &base,
    ];
    trilith.json(&flags);
    let times = digests.each_ref().map(|digest| read(digest).len());
    assert_eq!(times, [0, 1, 0]);

    // Neither for another build on it, nor where the layers are in the store.
    proxy.forget_requests();
    let flags = ["build", "--push", "--force", "--project", path(&project)];
    assert_eq!(trilith.json(&flags)["digest"], built["digest"]);
    let other = Trilith::new();
    other.json(&["build", "--project", path(&project)]);
    proxy.forget_requests();
    let recipe = project.read("trilith.toml");
    project.write("trilith.toml", recipe.replace("20001", "20003"));
    other.json(&["build", "--project", path(&project)]);
    assert!(digests.iter().all(|digest| read(digest).is_empty()));
}

#[test]
fn bases_without_users_and_with_odd_ones() {
    let registry = Registry::start(RegistryOptions::default());
    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let trilith = Trilith::new();
    let root = format!("root:*:0:0:root:/root:/bin/sh\n{LINE}");
    let root_group = format!("root:*:0:\n{GROUP_LINE}");
    let repository = registry.reference("acme/app");
    let files = |base: &str| {
        let built = trilith.push(&project(&repository, base, USER));
        ["etc/passwd", "etc/group"].map(|path| content(&registry, &built, path))
    };
    assert_eq!(files("scratch"), [root.clone(), root_group.clone()]);

    let etc_of = |name: &str, files: &[(&str, &str)]| layer(place, name, |at| etc(at, files));
    let odd = "# users\r\nroot:x:0:0::/root:/bin/sh\r\n\nodd line";
    let both = etc_of("both", &[("passwd", odd), ("group", GROUP)]);
    let hiding = etc_of("hiding", &[(".wh.passwd", "")]);
    let opaque = etc_of("opaque", &[(".wh..wh..opq", ""), ("group", "g:x:1:\n")]);
    for (name, layers, options, expected) in [
        (
            "base:odd",
            vec![both.clone()],
            Compression::Zstd,
            [format!("{odd}\n{LINE}"), format!("{GROUP}{GROUP_LINE}")],
        ),
        (
            "base:hidden",
            vec![both.clone(), hiding],
            Compression::Gzip,
            [root.clone(), format!("{GROUP}{GROUP_LINE}")],
        ),
        (
            "base:opaque",
            vec![both, opaque],
            Compression::None,
            [root, format!("g:x:1:\n{GROUP_LINE}")],
        ),
    ] {
        let options = ImageOptions {
            compression: options,
            ..ImageOptions::default()
        };
        let base = push_image(&registry, name, &layers, &options);
        assert_eq!(files(&base.reference), expected, "{name}");
    }

    // Modes stay, and every platform has its own layer.
    let strict = layer(place, "strict", |directory| {
        use std::os::unix::fs::PermissionsExt as _;
        etc(directory, &[("passwd", PASSWD), ("group", GROUP)]);
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(directory.join("etc/passwd"), mode).unwrap();
    });
    let several = ImageOptions::multi_platform(Format::DockerV2s2);
    let base = push_image(&registry, "base:several", &[strict], &several);
    let project = project(&repository, &base.reference, USER);
    let platforms = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    let flags = ["build", "--push", "--project", path(&project)];
    let built = trilith.json(&[&flags[..], &platforms].concat());
    assert_eq!(members(&registry, &built)[1], "-rw-r----- 0/0 etc/passwd");
    assert_complete(&registry, "acme/app");
}

#[test]
fn what_is_taken_is_left_alone_or_refused() {
    let (registry, base) = registry();
    let trilith = Trilith::new();
    let repository = registry.reference("acme/app");
    // The base has it: nothing changes.
    let same = project(&repository, &base, "name = \"agent\"\nuid = 10001\n");
    let built = trilith.push(&same);
    assert!(members(&registry, &built).is_empty());
    let inspected = trilith.json(&["inspect", built["reference"].as_str().unwrap()]);
    assert_eq!(inspected["config"]["user"], "10001:10001");
    let before = registry.tags("acme/app");

    let place = tempfile::tempdir().unwrap();
    let place = place.path();
    let linked = layer(place, "linked", |directory| {
        etc(directory, &[]);
        std::os::unix::fs::symlink("../data/passwd", directory.join("etc/passwd")).unwrap();
    });
    let elsewhere = layer(place, "elsewhere", |directory| {
        std::os::unix::fs::symlink("usr/etc", directory.join("etc")).unwrap();
    });
    let huge = layer(place, "huge", |directory| {
        etc(directory, &[]);
        let file = fs::File::create(directory.join("etc/group")).unwrap();
        file.set_len((4 << 20) + 1).unwrap();
    });
    let options = ImageOptions::default();
    let push = |name: &str, layer| push_image(&registry, name, &[layer], &options).reference;
    let linked = push("base:linked", linked);
    let elsewhere = push("base:elsewhere", elsewhere);
    let huge = push("base:huge", huge);
    for (base, user, reason) in [
        (
            &base,
            "name = \"agent\"\nuid = 20001\n",
            "the name `agent` is taken by line 2 of `/etc/passwd`: `agent:x:10001:10001::/data:/bin/sh`",
        ),
        (
            &base,
            "name = \"agent\"\nuid = 10001\ngid = 0\n",
            "the name `agent` is taken by line 2 of `/etc/passwd`",
        ),
        (
            &base,
            "name = \"box\"\nuid = 10001\n",
            "user ID 10001 is taken by line 2 of `/etc/passwd`",
        ),
        (&linked, USER, "it is a symbolic link to `../data/passwd`"),
        (&elsewhere, USER, "it is a symbolic link to `usr/etc`"),
        (&huge, USER, "it has 4194305 bytes, more than 4194304"),
    ] {
        let project = project(&repository, base, user);
        let error = trilith.error(2, &["build", "--push", "--project", path(&project)]);
        assert!(
            error.contains(reason) && error.contains("hint: "),
            "{error}"
        );
    }
    // An engine's images have the users that their steps make.
    same.write("Dockerfile", "FROM scratch\nCOPY app /app\n");
    let flags = ["build", "--project", path(&same)];
    let error = trilith.error(2, &[&flags[..], &["--dockerfile", "Dockerfile"]].concat());
    assert!(
        error.contains("into whose images no user is put"),
        "{error}"
    );
    assert_eq!(registry.tags("acme/app"), before);
}

#[test]
fn a_batch_reads_every_base_and_shares_its_layers() {
    let (registry, base) = registry();
    let names = many_bases(&registry, ("base", "1"), "eval", 3);
    let place = tempfile::tempdir().unwrap();
    let taken = layer(place.path(), "taken", |directory| {
        etc(
            directory,
            &[("passwd", "other:x:20001:1::/:\n"), ("group", "")],
        );
    });
    push_image(
        &registry,
        "eval/taken:1",
        &[taken],
        &ImageOptions::default(),
    );
    let project = project(&registry.reference("acme/app"), &base, USER);
    let trilith = Trilith::new();
    let list = trilith.home().join("bases.txt");
    let all = names.iter().map(String::as_str).chain(["eval/taken:1"]);
    let lines: String = all.map(|name| registry.reference(name) + "\n").collect();
    fs::write(&list, lines).unwrap();
    registry.forget_requests();
    let mut command = trilith.command();
    command.args([
        "batch",
        "--push",
        "--format",
        "json",
        "--project",
        path(&project),
    ]);
    let output = trilith_testkit::run(command.arg("--bases").arg(&list));
    assert_eq!(output.status.code(), Some(3));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["built"], &summary["failed"]),
        (&3.into(), &1.into())
    );
    assert!(
        summary
            .to_string()
            .contains("user ID 20001 is taken by line 1"),
        "{summary}"
    );
    let single = trilith.json(&["build", "--project", path(&project)]);
    for layer in single["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let requests = registry.requests();
        let puts = requests.iter().filter(|request| {
            request.method == "PUT" && request.path.ends_with(digest.trim_start_matches("sha256:"))
        });
        assert_eq!(puts.count(), 1, "{digest}");
    }
}

#[test]
fn a_rebase_makes_the_user_of_the_new_base() {
    let (registry, base) = registry();
    let place = tempfile::tempdir().unwrap();
    let patched = format!("{PASSWD}new:x:1:1::/:\n");
    let new = layer(place.path(), "new", |directory| {
        etc(directory, &[("passwd", &patched), ("group", GROUP)]);
    });
    let taken = layer(place.path(), "taken", |directory| {
        etc(
            directory,
            &[("passwd", "other:x:20001:1::/:\n"), ("group", "")],
        );
    });
    let options = ImageOptions::default();
    let new = push_image(&registry, "base:2", &[new], &options).reference;
    let taken = push_image(&registry, "base:3", &[taken], &options).reference;
    let project = project(&registry.reference("acme/app"), &base, USER);
    let trilith = Trilith::new();
    for compression in ["gzip", "zstd", "none"] {
        let flags = ["--compression", compression, "--project", path(&project)];
        let build = |flags: &[&str], base: &str| {
            let base = ["build", "--push", "--force", "--base-image", base];
            trilith.json(&[&base[..], flags].concat())
        };
        let image = build(&flags, &base);
        let image = image["reference"].as_str().unwrap();
        let rebase = ["rebase", image, "--tag", "rebased", "--new-base"];
        // A machine that has neither the project nor its layers.
        let stranger = Trilith::new();
        let report = stranger.json(&[&rebase[..], &[&new]].concat());
        assert_eq!(report["layers"], 1);
        assert_complete(&registry, "acme/app");
        let expected = build(&flags, &new);
        assert_eq!(expected["digest"], report["digest"]);
        if compression == "gzip" {
            let passwd = content(&registry, &expected, "etc/passwd");
            assert_eq!(passwd, format!("{patched}{LINE}"));
            let error = stranger.error(2, &[&rebase[..], &[&taken]].concat());
            assert!(error.contains("user ID 20001 is taken"), "{error}");
        }
        assert_eq!(tag(&report["reference"]), "rebased");
    }
}

/// What a user is asked for, and has to answer.
const QUESTION: &str =
    "id -un && id -gn && whoami && echo $HOME && touch ~/file && stat -c %U ~/file";
const ANSWER: &str = "box\nbox\nbox\n/home/box\nbox";

#[test]
fn engines_know_it_by_name() {
    let (registry, base) = registry();
    let project = project(&registry.reference("acme/app"), &base, USER);
    let built = Trilith::new().push(&project);
    let reference = built["reference"].as_str().unwrap();
    let docker = Dockerd::start();
    let mut command = docker.docker();
    command.args(["run", "--rm", "--network", "none", reference, "sh", "-c"]);
    assert_eq!(stdout_of(command.arg(QUESTION)), ANSWER);
    let podman = Podman::new();
    podman.pull(reference);
    assert_eq!(podman.run(reference, &["sh", "-c", QUESTION]), ANSWER);
}
