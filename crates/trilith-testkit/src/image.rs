//! Base images, made without Trilith: by Python's own tar and gzip, `zstd`, umoci and mmdebstrap, pushed by skopeo.
//!
//! The small ones hold busybox and come in every format; the large one is a real Debian.
//! Their configs carry fields that Trilith does not know, which have to survive.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::cached;
use crate::command::{assert_success, skopeo, stdout_of, umoci};
use crate::registry::Registry;

/// The family of media types an image uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OCI image specification 1.x.
    Oci,
    /// Docker's image manifest version 2, schema 2.
    DockerV2s2,
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard; there is none in [`Format::DockerV2s2`].
    Zstd,
}

/// What an image looks like; the default is a single OCI image for `linux/amd64` with gzip layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// Media types.
    pub format: Format,
    /// Compression of every layer.
    pub compression: Compression,
    /// Platforms, as in `linux/arm64/v8`. More than one need an index. All have the same files, those for `amd64`.
    pub platforms: Vec<String>,
    /// Whether the tag points to an index (or a manifest list) instead of a manifest.
    pub index: bool,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            format: Format::Oci,
            compression: Compression::Gzip,
            platforms: vec!["linux/amd64".to_owned()],
            index: false,
        }
    }
}

impl ImageOptions {
    /// Returns the options of an index for `linux/amd64` and `linux/arm64`.
    #[must_use]
    pub fn multi_platform(format: Format) -> Self {
        Self {
            format,
            platforms: vec!["linux/amd64".to_owned(), "linux/arm64/v8".to_owned()],
            index: true,
            ..Self::default()
        }
    }
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedImage {
    /// Its reference with its tag, as in `127.0.0.1:5000/base:1`.
    pub reference: String,
    /// Digest of what the tag points to.
    pub digest: String,
}

/// Fills `dir`, which is created, with a small root file system: busybox with all its applets.
pub fn busybox_rootfs(dir: &Path) {
    for (name, mode) in [
        ("bin", 0o755),
        ("data", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
    ] {
        let path = dir.join(name);
        fs::create_dir_all(&path).expect("cannot create a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("cannot set a mode");
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("cannot copy `/bin/busybox`");
    for applet in stdout_of(Command::new("/bin/busybox").arg("--list")).lines() {
        if applet != "busybox" {
            symlink("busybox", dir.join("bin").join(applet)).expect("cannot create a symlink");
        }
    }
    for (name, content) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nagent:x:10001:10001::/data:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\nagent:x:10001:\n"),
        ("etc/motd", "welcome\n"),
        ("etc/removed", "the second layer removes this\n"),
    ] {
        fs::write(dir.join(name), content).expect("cannot write a file");
    }
}

/// Pushes a busybox image to `name` (`base:1`) on `registry`.
///
/// It has two layers; the second changes `etc/motd` and removes `etc/removed`.
///
/// # Panics
/// When the image cannot be made, for instance because [`Format::DockerV2s2`] has no zstd.
pub fn busybox_image(registry: &Registry, name: &str, options: &ImageOptions) -> PushedImage {
    let changes = cached("busybox-changes.tar", |path| {
        let dir = temporary_dir();
        fs::create_dir(dir.path().join("etc")).expect("cannot create a directory");
        fs::write(dir.path().join("etc/motd"), "welcome back\n").expect("cannot write a file");
        tar(dir.path(), path, &["etc/removed"]);
    });
    push_image(registry, name, &[busybox_layer(), changes], options)
}

/// Pushes an image of busybox and this machine's git, with what git needs, to `name` on `registry`.
///
/// # Panics
/// When git is not installed.
pub fn git_image(registry: &Registry, name: &str) -> PushedImage {
    const GIT: &str = "/usr/bin/git";
    let git = cached("git.tar", |path| {
        let dir = temporary_dir();
        let libraries = stdout_of(Command::new("ldd").arg(GIT));
        let libraries = libraries.split_whitespace();
        for file in libraries.filter(|word| word.starts_with('/')).chain([GIT]) {
            let copy = dir.path().join(file.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().expect("a file is in a directory"))
                .expect("cannot create a directory");
            fs::copy(file, copy).expect("cannot copy a file of git");
        }
        tar(dir.path(), path, &[]);
    });
    let layers = [busybox_layer(), git];
    push_image(registry, name, &layers, &ImageOptions::default())
}

fn busybox_layer() -> PathBuf {
    cached("busybox.tar", |path| {
        let dir = temporary_dir();
        busybox_rootfs(dir.path());
        tar(dir.path(), path, &[]);
    })
}

/// Makes `count` images of an OCI image `repository:tag` on `registry`: the same layers, each in a repository of its
/// own, `PREFIX/b0` and so on, with its number as the label `base`. Returns their names without
/// the registry.
///
/// # Panics
/// When the image is not there.
pub fn many_bases(
    registry: &Registry,
    (repository, tag): (&str, &str),
    prefix: &str,
    count: usize,
) -> Vec<String> {
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("bases.py"), registry.host()]);
    python.args([repository, tag, prefix, &count.to_string()]);
    stdout_of(&mut python);
    let names = (0..count).map(|number| format!("{prefix}/b{number}:latest"));
    names.collect()
}

/// Pushes an image made of `layers` (tar files) to `name` on `registry`.
///
/// # Panics
/// When the image cannot be made or pushed.
pub fn push_image(
    registry: &Registry,
    name: &str,
    layers: &[PathBuf],
    options: &ImageOptions,
) -> PushedImage {
    let dir = temporary_dir();
    let image = dir.path().join("image");
    let spec = serde_json::json!({
        "layers": layers,
        "format": match options.format {
            Format::Oci => "oci",
            Format::DockerV2s2 => "docker",
        },
        "compression": match options.compression {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        },
        "platforms": options.platforms,
        "index": options.index,
    });
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("image.py")]).arg(&image);
    let digest = stdout_of(python.arg(spec.to_string()));
    push(registry, name, &format!("dir:{}", image.display()));
    PushedImage {
        reference: registry.reference(name),
        digest,
    }
}

