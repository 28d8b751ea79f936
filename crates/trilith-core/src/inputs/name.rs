//! Names of inputs: any bytes as readable text, reversibly.

/// Returns `bytes` as text: `\` as `\\`, control characters and bytes that are not UTF-8 as
/// `\xNN`, all else as it is.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                control if control.is_control() => {
                    let mut buffer = [0; 4];
                    push_hex(&mut text, control.encode_utf8(&mut buffer).as_bytes());
                }
                other => text.push(other),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        text.push_str("\\x");
        text.push_str(&crate::digest::hex(&[byte]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = match (first, tail) {
                (b'\\', [b'\\', tail @ ..]) => {
                    bytes.push(b'\\');
                    tail
                }
                (b'\\', [b'x', high, low, tail @ ..]) => {
                    let digits = [*high, *low];
                    let digits = std::str::from_utf8(&digits).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    tail
                }
                _ => {
                    bytes.push(first);
                    tail
                }
            };
        }
        bytes
    }

    #[test]
    fn readable() {
        for (bytes, text) in [
            (&b"a/b c.py"[..], "a/b c.py"),
            ("é/日本".as_bytes(), "é/日本"),
            (b"\xff", "\\xff"),
            (b"\\xff", "\\\\xff"),
            (b"a\nb\x7f", "a\\x0ab\\x7f"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
            (b"\xe6\x97", "\\xe6\\x97"),
        ] {
            assert_eq!(escape(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn reversible(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(0xff)], 0..40)) {
            prop_assert_eq!(unescape(&escape(&bytes)), bytes);
        }
    }
}
