//! Lists of ignore patterns in the `gitwildmatch` dialect, answered as Python's `pathspec` 1.1.1
//! answers them, oddities included, because tags depend on every answer.
//!
//! What is odd, compared with git: a bracket expression such as `[!a]` also matches a slash; a
//! pattern with an unclosed bracket matches nothing; a name that ends in a newline matches as if
//! the newline were not there, and `**` does not reach across one. Nothing here looks at the
//! disk, and `.dockerignore` has another dialect that does not belong here.

mod glob;

use std::borrow::Cow;

use regex::bytes::Regex;

use glob::{Component, Glob};

/// A list of patterns. The last one that matches a path decides, and `!` turns its answer round.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Rule>);

/// Why a list of patterns is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing is left of the pattern behind its `!`.
    #[error("pattern `{0}` has nothing after the `!`")]
    Empty(String),
    /// A component of the pattern ends in a backslash.
    #[error("pattern `{0}` has a backslash that escapes nothing")]
    DanglingEscape(String),
    /// A range in brackets runs from a later to an earlier character.
    #[error("pattern `{pattern}` has the range `{first}-{last}` the wrong way round")]
    Range {
        /// The pattern as given.
        pattern: String,
        /// The character before the `-`.
        first: char,
        /// The character after the `-`, which comes before `first`.
        last: char,
    },
    /// The pattern is longer than can be matched in reasonable memory.
    #[error("a pattern of {0} bytes is too large")]
    TooLarge(usize),
}

impl PatternError {
    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Empty(_) => "remove the pattern, or write `!NAME` to take NAME back".to_owned(),
            Self::DanglingEscape(_) => "write `\\\\` for a backslash in a name".to_owned(),
            Self::Range { first, last, .. } => format!("write `{last}-{first}`"),
            Self::TooLarge(_) => "split it into several patterns".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
struct Rule {
    /// What a match says: `false` for patterns that start with `!`.
    verdict: bool,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// `*` and `**`: every path in which there is any character but a newline.
    Anything,
    /// `*/` and `**/`: every path in which there is a slash.
    Nested,
    Component(Component),
    Glob {
        /// Matches the paths that match.
        path: Regex,
        /// Matches `directory/` where everything below the directory matches.
        below: Regex,
        /// No file matches where no directory above it does.
        directory: bool,
    },
}

impl Patterns {
    /// Parses one pattern per item. Blank items, comments (`#`) and `/` match nothing.
    pub fn parse<I>(list: I) -> Result<Self, PatternError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let rules = list
            .into_iter()
            .filter_map(|line| parse_rule(line.as_ref()).transpose());
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Returns whether the list matches `path`, which is relative and separated by slashes.
    ///
    /// A leading `/` or `./` is passed over. Of a name that is not UTF-8, every stray byte
    /// counts as one character that no literal matches.
    #[must_use]
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        let path = path
            .strip_prefix(b"/")
            .or_else(|| path.strip_prefix(b"./"))
            .unwrap_or(path);
        let path = characters(path);
        let decisive = self.0.iter().rev().find(|rule| rule.matches(&path));
        decisive.is_some_and(|rule| rule.verdict)
    }

    /// Returns the list as it applies to the names in one directory. `prefix` is the directory's
    /// relative path with a slash at its end, or empty for the root.
    pub(crate) fn in_directory<'a>(&'a self, prefix: &'a [u8]) -> DirectoryPatterns<'a> {
        let text = characters(prefix);
        let covering = self.0.iter().rposition(|rule| rule.covers(&text));
        DirectoryPatterns {
            prefix,
            verdict: covering.is_some_and(|position| self.0[position].verdict),
            open: &self.0[covering.map_or(0, |position| position + 1)..],
        }
    }
}

/// A list of patterns from which everything is taken out that the directory decides alone.
#[derive(Debug)]
pub(crate) struct DirectoryPatterns<'a> {
    prefix: &'a [u8],
    /// The answer for names that none of `open` matches.
    verdict: bool,
    open: &'a [Rule],
}

impl DirectoryPatterns<'_> {
    /// Returns whether the directory itself is matched, as a directory.
    pub(crate) fn verdict(&self) -> bool {
        self.verdict
    }

    /// Returns whether no name in or below the directory can get another answer than
    /// [`Self::verdict`].
    pub(crate) fn is_decided(&self) -> bool {
        self.open.iter().all(|rule| rule.verdict == self.verdict)
    }

    /// Returns whether the list matches the file `name` in the directory.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let plain = !self.prefix.contains(&b'\n') && !name.contains(&b'\n');
        let mut path: Option<Cow<'_, [u8]>> = None;
        for rule in self.open.iter().rev() {
            let quick = if plain { rule.matches_name(name) } else { None };
            let matched = quick.unwrap_or_else(|| {
                rule.matches(path.get_or_insert_with(|| {
                    Cow::Owned(characters(&[self.prefix, name].concat()).into_owned())
                }))
            });
            if matched {
                return rule.verdict;
            }
        }
        self.verdict
    }
}

