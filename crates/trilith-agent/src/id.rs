//! Random identifiers of events, commands and sessions, written as version 4 UUIDs are.

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Serialize, Serializer};

/// A version 4 UUID; printed as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(u128);

impl Id {
    /// Returns a new identifier.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        // Sixteen bytes are never cut short (random(4)).
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        let bits = u128::from_be_bytes(bytes);
        let version = 4 << 76;
        let variant = 2 << 62;
        Ok(Self(bits & !(0xf << 76) & !(3 << 62) | version | variant))
    }

    /// Parses 32 hexadecimal digits, with or without the hyphens of a UUID.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = match text.len() {
            32 => text.to_owned(),
            36 if [8, 13, 18, 23]
                .iter()
                .all(|at| text.as_bytes()[*at] == b'-') =>
            {
                text.replace('-', "")
            }
            _ => return None,
        };
        let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(&digits, 16).ok().map(Self))?
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn random_ones_are_uuids_of_version_4() {
        let id = Id::random().unwrap().to_string();
        assert_eq!(&id[12..13], "4");
        assert!("89ab".contains(&id[16..17]), "{id}");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(bits: u128) {
            let id = Id(bits);
            let hex = id.to_string();
            prop_assert_eq!(Id::parse(&hex), Some(id));
            let hyphens = format!(
                "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]
            );
            prop_assert_eq!(Id::parse(&hyphens), Some(id));
        }

        #[test]
        fn nothing_else_panics(text in "\\PC{0,40}") {
            let _ = Id::parse(&text);
        }
    }
}
