//! Regular expressions in the dialect of Go's `regexp`, as far as ignore patterns can hold them,
//! translated into that of the crate `regex`.
//!
//! The dialects differ in what brackets and escapes mean: in Go, `[a&&b]` is four characters and
//! `\d` ten digits. An escape from a pattern arrives here as it was written, so all that Go knows
//! can turn up.

use std::fmt::Write as _;

use super::Flaw;

/// Returns `go` as a regular expression of the crate `regex`, for text that is UTF-8.
pub(super) fn translate(go: &str) -> Result<String, Flaw> {
    let mut reader = Reader(go);
    let mut regex = String::with_capacity(go.len() * 2);
    let mut state = State::Start;
    while let Some(c) = reader.next() {
        match c {
            '^' => regex.push_str(r"\A"),
            '$' => regex.push_str(r"\z"),
            '(' | '|' => {
                regex.push(c);
                state = State::Start;
                continue;
            }
            ')' => regex.push(c),
            '*' | '?' => {
                regex.push(c);
                state = State::Repeated;
                continue;
            }
            '{' => {
                if let Some(repetition) = reader.repetition()? {
                    if state != State::Atom {
                        return Err(Flaw::Repetition);
                    }
                    regex.push_str(&repetition);
                    state = State::Repeated;
                    continue;
                }
                push_literal(&mut regex, c);
            }
            // Only ever repeated, so it does not matter that it is a byte.
            '.' => regex.push_str(r"(?-u:[^\n])"),
            '[' => {
                let (negated, ranges) = reader.class()?;
                push_class(&mut regex, negated, &ranges);
            }
            '\\' => reader.push_escape(&mut regex)?,
            c => push_literal(&mut regex, c),
        }
        state = State::Atom;
    }
    Ok(regex)
}

/// What stands before the next character.
#[derive(PartialEq)]
enum State {
    /// Nothing that could be repeated.
    Start,
    Atom,
    /// Something that is repeated already.
    Repeated,
}

/// The text that is still to be read.
struct Reader<'a>(&'a str);

/// What an escape stands for where a character could stand.
enum Escaped {
    Char(char),
    Ranges(Vec<(char, char)>),
    /// A general category in the crate's spelling.
    Category(String),
}

/// A member of a bracket expression.
enum Member {
    Range(char, char),
    Category(String),
}

