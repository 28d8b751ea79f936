//! Parts of files: `Range` of a download (RFC 9110, section 14) and `Content-Range` of an upload.

/// Which bytes of a file are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// This many from here.
    Part {
        offset: u64,
        length: u64,
    },
    /// None that there are.
    Nothing,
}

/// Returns what `Range: HEADER` asks for of a file of `size` bytes. What is malformed, of another unit or
/// several ranges is as if it were not there.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let parse = |header: &str| {
        let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
        match (first, last) {
            ("", last) => {
                let length = number(last)?.min(size);
                Some((size - length, length))
            }
            (first, "") => {
                let first = number(first)?;
                Some((first, size.saturating_sub(first)))
            }
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                let end = last.saturating_add(1).min(size);
                (first <= last).then_some((first, end.saturating_sub(first)))
            }
        }
    };
    match header.and_then(parse) {
        None => Wanted::All,
        Some((offset, length)) if length == 0 || offset >= size => Wanted::Nothing,
        Some((offset, length)) => Wanted::Part { offset, length },
    }
}

/// A piece of an upload: where it begins, how long it is and how long the file will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) total: u64,
}

/// Parses `Content-Range: bytes FIRST-LAST/TOTAL`.
pub(super) fn piece(header: &str) -> Option<Piece> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (offset, last, total) = (number(first)?, number(last)?, number(total)?);
    let length = last.checked_sub(offset)?.checked_add(1)?;
    (last < total).then_some(Piece {
        offset,
        length,
        total,
    })
}

fn number(text: &str) -> Option<u64> {
    // `parse` takes a sign.
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read() {
        let part = |offset, length| Wanted::Part { offset, length };
        for (header, expected) in [
            ("bytes=0-", part(0, 10)),
            ("bytes=4-", part(4, 6)),
            ("bytes=4-4", part(4, 1)),
            ("bytes=4-100", part(4, 6)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-30", part(0, 10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=4-3", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("lines=0-1", Wanted::All),
            ("bytes=+1-2", Wanted::All),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
    }

    #[test]
    fn pieces_are_read() {
        let expected = Piece {
            offset: 2,
            length: 3,
            total: 10,
        };
        assert_eq!(piece("bytes 2-4/10"), Some(expected));
        for header in [
            "bytes 2-1/10",
            "bytes 2-10/10",
            "bytes 2-4/*",
            "bytes */10",
            "2-4/10",
        ] {
            assert_eq!(piece(header), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_parts_are_within(
            header in "bytes=[0-9]{0,21}-[0-9]{0,21}",
            size: u64,
        ) {
            if let Wanted::Part { offset, length } = wanted(Some(&header), size) {
                prop_assert!(length > 0 && offset + length <= size);
            }
            let _ = piece(&header.replace('=', " "));
        }
    }
}
