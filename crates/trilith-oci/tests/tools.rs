//! What others make of what is written here: tar, gzip, zstd, Python, umoci and skopeo.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use trilith_core::{Digest, Owner, canonical_mode};
use trilith_oci::ImageStore as _;
use trilith_oci::image::Image;
use trilith_oci::layer::{Compression, EntryKind, LayerContent, LayerEntry, write_layer};
use trilith_oci::layout::LayoutRepository;

use support::{ROLE, directory, file, layout, on_scratch, symlink, tag, this_program};

/// Runs a command and returns what it prints, or fails with what it says.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` must be installed: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A root file system that runs: busybox, and what is hard to write in a tar.
fn root_file_system() -> Vec<LayerEntry> {
    let busybox = PathBuf::from("/bin/busybox");
    let content = fs::read(&busybox).expect("busybox-static must be installed");
    let mut entries = vec![
        directory("bin"),
        symlink("bin/sh", "busybox"),
        directory("tmp"),
        file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\n"),
        file("bin/suid", 0o4755, "s"),
        file("na\u{ef}ve \u{1f600}", 0o444, "utf8"),
        file(&format!("{}long", "directory/".repeat(40)), 0o600, "long"),
        // More than one block of either compression.
        file(
            "big",
            0o644,
            (0..1_500_000_u32)
                .flat_map(u32::to_le_bytes)
                .collect::<Vec<u8>>(),
        ),
        symlink("far", &"x/".repeat(120)),
        file("line\nfeed", 0o644, ""),
    ];
    let mut odd = file("odd owner", 0o644, "owner");
    odd.owner = Owner {
        uid: 3_000_000,
        gid: 4_000_000_000,
    };
    entries.push(odd);
    let mut latin = file("", 0o644, "bytes");
    latin.path = b"caf\xe9".to_vec();
    entries.push(latin);
    entries.push(LayerEntry {
        path: b"bin/busybox".to_vec(),
        kind: EntryKind::File {
            mode: canonical_mode(fs::metadata(&busybox).unwrap().mode()),
            size: content.len() as u64,
            digest: Digest::of(&content),
            content: LayerContent::Path(busybox),
        },
        owner: Owner::default(),
    });
    entries
}

/// Writes the root file system as an image tagged `t`.
async fn write(store: &LayoutRepository, compression: Compression) -> Image {
    let layer = store
        .layout()
        .write_layer(root_file_system(), compression)
        .unwrap();
    let image = on_scratch(store.layout(), &[layer]);
    let manifest = image.manifest().to_raw();
    store.push_manifest(&manifest).await.unwrap();
    store.tag(&tag("t"), &manifest).await.unwrap();
    image
}

/// Prints each member of the archive on standard input as a line of JSON.
const LIST: &str = "
import json, os, sys, tarfile
for m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'):
    print(json.dumps([os.fsencode(m.name).hex(), m.type.decode(), m.mode, m.uid, m.gid,
        m.uname + m.gname, m.mtime, m.size, m.linkname]))
";

#[test]
fn python_reads_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer");
    for (compression, open) in [
        (Compression::None, "cat"),
        (
            Compression::Gzip(5),
            "python3 -m gzip -d < $0 > /dev/null; gzip -dc <",
        ),
        (
            Compression::Gzip(9),
            "gzip -t <$0 && python3 -c 'import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())'",
        ),
        (Compression::Zstd(3), "zstd -qdc"),
    ] {
        write_layer(
            root_file_system(),
            compression,
            File::create(&path).unwrap(),
        )
        .unwrap();
        let script = format!("{open} $0 | python3 -c \"$1\"");
        let listed = run("sh", &["-ec", &script, text(&path), LIST]);
        let listed: Vec<Value> = listed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut expected = root_file_system();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(listed.len(), expected.len());
        for (listed, entry) in listed.iter().zip(expected) {
            let (kind, mode, size, target) = match entry.kind {
                EntryKind::Directory { mode } => ("5", mode, 0, Vec::new()),
                EntryKind::File { mode, size, .. } => ("0", mode, size, Vec::new()),
                EntryKind::Symlink { target } => ("2", 0o777, 0, target),
            };
            let expected = serde_json::json!([
                trilith_core::hex(&entry.path),
                kind,
                mode,
                entry.owner.uid,
                entry.owner.gid,
                "",
                0,
                size,
                String::from_utf8(target).unwrap(),
            ]);
            assert_eq!(*listed, expected);
        }
    }
}

#[test]
fn tar_lists_it_without_complaint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer");
    for (compression, option) in [
        (Compression::None, "-v"),
        (Compression::Gzip(5), "-z"),
        (Compression::Zstd(3), "--zstd"),
    ] {
        write_layer(
            root_file_system(),
            compression,
            File::create(&path).unwrap(),
        )
        .unwrap();
        let listed = run(
            "tar",
            &["-tv", "--numeric-owner", option, "-f", text(&path)],
        );
        assert_eq!(listed.lines().count(), root_file_system().len());
        assert!(listed.contains("-rwsr-xr-x 0/0"), "{listed}");
        assert!(listed.contains(" 3000000/4000000000 "), "{listed}");
        assert!(listed.contains(" 1970-01-01 00:00 "), "{listed}");
    }
}

