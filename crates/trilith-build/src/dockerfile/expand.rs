//! Variables in a Dockerfile's words: `$NAME`, `${NAME}` and the modifiers `-`, `+` and `?`.
//!
//! What cannot be known before the build is an error and never a guess. Patterns
//! (`${NAME#…}`, `${NAME%…}`, `${NAME/…}`) are not evaluated.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// What is known of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// Its value.
    Set(String),
    /// It is not set, and so expands to nothing.
    Unset,
    /// It may have any value.
    Unknown,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandError {
    /// The variable's value is known to the engine alone.
    #[error("only the engine knows `{0}`")]
    Unknown(String),
    /// The variable has to be set and is not.
    #[error("`{0}` is not set")]
    Unset(String),
    /// A modifier that is not evaluated here.
    #[error("the modifier of `{0}` is not understood")]
    Modifier(String),
    /// A quote or brace that is never closed, or an empty name.
    #[error("a quote or brace is not closed")]
    Unclosed,
}

/// Returns `word` with its variables replaced and its quotes and escapes removed.
pub(super) fn expand(
    word: &str,
    escape: char,
    lookup: &mut dyn FnMut(&str) -> Variable,
) -> Result<String, ExpandError> {
    let mut expander = Expander {
        chars: word.chars().peekable(),
        escape,
        lookup,
    };
    expander.until(None)
}

/// Returns the variables that `word` depends on; `None` where that cannot be told.
pub(super) fn names(word: &str, escape: char) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let expanded = expand(word, escape, &mut |name| {
        names.insert(name.to_owned());
        // Set, as `?` would stop at a variable that is not.
        Variable::Set(String::from("x"))
    });
    expanded.ok().map(|_| names)
}

/// Returns `word` without quotes and escapes, if it has no variable.
pub(super) fn literal(word: &str, escape: char) -> Option<String> {
    expand(word, escape, &mut |_| Variable::Unknown).ok()
}

struct Expander<'w, 'l> {
    chars: Peekable<Chars<'w>>,
    escape: char,
    lookup: &'l mut dyn FnMut(&str) -> Variable,
}

impl Expander<'_, '_> {
    /// Expands up to and with `stop`, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out)?,
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => out.extend(self.chars.next()),
                c => out.push(c),
            }
        }
        match stop {
            Some(_) => Err(ExpandError::Unclosed),
            None => Ok(out),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::Unclosed),
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::Unclosed),
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.variable()?),
                Some(c) if c == self.escape => match self.chars.peek().copied() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        out.extend(self.chars.next());
                    }
                    Some(_) => out.push(c),
                    None => {}
                },
                Some(c) => out.push(c),
            }
        }
    }

    /// Expands what follows a `$`.
    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return match name.as_str() {
                "" => Ok("$".to_owned()),
                name => Ok(self.value(name)?.unwrap_or_default()),
            };
        }
        if matches!(self.chars.peek(), None | Some('{' | '}' | ':')) {
            return Err(ExpandError::Unclosed);
        }
        let name = self.name();
        let mut modifier = self.chars.next().ok_or(ExpandError::Unclosed)?;
        let empty_is_unset = modifier == ':';
        if empty_is_unset {
            modifier = self.chars.next().ok_or(ExpandError::Unclosed)?;
        }
        if modifier == '}' && !empty_is_unset {
            return Ok(self.value(&name)?.unwrap_or_default());
        }
        if !matches!(modifier, '-' | '+' | '?') {
            return Err(ExpandError::Modifier(name));
        }
        let word = self.until(Some('}'))?;
        let value = self.value(&name)?;
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, value) {
            ('+', Some(_)) | ('-', None) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('?', None) => Err(ExpandError::Unset(name)),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(ExpandError::Modifier(name)),
        }
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, ExpandError> {
        match (self.lookup)(name) {
            Variable::Set(value) => Ok(Some(value)),
            Variable::Unset => Ok(None),
            Variable::Unknown => Err(ExpandError::Unknown(name.to_owned())),
        }
    }

    /// Takes a name: letters, digits and `_`, or digits alone, or one special character.
    fn name(&mut self) -> String {
        const SPECIAL: [char; 8] = ['@', '*', '#', '?', '-', '$', '!', '0'];
        let mut name = String::new();
        if let Some(c) = self.chars.next_if(|c| SPECIAL.contains(c)) {
            return c.to_string();
        }
        let digits = self.chars.peek().is_some_and(char::is_ascii_digit);
        let part = |c: &char| c.is_ascii_digit() || (!digits && (c.is_alphanumeric() || *c == '_'));
        while let Some(c) = self.chars.next_if(part) {
            name.push(c);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Variable {
        match name {
            "A" => Variable::Set("1".to_owned()),
            "E" => Variable::Set(String::new()),
            "U" => Variable::Unknown,
            _ => Variable::Unset,
        }
    }

    #[test]
    fn expanded() {
        for (word, expected) in [
            ("debian:$A", "debian:1"),
            ("x${A}y$A_z", "x1y"),
            ("${N:-${A}}-${N-b}", "1-b"),
            ("${E:-b}${E-c}", "b"),
            ("${A:+b}${N:+c}${E+d}", "bd"),
            ("${A:?m}", "1"),
            ("'$A'\"$A\"\\$A", "$A1$A"),
            ("\"\\a\\\"\"", "\\a\""),
            ("$", "$"),
            ("a$/b", "a$/b"),
            ("$1x", "x"),
            ("a\\", "a"),
        ] {
            assert_eq!(
                expand(word, '\\', &mut lookup).as_deref(),
                Ok(expected),
                "{word}"
            );
        }
        assert_eq!(expand("`$A\\$A", '`', &mut lookup).unwrap(), "$A\\1");
    }

    #[test]
    fn refused() {
        for (word, message) in [
            ("$U", "only the engine knows `U`"),
            ("${A:-$U}", "only the engine knows `U`"),
            ("${N?m}", "`N` is not set"),
            ("${E:?m}", "`E` is not set"),
            ("${A#x}", "the modifier of `A` is not understood"),
            ("${A/x/y}", "the modifier of `A` is not understood"),
            ("${A:}", "the modifier of `A` is not understood"),
            ("${A", "a quote or brace is not closed"),
            ("${}", "a quote or brace is not closed"),
            ("'x", "a quote or brace is not closed"),
            ("\"x", "a quote or brace is not closed"),
        ] {
            let error = expand(word, '\\', &mut lookup).unwrap_err();
            assert_eq!(error.to_string(), message, "{word}");
        }
    }

    #[test]
    fn names_of_variables() {
        for (word, expected) in [
            ("a", Some(&[][..])),
            ("$A-${B:-$C}${D:?x}", Some(&["A", "B", "C", "D"])),
            ("'$A'\\$B", Some(&[])),
            ("${A#x}", None),
            ("\"", None),
        ] {
            let expected = expected.map(|e| e.iter().map(|&n| n.to_owned()).collect());
            assert_eq!(names(word, '\\'), expected, "{word}");
        }
        assert_eq!(literal("'a b'\\c", '\\').as_deref(), Some("a bc"));
        assert_eq!(literal("$A", '\\'), None);
    }
}
