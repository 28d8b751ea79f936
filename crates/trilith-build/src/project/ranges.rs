//! Version ranges of Python and Node, as far as the choice of a base image needs them.
//!
//! Answers one question: may any release of this line (3.12, or 22) be used? Pre-releases,
//! epochs and local versions play no part in it, and what is not understood is no range.

/// The longest text that is taken for a range, in bytes.
const MAX_LEN: usize = 200;

type Version = (u32, u32, u32);

/// Ranges of which one must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<Range>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    /// The first version in it.
    from: Version,
    /// The first version beyond it.
    to: Version,
    /// Parts left out.
    holes: Vec<(Version, Version)>,
}

const END: Version = (u32::MAX, u32::MAX, u32::MAX);
const ANY: Range = Range {
    from: (0, 0, 0),
    to: END,
    holes: Vec::new(),
};

impl Ranges {
    /// Returns whether a release `major.minor.*` is allowed.
    pub(super) fn allows_minor(&self, major: u32, minor: u32) -> bool {
        self.meets((major, minor, 0), (major, minor.saturating_add(1), 0))
    }

    /// Returns whether a release `major.*` is allowed.
    pub(super) fn allows_major(&self, major: u32) -> bool {
        self.meets((major, 0, 0), (major.saturating_add(1), 0, 0))
    }

    fn meets(&self, from: Version, to: Version) -> bool {
        self.0.iter().any(|range| {
            let covered = |hole: &(Version, Version)| hole.0 <= from && to <= hole.1;
            range.from.max(from) < range.to.min(to) && !range.holes.iter().any(covered)
        })
    }
}

impl Range {
    fn and(mut self, from: Version, to: Version) -> Self {
        self.from = self.from.max(from);
        self.to = self.to.min(to);
        self
    }
}

/// A version of which parts may be missing, as in `3.12` or `20.x`.
struct Partial {
    parts: Vec<u32>,
    /// Whether it ends in `.*` or `.x`.
    wildcard: bool,
}

impl Partial {
    /// Reads digits between dots; what follows a `-`, `+` or letter is dropped.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches(['v', 'V', '=']);
        let text = text.split(['-', '+']).next().unwrap_or(text);
        let mut partial = Self {
            parts: Vec::new(),
            wildcard: false,
        };
        for part in text.split('.') {
            if matches!(part, "*" | "x" | "X") {
                partial.wildcard = true;
                break;
            }
            let end = part.find(|c: char| !c.is_ascii_digit());
            let digits = &part[..end.unwrap_or(part.len())];
            partial.parts.push(digits.parse().ok()?);
            if digits.len() < part.len() {
                break;
            }
        }
        Some(partial)
    }

    fn at(&self, index: usize) -> u32 {
        self.parts.get(index).copied().unwrap_or(0)
    }

    /// The version with missing parts as zeros.
    fn first(&self) -> Version {
        (self.at(0), self.at(1), self.at(2))
    }

    /// The first version beyond all that begin with the first `len` parts.
    fn beyond(&self, len: usize) -> Version {
        match len {
            0 => END,
            1 => (self.at(0).saturating_add(1), 0, 0),
            2 => (self.at(0), self.at(1).saturating_add(1), 0),
            _ => (self.at(0), self.at(1), self.at(2).saturating_add(1)),
        }
    }

    /// How many parts count.
    fn len(&self) -> usize {
        self.parts.len()
    }
}

/// Reads a specifier of Python (packaging specification, "Version specifiers") or a
/// constraint of Poetry: `>=3.11,<4`, `~=3.10`, `==3.12.*`, `^3.11`, `~3.11 || ^3.13`.
pub(super) fn parse_python(text: &str) -> Option<Ranges> {
    if text.len() > MAX_LEN {
        return None;
    }
    let ranges: Option<Vec<Range>> = text
        .split('|')
        .filter(|alternative| !alternative.is_empty())
        .map(|alternative| {
            alternative
                .split(',')
                .map(str::trim)
                .filter(|clause| !clause.is_empty())
                .try_fold(ANY, python_clause)
        })
        .collect();
    ranges.filter(|ranges| !ranges.is_empty()).map(Ranges)
}

fn python_clause(range: Range, clause: &str) -> Option<Range> {
    let (operator, rest) = split_operator(clause);
    let version = Partial::parse(rest)?;
    let first = version.first();
    let next = version.beyond(3);
    let start = (0, 0, 0);
    Some(match operator {
        ">=" => range.and(first, END),
        ">" => range.and(next, END),
        "<" => range.and(start, first),
        "<=" => range.and(start, next),
        "~=" => range.and(first, version.beyond(version.len().saturating_sub(1))),
        "^" => range.and(first, version.beyond(1)),
        "~" => range.and(first, version.beyond(version.len().min(2))),
        "!=" if version.wildcard => {
            let mut range = range;
            range.holes.push((first, version.beyond(version.len())));
            range
        }
        "!=" => range,
        "==" | "===" | "=" | "" if version.wildcard => {
            range.and(first, version.beyond(version.len()))
        }
        "==" | "===" | "=" => range.and(first, next),
        // `3.12` in `.python-version` is the whole line.
        "" => range.and(first, version.beyond(version.len())),
        _ => return None,
    })
}