/// How often Go repeats something at most.
const MAX_REPEAT: u32 = 1000;

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<char> {
        let c = self.0.chars().next()?;
        self.0 = &self.0[c.len_utf8()..];
        Some(c)
    }

    fn skip(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Returns the text before `end` and skips both; everything if there is no `end`.
    fn until(&mut self, end: &str) -> &'a str {
        let (text, rest) = self.0.split_once(end).unwrap_or((self.0, ""));
        self.0 = rest;
        text
    }

    /// Translates an escape outside brackets, whose backslash is read already.
    fn push_escape(&mut self, regex: &mut String) -> Result<(), Flaw> {
        for (escape, meaning) in [
            ("A", r"\A"),
            ("z", r"\z"),
            ("b", r"(?-u:\b)"),
            ("B", r"(?-u:\B)"),
        ] {
            if self.skip(escape) {
                regex.push_str(meaning);
                return Ok(());
            }
        }
        if self.skip("Q") {
            for c in self.until(r"\E").chars() {
                push_literal(regex, c);
            }
            return Ok(());
        }
        match self.escape()? {
            Escaped::Char(c) => push_literal(regex, c),
            Escaped::Ranges(ranges) => {
                let ranges = ranges.into_iter().map(|(a, b)| Member::Range(a, b));
                push_class(regex, false, &ranges.collect::<Vec<_>>());
            }
            Escaped::Category(category) => regex.push_str(&category),
        }
        Ok(())
    }

    /// Reads an escape that may stand inside brackets too, whose backslash is read already.
    fn escape(&mut self) -> Result<Escaped, Flaw> {
        let c = self.next().ok_or(Flaw::DanglingEscape)?;
        Ok(match c {
            'd' => Escaped::Ranges(vec![('0', '9')]),
            'D' => Escaped::Ranges(complement(&[('0', '9')])),
            's' => Escaped::Ranges(SPACE.to_vec()),
            'S' => Escaped::Ranges(complement(SPACE)),
            'w' => Escaped::Ranges(WORD.to_vec()),
            'W' => Escaped::Ranges(complement(WORD)),
            'p' | 'P' => Escaped::Category(self.category(c == 'P')?),
            '0'..='7' => Escaped::Char(self.octal(c)?),
            'x' => Escaped::Char(self.hexadecimal()?),
            'a' => Escaped::Char('\x07'),
            'f' => Escaped::Char('\x0c'),
            'n' => Escaped::Char('\n'),
            'r' => Escaped::Char('\r'),
            't' => Escaped::Char('\t'),
            'v' => Escaped::Char('\x0b'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Escaped::Char(c),
            _ => return Err(Flaw::Escape),
        })
    }

    /// Reads the name of a general category or script.
    fn category(&mut self, negated: bool) -> Result<String, Flaw> {
        let name = if self.skip("{") {
            let (name, rest) = self.0.split_once('}').ok_or(Flaw::Escape)?;
            self.0 = rest;
            name
        } else {
            let len = self.0.chars().next().map_or(0, char::len_utf8);
            let (name, rest) = self.0.split_at(len);
            self.0 = rest;
            name
        };
        let positive = name.strip_prefix('^');
        let negated = negated ^ positive.is_some();
        let name = positive.unwrap_or(name);
        // Go leaves out the code points that stand for nothing.
        if name == "C" {
            let not = if negated { "^" } else { "" };
            return Ok(format!(r"[{not}\p{{Cc}}\p{{Cf}}\p{{Co}}]"));
        }
        let category = format!(r"\{}{{{name}}}", if negated { 'P' } else { 'p' });
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        // The crate is not particular about case.
        let known = plain && name.starts_with(|c: char| c.is_ascii_uppercase());
        if known && regex::bytes::Regex::new(&category).is_ok() {
            Ok(category)
        } else {
            Err(Flaw::Escape)
        }
    }

    /// Reads up to three octal digits, the first of which is `first`.
    fn octal(&mut self, first: char) -> Result<char, Flaw> {
        let digits = self
            .0
            .bytes()
            .take_while(|byte| (b'0'..=b'7').contains(byte));
        let more = digits.count().min(2);
        if first != '0' && more == 0 {
            // It would refer back to a group.
            return Err(Flaw::Escape);
        }
        let (digits, rest) = self.0.split_at(more);
        self.0 = rest;
        let number = u32::from_str_radix(&format!("{first}{digits}"), 8);
        number.ok().and_then(char::from_u32).ok_or(Flaw::Escape)
    }

    /// Reads two hexadecimal digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Result<char, Flaw> {
        if self.skip("{") {
            let (digits, rest) = self.0.split_once('}').ok_or(Flaw::Escape)?;
            self.0 = rest;
            let digits = Some(digits).filter(|digits| !digits.starts_with('+'));
            let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            return number.and_then(char::from_u32).ok_or(Flaw::Escape);
        }
        let mut digit = || self.next().and_then(|c| c.to_digit(16)).ok_or(Flaw::Escape);
        let number = digit()? * 16 + digit()?;
        char::from_u32(number).ok_or(Flaw::Escape)
    }

    /// Reads a repetition such as `{2}`, `{2,}` or `{2,4}` whose `{` is read already; `None`, and
    /// nothing is read, where the brace is just a brace.
    fn repetition(&mut self) -> Result<Option<String>, Flaw> {
        let Some((inside, rest)) = self.0.split_once('}') else {
            return Ok(None);
        };
        let (least, most) = match inside.split_once(',') {
            Some((least, "")) => (least, None),
            Some((least, most)) => (least, Some(most)),
            None => (inside, Some(inside)),
        };
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let leading = digits.len() > 1 && digits.starts_with('0');
            (plain && !leading).then(|| digits.parse::<u32>().unwrap_or(u32::MAX))
        };
        let (Some(least), Some(most)) = (
            number(least),
            most.map_or(Some(None), |most| number(most).map(Some)),
        ) else {
            return Ok(None);
        };
        let most_is_fine = most.is_none_or(|most| least <= most && most <= MAX_REPEAT);
        if least > MAX_REPEAT || !most_is_fine {
            return Err(Flaw::Repetition);
        }
        self.0 = rest;
        let most = most.map_or(String::new(), |most| most.to_string());
        Ok(Some(format!("{{{least},{most}}}")))
    }

    /// Reads a bracket expression whose `[` is read already.
    fn class(&mut self) -> Result<(bool, Vec<Member>), Flaw> {
        let negated = self.skip("^");
        let mut members = Vec::new();
        let mut first = true;
        while first || !self.skip("]") {
            first = false;
            if self.named_class(&mut members)? {
                continue;
            }
            let low = match self.member()? {
                Escaped::Char(c) => c,
                Escaped::Ranges(ranges) => {
                    members.extend(ranges.into_iter().map(|(a, b)| Member::Range(a, b)));
                    continue;
                }
                Escaped::Category(category) => {
                    members.push(Member::Category(category));
                    continue;
                }
            };
            let is_range = self.0.len() > 1 && self.0.starts_with('-') && !self.0.starts_with("-]");
            if !is_range {
                members.push(Member::Range(low, low));
                continue;
            }
            self.skip("-");
            match self.member()? {
                Escaped::Char(high) if low <= high => members.push(Member::Range(low, high)),
                Escaped::Char(_) => return Err(Flaw::Range),
                Escaped::Ranges(_) | Escaped::Category(_) => return Err(Flaw::Escape),
            }
        }
        Ok((negated, members))
    }

    fn member(&mut self) -> Result<Escaped, Flaw> {
        match self.next().ok_or(Flaw::Unclosed)? {
            '\\' => self.escape(),
            c => Ok(Escaped::Char(c)),
        }
    }

    /// Reads a class such as `[:alpha:]` inside brackets, if there is one.
    fn named_class(&mut self, members: &mut Vec<Member>) -> Result<bool, Flaw> {
        let Some((name, rest)) = self
            .0
            .strip_prefix("[:")
            .and_then(|text| text.split_once(":]"))
        else {
            return Ok(false);
        };
        self.0 = rest;
        let positive = name.strip_prefix('^');
        let (_, ranges) = NAMED
            .iter()
            .find(|(known, _)| *known == positive.unwrap_or(name))
            .ok_or(Flaw::Class)?;
        let ranges = match positive {
            Some(_) => complement(ranges),
            None => ranges.to_vec(),
        };
        members.extend(ranges.into_iter().map(|(a, b)| Member::Range(a, b)));
        Ok(true)
    }
}

const SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// The named classes of POSIX, each sorted.
const NAMED: &[(&str, &[(char, char)])] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", &[('0', '9')]),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

/// Returns all characters outside `ranges`, which are sorted, apart and all in ASCII.
fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut outside = Vec::with_capacity(ranges.len() + 1);
    let mut next = 0_u8;
    for (first, last) in ranges {
        if let Some(before) = u8::try_from(*first)
            .ok()
            .and_then(|first| first.checked_sub(1))
            && next <= before
        {
            outside.push((char::from(next), char::from(before)));
        }
        next = u8::try_from(*last).unwrap_or(u8::MAX).saturating_add(1);
    }
    outside.push((char::from(next), char::MAX));
    outside
}

fn push_literal(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

fn push_class(regex: &mut String, negated: bool, members: &[Member]) {
    regex.push_str(if negated { "[^" } else { "[" });
    for member in members {
        match member {
            // Writing to a text cannot fail.
            Member::Range(first, last) => {
                let (first, last) = (u32::from(*first), u32::from(*last));
                let _ = write!(regex, r"\x{{{first:x}}}-\x{{{last:x}}}");
            }
            Member::Category(category) => regex.push_str(category),
        }
    }
    regex.push(']');
}
