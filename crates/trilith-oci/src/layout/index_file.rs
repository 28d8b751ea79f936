//! `index.json` of a layout: which manifests it holds, and by which names.
//!
//! Entries and annotations of others stay as they are. Touches no disk.

use serde_json::Value;

use crate::descriptor::Descriptor;
use crate::image::json::{self, Object};
use crate::image::parse_descriptor;
use crate::media_type;

/// The annotation that holds an entry's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The content of `index.json`, an index whose entries may have names.
#[derive(Clone, Debug)]
pub(crate) struct IndexFile {
    /// All but the entries, whose place is kept by a `null`.
    document: Object,
    entries: Vec<Value>,
}

/// An entry that can be read: foreign ones that cannot are kept, but not shown.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its name, a tag or a full reference.
    pub(crate) name: Option<String>,
    /// What it points to, without the name.
    pub(crate) descriptor: Descriptor,
}

impl Default for IndexFile {
    fn default() -> Self {
        let mut document = Object::new();
        document.insert("schemaVersion".to_owned(), 2.into());
        document.insert("mediaType".to_owned(), media_type::OCI_INDEX.into());
        document.insert("manifests".to_owned(), Value::Null);
        Self {
            document,
            entries: Vec::new(),
        }
    }
}

impl IndexFile {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut document = json::parse(bytes)?;
        json::check_folded(&document)?;
        match document.get_mut("manifests").map(Value::take) {
            Some(Value::Array(entries)) => Ok(Self { document, entries }),
            Some(_) => Err("`manifests` must be an array".to_owned()),
            None => Err("`manifests` is missing".to_owned()),
        }
    }

    pub(crate) fn print(&self) -> Vec<u8> {
        let mut document = self.document.clone();
        document.insert("manifests".to_owned(), self.entries.clone().into());
        json::print(&document)
    }

    /// Returns the entries in their order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().filter_map(|value| {
            let mut descriptor = parse_descriptor(value).ok()?;
            let name = descriptor.annotations.remove(REF_NAME);
            Some(Entry { name, descriptor })
        })
    }

    /// Returns what `name` points to; the last entry of that name counts.
    pub(crate) fn find(&self, name: &str) -> Option<Descriptor> {
        let named = self
            .entries()
            .filter(|entry| entry.name.as_deref() == Some(name));
        named.last().map(|entry| entry.descriptor)
    }

    /// Points `name` at `descriptor`, in the place of the first entry of that name.
    pub(crate) fn set(&mut self, name: &str, descriptor: &Descriptor) {
        let mut entry = descriptor.clone();
        entry
            .annotations
            .insert(REF_NAME.to_owned(), name.to_owned());
        let entry = json::write(&entry);
        let place = self.entries.iter().position(|value| is_named(value, name));
        self.remove(name);
        self.entries
            .insert(place.unwrap_or(self.entries.len()), entry);
    }

    /// Adds `descriptor` without a name, unless it is there. Returns whether it was not.
    pub(crate) fn add(&mut self, descriptor: &Descriptor) -> bool {
        let present = self
            .entries()
            .any(|entry| entry.name.is_none() && entry.descriptor.digest == descriptor.digest);
        if !present {
            self.entries.push(json::write(descriptor));
        }
        !present
    }

    /// Removes the entries without a name that `keep` does not want.
    pub(crate) fn retain_unnamed(&mut self, keep: impl Fn(&Descriptor) -> bool) {
        self.entries.retain(|value| match parse_descriptor(value) {
            Ok(descriptor) => descriptor.annotations.contains_key(REF_NAME) || keep(&descriptor),
            Err(_) => true,
        });
    }

    /// Removes `name`. Returns whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|value| !is_named(value, name));
        self.entries.len() < before
    }
}

fn is_named(value: &Value, name: &str) -> bool {
    let annotations = value.get("annotations");
    annotations.and_then(|a| a.get(REF_NAME)?.as_str()) == Some(name)
}
