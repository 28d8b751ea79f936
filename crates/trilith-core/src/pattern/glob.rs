//! One pattern taken apart: components, wildcards and brackets, and the regular expressions
//! they stand for. Knows nothing of lists, `!` and comments.

use std::fmt::Write as _;

use super::PatternError;

/// A pattern without its `!`, as a sequence of path components.
#[derive(Debug)]
pub(super) struct Glob {
    /// Starts with [`Segment::AnyDepth`] unless it is anchored at the root, and ends with it
    /// when only what is below a directory is meant. No two of them are neighbours.
    segments: Vec<Segment>,
    /// The pattern ends in a slash.
    directory: bool,
}

#[derive(Debug, PartialEq)]
enum Segment {
    /// `**`
    AnyDepth,
    /// `*`
    AnyName,
    Name(Vec<Token>),
}

#[derive(Debug, PartialEq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[…]`: ranges of characters, both ends included.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Why a component cannot be read.
enum Flaw {
    /// A `[` without its `]`.
    Unclosed,
    DanglingEscape,
}

/// A pattern of one component without wildcards, or with a `*` at one end: what most are, and
/// what needs no regular expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Component {
    text: Text,
    /// Only the first component of a path can match.
    anchored: bool,
    /// Only directories are meant.
    directory: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Text {
    Exact(String),
    Prefix(String),
    Suffix(String),
}

impl Component {
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.is_in(path, !self.directory)
    }

    /// Returns whether everything below the directory `prefix`, which ends in a slash, matches.
    pub(super) fn covers(&self, prefix: &[u8]) -> bool {
        self.is_in(prefix, false)
    }

    /// Returns what the name of a file alone says about a match, given that no directory above it
    /// matches and that there is no newline; `None` where it takes the whole path.
    pub(super) fn matches_name(&self, name: &[u8]) -> Option<bool> {
        if self.directory {
            return Some(false);
        }
        (!self.anchored).then(|| self.text.is(name))
    }

    /// Returns whether one of the components that a slash follows matches or, if `last`, the one
    /// behind the last slash.
    fn is_in(&self, path: &[u8], last: bool) -> bool {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'/', &path[start..]) {
            let component = &path[start..start + length];
            // The reference's `**` stands for one character at least.
            if start != 1 && self.text.is(component) {
                return true;
            }
            if self.anchored || component.contains(&b'\n') {
                return false;
            }
            start += length + 1;
        }
        let name = &path[start..];
        // The reference's `$` also matches before a newline at the end.
        let is_text = || {
            let before_newline = name.strip_suffix(b"\n");
            self.text.is(name) || before_newline.is_some_and(|name| self.text.is(name))
        };
        last && start != 1 && is_text()
    }
}

impl Text {
    fn is(&self, component: &[u8]) -> bool {
        match self {
            Self::Exact(text) => component == text.as_bytes(),
            Self::Prefix(text) => component.starts_with(text.as_bytes()),
            Self::Suffix(text) => component.ends_with(text.as_bytes()),
        }
    }

    /// Returns what `tokens` are, `None` where it takes a regular expression.
    fn of(tokens: &[Token]) -> Option<Self> {
        let literal = |tokens: &[Token]| -> Option<String> {
            let chars = tokens.iter().map(|token| match token {
                Token::Literal(c) => Some(*c),
                _ => None,
            });
            chars.collect()
        };
        match tokens {
            [Token::Many, rest @ ..] => literal(rest).map(Self::Suffix),
            [rest @ .., Token::Many] => literal(rest).map(Self::Prefix),
            _ => literal(tokens).map(Self::Exact),
        }
    }
}

impl Glob {
    /// Takes `body` apart, which is not empty. `line` is what errors show. Returns `None` for a
    /// pattern that the reference drops in silence, as git does.
    pub(super) fn parse(body: &str, line: &str) -> Result<Option<Self>, PatternError> {
        let directory = body.ends_with('/');
        let mut parts: Vec<&str> = body.split('/').collect();
        let slashes_inside = parts.len() - 1 - usize::from(directory);
        if parts[0].is_empty() {
            parts.remove(0);
        } else if slashes_inside == 0 {
            parts.insert(0, "**");
        }
        if let Some(last) = parts.last_mut().filter(|part| part.is_empty()) {
            *last = "**";
        }
        parts.dedup_by(|part, before| *part == "**" && *before == "**");

        let mut segments = Vec::with_capacity(parts.len());
        for part in parts {
            segments.push(match part {
                "**" => Segment::AnyDepth,
                "*" => Segment::AnyName,
                name => match tokens(name) {
                    Ok(tokens) => Segment::Name(tokens),
                    Err(Flaw::Unclosed) => return Ok(None),
                    Err(Flaw::DanglingEscape) => {
                        return Err(PatternError::DanglingEscape(line.to_owned()));
                    }
                },
            });
        }
        let glob = Self {
            segments,
            directory,
        };
        match glob.backward_range() {
            Some((first, last)) => Err(PatternError::Range {
                pattern: line.to_owned(),
                first,
                last,
            }),
            None => Ok(Some(glob)),
        }
    }

    /// Returns whether every path is meant (`*`, `**`).
    pub(super) fn is_anything(&self) -> bool {
        use Segment::{AnyDepth, AnyName};
        match self.segments.as_slice() {
            [AnyDepth] => !self.directory,
            [AnyDepth, AnyName] => true,
            _ => false,
        }
    }

