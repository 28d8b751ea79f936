//! The labels that every image carries, by which reuse knows it again.

use std::collections::BTreeMap;

use trilith_core::{Keys, Level, TRILITH_SCHEME};
use trilith_oci::image::Image;

const SCHEME: &str = "dev.trilith.scheme";
const LEVEL: &str = "dev.trilith.level";

fn key_label(level: Level) -> String {
    format!("dev.trilith.key.{level}")
}

/// Returns the labels of the image of `level`: the scheme of its keys, its level, and the
/// full keys up to the level.
pub(crate) fn labels(keys: &Keys, level: Level) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = keys
        .iter()
        .filter(|&(of, _)| of <= level)
        .map(|(of, key)| (key_label(of), key.to_hex()))
        .collect();
    labels.insert(SCHEME.to_owned(), TRILITH_SCHEME.to_owned());
    labels.insert(LEVEL.to_owned(), level.to_string());
    labels
}

/// Returns the level that labels speak of.
pub(crate) fn level(labels: &BTreeMap<&str, &str>) -> Option<Level> {
    labels.get(LEVEL)?.parse().ok()
}

/// Returns whether the labels of an image and those of a container are of the same image of a
/// level.
pub(crate) fn are_same(image: &BTreeMap<&str, &str>, container: &BTreeMap<String, String>) -> bool {
    let Some(level) = level(image) else {
        return false;
    };
    let same = |name: &str| {
        let own = image.get(name);
        own.is_some() && own.copied() == container.get(name).map(String::as_str)
    };
    same(LEVEL) && same(&key_label(level))
}

/// Returns the key that `image` carries for `level`.
pub(crate) fn key(image: &Image, level: Level) -> Option<String> {
    image
        .config()
        .labels()
        .get(key_label(level).as_str())
        .map(|&key| key.to_owned())
}