impl Rule {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.shape {
            Shape::Anything => path.iter().any(|&byte| byte != b'\n'),
            Shape::Nested => path.contains(&b'/'),
            Shape::Component(component) => component.matches(path),
            Shape::Glob { path: regex, .. } => regex.is_match(path),
        }
    }

    /// Returns whether every path that starts with `prefix` matches.
    fn covers(&self, prefix: &[u8]) -> bool {
        match &self.shape {
            Shape::Anything | Shape::Nested => !prefix.is_empty(),
            Shape::Component(component) => component.covers(prefix),
            Shape::Glob { below, .. } => below.is_match(prefix),
        }
    }

    /// Returns whether a path with `name` at its end matches, given that nothing before `name`
    /// does and that there is no newline in it; `None` where it takes the whole path to know.
    fn matches_name(&self, name: &[u8]) -> Option<bool> {
        match &self.shape {
            Shape::Anything => Some(true),
            Shape::Nested => Some(false),
            Shape::Component(component) => component.matches_name(name),
            Shape::Glob { directory, .. } => directory.then_some(false),
        }
    }
}

/// Returns `path` with every byte that is not part of a character replaced by a private one,
/// as Python's `surrogateescape` does, so that wildcards see one character there.
pub(crate) fn characters(path: &[u8]) -> Cow<'_, [u8]> {
    if path.is_ascii() || std::str::from_utf8(path).is_ok() {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() * 2);
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|&byte| {
            // Plane 16 is for private use, and nobody names files with it.
            char::from_u32(0x10_ff00 + u32::from(byte))
        }));
    }
    Cow::Owned(text.into_bytes())
}

/// Returns the rule a line stands for, `None` for one that matches nothing.
fn parse_rule(line: &str) -> Result<Option<Rule>, PatternError> {
    let text = if line.ends_with("\\ ") {
        line
    } else {
        line.trim_end_matches(is_python_space)
    };
    if text.is_empty() || text.starts_with('#') || text == "/" {
        return Ok(None);
    }
    let (verdict, body) = match text.strip_prefix('!') {
        Some("") => return Err(PatternError::Empty(line.to_owned())),
        Some(body) => (false, body),
        None => (true, text),
    };
    let Some(glob) = Glob::parse(body, line)? else {
        return Ok(None);
    };
    let shape = if glob.is_anything() {
        Shape::Anything
    } else if glob.is_nested() {
        Shape::Nested
    } else if let Some(component) = glob.component() {
        Shape::Component(component)
    } else {
        let compile =
            |regex: &str| Regex::new(regex).map_err(|_| PatternError::TooLarge(line.len()));
        let (path, below) = (glob.path_regex(), glob.below_regex());
        let below_regex = compile(&below)?;
        Shape::Glob {
            path: if path == below {
                below_regex.clone()
            } else {
                compile(&path)?
            },
            below: below_regex,
            directory: glob.is_directory(),
        }
    };
    Ok(Some(Rule { verdict, shape }))
}

