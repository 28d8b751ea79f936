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

    /// Hides what is secret in `url`, where it is one.
    pub(super) fn hide_url(&self, url: &str) {
        let Some((_, rest)) = url.split_once("://") else {
            return;
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Some((user, _)) = authority.rsplit_once('@') {
            self.hide(user.split_once(':').map_or(user, |(_, password)| password));
        }
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

    /// Returns how many bytes at the end of `text` may be the beginning of a secret.
    fn unsure(&self, text: &str) -> usize {
        let secrets = self.lock();
        let begins = |secret: &String| {
            let longest = secret.len().saturating_sub(1).min(text.len());
            let mut lengths = (1..=longest).rev();
            lengths.find(|&length| {
                let start = text.len() - length;
                text.is_char_boundary(start)
                    && secret.as_bytes().starts_with(&text.as_bytes()[start..])
            })
        };
        secrets.iter().filter_map(begins).max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text that comes in pieces, which may cut a secret or a character in two.
#[derive(Default)]
pub(super) struct Pieces {
    kept: Vec<u8>,
}

impl Pieces {
    /// Returns what can be shown of the text so far; the rest is kept.
    pub(super) fn add(&mut self, piece: &[u8], redactor: &Redactor) -> String {
        self.kept.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&self.kept) {
            // Three bytes at most: the beginning of a character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.kept.len(),
        };
        let text = String::from_utf8_lossy(&self.kept[..whole]).into_owned();
        let shown = text.len() - redactor.unsure(&text);
        let rest = [&text.as_bytes()[shown..], &self.kept[whole..]].concat();
        self.kept = rest;
        redactor.clean(&text[..shown])
    }

    /// Returns what was kept.
    pub(super) fn finish(&mut self, redactor: &Redactor) -> String {
        let kept = std::mem::take(&mut self.kept);
        redactor.clean(&String::from_utf8_lossy(&kept))
    }
}

/// Takes user and password out of each `scheme://user:password@host`.
pub(super) fn clean_urls(text: &str) -> String {
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
        redactor.hide_url("http://user:s3cret@proxy.example:3128/");
        redactor.hide_url("no url at all: s3");
        for (text, expected) in [
            ("a hunter2 b hunter2", "a [redacted] b [redacted]"),
            ("hunter2-and-more", "[redacted]"),
            ("the second line", "the [redacted]"),
            ("abc s3cret", "abc [redacted]"),
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

    #[test]
    fn pieces_may_cut_secrets_and_characters() {
        let redactor = Redactor::default();
        redactor.hide("hunter2");
        let text = "wäre hunter2, hunt er, ahunter2\u{1F980} hunter".as_bytes();
        for size in 1..text.len() {
            let mut pieces = Pieces::default();
            let mut shown: String = text
                .chunks(size)
                .map(|piece| pieces.add(piece, &redactor))
                .collect();
            shown += &pieces.finish(&redactor);
            assert_eq!(
                shown, "wäre [redacted], hunt er, a[redacted]\u{1F980} hunter",
                "{size}"
            );
        }
        let mut pieces = Pieces::default();
        assert_eq!(pieces.add(b"\xff\xfe.", &redactor), "\u{fffd}\u{fffd}.");
    }
}
