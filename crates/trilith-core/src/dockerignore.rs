//! Lists of patterns as in `.dockerignore` files, answered as `github.com/moby/patternmatcher`
//! answers them, oddities included: whoever leaves Docker for this gets the same files.
//!
//! The last pattern that matches a path or a directory above it decides, and `!` turns its answer
//! round. That is what Docker documents and what its `MatchesOrParentMatches` does. The walk of
//! `BuildKit`'s client takes a short cut that forgets a directory's match with a `!` pattern where
//! nothing had to be taken back yet: after `**/*.md` and `!docs` it still leaves `docs/a.md` out.
//! Here it is taken back, as documented.
//!
//! Nothing here looks at the disk. The ignore lists of projects have another dialect, see
//! [`crate::Patterns`].

mod go_regex;
mod reader;
mod rule;
mod syntax;

use std::borrow::Cow;

use crate::ignore::{Ignore, Inside};
use crate::pattern::characters;
use rule::Rule;

/// A list of patterns, as Docker understands it.
#[derive(Clone, Debug, Default)]
pub struct DockerIgnore(Vec<Rule>);

/// A pattern that Docker refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}` in line {line} {flaw}")]
pub struct DockerIgnoreError {
    /// The line of the file or place in the list, counted from 1.
    pub line: usize,
    /// The pattern as it was used: trimmed and cleaned.
    pub pattern: String,
    flaw: Flaw,
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("has nothing after the `!`")]
    Empty,
    #[error("has a backslash that escapes nothing")]
    DanglingEscape,
    #[error("has a `[` without its `]`")]
    Unclosed,
    #[error("has a `-` or `]` out of place in brackets")]
    Misplaced,
    #[error("has a range the wrong way round")]
    Range,
    #[error("has an escape that means nothing")]
    Escape,
    #[error("has an unknown class in brackets")]
    Class,
    #[error("repeats something that cannot be repeated")]
    Repetition,
    #[error("is too large")]
    TooLarge,
}

impl DockerIgnoreError {
    /// Returns what to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.flaw {
            Flaw::Empty => "remove it, or write `!NAME` to take NAME back",
            Flaw::DanglingEscape => "write `\\\\` for a backslash in a name",
            Flaw::Unclosed => "close it, or write `\\[` for a bracket in a name",
            Flaw::Misplaced => "write `\\-` and `\\]` for these characters in brackets",
            Flaw::Range => "write the smaller character first",
            Flaw::Escape => "escape punctuation only; letters stand for themselves",
            Flaw::Class => "list the characters one by one",
            Flaw::Repetition => "write `\\{` for a brace in a name",
            Flaw::TooLarge => "split it into several patterns",
        }
    }
}

impl DockerIgnore {
    /// Parses the content of a `.dockerignore` file: a byte order mark, comments, blank lines and
    /// white space around patterns are dropped, paths are cleaned of `.`, `..` and double slashes,
    /// and a slash in front means nothing.
    ///
    /// The file need not be UTF-8, as names need not be.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, DockerIgnoreError> {
        let text = characters(text.as_ref());
        Self::from_lines(reader::lines(&String::from_utf8_lossy(&text)))
    }

    /// Takes the list as it is, one pattern per item and without comments, as Docker does with
    /// what it read from a file before. Blank items match nothing.
    pub fn new<I>(patterns: I) -> Result<Self, DockerIgnoreError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::from_lines((1..).zip(patterns))
    }

    fn from_lines<P: AsRef<str>>(
        lines: impl IntoIterator<Item = (usize, P)>,
    ) -> Result<Self, DockerIgnoreError> {
        let rules = lines.into_iter().filter_map(|(line, pattern)| {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                return None;
            }
            let pattern = reader::clean(pattern);
            Some(Rule::parse(&pattern).map_err(|flaw| DockerIgnoreError {
                line,
                pattern,
                flaw,
            }))
        });
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Returns whether `path` is left out, which is relative to the context and separated by
    /// slashes. The context itself, the empty path, never is.
    #[must_use]
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = characters(path.as_ref());
        let decisive = self.0.iter().rfind(|rule| rule.covers(&path));
        decisive.is_some_and(|rule| rule.ignores)
    }

    /// Returns whether everything there could be below `directory` is left out, so that there is
    /// no need to look. Where it is not sure it says `false`.
    #[must_use]
    pub fn matches_all_below(&self, directory: impl AsRef<[u8]>) -> bool {
        let prefix = [directory.as_ref(), b"/"].concat();
        let inside = self.in_directory(&prefix);
        inside.verdict && inside.is_decided()
    }
}

/// A list from which everything is taken out that one directory decides alone.
#[derive(Debug)]
pub(crate) struct DirectoryRules<'a> {
    prefix: Cow<'a, [u8]>,
    /// The answer for names that none of `open` matches.
    verdict: bool,
    open: Vec<&'a Rule>,
}

impl Ignore for DockerIgnore {
    type Inside<'a> = DirectoryRules<'a>;

    const AS_DOCKER: bool = true;

    fn in_directory<'a>(&'a self, prefix: &'a [u8]) -> DirectoryRules<'a> {
        let prefix = characters(prefix);
        let directory = prefix.strip_suffix(b"/").unwrap_or_default();
        let covering = self.0.iter().rposition(|rule| rule.covers(directory));
        let open = self
            .0
            .iter()
            .skip(covering.map_or(0, |position| position + 1));
        DirectoryRules {
            verdict: covering.is_some_and(|position| self.0[position].ignores),
            open: open.filter(|rule| rule.reaches_below(&prefix)).collect(),
            prefix,
        }
    }
}

impl Inside for DirectoryRules<'_> {
    fn verdict(&self) -> bool {
        self.verdict
    }

    fn is_decided(&self) -> bool {
        self.open.iter().all(|rule| rule.ignores == self.verdict)
    }

    fn matches(&self, name: &[u8]) -> bool {
        let path = [&*self.prefix, &*characters(name)].concat();
        let decisive = self.open.iter().rfind(|rule| rule.matches(&path));
        decisive.map_or(self.verdict, |rule| rule.ignores)
    }
}

#[cfg(test)]
mod tests;