/// Returns a tar file with a real Debian root file system: `minbase` of bookworm, with `python3-minimal` if wanted.
///
/// Made by mmdebstrap once per target directory, in about 20 seconds.
#[must_use]
pub fn debian_rootfs(with_python: bool) -> PathBuf {
    let name = if with_python {
        "debian-python.tar"
    } else {
        "debian.tar"
    };
    cached(name, |path| {
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--format=tar", "--variant=minbase"]);
        if with_python {
            command.arg("--include=python3-minimal");
        }
        assert_success(command.arg("bookworm").arg(path));
    })
}

/// Pushes a real Debian image to `name` on `registry`; its one layer has about 60 MB.
///
/// Put together by umoci. [`Format::DockerV2s2`] is skopeo's conversion.
pub fn debian_image(
    registry: &Registry,
    name: &str,
    format: Format,
    with_python: bool,
) -> PushedImage {
    let rootfs = debian_rootfs(with_python);
    let stem = rootfs.file_stem().expect("the tar file has a name");
    let layout = cached(&format!("{}-layout", stem.display()), |path| {
        let image = format!("{}:latest", path.display());
        assert_success(umoci().arg("init").arg("--layout").arg(path));
        assert_success(umoci().args(["new", "--image", &image]));
        assert_success(
            umoci()
                .args(["raw", "add-layer", "--image", &image])
                .arg(&rootfs),
        );
        assert_success(umoci().args([
            "config",
            "--image",
            &image,
            "--architecture=amd64",
            "--os=linux",
            "--config.cmd=/bin/bash",
            "--config.env=LANG=C.UTF-8",
        ]));
    });
    let format = match format {
        Format::Oci => "oci",
        Format::DockerV2s2 => "v2s2",
    };
    let mut copy = skopeo("copy");
    copy.args(["--quiet", "--format", format]);
    copy.arg(format!("oci:{}:latest", layout.display()));
    assert_success(with_credentials(&mut copy, registry).arg(destination(registry, name)));
    let (repository, tag) = name.rsplit_once(':').expect("the name has a tag");
    let manifest = registry
        .manifest(repository, tag)
        .expect("the image was just pushed");
    PushedImage {
        reference: registry.reference(name),
        digest: manifest.digest,
    }
}

/// Copies `source`, in skopeo's notation, to the registry without changing a byte.
fn push(registry: &Registry, name: &str, source: &str) {
    let mut copy = skopeo("copy");
    copy.args(["--quiet", "--all", "--preserve-digests"]);
    with_credentials(&mut copy, registry);
    assert_success(copy.arg(source).arg(destination(registry, name)));
}

fn with_credentials<'a>(copy: &'a mut Command, registry: &Registry) -> &'a mut Command {
    if let Some((user, password)) = registry.auth() {
        copy.arg("--dest-creds").arg(format!("{user}:{password}"));
    }
    copy
}

fn destination(registry: &Registry, name: &str) -> String {
    format!("docker://{}", registry.reference(name))
}

/// Packs `dir` as `out`, with `whiteouts` for the paths to remove.
fn tar(dir: &Path, out: &Path, whiteouts: &[&str]) {
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("rootfs.py")]);
    assert_success(python.arg(dir).arg(out).args(whiteouts));
}

fn temporary_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("trilith-image-")
        .tempdir()
        .expect("cannot create a temporary directory")
}
