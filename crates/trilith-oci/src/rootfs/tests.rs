//! Layers that are honest, odd and hostile, applied to a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use trilith_core::Digest;

use super::unpack::{Ownership, UnpackOptions, UnpackReport, unpack_image};
use super::watch::Subtree;
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind};
use crate::image::{Format, Image, ImageConfig, Manifest};
use crate::media_type;
use crate::store::ImageStore;
use crate::testing::MemoryStore;

/// One member of a layer: type, path, link or content.
pub(super) type Line<'a> = (char, &'a str, &'a str);

/// Writes a member as it is, with no check of its names: file, directory, symbolic or hard
/// link, pipe, character or block device, each by its first letter.
fn member(builder: &mut tar::Builder<Vec<u8>>, (kind, path, text): Line<'_>) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    let (entry_type, data, link) = match kind {
        'f' => (tar::EntryType::Regular, text, ""),
        'd' => (tar::EntryType::Directory, "", ""),
        's' => (tar::EntryType::Symlink, "", text),
        'h' => (tar::EntryType::Link, "", text),
        'p' => (tar::EntryType::Fifo, "", ""),
        'c' => (tar::EntryType::Char, "", ""),
        _ => (tar::EntryType::Block, "", ""),
    };
    header.set_entry_type(entry_type);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(data.len() as u64);
    header.set_mode(if kind == 'd' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1000);
    if matches!(kind, 'c' | 'b') {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.set_cksum();
    builder.append(&header, data.as_bytes()).unwrap();
}

