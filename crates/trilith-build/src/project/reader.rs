//! Typed values out of a parsed TOML document, noting every mistake instead of the first.
//!
//! A getter returns `None` (or leaves an element out) where it has noted a mistake, so that
//! reading goes on and one report tells all. Knows TOML and nothing of what the keys mean.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::Mistake;

/// A value as it stands in the document.
pub(super) type Found<'d> = Spanned<DeValue<'d>>;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes a mistake at `span`: the message is `before`, the place, `after`.
    pub(super) fn note(
        &mut self,
        span: Range<usize>,
        before: impl Into<String>,
        after: impl Into<String>,
    ) {
        self.0.push(Mistake {
            span,
            before: before.into(),
            after: after.into(),
        });
    }

    /// Returns the mistakes in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Mistake> {
        self.0.sort_by_key(|mistake| mistake.span.start);
        self.0
    }
}

/// Why a value cannot be used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has the wrong type; the right one with its article, as in `a string`.
    Type(&'static str),
    /// It has the right type and breaks a rule, told in a clause.
    Value(String),
}

impl Refusal {
    /// Returns the refusal that says what `error` and its causes say.
    pub(super) fn value(error: &dyn Error) -> Self {
        Self::Value(with_causes(error))
    }
}

/// Returns what `error` and its causes say, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Returns the text of a string.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Refusal> {
    value.as_str().ok_or(Refusal::Type("a string"))
}

/// Returns what `parse` makes of a string.
pub(super) fn parsed<T, E: Error + 'static>(
    value: &DeValue<'_>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, Refusal> {
    parse(text(value)?).map_err(|error| Refusal::value(&error))
}

/// One table, and what it is called in messages.
pub(super) struct Table<'d> {
    /// The dotted name; empty for the document.
    name: &'static str,
    /// Where its header is, for what is missing in it.
    span: Range<usize>,
    entries: &'d DeTable<'d>,
}

impl<'d> Table<'d> {
    /// Returns the table of a whole document.
    pub(super) fn document(root: &'d Spanned<DeTable<'d>>) -> Self {
        Self {
            name: "",
            span: 0..0,
            entries: root.get_ref(),
        }
    }

    /// Returns where the table's header is.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Returns every key and value, in the order of the keys' names.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'d Spanned<DeString<'d>>, &'d Found<'d>)> + use<'d> {
        self.entries.iter()
    }

    /// Returns the value of `key` as it stands.
    pub(super) fn find(&self, key: &str) -> Option<&'d Found<'d>> {
        self.entries.get(key)
    }

    /// Returns the value of `key` as `read` understands it.
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Refusal>,
    ) -> Option<T> {
        let found = self.find(key)?;
        note_refusal(&self.dotted(key), found, mistakes, read)
    }

    /// Returns the value of `key`, and notes it as missing where it is.
    pub(super) fn require<T>(
        &self,
        key: &'static str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Refusal>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            mistakes.note(self.span(), format!("missing `{}`", self.dotted(key)), "");
        }
        self.get(key, mistakes, read)
    }

    /// Returns the elements of the array `key` as `read` understands each.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        mistakes: &mut Mistakes,
        mut read: impl FnMut(&'d DeValue<'d>) -> Result<T, Refusal>,
    ) -> Option<Vec<T>> {
        let elements = self.get(key, mistakes, |value| {
            value.as_array().ok_or(Refusal::Type("an array"))
        })?;
        let name = self.dotted(key);
        Some(
            elements
                .iter()
                .filter_map(|element| note_refusal(&name, element, mistakes, &mut read))
                .collect(),
        )
    }

    /// Returns the entries of the table `key`: each name as `check` has it, each value as `read`
    /// understands it.
    pub(super) fn map<T, E: Error>(
        &self,
        key: &'static str,
        mistakes: &mut Mistakes,
        check: impl Fn(&str) -> Result<String, E>,
        read: impl Fn(&'d DeValue<'d>) -> Result<T, Refusal>,
    ) -> BTreeMap<String, T> {
        let entries = self.get(key, mistakes, |value| {
            value.as_table().ok_or(Refusal::Type("a table"))
        });
        let mut map = BTreeMap::new();
        for (name, found) in entries.into_iter().flatten() {
            let dotted = format!("{}.{}", self.dotted(key), name.get_ref());
            let value = note_refusal(&dotted, found, mistakes, &read);
            match check(name.get_ref()) {
                Ok(name) => map.extend(value.map(|value| (name, value))),
                Err(error) => mistakes.note(
                    name.span(),
                    format!("invalid name in `{}`", self.dotted(key)),
                    format!(": {}", with_causes(&error)),
                ),
            }
        }
        map
    }

    /// Returns the table under `key`, called `name` in messages.
    pub(super) fn table(
        &self,
        key: &'static str,
        name: &'static str,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let span = self.find(key)?.span();
        self.get(key, mistakes, |value| {
            value.as_table().ok_or(Refusal::Type("a table"))
        })
        .map(|entries| Self {
            name,
            span,
            entries,
        })
    }

    /// Returns the tables of the array of tables `key`.
    pub(super) fn tables(&self, key: &'static str, mistakes: &mut Mistakes) -> Vec<Self> {
        let Some(found) = self.find(key) else {
            return Vec::new();
        };
        let Some(elements) = found.get_ref().as_array() else {
            let after = match found.get_ref() {
                DeValue::Table(_) => format!(" must be written `[[{key}]]`"),
                other => format!(" must be tables `[[{key}]]`, not {}", with_article(other)),
            };
            mistakes.note(found.span(), format!("`{key}`"), after);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in elements {
            let entries = note_refusal(key, element, mistakes, |value| {
                value.as_table().ok_or(Refusal::Type("a table"))
            });
            tables.extend(entries.map(|entries| Self {
                name: key,
                span: element.span(),
                entries,
            }));
        }
        tables
    }

    fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }
}

/// Returns what `read` makes of `found`, or notes why it cannot be used.
fn note_refusal<'d, T>(
    name: &str,
    found: &'d Found<'d>,
    mistakes: &mut Mistakes,
    read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Refusal>,
) -> Option<T> {
    let value = found.get_ref();
    match read(value) {
        Ok(read) => return Some(read),
        Err(Refusal::Type(expected)) => {
            let example = match (expected, value) {
                ("an array", DeValue::String(text)) => format!("; write `[{}]`", quoted(text)),
                ("a string", DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
                    "; put it in quotes".to_owned()
                }
                _ => String::new(),
            };
            let after = format!(" must be {expected}, not {}{example}", with_article(value));
            mistakes.note(found.span(), format!("`{name}`"), after);
        }
        Err(Refusal::Value(reason)) => {
            mistakes.note(
                found.span(),
                format!("invalid `{name}`"),
                format!(": {reason}"),
            );
        }
    }
    None
}

fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Returns `text` as a basic string of TOML (version 1.0, "String"), on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_reads_back() {
        for text in ["", "a b", "\"\\\n\t\r\0\u{7f}\u{85}é", "'''"] {
            let document = format!("k = {}", quoted(text));
            let root = DeTable::parse(&document).unwrap();
            assert_eq!(
                root.get_ref().get("k").unwrap().get_ref().as_str(),
                Some(text)
            );
        }
    }
}
