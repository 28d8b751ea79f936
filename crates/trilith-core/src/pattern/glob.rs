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

/// What the name of a file alone says about a match, given that no directory above matches.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NameRule {
    /// No file matches: only directories are meant.
    Never,
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// It takes the whole path.
    Unknown,
}

impl NameRule {
    pub(super) fn matches(&self, name: &[u8]) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::Exact(text) => Some(name == text.as_bytes()),
            Self::Prefix(text) => Some(name.starts_with(text.as_bytes())),
            Self::Suffix(text) => Some(name.ends_with(text.as_bytes())),
            Self::Unknown => None,
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

    /// Returns what can be said of a file by its name alone.
    pub(super) fn name_rule(&self) -> NameRule {
        use Segment::{AnyDepth, Name};
        match self.segments.as_slice() {
            [AnyDepth, Name(tokens)] => name_rule(tokens),
            // A class may match the slash that would have to follow it.
            [AnyDepth, Name(tokens), AnyDepth]
                if !tokens.iter().any(|t| matches!(t, Token::Class { .. })) =>
            {
                NameRule::Never
            }
            _ => NameRule::Unknown,
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

fn name_rule(tokens: &[Token]) -> NameRule {
    let literal = |tokens: &[Token]| -> Option<String> {
        let chars = tokens.iter().map(|token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        });
        chars.collect()
    };
    let rule = match tokens {
        [Token::Many, rest @ ..] => literal(rest).map(NameRule::Suffix),
        [rest @ .., Token::Many] => literal(rest).map(NameRule::Prefix),
        _ => literal(tokens).map(NameRule::Exact),
    };
    rule.unwrap_or(NameRule::Unknown)
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
