//! Licence expressions, as far as packages write them (SPDX specification, annex D).
//!
//! Decides whether an expression can be met with a list of licences; knows no list of its own.

/// Returns whether some choice that `expression` leaves consists of `allowed` licences only.
///
/// `A WITH B` is one licence. The old notation with a slash means `OR`. What is
/// malformed is not allowed.
pub(crate) fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    parser.either() == Some(true) && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [&'a str],
}

impl Parser<'_> {
    /// Takes `word` if it comes next.
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    /// `all (OR all)*`; `None` for what is malformed.
    fn either(&mut self) -> Option<bool> {
        let mut result = self.all()?;
        while self.take("OR") {
            result |= self.all()?;
        }
        Some(result)
    }

    /// `one (AND one)*`
    fn all(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.take("AND") {
            result &= self.one()?;
        }
        Some(result)
    }

    /// `( either )`, `ID` or `ID WITH EXCEPTION`
    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let result = self.either();
            return if self.take(")") { result } else { None };
        }
        let (id, rest) = self.words.split_first()?;
        self.words = rest;
        if matches!(*id, "AND" | "OR" | "WITH" | ")") {
            return None;
        }
        if self.take("WITH") {
            let (exception, rest) = self.words.split_first()?;
            self.words = rest;
            let name = format!("{id} WITH {exception}");
            return Some(self.allowed.contains(&name.as_str()));
        }
        Some(self.allowed.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_decided() {
        let allowed = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"];
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 AND ISC", true),
            ("Apache-2.0 AND OpenSSL", false),
            // AND binds tighter than OR.
            ("MIT OR ISC AND OpenSSL", true),
            ("(MIT OR ISC) AND OpenSSL", false),
            ("(MIT OR OpenSSL) AND (OpenSSL OR ISC)", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT)", false),
            ("MIT ISC", false),
            ("AND", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }
}
