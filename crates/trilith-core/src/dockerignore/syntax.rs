//! Which patterns Docker takes to be well-formed: those on which Go's `filepath.Match` does not
//! stumble when it compares them with `.`, the context itself. It looks no further than the first
//! piece between two `*` that does not fit, so `a*[-b]` passes where `[-b]` does not.

use super::Flaw;

/// Checks brackets and escapes in `pattern`, as far as they are looked at.
pub(super) fn check(pattern: &str) -> Result<(), Flaw> {
    let mut name = ".";
    let mut rest = pattern;
    while !rest.is_empty() {
        let (star, piece, after) = split_piece(rest);
        rest = after;
        if star && piece.is_empty() {
            return Ok(());
        }
        let fits = |left: &&str| left.is_empty() || !rest.is_empty();
        let mut left = compare(piece, name)?.filter(fits);
        if left.is_none() && star && !name.is_empty() {
            left = compare(piece, "")?.filter(fits);
        }
        let Some(left) = left else { return Ok(()) };
        name = left;
    }
    Ok(())
}

/// Splits `pattern` behind the stars it starts with and before the next one outside brackets.
/// Returns whether there are stars, the piece between, and the rest.
fn split_piece(pattern: &str) -> (bool, &str, &str) {
    let body = pattern.trim_start_matches('*');
    let mut inside = false;
    let mut escaped = false;
    let end = body.find(|c| {
        match c {
            _ if escaped => {
                escaped = false;
                return false;
            }
            '\\' => escaped = true,
            '[' => inside = true,
            ']' => inside = false,
            '*' => return !inside,
            _ => {}
        }
        false
    });
    let (piece, rest) = body.split_at(end.unwrap_or(body.len()));
    (body.len() < pattern.len(), piece, rest)
}

/// Returns what is left of `name` behind `piece`, none if they do not fit together.
fn compare<'a>(piece: &str, name: &'a str) -> Result<Option<&'a str>, Flaw> {
    let mut rest = Reader(piece);
    let mut name = Some(name);
    while let Some(c) = rest.next() {
        // What the name starts with; nothing any more where it did not fit.
        let (first, left) = match name.and_then(|name| name.split_at_checked(1)) {
            Some((first, left)) => (first.chars().next(), Some(left)),
            None => (None, None),
        };
        let fits = match c {
            '[' => rest.class(first)?,
            '?' => first != Some('/'),
            '\\' => Some(rest.next().ok_or(Flaw::DanglingEscape)?) == first,
            c => Some(c) == first,
        };
        name = left.filter(|_| fits);
    }
    Ok(name)
}

/// The part of a piece that is still to be read.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.0.chars().next()?;
        self.0 = &self.0[c.len_utf8()..];
        Some(c)
    }

    fn skip(&mut self, wanted: char) -> bool {
        match self.0.strip_prefix(wanted) {
            Some(after) => {
                self.0 = after;
                true
            }
            None => false,
        }
    }

    /// Reads a bracket expression whose `[` is read already; returns whether it holds `wanted`.
    fn class(&mut self, wanted: Option<char>) -> Result<bool, Flaw> {
        let negated = self.skip('^');
        let mut found = false;
        let mut empty = true;
        while empty || !self.skip(']') {
            let low = self.member()?;
            let high = if self.skip('-') { self.member()? } else { low };
            found |= wanted.is_some_and(|wanted| (low..=high).contains(&wanted));
            empty = false;
        }
        Ok(found != negated)
    }

    /// Reads one character in brackets, behind which something has to follow.
    fn member(&mut self) -> Result<char, Flaw> {
        let member = match self.next().ok_or(Flaw::Unclosed)? {
            '-' | ']' => return Err(Flaw::Misplaced),
            '\\' => self.next().ok_or(Flaw::DanglingEscape)?,
            c => c,
        };
        if self.0.is_empty() {
            return Err(Flaw::Unclosed);
        }
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        for (pattern, expected) in [
            ("", Ok(())),
            ("a*b?c**/d]", Ok(())),
            ("[a][^a][a-b][ab-c]", Ok(())),
            (r"[\]a][\-][x\-][\-x][a\-\]]", Ok(())),
            ("[*][?][/][[]", Ok(())),
            ("[z-a]", Ok(())),
            ("[[:alpha:]]", Ok(())),
            // Only as far as it fits the context itself.
            ("a*[", Ok(())),
            ("a*[-b]", Ok(())),
            ("a*\\", Ok(())),
            ("*[", Err(Flaw::Unclosed)),
            (".*[", Err(Flaw::Unclosed)),
            ("[^a]*[-b]", Err(Flaw::Misplaced)),
            ("?*\\", Err(Flaw::DanglingEscape)),
            ("\\.**\\", Err(Flaw::DanglingEscape)),
            ("[*]*\\", Ok(())),
            ("\\", Err(Flaw::DanglingEscape)),
            ("a/\\", Err(Flaw::DanglingEscape)),
            ("[a\\", Err(Flaw::DanglingEscape)),
            ("[", Err(Flaw::Unclosed)),
            ("[^", Err(Flaw::Unclosed)),
            ("[^bc", Err(Flaw::Unclosed)),
            ("[a*b", Err(Flaw::Unclosed)),
            ("[]", Err(Flaw::Misplaced)),
            ("[]a]", Err(Flaw::Misplaced)),
            ("[-]", Err(Flaw::Misplaced)),
            ("[x-]", Err(Flaw::Misplaced)),
            ("[-x]", Err(Flaw::Misplaced)),
            ("[a-b-c]", Err(Flaw::Misplaced)),
        ] {
            assert_eq!(check(pattern), expected, "{pattern}");
        }
    }
}