    /// Returns whether everything in directories is meant (`*/`, `**/`).
    pub(super) fn is_nested(&self) -> bool {
        use Segment::{AnyDepth, AnyName};
        match self.segments.as_slice() {
            [AnyDepth] => self.directory,
            [AnyDepth, AnyName, AnyDepth] => true,
            _ => false,
        }
    }

    /// Returns the regular expression of all paths that match.
    pub(super) fn path_regex(&self) -> String {
        match self.segments.last() {
            Some(Segment::AnyDepth) => self.regex("/"),
            // The reference's `$` also matches before a newline at the end.
            _ => self.regex(r"(?:/|\n?\z)"),
        }
    }

    /// Returns the regular expression of all directories, with a slash at the end, below which
    /// everything matches.
    pub(super) fn below_regex(&self) -> String {
        self.regex("/")
    }

    fn regex(&self, end: &str) -> String {
        let mut regex = String::from("^");
        let mut slash = false;
        // A `**` at the end is the slash it has to follow.
        let inner = match self.segments.split_last() {
            Some((Segment::AnyDepth, inner)) => inner,
            _ => self.segments.as_slice(),
        };
        for (position, segment) in inner.iter().enumerate() {
            match segment {
                Segment::AnyDepth if position == 0 => {
                    regex.push_str(r"(?:(?-u:[^\n])+/)?");
                    continue;
                }
                Segment::AnyDepth => regex.push_str(r"(?:/(?-u:[^\n])+)?"),
                Segment::AnyName | Segment::Name(_) => {
                    if slash {
                        regex.push('/');
                    }
                    segment.push_regex(&mut regex);
                }
            }
            slash = true;
        }
        regex.push_str(end);
        regex
    }

    /// Returns the pattern as a component, where it is one.
    pub(super) fn component(&self) -> Option<Component> {
        use Segment::{AnyDepth, Name};
        let (anchored, tokens, directory) = match self.segments.as_slice() {
            [Name(tokens)] => (true, tokens, false),
            [Name(tokens), AnyDepth] => (true, tokens, true),
            [AnyDepth, Name(tokens)] => (false, tokens, false),
            [AnyDepth, Name(tokens), AnyDepth] => (false, tokens, true),
            _ => return None,
        };
        Some(Component {
            text: Text::of(tokens)?,
            anchored,
            directory,
        })
    }

    /// Returns whether no file matches where no directory above it does.
    pub(super) fn is_directory(&self) -> bool {
        use Segment::{AnyDepth, Name};
        match self.segments.as_slice() {
            // A class may match the slash that would have to follow it.
            [AnyDepth, Name(tokens), AnyDepth] => !tokens
                .iter()
                .any(|token| matches!(token, Token::Class { .. })),
            _ => false,
        }
    }

    fn backward_range(&self) -> Option<(char, char)> {
        let tokens = self.segments.iter().flat_map(|segment| match segment {
            Segment::Name(tokens) => tokens.as_slice(),
            Segment::AnyDepth | Segment::AnyName => &[],
        });
        let mut ranges = tokens.flat_map(|token| match token {
            Token::Class { ranges, .. } => ranges.as_slice(),
            _ => &[],
        });
        ranges.find(|(first, last)| first > last).copied()
    }
}

impl Segment {
    fn push_regex(&self, regex: &mut String) {
        let tokens = match self {
            Self::AnyDepth => return,
            Self::AnyName => return regex.push_str("(?-u:[^/])+"),
            Self::Name(tokens) => tokens,
        };
        for token in tokens {
            match token {
                Token::Literal(c) => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
                Token::One => regex.push_str("[^/]"),
                Token::Many => regex.push_str("(?-u:[^/])*"),
                Token::Class { negated, ranges } => push_class(regex, *negated, ranges),
            }
        }
    }
}

fn push_class(regex: &mut String, negated: bool, ranges: &[(char, char)]) {
    regex.push_str(if negated { "[^" } else { "[" });
    for &(first, last) in ranges {
        // Writing to a text cannot fail.
        let _ = write!(
            regex,
            r"\x{{{:x}}}-\x{{{:x}}}",
            u32::from(first),
            u32::from(last)
        );
    }
    regex.push(']');
}

/// Reads one component.
fn tokens(component: &str) -> Result<Vec<Token>, Flaw> {
    let mut tokens = Vec::new();
    let mut rest = component.chars();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '\\' => Token::Literal(rest.next().ok_or(Flaw::DanglingEscape)?),
            '*' => Token::Many,
            '?' => Token::One,
            '[' => {
                let (class, after) = class(rest.as_str()).ok_or(Flaw::Unclosed)?;
                rest = after.chars();
                class
            }
            c => Token::Literal(c),
        });
    }
    Ok(tokens)
}

/// Reads a bracket expression whose `[` is read already. Returns it and the text behind its `]`.
///
/// The first character can be a `]`. A backslash stands for itself, and there are no named
/// classes: `[[:alpha:]]` is the set of `[:alph` with a `]` behind it.
fn class(text: &str) -> Option<(Token, &str)> {
    let body = text.strip_prefix(['!', '^']);
    let negated = body.is_some();
    let body = body.unwrap_or(text);
    let search_from = body.chars().next()?.len_utf8();
    let end = search_from + body[search_from..].find(']')?;
    let token = Token::Class {
        negated,
        ranges: ranges(&body[..end]),
    };
    Some((token, &body[end + 1..]))
}

/// Reads the inside of a bracket expression. A `-` at either end stands for itself.
fn ranges(inside: &str) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    let mut rest = inside.chars();
    while let Some(first) = rest.next() {
        let mut ahead = rest.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) => {
                rest = ahead;
                last
            }
            _ => first,
        };
        ranges.push((first, last));
    }
    ranges
}
