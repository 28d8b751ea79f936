//! Which image in a layout is meant.

use std::collections::BTreeSet;

use trilith_core::{Reference, Tag};

use super::Entry;
use crate::descriptor::Descriptor;
use crate::error::Error;

/// The annotation with the full reference, as containerd and current Docker engines write it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Returns the entry called `tag`, `None` where there is none.
///
/// Tools write a tag or a full reference as the name; the tag in the reference is meant then.
pub(crate) fn tagged<'a>(entries: &'a [Entry], tag: &Tag) -> Option<&'a Descriptor> {
    let named = |entry: &&Entry| entry.name.as_deref() == Some(tag.as_str());
    let ends_so = |entry: &&Entry| {
        let full = entry.descriptor.annotations.get(IMAGE_NAME);
        let mut references = full
            .into_iter()
            .chain(&entry.name)
            .flat_map(|name| name.parse::<Reference>());
        references.any(|reference| reference.tag() == Some(tag))
    };
    // The last entry of a name counts.
    let found = entries.iter().rfind(named);
    let found = found.or_else(|| entries.iter().find(ends_so));
    found.map(|entry| &entry.descriptor)
}

/// Returns the entry of the image called `tag`, or of the only image; `place` names the
/// layout in messages.
///
/// # Errors
/// [`Error::NotFound`] where none has the tag; [`Error::Ambiguous`] where several images are
/// there and no tag says which.
pub(crate) fn choose<'a>(
    entries: &'a [Entry],
    tag: Option<&Tag>,
    place: &str,
) -> Result<&'a Descriptor, Error> {
    if let Some(tag) = tag {
        return tagged(entries, tag).ok_or_else(|| Error::NotFound {
            object: format!("tag `{tag}` in `{place}`"),
        });
    }
    let images = || {
        let is_image = |entry: &&Entry| entry.descriptor.artifact_type.is_none();
        entries.iter().filter(is_image)
    };
    let digests: BTreeSet<_> = images().map(|entry| &entry.descriptor.digest).collect();
    match (digests.len(), images().next()) {
        (1, Some(only)) => Ok(&only.descriptor),
        (_, None) => Err(Error::NotFound {
            object: format!("an image in `{place}`"),
        }),
        _ => Err(Error::Ambiguous {
            place: place.to_owned(),
            choices: images().filter_map(|entry| entry.name.clone()).collect(),
        }),
    }
}