/// Reads a range of npm (`semver`, "Ranges"): `>=18`, `^20.1`, `18 || 20`, `18 - 20`, `20.x`.
pub(super) fn parse_node(text: &str) -> Option<Ranges> {
    if text.len() > MAX_LEN {
        return None;
    }
    let ranges: Option<Vec<Range>> = text.split("||").map(node_range).collect();
    ranges.map(Ranges)
}

fn node_range(text: &str) -> Option<Range> {
    if let Some((from, to)) = text.split_once(" - ") {
        let (from, to) = (Partial::parse(from)?, Partial::parse(to)?);
        return Some(ANY.and(from.first(), to.beyond(to.len())));
    }
    // An operator may stand apart from its version.
    let mut text = text.to_owned();
    for operator in [">", "<", "=", "~", "^"] {
        while text.contains(&format!("{operator} ")) {
            text = text.replace(&format!("{operator} "), operator);
        }
    }
    text.split([' ', ','])
        .filter(|comparator| !comparator.is_empty())
        .try_fold(ANY, node_comparator)
}

fn node_comparator(range: Range, comparator: &str) -> Option<Range> {
    let (operator, rest) = split_operator(comparator);
    let version = Partial::parse(rest)?;
    let first = version.first();
    let beyond = version.beyond(version.len());
    let start = (0, 0, 0);
    Some(match operator {
        ">=" => range.and(first, END),
        ">" => range.and(beyond, END),
        "<" => range.and(start, first),
        "<=" => range.and(start, beyond),
        "^" => range.and(first, version.beyond(version.len().min(1))),
        "~" | "~>" => range.and(first, version.beyond(version.len().min(2))),
        "=" | "==" | "" => range.and(first, beyond),
        _ => return None,
    })
}

fn split_operator(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c| !matches!(c, '<' | '>' | '=' | '!' | '~' | '^'))
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python() {
        for (text, allowed) in [
            ("", &[9, 10, 11, 12, 13, 14][..]),
            (">=3.11", &[11, 12, 13, 14]),
            (">3.11", &[11, 12, 13, 14]),
            (">=3.11,<3.13", &[11, 12]),
            (">= 3.11 , <= 3.12", &[11, 12]),
            ("<3.12.4", &[9, 10, 11, 12]),
            ("~=3.12", &[12, 13, 14]),
            ("~=3.12.1", &[12]),
            ("==3.11.*", &[11]),
            ("==3.11.4", &[11]),
            (">=3.11,!=3.12.*", &[11, 13, 14]),
            (">=3.11,!=3.12.1", &[11, 12, 13, 14]),
            ("^3.11", &[11, 12, 13, 14]),
            ("~3.11", &[11]),
            ("~3.11 || ~3.13", &[11, 13]),
            ("3.13", &[13]),
            ("3.13.0rc1", &[13]),
            ("3.13t", &[13]),
            ("3", &[9, 10, 11, 12, 13, 14]),
            ("*", &[9, 10, 11, 12, 13, 14]),
            ("<3", &[]),
        ] {
            let ranges = if text.is_empty() {
                Ranges(vec![ANY])
            } else {
                parse_python(text).unwrap()
            };
            let found: Vec<u32> = (9..=14)
                .filter(|&minor| ranges.allows_minor(3, minor))
                .collect();
            assert_eq!(found, allowed, "{text}");
        }
        for bad in ["pypy3.10", ">=", "=>3", "|", "99999999999", "≥3"] {
            assert_eq!(parse_python(bad), None, "{bad}");
        }
    }

    #[test]
    fn node() {
        for (text, allowed) in [
            ("", &[16, 18, 20, 22, 24][..]),
            ("*", &[16, 18, 20, 22, 24]),
            (">=18", &[18, 20, 22, 24]),
            (">= 18.17.0", &[18, 20, 22, 24]),
            (">18", &[20, 22, 24]),
            (">=18 <21", &[18, 20]),
            ("<=20", &[16, 18, 20]),
            ("^20.1.0", &[20]),
            ("~20.1", &[20]),
            ("20", &[20]),
            ("v20.11.1", &[20]),
            ("20.x", &[20]),
            ("18 || 20 || >=24", &[18, 20, 24]),
            ("18 - 20", &[18, 20]),
            ("^18.0.0-rc.1", &[18]),
        ] {
            let ranges = parse_node(text).unwrap();
            let found: Vec<u32> = [16, 18, 20, 22, 24]
                .into_iter()
                .filter(|&major| ranges.allows_major(major))
                .collect();
            assert_eq!(found, allowed, "{text}");
        }
        for bad in ["lts/*", "node", "=>18", ">="] {
            assert_eq!(parse_node(bad), None, "{bad}");
        }
    }
}
