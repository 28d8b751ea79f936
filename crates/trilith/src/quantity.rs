//! Times and sizes as they are written on the command line.

use std::time::Duration;

/// Parses a time: a whole number and one of `s`, `m`, `h`, `d` and `w`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let units = [
        ("s", 1),
        ("m", 60),
        ("h", 60 * 60),
        ("d", 24 * 60 * 60),
        ("w", 7 * 24 * 60 * 60),
    ];
    parse(text, &units)
        .map(Duration::from_secs)
        .ok_or_else(|| "it must be a number and s, m, h, d or w, as in 7d".to_owned())
}

/// Parses a size in bytes: a whole number and nothing, or a unit of 1000 or 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("", 1),
        ("B", 1),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    parse(text, &units)
        .ok_or_else(|| "it must be a number and kB, MB, GB, MiB, GiB, …, as in 10GB".to_owned())
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("90m", Some(5400)),
            ("7d", Some(604_800)),
            ("2w", Some(1_209_600)),
            ("7", None),
            ("d", None),
            ("-1d", None),
            ("1.5d", None),
            ("99999999999999999999d", None),
            ("9999999999999999999w", None),
        ] {
            let parsed = duration(text).ok().map(|time| time.as_secs());
            assert_eq!(parsed, expected, "{text}");
        }
        for (text, expected) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("10GB", Some(10_000_000_000)),
            ("1MiB", Some(1_048_576)),
            ("GB", None),
            ("10 GB", None),
            ("10g", None),
            ("99999999TiB", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }
}
