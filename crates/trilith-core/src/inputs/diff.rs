//! What differs between two lists of inputs: why an image would be built again.

use std::collections::BTreeMap;

use crate::level::Level;

use super::facts::{LAYER_ORDER, LAYER_PREFIX};
use super::list::{Input, InputList};

/// One input that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The level of the input. A change moves the tags of this level and of those above.
    pub level: Level,
    /// The input's name.
    pub name: String,
    /// How it differs.
    pub kind: ChangeKind,
    /// The new size in bytes, for a removed input the old one.
    pub size: u64,
}

/// How an input differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the new list has it.
    Added,
    /// Only the old list has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

/// Returns what differs from `old` in `new`, by level and name.
///
/// Two lists without a difference have the same keys, and the other way round. A changed
/// order of layers is told only where no layer came or went, as it follows from that.
#[must_use]
pub fn diff(old: &InputList, new: &InputList) -> Vec<Change> {
    let mut pairs: BTreeMap<(Level, &str), [Option<&Input>; 2]> = BTreeMap::new();
    for (side, list) in [old, new].into_iter().enumerate() {
        for input in list.as_slice() {
            pairs.entry((input.level, &input.name)).or_default()[side] = Some(input);
        }
    }
    let mut changes: Vec<Change> = pairs
        .into_iter()
        .filter_map(|((level, name), pair)| {
            let (kind, size) = match pair {
                [Some(old), Some(new)] if old.digest != new.digest => {
                    (ChangeKind::Changed, new.size)
                }
                [None, Some(new)] => (ChangeKind::Added, new.size),
                [Some(old), None] => (ChangeKind::Removed, old.size),
                _ => return None,
            };
            Some(Change {
                level,
                name: name.to_owned(),
                kind,
                size,
            })
        })
        .collect();
    let came_or_went: Vec<Level> = changes
        .iter()
        .filter(|change| {
            change.kind != ChangeKind::Changed && change.name.starts_with(LAYER_PREFIX)
        })
        .map(|change| change.level)
        .collect();
    changes.retain(|change| change.name != LAYER_ORDER || !came_or_went.contains(&change.level));
    changes
}
