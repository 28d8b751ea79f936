//! Finds the one layer that is exactly a subtree of an image, while the image is unpacked.
//!
//! Such a layer can stand for the subtree in another image as it is, so that nothing has to be
//! packed again and its blob can be mounted.

use super::pack::WHITEOUT;
use crate::tar_reader::{Member, MemberKind};

/// A subtree of an image that is looked for among its layers.
#[derive(Clone, Debug)]
pub struct Subtree {
    /// Where it is, slashes between names and none in front.
    pub path: Vec<u8>,
    /// Who has to own all of it.
    pub owner: (u32, u32),
}

/// What the layers seen so far have to do with a subtree.
pub(super) struct Watch {
    subtree: Subtree,
    layers: Vec<Seen>,
}

/// What a layer has to do with the subtree.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// It changes the subtree.
    touches: bool,
    /// It does something else, or to somebody else's files.
    more: bool,
}

impl Watch {
    pub(super) fn new(subtree: Subtree) -> Self {
        Self {
            subtree,
            layers: Vec::new(),
        }
    }

    pub(super) fn next_layer(&mut self) {
        self.layers.push(Seen::default());
    }

    /// Takes note of a member of the present layer, whose path has the names `path`.
    pub(super) fn see(&mut self, path: &[&[u8]], member: &Member) {
        let subtree: Vec<&[u8]> = self.subtree.path.split(|&byte| byte == b'/').collect();
        let Some(seen) = self.layers.last_mut() else {
            return;
        };
        let (name, parent) = match path.split_last() {
            Some((name, parent)) => (*name, parent),
            None => (&b""[..], path),
        };
        if name.starts_with(WHITEOUT) {
            // It hides something there, above or beside; nothing that could be taken as it is.
            seen.touches |= parent.starts_with(&subtree) || subtree.starts_with(parent);
            seen.more = true;
        } else if path.starts_with(&subtree) {
            seen.touches = true;
            seen.more |= (member.uid, member.gid) != self.subtree.owner;
        } else {
            let replaces_parent = subtree.starts_with(path) && member.kind != MemberKind::Directory;
            seen.touches |= replaces_parent;
            seen.more = true;
        }
    }

    /// Returns the layer, counted from the bottom, that is the subtree and nothing else.
    pub(super) fn finish(&self) -> Option<usize> {
        let mut touching = self
            .layers
            .iter()
            .enumerate()
            .filter(|(_, seen)| seen.touches);
        match (touching.next(), touching.next()) {
            (Some((number, seen)), None) if !seen.more => Some(number),
            _ => None,
        }
    }
}
