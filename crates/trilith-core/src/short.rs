//! The short form of a hash that fits into a tag.

/// How many base-36 digits the short form has at most; 16 digits carry 82 bits.
pub const SHORT_LEN: usize = 16;

/// Returns the hexadecimal number `hex` in base 36 (`0-9a-z`), **least** significant digit
/// first, cut to [`SHORT_LEN`] digits; zero is the empty text.
///
/// This is what the reference's `truncate_hash` answers, digit for digit. Anything that is
/// not a hexadecimal digit is passed over.
#[must_use]
pub fn shorten(hex: &str) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // The number as base-16 digits, most significant first; long division by 36 in place.
    let mut number: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let mut short = String::new();
    while short.len() < SHORT_LEN && number.iter().any(|&digit| digit != 0) {
        let mut remainder = 0;
        for digit in &mut number {
            let value = remainder * 16 + *digit;
            *digit = value / 36;
            remainder = value % 36;
        }
        short.push(char::from(DIGITS[remainder as usize]));
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        for (hex, short) in [
            ("0", ""),
            ("24", "01"),
            ("a1b2c3d4e5f6", "id5jo7r0r1"),
            ("ffffffffffffffffffffffffffffffff", "33psmzhlgqnyronp"),
        ] {
            assert_eq!(shorten(hex), short, "{hex}");
        }
    }
}