#[tokio::test]
async fn umoci_unpacks_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layout");
    let store = layout(&path);
    for compression in [Compression::None, Compression::Gzip(5)] {
        write(&store, compression).await;
        let bundle = directory.path().join(format!("{compression:?}"));
        let image = format!("{}:t", text(&path));
        run("umoci", &["unpack", "--image", &image, text(&bundle)]);
        let root = bundle.join("rootfs");
        for entry in root_file_system() {
            use std::os::unix::ffi::OsStrExt as _;
            let path = root.join(std::ffi::OsStr::from_bytes(&entry.path));
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert_eq!(
                (metadata.uid(), metadata.gid()),
                (entry.owner.uid, entry.owner.gid)
            );
            match entry.kind {
                EntryKind::Directory { mode } => assert_eq!(metadata.mode() & 0o7777, mode),
                EntryKind::File { mode, digest, .. } => {
                    assert_eq!(metadata.mode() & 0o7777, mode, "{}", path.display());
                    assert_eq!(Digest::of(&fs::read(&path).unwrap()), digest);
                    assert_eq!(metadata.mtime(), 0);
                }
                EntryKind::Symlink { target } => {
                    assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), target);
                }
            }
        }
        let greeting = run("chroot", &[text(&root), "/bin/sh", "-c", "echo it runs"]);
        assert_eq!(greeting, "it runs\n");
    }
    run("umoci", &["gc", "--layout", text(&path)]);
    assert!(store.tags().unwrap().iter().any(|(t, _)| *t == tag("t")));
}

#[tokio::test]
async fn skopeo_inspects_and_copies_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layout");
    let store = layout(&path);
    for compression in [
        Compression::None,
        Compression::Gzip(1),
        Compression::Zstd(3),
    ] {
        let image = write(&store, compression).await;
        let source = format!("oci:{}:t", text(&path));
        let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &source])).unwrap();
        let digest = image.manifest().to_raw().descriptor.digest;
        assert_eq!(inspected["Digest"], digest.as_str());
        assert_eq!(inspected["Created"], "1970-01-01T00:00:00Z");
        unpacked_by_skopeo(&source, &image, directory.path());
        let copy = directory.path().join(format!("{compression:?}"));
        let to = format!("oci:{}:t", text(&copy));
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "-q",
                "--preserve-digests",
                &source,
                &to,
            ],
        );
        let there = layout(&copy);
        let found = there
            .resolve(&trilith_oci::Name::Tag(tag("t")))
            .await
            .unwrap();
        assert_eq!(found.unwrap().digest, digest);
    }
}

/// Lets skopeo decompress the layer, and checks that it is all there.
fn unpacked_by_skopeo(source: &str, image: &Image, directory: &Path) {
    let unpacked = directory.join("unpacked");
    let to = format!("dir:{}", text(&unpacked));
    let copy = [
        "--insecure-policy",
        "copy",
        "-q",
        "--dest-decompress",
        source,
        &to,
    ];
    run("skopeo", &copy);
    let layer = unpacked.join(image.config().diff_ids()[0].as_digest().hex());
    let digest = Digest::of(&fs::read(layer).unwrap());
    assert_eq!(digest, *image.config().diff_ids()[0].as_digest());
}

#[tokio::test]
async fn a_layout_of_skopeo_is_read_and_extended() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (
        directory.path().join("ours"),
        directory.path().join("theirs"),
    );
    write(&layout(&ours), Compression::Gzip(1)).await;
    let from = format!("oci:{}:t", text(&ours));
    let to = format!("oci:{}:s", text(&theirs));
    run("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    let store = layout(&theirs);
    let name = trilith_oci::Name::Tag(tag("s"));
    let found = Image::load(&store, &name, &"linux/amd64".parse().unwrap())
        .await
        .unwrap();
    store
        .tag(&tag("again"), &found.image.manifest().to_raw())
        .await
        .unwrap();
    run(
        "skopeo",
        &["inspect", &format!("oci:{}:again", text(&theirs))],
    );
    run("skopeo", &["inspect", &format!("oci:{}:s", text(&theirs))]);
}

/// A sparse file and what it hashes to: zeros, and `end` at the end.
const SPARSE: [(&str, u64, &str); 3] = [
    (
        "zstd",
        5 << 30,
        "320d0aa9ef1d62fece70f6099c5d94c12a44c4f90bd3cd2ec576d8f7d0b8e396",
    ),
    (
        "gzip",
        256 << 20,
        "616b7da9750b6901d2d13894731126c807386f52abe93373a76034e484499c97",
    ),
    (
        "none",
        256 << 20,
        "616b7da9750b6901d2d13894731126c807386f52abe93373a76034e484499c97",
    ),
];

/// Plays a process whose memory is looked at, if started by the test below.
#[test]
fn measured_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (kind, path) = role.split_once(' ').unwrap();
    let compression = match kind {
        "none" => Compression::None,
        "gzip" => Compression::Gzip(5),
        _ => Compression::Zstd(3),
    };
    let (_, size, hex) = SPARSE.iter().find(|(name, ..)| *name == kind).unwrap();
    let mut entry = file("sparse", 0o644, "");
    entry.kind = EntryKind::File {
        mode: 0o644,
        size: *size,
        digest: format!("sha256:{hex}").parse().unwrap(),
        content: LayerContent::Path(path.into()),
    };
    write_layer(vec![entry], compression, std::io::sink()).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap()
    );
}

/// Five gigabytes, and what does not depend on the length with less.
#[test]
fn large_sparse_files_in_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, size, _) in SPARSE {
        let path = directory.path().join(kind);
        let sparse = File::create(&path).unwrap();
        sparse.set_len(size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", size - 3).unwrap();
        let role = format!("{kind} {}", path.display());
        let output = this_program("measured_process", &role).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let peak = output
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        let kilobytes: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kilobytes < 64 << 10, "{kind}: {kilobytes} kB");
    }
}
