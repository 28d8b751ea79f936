//! Hashes of build inputs, framed so that no two different inputs can meet.
//!
//! The frame is the format: a [`FieldHasher`] starts with its domain, and every field
//! adds its name and its value, each behind its length as 8 bytes, least significant
//! first. Moving a byte from one field to its neighbour moves a length with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, hex};
use crate::short::shorten;

/// The SHA-256 hash of build inputs. Names no bytes that exist, unlike [`crate::Digest`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InputHash([u8; 32]);

impl InputHash {
    /// Returns the 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }

    /// Returns the form that stands in tags, at most 16 base-36 digits.
    #[must_use]
    pub fn short(self) -> String {
        shorten(&self.to_hex())
    }

    /// Returns the SHA-256 digest of the framed fields, which is what the hash is.
    #[must_use]
    pub fn to_digest(self) -> Digest {
        Digest::from_sha256(&self.0)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an input hash of 64 lower-case hex digits")]
pub struct InputHashError(String);

impl FromStr for InputHash {
    type Err = InputHashError;

    fn from_str(text: &str) -> Result<Self, InputHashError> {
        let refused = || InputHashError(text.to_owned());
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refused());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for InputHash {
    type Error = InputHashError;

    fn try_from(text: String) -> Result<Self, InputHashError> {
        text.parse()
    }
}

impl From<InputHash> for String {
    fn from(hash: InputHash) -> Self {
        hash.to_hex()
    }
}

impl fmt::Display for InputHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for InputHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Hashes named fields under a domain.
#[derive(Clone, Debug)]
pub struct FieldHasher(Sha256);

impl FieldHasher {
    /// Starts a hash under `domain`, `trilith/inputs/v1` for instance.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.framed(domain.as_bytes());
        hasher
    }

    /// Adds the field `name` with `value`.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.framed(name.as_bytes());
        self.framed(value.as_ref());
        self
    }

    /// Returns the hash of the domain and all fields.
    #[must_use]
    pub fn finish(self) -> InputHash {
        InputHash(self.0.finalize().into())
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(fields: &[(String, Vec<u8>)]) -> InputHash {
        let mut hasher = FieldHasher::new("test");
        for (name, value) in fields {
            hasher.field(name, value);
        }
        hasher.finish()
    }

    #[test]
    fn the_frame_is_the_format() {
        let mut hasher = FieldHasher::new("d");
        hasher.field("n", "vv");
        let framed = b"\x01\0\0\0\0\0\0\0d\x01\0\0\0\0\0\0\0n\x02\0\0\0\0\0\0\0vv";
        assert_eq!(hasher.finish().to_digest(), Digest::of(framed));
    }

    #[test]
    fn text_round_trips() {
        let hash = FieldHasher::new("x").finish();
        assert_eq!(hash.to_string().parse::<InputHash>().unwrap(), hash);
        assert!("00".parse::<InputHash>().is_err());
        assert_eq!(hash.short().len(), 16);
    }

    proptest! {
        #[test]
        fn moving_bytes_between_neighbours_changes_the_hash(
            a in proptest::collection::vec(any::<u8>(), 1..20),
            b in proptest::collection::vec(any::<u8>(), 0..20),
            split in 0usize..20,
        ) {
            let split = split % a.len();
            let joined: Vec<u8> = a[split..].iter().chain(&b).copied().collect();
            let before = [("a".to_owned(), a.clone()), ("b".to_owned(), b)];
            let after = [("a".to_owned(), a[..split].to_vec()), ("b".to_owned(), joined)];
            prop_assert_ne!(hash(&before), hash(&after));
        }
    }
}
