//! Trees laid out on disk, and archives read by somebody else's reader.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use trilith_build::build_context::{
    BuildContext, BuildContextError, ContextArchive, Dockerfile, IgnoreRules,
};
use trilith_core::StatCache;
use trilith_oci::layer::Compression;

/// Lays out files, given as path and content; a path that ends in a slash is a directory.
pub(crate) fn lay_out(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let target = root.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(&target).unwrap();
        } else {
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(&target, content).unwrap();
        }
    }
}

/// Lists a context whose Dockerfile is the one in it.
pub(crate) fn load(root: &Path) -> Result<BuildContext, BuildContextError> {
    load_with(root, &Dockerfile::File(root.join("Dockerfile")))
}

pub(crate) fn load_with(
    root: &Path,
    dockerfile: &Dockerfile,
) -> Result<BuildContext, BuildContextError> {
    BuildContext::load(root, dockerfile, &IgnoreRules::Find, &StatCache::disabled())
}

/// Returns the paths that instructions can copy.
pub(crate) fn visible(context: &BuildContext) -> Vec<String> {
    let paths = context.entries().iter();
    paths
        .map(|entry| entry.entry.path.escape_ascii().to_string())
        .collect()
}

/// An entry as the reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) kind: tar::EntryType,
    pub(crate) mode: u32,
    pub(crate) mtime: u64,
    pub(crate) owner: (u64, u64),
    /// The content of a file, the target of a link.
    pub(crate) content: Vec<u8>,
}

/// Reads an uncompressed archive.
pub(crate) fn members(archive: &[u8]) -> BTreeMap<String, Member> {
    let mut members = BTreeMap::new();
    let mut order = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().escape_ascii().to_string();
        let header = entry.header().clone();
        let mut content = entry
            .link_name_bytes()
            .map(std::borrow::Cow::into_owned)
            .unwrap_or_default();
        entry.read_to_end(&mut content).unwrap();
        let member = Member {
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            mtime: header.mtime().unwrap(),
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            content,
        };
        let name = path.trim_end_matches('/').to_owned();
        order.push(name.clone());
        assert!(members.insert(name, member).is_none(), "`{path}` twice");
    }
    let sorted = order.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes());
    assert!(sorted, "{order:?}");
    members
}

/// Writes the archive of a context into memory.
pub(crate) fn write(context: &BuildContext) -> (ContextArchive, Vec<u8>) {
    let mut output = Vec::new();
    let archive = context.write(Compression::None, &mut output).unwrap();
    (archive, output)
}

pub(crate) fn archived(context: &BuildContext) -> BTreeMap<String, Member> {
    members(&write(context).1)
}

/// Returns the paths in the archive of a context.
pub(crate) fn names(context: &BuildContext) -> Vec<String> {
    archived(context).into_keys().collect()
}
