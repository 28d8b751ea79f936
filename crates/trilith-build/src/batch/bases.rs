//! Lists of base images: lines, JSON objects one to a line, or CSV.
//!
//! The first line that says something tells which. Everything is checked before anything is
//! built, and every mistake is named with its line.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde::Deserialize;
use trilith_core::{Platform, Tag};
use trilith_oci::place::Place;

use crate::project::values::{parse_argument, parse_argument_name};

/// The most mistakes that are named.
const SHOWN: usize = 20;

/// A base image and what is different for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchBase {
    /// Where it is in the list, from 1.
    pub line: usize,
    /// The image as it was written.
    pub text: String,
    /// Below which path of the project's repository its images go; the repository itself if `None`.
    pub name: Option<String>,
    /// A tag that its image has besides those of its levels.
    pub tag: Option<Tag>,
    /// Platforms in place of the project's; those if empty.
    pub platforms: BTreeSet<Platform>,
    /// Build arguments over the project's.
    pub args: BTreeMap<String, String>,
}

/// A list of base images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseList {
    /// Each once, in the order of the list.
    pub bases: Vec<BatchBase>,
    /// How many lines said what another line before had said.
    pub duplicates: usize,
}

/// What is wrong with a list of base images: a line of text for each mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseListError {
    mistakes: Vec<(usize, String)>,
}

impl fmt::Display for BaseListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "the list of bases has {count} mistake{plural}")?;
        for (line, reason) in self.mistakes.iter().take(SHOWN) {
            write!(f, "\n  line {line}: {reason}")?;
        }
        if count > SHOWN {
            write!(f, "\n  and {} more", count - SHOWN)?;
        }
        Ok(())
    }
}

impl std::error::Error for BaseListError {}

/// A line before its values are looked at.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    base: String,
    name: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    platform: OneOrMany,
    #[serde(default)]
    args: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// Parses a list of base images. Blank lines and those that begin with `#` say nothing.
///
/// Lines hold a reference or place each. JSON objects and the columns of CSV, whose first line
/// names them, are `base`, `name`, `tag`, `platform` and `args`; CSV separates several platforms
/// by blanks, and arguments too, each as `NAME=VALUE`.
///
/// # Errors
/// Every line that cannot be understood, and a list that is empty.
pub fn parse_bases(text: &str) -> Result<BaseList, BaseListError> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    let mut parser = Parser::default();
    // No reference and no place has a comma in it.
    let is_header = |line: &str| line == "base" || (line.contains(',') && !line.starts_with('{'));
    let columns = lines
        .next_if(|(_, line)| is_header(line))
        .map(|(line, header)| parser.columns(line, header));
    for (line, text) in lines {
        let entry = match &columns {
            Some(columns) => row_entry(columns, text),
            None => line_entry(text),
        };
        parser.entry(line, entry);
    }
    parser.finish()
}

fn line_entry(line: &str) -> Result<Entry, String> {
    if line.starts_with('{') {
        return serde_json::from_str(line).map_err(|error| error.to_string());
    }
    Ok(Entry {
        base: line.to_owned(),
        ..Entry::default()
    })
}

