//! Secrets taken out of what engines say.
//!
//! What was handed to an engine, it or a step may print: build secrets, passwords, tokens. What is
//! known to be secret is replaced wherever it turns up, and so are user names and passwords in
//! URLs. This is the last line of defence, not a promise: a step that prints its secret in
//! another encoding is not seen through.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What stands in place of a secret.
const MARK: &str = "[redacted]";
/// Shorter texts are in every log, secret or not.
const SHORTEST: usize = 4;

/// What is secret during a build. Clones know the same.
#[derive(Clone, Default)]
pub(super) struct Redactor(Arc<Mutex<BTreeSet<String>>>);

impl Redactor {
    /// Hides `secret` from now on, and each of its lines.
    pub(super) fn hide(&self, secret: &str) {
        let mut secrets = self.lock();
        let parts = secret.lines().chain([secret]).map(str::trim);
        secrets.extend(
            parts
                .filter(|part| part.len() >= SHORTEST)
                .map(str::to_owned),
        );
    }

    /// Returns `text` without what is secret.
    pub(super) fn clean(&self, text: &str) -> String {
        let secrets = self.lock();
        let mut text = text.to_owned();
        // The longest first: one may be part of another.
        let mut sorted: Vec<&String> = secrets.iter().collect();
        sorted.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in sorted {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MARK);
            }
        }
        clean_urls(&text)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes user and password out of each `scheme://user:password@host`.
fn clean_urls(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find("://") {
        let (before, after) = rest.split_at(position + 3);
        cleaned.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>`".contains(c));
        let authority = &after[..end.unwrap_or(after.len())];
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                cleaned.push_str(MARK);
                cleaned.push('@');
                cleaned.push_str(host);
            }
            _ => cleaned.push_str(authority),
        }
        rest = &after[authority.len()..];
    }
    cleaned.push_str(rest);
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out() {
        let redactor = Redactor::default();
        redactor.hide("hunter2\nsecond line\n");
        redactor.hide("hunter2-and-more");
        redactor.hide("abc");
        for (text, expected) in [
            ("a hunter2 b hunter2", "a [redacted] b [redacted]"),
            ("hunter2-and-more", "[redacted]"),
            ("the second line", "the [redacted]"),
            (
                "GET https://a:b@host/x?y@z ok ftp://c@d",
                "GET https://[redacted]@host/x?y@z ok ftp://c@d",
            ),
            ("://", "://"),
            ("user@host:22", "user@host:22"),
        ] {
            assert_eq!(redactor.clean(text), expected);
        }
    }
}
