//! Moments in UTC, to the microsecond, as ISO 8601 text.
//!
//! Knows the proleptic Gregorian calendar and offsets, and no time zones by name.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

const DAY: i64 = 86_400;

/// Microseconds since 1970 began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(i64);

impl Timestamp {
    /// Returns the moment that the clock shows.
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        }))
    }

    /// Returns the later of this moment and the one right after `other`.
    pub(crate) fn after(self, other: Self) -> Self {
        Self(self.0.max(other.0 + 1))
    }

    /// Parses `YYYY-MM-DD[(T| )HH:MM[:SS[.FRACTION]]][Z|(+|-)HH[:]MM]`; without an offset it is UTC.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let year = number(&mut rest, 4)?;
        let month = after(&mut rest, '-').and_then(|()| number(&mut rest, 2))?;
        let day = after(&mut rest, '-').and_then(|()| number(&mut rest, 2))?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        let mut seconds = days_from_civil(year, month, day) * DAY;
        let mut micros = 0;
        if let Some(time) = rest.strip_prefix(['T', 't', ' ']) {
            rest = time;
            let hour = number(&mut rest, 2)?;
            let minute = after(&mut rest, ':').and_then(|()| number(&mut rest, 2))?;
            let second = match after(&mut rest, ':') {
                Some(()) => number(&mut rest, 2)?,
                None => 0,
            };
            if hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            seconds += hour * 3600 + minute * 60 + second;
            if after(&mut rest, '.').is_some() {
                micros = fraction(&mut rest)?;
            }
            seconds -= offset(&mut rest)?;
        }
        let moment = seconds * 1_000_000 + micros;
        rest.is_empty().then_some(Self(moment))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Takes `expected` off the front of `rest`.
fn after(rest: &mut &str, expected: char) -> Option<()> {
    *rest = rest.strip_prefix(expected)?;
    Some(())
}

/// Takes a number of so many digits off the front of `rest`.
fn number(rest: &mut &str, digits: usize) -> Option<i64> {
    let (text, tail) = rest.split_at_checked(digits)?;
    *rest = tail;
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok())?
}

/// Takes the digits of a fraction of a second; what is beyond microseconds is dropped.
fn fraction(rest: &mut &str) -> Option<i64> {
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    if digits.is_empty() {
        return None;
    }
    let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some(micros.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// Takes an offset from UTC, in seconds. A plus sign in a query string arrives as a space.
fn offset(rest: &mut &str) -> Option<i64> {
    let sign = match rest.chars().next() {
        None => return Some(0),
        Some('Z' | 'z') => {
            *rest = &rest[1..];
            return Some(0);
        }
        Some('+' | ' ') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    *rest = &rest[1..];
    let hours = number(rest, 2)?;
    let _ = after(rest, ':');
    let minutes = number(rest, 2)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Returns the days since 1970-01-01. Years are counted from March, so that a leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The other way round.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_of_all_forms_is_read() {
        for (text, printed) in [
            ("2026-11-28", "2026-11-28T00:00:00.000000Z"),
            ("2024-02-29T12:34:56Z", "2024-02-29T12:34:56.000000Z"),
            ("2026-11-28 12:34:56.5", "2026-11-28T12:34:56.500000Z"),
            (
                "2026-11-28T01:00:00.1234567+02:00",
                "2026-11-27T23:00:00.123456Z",
            ),
            ("2026-11-28T01:00 0200", "2026-11-27T23:00:00.000000Z"),
            ("1969-12-31T23:59:59-0130", "1970-01-01T01:29:59.000000Z"),
        ] {
            let read = Timestamp::parse(text).map(|moment| moment.to_string());
            assert_eq!(read.as_deref(), Some(printed), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2025-02-29",
            "2026-11-28T24:00",
            "2026-11-28Tx",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(micros in 0..253_402_300_800_000_000_i64) {
            let moment = Timestamp(micros);
            prop_assert_eq!(Timestamp::parse(&moment.to_string()), Some(moment));
        }

        #[test]
        fn nothing_else_panics(text in "[0-9TZ:. +é-]{0,30}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
