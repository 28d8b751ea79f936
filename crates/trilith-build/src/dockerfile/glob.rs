//! The wildcards of `COPY` sources: Go's `filepath.Match` for each component of a path, and
//! `**` for any number of components.

/// The pattern of one component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Glob {
    /// `**`: components, any number of them.
    Any,
    /// A pattern that is malformed, so that it may mean anything from here on.
    Doubtful,
    /// One component.
    Component(Vec<Piece>),
}

/// A part of a component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    /// This character.
    Char(char),
    /// `?`: any character.
    One,
    /// `*`: characters, any number of them.
    Star,
    /// `[…]`: a character of one of the ranges, or, if negated, of none.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Returns the pattern that `text` is.
    pub(super) fn new(text: &str) -> Self {
        if text == "**" {
            return Self::Any;
        }
        pieces(text).map_or(Self::Doubtful, Self::Component)
    }

    /// Returns the pattern of `text` itself.
    pub(super) fn literal(text: &str) -> Self {
        Self::Component(text.chars().map(Piece::Char).collect())
    }
}

/// Returns whether `patterns` match `path`, component by component.
pub(super) fn matches(patterns: &[Glob], path: &[&str]) -> bool {
    // `reached` holds how many components the patterns so far can have matched.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for pattern in patterns {
        let mut next = vec![false; path.len() + 1];
        match pattern {
            Glob::Doubtful => return reached.contains(&true),
            Glob::Any => {
                let first = reached.iter().position(|&there| there);
                if let Some(first) = first {
                    next[first..].fill(true);
                }
            }
            Glob::Component(pieces) => {
                for (at, component) in path.iter().enumerate() {
                    next[at + 1] = reached[at] && component_matches(pieces, component);
                }
            }
        }
        reached = next;
    }
    reached[path.len()]
}

fn component_matches(pieces: &[Piece], text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let mut reached = vec![false; chars.len() + 1];
    reached[0] = true;
    for piece in pieces {
        let mut next = vec![false; chars.len() + 1];
        if *piece == Piece::Star {
            if let Some(first) = reached.iter().position(|&there| there) {
                next[first..].fill(true);
            }
        } else {
            for (at, c) in chars.iter().enumerate() {
                next[at + 1] = reached[at] && piece.takes(*c);
            }
        }
        reached = next;
    }
    reached[chars.len()]
}

impl Piece {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One | Self::Star => true,
            Self::Class { negated, ranges } => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                within != *negated
            }
        }
    }
}

/// Returns the pieces of `text`; `None` where a class or an escape is not finished.
fn pieces(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        pieces.push(match c {
            '*' => Piece::Star,
            '?' => Piece::One,
            '\\' => Piece::Char(chars.next()?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    if chars.peek() == Some(&']') && !ranges.is_empty() {
                        chars.next();
                        break;
                    }
                    let low = class_char(&mut chars)?;
                    let high = match chars.next_if_eq(&'-') {
                        Some(_) => class_char(&mut chars)?,
                        None => low,
                    };
                    ranges.push((low, high));
                }
                Piece::Class { negated, ranges }
            }
            c => Piece::Char(c),
        });
    }
    Some(pieces)
}

/// Returns the next character of a class, where `-` and `]` have to be escaped.
fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components() {
        for (pattern, matching, other) in [
            ("", &[""][..], &["a"][..]),
            ("a*b*c", &["abc", "axbxbc"], &["ab", "acb"]),
            ("*", &["", "a", ".a"], &[]),
            ("?\u{e9}", &["\u{fc}\u{e9}"], &["\u{e9}"]),
            ("[a-c]x", &["bx"], &["dx", "x"]),
            ("[^a-c]", &["d"], &["a", ""]),
            ("[\\-\\]]", &["-", "]"], &["a"]),
            ("\\*", &["*"], &["a"]),
        ] {
            let Glob::Component(pieces) = Glob::new(pattern) else {
                panic!("not one component: {pattern}");
            };
            for text in matching {
                assert!(component_matches(&pieces, text), "{pattern} {text}");
            }
            for text in other {
                assert!(!component_matches(&pieces, text), "{pattern} {text}");
            }
        }
        for malformed in ["[", "[]", "[]a]", "[a", "[a-", "[a-]", "[-a]", "a\\"] {
            assert_eq!(Glob::new(malformed), Glob::Doubtful, "{malformed}");
        }
    }

    #[test]
    fn paths() {
        let globs = |text: &str| text.split('/').map(Glob::new).collect::<Vec<_>>();
        for (pattern, path, expected) in [
            ("a/*", &["a", "b"][..], true),
            ("a/*", &["a"], false),
            ("a/*", &["a", "b", "c"], false),
            ("**/c", &["c"], true),
            ("**/c", &["a", "b", "c"], true),
            ("a/**", &["a"], true),
            ("a/**/c", &["a", "b", "d"], false),
            ("a/[/c", &["a", "x"], true),
            ("a/[/c", &["b"], false),
        ] {
            assert_eq!(
                matches(&globs(pattern), path),
                expected,
                "{pattern} {path:?}"
            );
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Glob::new(&"*a".repeat(500));
        assert!(!matches(&[pattern], &[&"a".repeat(2000)[..], "b"]));
        let many = vec![Glob::Any; 500];
        assert!(matches(&many, &["a"; 500]));
    }
}