/// Returns whether Python's `str.rstrip` takes `c` away: white space and four separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matched<'a>(patterns: &[&str], paths: &[&'a str]) -> Vec<&'a str> {
        let patterns = Patterns::parse(patterns).unwrap();
        let matched = paths.iter().filter(|path| patterns.matches(path));
        matched.copied().collect()
    }

    #[test]
    fn oddities() {
        for (patterns, paths, expected) in [
            // Trailing white space goes, unless a backslash keeps it; leading white space stays.
            (&["a \t\x1f\u{3000}"][..], &["a", "a "][..], &["a"][..]),
            (&["a\\ "], &["a", "a "], &["a "]),
            (&[" a"], &["a", " a"], &[" a"]),
            // Comments, blank lines, a lone slash and unclosed brackets match nothing.
            (&["#a", "", " ", "/", "[a"], &["#a", "a", "", "[a"], &[]),
            (&["\\#a", "\\!b"], &["#a", "!b"], &["#a", "!b"]),
            // The last match decides.
            (
                &["*", "!b", "b/c"],
                &["a", "b", "b/c", "b/d"],
                &["a", "b/c"],
            ),
            // A bracket can match a slash, and a caret negates like `!`.
            (&["a[!b]c"], &["a/c", "abc", "axc"], &["a/c", "axc"]),
            (&["[^a]"], &["a", "b", "é", "bb"], &["b", "é"]),
            (
                &["[]a]", "[b-]"],
                &["]", "a", "-", "b", "c"],
                &["]", "a", "-", "b"],
            ),
            (&["[\\]x"], &["\\x", "]x"], &["\\x"]),
            (&["[[:alpha:]]"], &["a]", ":]", "a"], &["a]", ":]"]),
            // A newline at the end is not seen, one in the middle stops `**`.
            (&["a"], &["a\n", "a\n\n", "b\n/a"], &["a\n"]),
            (&["*"], &["a\nb", "\n"], &["a\nb"]),
            // One character is one code point.
            (&["?"], &["é", "e\u{301}", "🦀"], &["é", "🦀"]),
            (
                &["a/**/b"],
                &["a/b", "a/x/y/b", "a/xb"],
                &["a/b", "a/x/y/b"],
            ),
            (&["a/**"], &["a", "a/b"], &["a/b"]),
            (&["a*/"], &["ab", "ab/c"], &["ab/c"]),
            (
                &["/a", "!a/b"],
                &["a", "/a", "./a", "x/a", "a/b"],
                &["a", "/a", "./a"],
            ),
        ] {
            assert_eq!(matched(patterns, paths), expected, "{patterns:?}");
        }
    }

    #[test]
    fn stray_bytes_are_characters_that_no_literal_matches() {
        for (pattern, path, expected) in [
            ("*.c", &b"\xff.c"[..], true),
            ("?.c", b"\xff.c", true),
            ("?.c", b"\xc3\xff.c", false),
            ("[!a].c", b"\xff.c", true),
            ("\u{ff}.c", b"\xff.c", false),
            ("b", b"\xff/b", true),
            ("\u{fffd}", b"\xff", false),
        ] {
            let patterns = Patterns::parse([pattern]).unwrap();
            assert_eq!(patterns.matches(path), expected, "{pattern} {path:?}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (pattern, message) in [
            ("!", "pattern `!` has nothing after the `!`"),
            ("! ", "pattern `! ` has nothing after the `!`"),
            ("a\\", "pattern `a\\` has a backslash that escapes nothing"),
            (
                "a\\/b",
                "pattern `a\\/b` has a backslash that escapes nothing",
            ),
            (
                "[z-a]",
                "pattern `[z-a]` has the range `z-a` the wrong way round",
            ),
        ] {
            let error = Patterns::parse(["x", pattern]).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(!error.hint().is_empty());
        }
        let error = Patterns::parse(["?".repeat(1 << 16)]).unwrap_err();
        assert_eq!(error.to_string(), "a pattern of 65536 bytes is too large");
    }

    proptest! {
        #[test]
        fn a_component_is_what_its_regular_expressions_are(
            pattern in "(/|\\*\\*/)?\\*?(a|b|é|\\.c|\n){0,3}\\*?/?",
            path in "(a|b|é|ab|\\.c|/|\n){0,6}",
        ) {
            let Ok(Some(glob)) = Glob::parse(&pattern, &pattern) else { return Ok(()) };
            let Some(component) = glob.component() else { return Ok(()) };
            for (regex, verdict) in [
                (glob.path_regex(), component.matches(path.as_bytes())),
                (glob.below_regex(), component.covers(path.as_bytes())),
            ] {
                let regex = Regex::new(&regex).unwrap();
                prop_assert_eq!(verdict, regex.is_match(path.as_bytes()), "{} {}", pattern, regex);
            }
        }

        #[test]
        fn a_directory_at_a_time_is_the_same(
            patterns in proptest::collection::vec(
                "!?/?(a|b|\\*|\\?|\\*\\*|\\[!?a\\]|\\.c|/|\n){1,5}", 0..4),
            directory in "((a|b|ab|\\.c|b\n)/){0,3}",
            name in "(a|b|\\.c|\n){1,3}",
        ) {
            let Ok(patterns) = Patterns::parse(&patterns) else { return Ok(()) };
            let inside = patterns.in_directory(directory.as_bytes());
            let matched = patterns.matches(format!("{directory}{name}"));
            prop_assert_eq!(inside.matches(name.as_bytes()), matched);
            if inside.is_decided() {
                prop_assert_eq!(inside.verdict(), matched);
            }
        }
    }
}