pub(super) fn layer(lines: &[Line<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for line in lines {
        member(&mut builder, *line);
    }
    builder.into_inner().unwrap()
}

async fn unpack_tars(
    tars: &[Vec<u8>],
    target: &Path,
    options: UnpackOptions,
) -> Result<UnpackReport, Error> {
    let packed: Vec<(&[u8], Digest)> = tars.iter().map(|t| (&**t, Digest::of(t))).collect();
    unpack_packed(&packed, target, options).await
}

/// Unpacks an image of layers that are packed, each with its diff ID.
async fn unpack_packed(
    layers: &[(&[u8], Digest)],
    target: &Path,
    options: UnpackOptions,
) -> Result<UnpackReport, Error> {
    let (store, image) = image_of(layers);
    let store: Arc<dyn ImageStore> = store;
    unpack_image(&store, &image, target, options).await
}

/// Returns a store with an image of these layers, which are not compressed.
pub(super) fn store_of(tars: &[Vec<u8>]) -> (Arc<MemoryStore>, Image) {
    let packed: Vec<(&[u8], Digest)> = tars.iter().map(|t| (&**t, Digest::of(t))).collect();
    image_of(&packed)
}

fn image_of(layers: &[(&[u8], Digest)]) -> (Arc<MemoryStore>, Image) {
    let store = MemoryStore::default();
    let mut config = serde_json::json!({ "architecture": "amd64", "os": "linux" });
    let diff_ids: Vec<&Digest> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
    let config = ImageConfig::parse(config.to_string()).unwrap();
    let descriptors: Vec<Descriptor> = layers
        .iter()
        .map(|(packed, _)| {
            store.insert(packed);
            Descriptor::of(media_type::OCI_LAYER_GZIP, packed)
        })
        .collect();
    let descriptor = Descriptor::of(media_type::OCI_CONFIG, &config.to_bytes());
    let manifest = Manifest::new(Format::Oci, &descriptor, &descriptors);
    let image = Image::new(manifest, config).unwrap();
    (Arc::new(store), image)
}

fn mine() -> UnpackOptions {
    UnpackOptions {
        ownership: Ownership::Mine,
        find: None,
    }
}

async fn unpack(layers: &[&[Line<'_>]], target: &Path) -> Result<UnpackReport, Error> {
    let tars: Vec<Vec<u8>> = layers.iter().map(|lines| layer(lines)).collect();
    unpack_tars(&tars, target, UnpackOptions::default()).await
}

/// Lists a directory: each path with its content, link or kind.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let what = if kind.is_dir() {
                pending.push(path);
                "/".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_fifo() {
                "|".to_owned()
            } else if kind.is_char_device() {
                "device".to_owned()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            found.insert(name, what);
        }
    }
    found
}

async fn check(layers: &[&[Line<'_>]], expected: &[(&str, &str)]) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    unpack(layers, &target).await.unwrap();
    let expected: BTreeMap<String, String> = expected
        .iter()
        .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
        .collect();
    assert_eq!(listing(&target), expected, "{layers:?}");
}

#[tokio::test]
async fn later_layers_replace_and_hide() {
    let base: &[Line<'_>] = &[
        ('d', "./", ""),
        ('d', "a/", ""),
        ('f', "a/one", "1"),
        ('f', "a/two", "2"),
        ('d', "a/sub/", ""),
        ('f', "a/sub/x", "x"),
        ('f', "b", "b"),
    ];
    check(
        &[base, &[('f', "a/.wh.one", ""), ('f', "b", "B")]],
        &[
            ("a", "/"),
            ("a/two", "2"),
            ("a/sub", "/"),
            ("a/sub/x", "x"),
            ("b", "B"),
        ],
    )
    .await;
    check(
        &[base, &[('f', ".wh.a", ""), ('f', ".wh.nothing", "")]],
        &[("b", "b")],
    )
    .await;
    // A file over a directory, and a directory over a file.
    check(
        &[
            base,
            &[('f', "a", "file"), ('d', "b", ""), ('f', "b/c", "c")],
        ],
        &[("a", "file"), ("b", "/"), ("b/c", "c")],
    )
    .await;
}

#[tokio::test]
async fn whiteouts_spare_their_own_layer_in_any_order() {
    let base: &[Line<'_>] = &[
        ('f', "a/old", ""),
        ('f', "a/sub/old", ""),
        ('f', "a/kept/old", ""),
    ];
    let opaque: Line<'_> = ('f', "a/.wh..wh..opq", "");
    let fresh: [Line<'_>; 2] = [('f', "a/new", "n"), ('f', "a/kept/new", "n")];
    for order in [[opaque, fresh[0], fresh[1]], [fresh[0], fresh[1], opaque]] {
        check(
            &[base, &order],
            &[
                ("a", "/"),
                ("a/new", "n"),
                ("a/kept", "/"),
                ("a/kept/new", "n"),
            ],
        )
        .await;
    }
    let hidden: Line<'_> = ('f', ".wh.a", "");
    for order in [[hidden, fresh[0], fresh[1]], [fresh[0], fresh[1], hidden]] {
        check(
            &[base, &order],
            &[
                ("a", "/"),
                ("a/new", "n"),
                ("a/kept", "/"),
                ("a/kept/new", "n"),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn links_in_the_way_are_followed_inside() {
    check(
        &[
            &[
                ('s', "bin", "usr/bin"),
                ('s', "abs", "/usr"),
                ('s', "up", "../../../usr"),
                ('f', "usr/lower", "l"),
            ],
            &[
                ('f', "bin/tool", "t"),
                ('f', "abs/x", "x"),
                ('f', "up/y", "y"),
                ('f', "abs/.wh.lower", ""),
            ],
        ],
        &[
            ("bin", "-> usr/bin"),
            ("abs", "-> /usr"),
            ("up", "-> ../../../usr"),
            ("usr", "/"),
            ("usr/bin", "/"),
            ("usr/bin/tool", "t"),
            ("usr/x", "x"),
            ("usr/y", "y"),
        ],
    )
    .await;
}

#[tokio::test]
async fn absolute_names_mean_the_directory() {
    check(
        &[&[('f', "/etc/motd", "m"), ('h', "/copy", "/etc/motd")]],
        &[("etc", "/"), ("etc/motd", "m"), ("copy", "m")],
    )
    .await;
}

#[tokio::test]
async fn a_link_is_replaced_and_what_it_points_to_is_not() {
    check(
        &[
            &[('f', "real", "r"), ('s', "link", "real"), ('s', "dir", ".")],
            &[('f', "link", "new"), ('d', "dir", "")],
        ],
        &[("real", "r"), ("link", "new"), ("dir", "/")],
    )
    .await;
}

#[tokio::test]
async fn hard_links_share_a_file_and_a_link_to_itself_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let layers: [&[Line<'_>]; 2] = [
        &[('f', "a", "x"), ('h', "b", "a"), ('s', "d", "e")],
        &[('h', "c", "./b"), ('h', "a", "a"), ('h', "f", "d")],
    ];
    unpack(&layers, &target).await.unwrap();
    let inode = |name: &str| fs::symlink_metadata(target.join(name)).unwrap().ino();
    assert!(inode("a") == inode("b") && inode("b") == inode("c"));
    assert_eq!(inode("d"), inode("f"));
}

#[tokio::test]
async fn what_would_escape_is_refused_and_leaves_nothing() {
    let cases: &[(&[Line<'_>], &str)] = &[
        (&[('f', "../evil", "x")], "may not hold `..`"),
        (&[('f', "a/../../evil", "x")], "may not hold `..`"),
        (
            &[('d', "a", ""), ('h', "a/l", "../precious")],
            "may not hold `..`",
        ),
        (&[('f', ".wh...", "")], "hides no name"),
        (&[('f', ".wh..", "")], "hides no name"),
        (&[('f', ".wh.", "")], "hides no name"),
        (&[('f', "a/../.wh.x", "")], "may not hold `..`"),
        (&[('s', "/", "x")], "replace the root"),
        (&[('h', "l", "gone")], "not there"),
        (&[('h', "l", "gone/x")], "not there"),
        (&[('h', "l", "/")], "links to the root"),
        (&[('d', "d", ""), ('h', "l", "d")], "is a directory"),
        (&[('f', "f", ""), ('f', "f/x", "")], "is no directory"),
        (&[('s', "l", "l"), ('f', "l/x", "")], "in a circle"),
    ];
    for (lines, reason) in cases {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("precious"), "p").unwrap();
        let target = directory.path().join("out");
        let result = unpack(&[lines], &target).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{lines:?}: {error}");
        assert!(error.to_string().contains(reason), "{lines:?}: {error}");
        let left: Vec<String> = listing(directory.path()).into_keys().collect();
        assert_eq!(left, ["precious"], "{lines:?}");
    }
}

#[tokio::test]
async fn links_out_of_the_directory_end_inside_it() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "p").unwrap();
    let absolute = outside.display().to_string();
    let target = directory.path().join("out");
    let layers: [&[Line<'_>]; 2] = [
        &[
            ('s', "abs", &absolute),
            ('s', "rel", "../outside"),
            ('s', "self", "/../.."),
        ],
        &[
            ('f', "abs/evil", "x"),
            ('f', "rel/evil", "x"),
            ('f', "self/evil", "x"),
            ('f', "abs/.wh.precious", ""),
            ('f', "rel/.wh..wh..opq", ""),
            ('h', "rel/link", "abs/evil"),
        ],
    ];
    unpack(&layers, &target).await.unwrap();
    assert_eq!(
        listing(&outside).into_keys().collect::<Vec<_>>(),
        ["precious"]
    );
    assert!(target.join("evil").exists());
    assert!(target.join("outside/link").exists());
    let inside = target.join(absolute.trim_start_matches('/'));
    assert!(inside.join("evil").exists());
}

#[tokio::test]
async fn modes_times_and_special_files_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, mode) in [
        (tar::EntryType::Directory, "closed", 0o500),
        (tar::EntryType::Regular, "closed/setuid", 0o4755),
        (tar::EntryType::Directory, "sticky", 0o1777),
        (tar::EntryType::Regular, "sticky/none", 0),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_size(0);
        builder
            .append_data(&mut header, name, std::io::empty())
            .unwrap();
    }
    member(&mut builder, ('p', "pipe", ""));
    member(&mut builder, ('s', "link", "nowhere"));
    unpack_tars(&[builder.into_inner().unwrap()], &target, mine())
        .await
        .unwrap();
    for (name, mode) in [
        ("closed", 0o500),
        ("closed/setuid", 0o4755),
        ("sticky", 0o1777),
        ("sticky/none", 0),
    ] {
        let metadata = fs::metadata(target.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
        assert_eq!(metadata.mtime(), 1_000_000_000, "{name}");
    }
    assert!(
        fs::metadata(target.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(
        fs::symlink_metadata(target.join("link")).unwrap().mtime(),
        1000
    );
    // The root had no entry.
    let root = fs::metadata(&target).unwrap();
    assert_eq!(
        (root.permissions().mode() & 0o7777, root.mtime()),
        (0o755, 0)
    );
}

#[tokio::test]
async fn devices_need_privileges_and_are_left_out_without() {
    let lines: &[Line<'_>] = &[('c', "null", ""), ('f', "a", "a")];
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("mine");
    let report = unpack_tars(&[layer(lines)], &target, mine()).await.unwrap();
    assert_eq!(report.warnings.len(), 1);
    assert!(report.warnings[0].contains("`null` is a device"));
    assert_eq!(listing(&target).len(), 1);
    if Ownership::default() == Ownership::AsInImage {
        let target = directory.path().join("root");
        let report = unpack(&[lines], &target).await.unwrap();
        let is_there = listing(&target)
            .get("null")
            .is_some_and(|what| what == "device");
        assert_eq!(is_there, report.warnings.is_empty());
    }
}

#[tokio::test]
async fn only_an_empty_directory_is_filled() {
    let directory = tempfile::tempdir().unwrap();
    let lines: &[Line<'_>] = &[('f', "a", "a")];
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    unpack(&[lines], &empty).await.unwrap();
    assert_eq!(listing(&empty).len(), 1);
    let nested = directory.path().join("not/there/yet");
    unpack(&[lines], &nested).await.unwrap();
    let error = unpack(&[lines], &empty).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("not empty"), "{error}");
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(unpack(&[lines], &file).await.is_err());
    symlink("gone", directory.path().join("dangling")).unwrap();
    let dangling = unpack(&[lines], &directory.path().join("dangling")).await;
    assert!(dangling.is_err());
}

#[tokio::test]
async fn packed_layers_are_unpacked_and_their_diff_ids_checked() {
    let tar = layer(&[('f', "a", "a")]);
    let gzip = |content: &[u8]| {
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        std::io::Write::write_all(&mut encoder, content).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(tar.as_slice(), 0).unwrap();
    let members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    let right = Digest::of(&tar);
    let wrong = Digest::of(b"other");
    let cut = gzip(&tar[..600]);
    for (packed, diff_id, expected) in [
        (gzip(&tar), &right, None),
        (members, &right, None),
        (zstd, &right, None),
        (gzip(&tar), &wrong, Some("uncompressed, has digest")),
        (gzip(&tar)[..40].to_vec(), &right, Some("malformed")),
        (cut, &right, Some("cut off")),
        (b"no tar at all".repeat(100), &right, Some("no tar")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let layers = [(&*packed, diff_id.clone())];
        let result = unpack_packed(&layers, &target, UnpackOptions::default()).await;
        match expected {
            None => assert!(result.is_ok() && target.join("a").exists()),
            Some(reason) => {
                let error = result.unwrap_err();
                assert!(error.to_string().contains(reason), "{error}");
                assert!(listing(directory.path()).is_empty());
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever mixture of links, whiteouts and files: what lies beside the target is as before.
    #[test]
    fn nothing_beside_the_target_is_ever_touched(
        lines in proptest::collection::vec(
            (
                proptest::sample::select(vec!['f', 'd', 's', 'h']),
                "(/|\\./|\\.\\./)?(a|b|c|\\.wh\\.)(/(a|b|\\.\\.|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)){0,3}",
                "(/|\\.\\./|\\.\\./\\.\\./)?(a|b|outside)(/(a|\\.\\.|precious)){0,3}",
            ),
            1..12,
        )
    ) {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "p").unwrap();
        let lines: Vec<Line<'_>> = lines.iter().map(|(k, p, t)| (*k, &**p, &**t)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(unpack(&[&lines], &directory.path().join("x/out")));
        let _ = fs::remove_dir_all(directory.path().join("x"));
        let left: Vec<(String, String)> = listing(directory.path()).into_iter().collect();
        let expected = [("outside", "/"), ("outside/precious", "p")]
            .map(|(path, what)| (path.to_owned(), what.to_owned()));
        proptest::prop_assert_eq!(left, expected);
    }
}

#[tokio::test]
async fn the_layer_that_is_a_subtree_is_found() {
    const BASE: &[Line<'_>] = &[
        ('d', "usr", ""),
        ('f', "usr/lib", "x"),
        ('s', "link", "opt/app"),
    ];
    const APP: &[Line<'_>] = &[('d', "opt/app", ""), ('f', "opt/app/run", "1")];
    let cases: [(&[&[Line<'_>]], Option<usize>); 11] = [
        (&[BASE, APP], Some(1)),
        (&[APP, BASE], Some(0)),
        (&[BASE, &[('f', "opt/app", "one file")]], Some(1)),
        (&[BASE], None),
        // More than the subtree: the directories above count.
        (
            &[BASE, &[('d', "opt", ""), ('f', "opt/app/run", "1")]],
            None,
        ),
        (
            &[BASE, &[('f', "opt/app/run", "1"), ('f', "opt/apple", "")]],
            None,
        ),
        // In two layers, or hidden by one.
        (&[BASE, APP, &[('f', "opt/app/more", "")]], None),
        (&[APP, &[('f', "opt/.wh.app", "")], APP], None),
        (&[APP, &[('f', "opt/.wh..wh..opq", "")]], None),
        // Through a link, and by a parent that is none any more.
        (&[BASE, APP, &[('f', "link/more", "")]], None),
        (&[APP, &[('f', "opt", "")]], None),
    ];
    for (layers, expected) in cases {
        for (owner, expected) in [((0, 0), expected), ((1, 1), None)] {
            let target = tempfile::tempdir().unwrap();
            let tars: Vec<Vec<u8>> = layers.iter().map(|lines| layer(lines)).collect();
            let options = UnpackOptions {
                ownership: Ownership::Mine,
                find: Some(Subtree {
                    path: b"opt/app".to_vec(),
                    owner,
                }),
            };
            let report = unpack_tars(&tars, target.path(), options).await.unwrap();
            assert_eq!(report.found, expected, "{layers:?}");
        }
    }
}