fn row_entry(columns: &[String], row: &str) -> Result<Entry, String> {
    let fields = fields(row)?;
    if fields.len() > columns.len() {
        return Err(format!(
            "it has {} fields, and there are {} columns",
            fields.len(),
            columns.len()
        ));
    }
    let mut entry = Entry::default();
    for (column, field) in columns.iter().zip(fields) {
        let given = || (!field.is_empty()).then(|| field.clone());
        match column.as_str() {
            "base" => entry.base.clone_from(&field),
            "name" => entry.name = given(),
            "tag" => entry.tag = given(),
            "platform" => {
                entry.platform =
                    OneOrMany::Many(field.split_whitespace().map(str::to_owned).collect());
            }
            _ => {
                for argument in field.split_whitespace() {
                    let (name, value) = argument
                        .split_once('=')
                        .ok_or_else(|| format!("argument `{argument}` is not NAME=VALUE"))?;
                    entry.args.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }
    Ok(entry)
}

/// Returns the fields of a row (RFC 4180; a field ends with its line).
fn fields(row: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = row;
    loop {
        let field;
        if let Some(quoted) = rest.strip_prefix('"') {
            let (mut content, mut after) = (String::new(), quoted);
            loop {
                let (before, behind) = after
                    .split_once('"')
                    .ok_or("a quotation mark is not closed")?;
                content.push_str(before);
                after = behind;
                match after.strip_prefix('"') {
                    Some(more) => {
                        content.push('"');
                        after = more;
                    }
                    None => break,
                }
            }
            field = content;
            rest = after;
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err("something follows a closing quotation mark".to_owned());
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field = rest[..end].trim().to_owned();
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

#[derive(Default)]
struct Parser {
    list: BaseList,
    /// Bases without their line.
    seen: HashSet<BatchBase>,
    mistakes: Vec<(usize, String)>,
}

impl Parser {
    fn columns(&mut self, line: usize, header: &str) -> Vec<String> {
        const KNOWN: [&str; 5] = ["base", "name", "tag", "platform", "args"];
        let columns = fields(header).unwrap_or_default();
        for column in &columns {
            if !KNOWN.contains(&column.as_str()) {
                let reason = format!("`{column}` is no column; they are {}", KNOWN.join(", "));
                self.mistakes.push((line, reason));
            }
        }
        if !columns.iter().any(|column| column == "base") {
            let reason = "it names no column `base`".to_owned();
            self.mistakes.push((line, reason));
        }
        columns
    }

    fn entry(&mut self, line: usize, entry: Result<Entry, String>) {
        match entry.and_then(|entry| base(line, entry)) {
            Ok(base) => {
                let without_line = BatchBase {
                    line: 0,
                    ..base.clone()
                };
                if self.seen.insert(without_line) {
                    self.list.bases.push(base);
                } else {
                    self.list.duplicates += 1;
                }
            }
            Err(reason) => self.mistakes.push((line, reason)),
        }
    }

    fn finish(mut self) -> Result<BaseList, BaseListError> {
        if self.mistakes.is_empty() && self.list.bases.is_empty() {
            let reason = "nothing is in it".to_owned();
            self.mistakes.push((1, reason));
        }
        if self.mistakes.is_empty() {
            return Ok(self.list);
        }
        Err(BaseListError {
            mistakes: self.mistakes,
        })
    }
}

fn base(line: usize, entry: Entry) -> Result<BatchBase, String> {
    let _place: Place = entry.base.parse().map_err(|error| format!("{error}"))?;
    if let Some(name) = &entry.name {
        // The grammar of a path, whatever the registry.
        let _repository: trilith_core::Repository = format!("registry.invalid/{name}")
            .parse()
            .map_err(|error| format!("name `{name}`: {error}"))?;
    }
    let platforms = match entry.platform {
        OneOrMany::One(platform) => vec![platform],
        OneOrMany::Many(platforms) => platforms,
    };
    let platforms = platforms.iter().map(|text| {
        let parsed: Result<Platform, _> = text.parse();
        parsed.map_err(|error| format!("platform `{text}`: {error}"))
    });
    let args = entry.args.into_iter().map(|(name, value)| {
        let name = parse_argument_name(&name).map_err(|error| error.to_string())?;
        Ok((
            name,
            parse_argument(&value).map_err(|error| error.to_string())?,
        ))
    });
    Ok(BatchBase {
        line,
        text: entry.base,
        name: entry.name,
        tag: entry
            .tag
            .map(|tag| tag.parse().map_err(|error| format!("tag `{tag}`: {error}")))
            .transpose()?,
        platforms: platforms.collect::<Result<_, _>>()?,
        args: args.collect::<Result<_, String>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, String)> {
        let list = parse_bases(text).unwrap();
        list.bases.into_iter().map(|b| (b.line, b.text)).collect()
    }

    #[test]
    fn lines() {
        let text = "# bases\n\ndebian:12\r\n  alpine  \ndebian:12\n";
        assert_eq!(
            texts(text),
            [(3, "debian:12".to_owned()), (4, "alpine".to_owned())]
        );
        assert_eq!(parse_bases(text).unwrap().duplicates, 1);
    }

    #[test]
    fn objects_and_columns_say_the_same() {
        let json = "{\"base\": \"debian\", \"name\": \"a/b\", \"tag\": \"t\", \
                    \"platform\": [\"linux/amd64\", \"linux/arm64\"], \"args\": {\"A\": \"1\", \"B\": \"2\"}}\n\
                    {\"base\": \"alpine\", \"platform\": \"linux/amd64\"}\n";
        let csv = "base,platform,name,tag,args\n\
                   debian,linux/amd64 linux/arm64,a/b,t,\"A=1 B=2\"\n\
                   alpine,linux/amd64\n";
        let json = parse_bases(json).unwrap().bases;
        let mut csv = parse_bases(csv).unwrap().bases;
        for base in &mut csv {
            base.line -= 1;
        }
        assert_eq!(json, csv);
        assert_eq!(json[0].args["B"], "2");
        assert_eq!(json[0].platforms.len(), 2);
    }

    #[test]
    fn a_column_alone() {
        assert_eq!(texts("base\ndebian\n"), [(2, "debian".to_owned())]);
    }

    #[test]
    fn mistakes_are_named_with_their_lines() {
        for (text, expected) in [
            ("", "line 1: nothing is in it"),
            ("debian\n\ndebian:-\n", "line 3: "),
            (
                "{\"base\": \"debian\", \"title\": \"x\"}",
                "line 1: unknown field `title`",
            ),
            ("{\"name\": \"x\"}", "line 1: missing field `base`"),
            ("base,title\ndebian,x\n", "line 1: `title` is no column"),
            ("name,tag\nx,y\n", "line 1: it names no column `base`"),
            ("base,tag\ndebian,x,y\n", "line 2: it has 3 fields"),
            ("base,tag\ndebian,\"x\n", "line 2: a quotation mark"),
            ("base,tag\ndebian,-x\n", "line 2: tag `-x`"),
            ("base,platform\ndebian,x\n", "line 2: platform `x`"),
            ("base,name\ndebian,X\n", "line 2: name `X`"),
            (
                "base,args\ndebian,X\n",
                "line 2: argument `X` is not NAME=VALUE",
            ),
        ] {
            let error = parse_bases(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn not_all_of_many_mistakes_are_shown() {
        let error = parse_bases(&"-x\n".repeat(25)).unwrap_err().to_string();
        assert!(
            error.contains("25 mistakes") && error.ends_with("and 5 more"),
            "{error}"
        );
    }
}
