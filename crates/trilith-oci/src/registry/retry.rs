//! When to try again, and after how long.
//!
//! Decides by status and header; what may be sent twice is the caller's knowledge. The
//! only place that reads a clock, and only for a `Retry-After` date without a `Date` beside it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// How often and how patiently a request is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is made at most, the first time included. At least 1.
    pub attempts: u32,
    /// The pause before the second attempt; doubles with every further one.
    pub base_delay: Duration,
    /// The longest pause of our own choosing.
    pub max_delay: Duration,
    /// The longest `Retry-After` that is waited for. A registry that asks for more (Docker
    /// Hub may say hours) gets no further attempt: coming back early would prolong the ban.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            base_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(8),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// Returns the pause after `attempt` attempts, between half of what doubling gives and
    /// all of it, so that clients which failed together do not come back together.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let factor = 1_u32
            .checked_shl(attempt.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let full = self.base_delay.saturating_mul(factor).min(self.max_delay);
        let half = full / 2;
        half + half.mul_f64(random_fraction())
    }
}

/// Returns a number from 0 to 1. The keys of a new `RandomState` are random enough to spread clients.
fn random_fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

/// Returns whether `status` speaks of a passing state of the server.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns how long the answer with `headers` asks to wait (RFC 9110 §10.2.3).
///
/// A date is read against the server's own `Date`, so that clocks need not agree.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    let now = headers
        .get(DATE)
        .and_then(|date| http_date(date.to_str().ok()?))
        .or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).ok())?;
    Some(until.saturating_sub(now))
}

/// The field that tells how much is left of a quota.
pub(crate) const REMAINING: &str = "ratelimit-remaining";

/// Returns how long to wait where the answer with `headers` says that nothing is left of a quota
/// (`RateLimit-Remaining` and `RateLimit-Reset`, draft-ietf-httpapi-ratelimit-headers-03). Docker
/// Hub leaves out when it comes back, and is asked on until it refuses.
pub(crate) fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        text.split([';', ',']).next()?.trim().parse::<u64>().ok()
    };
    if number(REMAINING)? > 0 {
        return None;
    }
    Some(Duration::from_secs(number("ratelimit-reset")?))
}

/// Returns the time since the Unix epoch of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form
/// of a date that may still be sent (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<Duration> {
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months.iter().position(|&month| month == name)? as u64;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':');
    let hour: u64 = clock.next()?.parse().ok()?;
    let minute: u64 = clock.next()?.parse().ok()?;
    let second: u64 = clock.next()?.parse().ok()?;
    let valid = (1970..=9999).contains(&year)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && parts.next() == Some("GMT");
    if !valid {
        return None;
    }
    // Days of a year that begins in March, so that the leap day is its last.
    let (year, month) = if month < 2 {
        (year - 1, month + 10)
    } else {
        (year, month - 2)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // From 0000-03-01 to 1970-01-01.
    let days = days.checked_sub(719_468)?;
    Some(Duration::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Fri, 31 Dec 1999 23:59:60 GMT", Some(946_684_800)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1969 08:49:37 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(http_date(text).map(|d| d.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn retry_after_headers() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (retry, date, expected) in [
            ("7", None, Some(7)),
            (" 0 ", None, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(date), Some(30)),
            ("Sun, 06 Nov 1994 08:40:07 GMT", Some(date), Some(0)),
            // Long past by the local clock too.
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, Some(0)),
            ("-1", None, None),
            ("soon", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            assert_eq!(
                retry_after(&headers).map(|d| d.as_secs()),
                expected,
                "{retry}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn quotas() {
        for (remaining, reset, expected) in [
            ("0", Some("12"), Some(12)),
            ("0;w=21600", Some("30;w=60"), Some(30)),
            ("0;w=21600", None, None),
            ("76;w=21600", Some("30"), None),
            ("many", Some("30"), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REMAINING, remaining.parse().unwrap());
            if let Some(reset) = reset {
                headers.insert("ratelimit-reset", reset.parse().unwrap());
            }
            let seconds = exhausted(&headers).map(|delay| delay.as_secs());
            assert_eq!(seconds, expected, "{remaining}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let policy = RetryPolicy::default();
        for (attempt, full) in [(1, 250), (2, 500), (3, 1000), (6, 8000), (40, 8000)] {
            let pause = policy.pause(attempt);
            let full = Duration::from_millis(full);
            assert!(full / 2 <= pause && pause <= full, "{attempt}: {pause:?}");
        }
    }
}
