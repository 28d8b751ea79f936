//! One pattern: how Docker compares it with a path, and which directories it can reach into.

use regex::bytes::Regex;

use super::{Flaw, go_regex, syntax};

/// How long a line is, in bytes, that Docker's reader gives up on.
const MAX_LEN: usize = 64 * 1024;

/// A pattern and what a match with it says.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// What a match says: `false` for patterns that start with `!`.
    pub(super) ignores: bool,
    shape: Shape,
    reach: Reach,
}

/// Where the paths lie that a pattern matches.
#[derive(Clone, Debug, Default)]
struct Reach {
    /// What all of them start with.
    start: Box<str>,
    /// The most components that one of them has; `None` where there is no end.
    depth: Option<usize>,
}

/// How a pattern is compared with a path. Docker has these short cuts too, and they differ from
/// its regular expressions in what `^` and a newline mean.
#[derive(Clone, Debug)]
enum Shape {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Regex(Regex),
}

impl Rule {
    /// Takes a cleaned pattern apart, `!` included.
    pub(super) fn parse(pattern: &str) -> Result<Self, Flaw> {
        let (ignores, body) = match pattern.strip_prefix('!') {
            Some("") => return Err(Flaw::Empty),
            Some(body) => (false, body),
            None => (true, pattern),
        };
        if body.len() >= MAX_LEN {
            return Err(Flaw::TooLarge);
        }
        syntax::check(body)?;
        let (kind, regex) = translate(body);
        let shape = match kind {
            Kind::Exact => Shape::Exact(body.into()),
            Kind::Prefix => Shape::Prefix(body[..body.len() - 2].into()),
            Kind::Suffix => Shape::Suffix(body[2..].into()),
            Kind::Regex => {
                let regex = go_regex::translate(&regex)?;
                // The translation is well-formed, so size is all that can be wrong.
                Shape::Regex(Regex::new(&regex).map_err(|_| Flaw::TooLarge)?)
            }
        };
        let reach = Reach::of(body);
        Ok(Self {
            ignores,
            shape,
            reach,
        })
    }

    /// Returns whether the pattern matches `path` itself, whatever it says of directories above.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.shape {
            Shape::Exact(text) => path == text.as_bytes(),
            Shape::Prefix(text) => path.starts_with(text.as_bytes()),
            Shape::Suffix(text) => {
                let name = text.strip_prefix('/').map(str::as_bytes);
                path.ends_with(text.as_bytes()) || name == Some(path)
            }
            Shape::Regex(regex) => {
                path.starts_with(self.reach.start.as_bytes()) && regex.is_match(path)
            }
        }
    }

    /// Returns whether the pattern matches `path` or a directory above it. The context itself,
    /// the empty path, is matched by none.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends = slashes.map(|(position, _)| position);
        ends.chain([path.len()])
            .filter(|end| !matches!(&path[..*end], b"" | b"."))
            .any(|end| self.matches(&path[..end]))
    }

    /// Returns whether the pattern may match something in or below a directory. It says `true`
    /// where it is not sure. `prefix` is the directory's path with a slash at its end, or empty
    /// for the context itself.
    pub(super) fn reaches_below(&self, prefix: &[u8]) -> bool {
        let Reach { start, depth } = &self.reach;
        let start = start.as_bytes();
        let components = prefix.split(|byte| *byte == b'/').count() - 1;
        (start.starts_with(prefix) || prefix.starts_with(start))
            && depth.is_none_or(|depth| depth > components)
    }
}

impl Reach {
    /// Returns the reach of a pattern, which is everywhere where there is doubt.
    fn of(body: &str) -> Self {
        // What Docker fails to escape, see `translate`.
        if body.contains(['|', '{']) {
            return Self::default();
        }
        let start = &body[..body.find(['*', '?', '[', '\\', '^']).unwrap_or(body.len())];
        // Brackets and escapes can stand for a slash.
        let bounded = !body.contains("**") && !body.contains(['[', '\\']);
        Self {
            start: start.into(),
            depth: bounded.then(|| body.split('/').count()),
        }
    }
}

/// How a pattern is compared.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A path is the pattern.
    Exact,
    /// A path starts with the pattern but for the `**` at its end.
    Prefix,
    /// A path ends with the pattern but for the `**` at its start.
    Suffix,
    /// A path matches the regular expression.
    Regex,
}

/// Translates a pattern into a regular expression in Go's dialect, and says whether it takes one.
///
/// Docker goes character by character and knows no brackets: a `*` between them is as good as one
/// outside, and what comes of that is for the dialect to say. Of the characters that mean
/// something to the dialect, Docker means to escape `{`, `|` and `}` too, but its table of them
/// has no room for these. So next to a wildcard `a|b` is two patterns, and `a{2}` is `aa`.
fn translate(body: &str) -> (Kind, String) {
    let mut regex = String::from("^");
    let mut kind = Kind::Exact;
    let mut rest = body.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.as_str().starts_with('*') => {
                let first = regex == "^";
                // `**/` is `**`.
                let after = &rest.as_str()[1..];
                rest = after.strip_prefix('/').unwrap_or(after).chars();
                let last = rest.as_str().is_empty();
                regex.push_str(if last { ".*" } else { "(.*/)?" });
                kind = match kind {
                    _ if first => Kind::Suffix,
                    Kind::Exact if last => Kind::Prefix,
                    _ => Kind::Regex,
                };
                continue;
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' | ']' => regex.push(c),
            '\\' => {
                regex.push(c);
                match rest.next() {
                    Some(escaped) => regex.push(escaped),
                    None => continue,
                }
            }
            '.' | '+' | '(' | ')' | '$' => {
                regex.extend(['\\', c]);
                continue;
            }
            c => {
                regex.push(c);
                continue;
            }
        }
        kind = Kind::Regex;
    }
    regex.push('$');
    (kind, regex)
}
