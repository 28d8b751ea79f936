//! Directories made into images, and back.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{FileType, Mode, XattrFlags};

use super::pack::{RootFsSource, open_rootfs, open_scratch};
use super::scan::CAPABILITY;
use super::unpack::{Ownership, UnpackOptions, unpack_image};
use crate::error::Error;
use crate::image::Image;
use crate::layer::Compression;
use crate::store::Name;

/// What `setcap cap_net_raw=ep` writes, with a byte that is a line feed.
const CAP: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn options(temp_dir: &Path) -> RootFsSource {
    RootFsSource {
        platform: "linux/arm64".parse().unwrap(),
        compression: Compression::default(),
        temp_dir: temp_dir.to_owned(),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn make_fifo(path: &Path) {
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, mode, 0).unwrap();
}

/// Makes a tree with something of everything; the order of names and the times differ.
fn make_tree(root: &Path, names: &[&str]) {
    for name in names {
        let path = root.join(name);
        match *name {
            "dir" | "dir/inner" => fs::create_dir_all(&path).unwrap(),
            "link" => symlink("/nowhere/at all", &path).unwrap(),
            "pipe" => make_fifo(&path),
            "socket" => drop(UnixListener::bind(&path).unwrap()),
            _ => fs::write(&path, name.as_bytes()).unwrap(),
        }
    }
    let odd = root.join(OsStr::from_bytes(b"odd\xff\nname"));
    fs::write(odd, "odd").unwrap();
    fs::hard_link(root.join("dir/file"), root.join("other")).unwrap();
    fs::hard_link(root.join("dir/file"), root.join("a-first")).unwrap();
    set_mode(&root.join("dir"), 0o2750);
    set_mode(&root.join("dir/inner"), 0o700);
    set_mode(&root.join("dir/file"), 0o664);
    set_mode(&root.join("setuid"), 0o4711);
    set_mode(&root.join("empty"), 0o400);
    set_mode(&root.join("pipe"), 0o640);
}

const NAMES: [&str; 8] = [
    "dir",
    "dir/inner",
    "dir/file",
    "setuid",
    "empty",
    "link",
    "pipe",
    "socket",
];

async fn digest_of(root: &Path, temp_dir: &Path) -> String {
    let (_, name) = open_rootfs(root, &options(temp_dir)).await.unwrap();
    match name {
        Name::Digest(digest) => digest.to_string(),
        Name::Tag(tag) => panic!("{tag}"),
    }
}

#[tokio::test]
async fn equal_directories_are_equal_images() {
    let temp = tempfile::tempdir().unwrap();
    let roots = ["one", "two"].map(|name| temp.path().join(name));
    let mut names = NAMES;
    for root in &roots {
        fs::create_dir(root).unwrap();
        make_tree(root, &names);
        names[3..].reverse();
    }
    set_mode(&roots[1], 0o700);
    let first = digest_of(&roots[0], temp.path()).await;
    assert_eq!(first, digest_of(&roots[1], temp.path()).await);
    // A link to the directory is the directory.
    symlink(&roots[1], temp.path().join("link")).unwrap();
    assert_eq!(
        first,
        digest_of(&temp.path().join("link"), temp.path()).await
    );
    for change in [
        |root: &Path| set_mode(&root.join("empty"), 0o440),
        |root: &Path| fs::rename(root.join("other"), root.join("another")).unwrap(),
        |root: &Path| fs::write(root.join("setuid"), "changed").unwrap(),
        |root: &Path| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("elsewhere", root.join("link")).unwrap();
        },
        |root: &Path| fs::create_dir(root.join("new")).unwrap(),
    ] {
        let before = digest_of(&roots[0], temp.path()).await;
        change(&roots[0]);
        assert_ne!(before, digest_of(&roots[0], temp.path()).await);
    }
}

#[tokio::test]
async fn what_is_unpacked_is_what_was_packed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir(&root).unwrap();
    make_tree(&root, &NAMES);
    let is_root = Ownership::default() == Ownership::AsInImage;
    if is_root {
        std::os::unix::fs::chown(root.join("setuid"), Some(3_000_000), Some(7)).unwrap();
        set_mode(&root.join("setuid"), 0o4711);
        let flags = XattrFlags::empty();
        rustix::fs::lsetxattr(root.join("setuid"), CAPABILITY, &CAP, flags).unwrap();
    }
    let (store, name) = open_rootfs(&root, &options(temp.path())).await.unwrap();
    let platform = "linux/arm64".parse().unwrap();
    let image = Image::load(store.as_ref(), &name, &platform).await.unwrap();
    let target = temp.path().join("target");
    let report = unpack_image(&store, &image.image, &target, UnpackOptions::default());
    assert!(report.await.unwrap().warnings.is_empty());

    let look = |root: &Path, name: &OsStr| {
        let path = root.join(name);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = metadata.is_file().then(|| fs::read(&path).unwrap());
        let target = fs::read_link(&path).ok();
        let owner = (metadata.uid(), metadata.gid());
        (metadata.mode(), owner, content, target)
    };
    let mut found: Vec<_> = fs::read_dir(&target)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    found.extend(["dir/file", "dir/inner"].map(Into::into));
    assert_eq!(found.len(), 10, "{found:?}");
    for name in &found {
        assert_eq!(look(&root, name), look(&target, name), "{name:?}");
    }
    let inode = |name: &str| fs::metadata(target.join(name)).unwrap().ino();
    assert_eq!(inode("dir/file"), inode("a-first"));
    assert_eq!(inode("dir/file"), inode("other"));
    if is_root {
        let mut value = [0; 64];
        let path = target.join("setuid");
        let length = rustix::fs::lgetxattr(&path, CAPABILITY, &mut value).unwrap();
        assert_eq!(value[..length], CAP);
    }
    // Packed again it is the same image.
    assert_eq!(
        digest_of(&root, temp.path()).await,
        digest_of(&target, temp.path()).await
    );
}

#[tokio::test]
async fn the_config_says_the_platform_and_nothing_of_the_machine() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "f").unwrap();
    let (store, name) = open_rootfs(&root, &options(temp.path())).await.unwrap();
    let platform = "linux/arm64".parse().unwrap();
    let image = Image::load(store.as_ref(), &name, &platform)
        .await
        .unwrap()
        .image;
    let config = String::from_utf8(image.config().to_bytes().to_vec()).unwrap();
    assert!(!config.contains(temp.path().to_str().unwrap()), "{config}");
    assert_eq!(image.config().created(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(image.manifest().layers().len(), 1);
    let (store, name) = open_scratch(&platform).unwrap();
    let image = Image::load(store.as_ref(), &name, &platform)
        .await
        .unwrap()
        .image;
    assert_eq!(image, Image::scratch(&platform));
}

#[tokio::test]
async fn what_cannot_be_in_an_image_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    let error = open_rootfs(&root, &options(temp.path()))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    fs::write(&root, "a file").unwrap();
    assert!(open_rootfs(&root, &options(temp.path())).await.is_err());
    fs::remove_file(&root).unwrap();
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::write(root.join("dir/.wh.name"), "").unwrap();
    let error = open_rootfs(&root, &options(temp.path()))
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("`dir/.wh.name`"), "{error}");
}
