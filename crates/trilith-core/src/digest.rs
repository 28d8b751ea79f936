//! Content digests as the OCI image specification writes them: `algorithm:hex`.
//!
//! A [`Digest`] names bytes that exist (a blob, a manifest). The hash of build
//! inputs is a different thing and has its own type, `InputHash`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The digest algorithms the specification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the one everything here is written with.
    Sha256,
    /// SHA-512, accepted when others wrote it.
    Sha512,
}

impl Algorithm {
    /// Returns the name as it stands before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns the length of the encoded part in hexadecimal digits.
    #[must_use]
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A content digest, `sha256:<64 lower-case hex digits>`.
///
/// Grammar: OCI image specification 1.1, `descriptor.md#digests`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    text: String,
}

impl Digest {
    /// Returns the SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Digester::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the SHA-256 digest with these 32 bytes.
    pub(crate) fn from_sha256(bytes: &[u8; 32]) -> Self {
        let algorithm = Algorithm::Sha256;
        Self {
            algorithm,
            text: format!("{}:{}", algorithm.as_str(), hex(bytes)),
        }
    }

    /// Returns the algorithm, the part before the colon.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the hexadecimal part, after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// Returns the whole digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Computes a [`Digest`] from bytes that arrive in pieces.
#[derive(Clone, Debug)]
pub struct Digester(Hasher);

#[derive(Clone, Debug)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Digester {
    /// Returns a digester that has seen no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Returns the digest of all bytes seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            Hasher::Sha256(hasher) => (Algorithm::Sha256, hex(&hasher.finalize())),
            Hasher::Sha512(hasher) => (Algorithm::Sha512, hex(&hasher.finalize())),
        };
        Digest {
            algorithm,
            text: format!("{}:{hex}", algorithm.as_str()),
        }
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

/// Returns `bytes` as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = Vec::with_capacity(bytes.len() * 2);
    push_hex(&mut digits, bytes);
    digits.into_iter().map(char::from).collect()
}

/// Appends `bytes` to `text` as lower-case hexadecimal digits.
pub(crate) fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|nibble| DIGITS[usize::from(nibble)]));
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:` between algorithm and hexadecimal digits.
    #[error("digest `{0}` has no `:` after the algorithm")]
    NoAlgorithm(String),
    /// The algorithm is not one of [`Algorithm`].
    #[error("digest `{0}` has an unknown algorithm (known: sha256, sha512)")]
    UnknownAlgorithm(String),
    /// The encoded part has a wrong length or other characters than `0-9a-f`.
    #[error("digest `{text}` must have {expected} lower-case hex digits after the colon")]
    Encoding {
        /// The text as given.
        text: String,
        /// How many digits the algorithm has.
        expected: usize,
    },
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text
            .split_once(':')
            .ok_or_else(|| DigestError::NoAlgorithm(text.to_owned()))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::UnknownAlgorithm(text.to_owned())),
        };
        let expected = algorithm.hex_len();
        let well_formed =
            hex.len() == expected && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(DigestError::Encoding {
                text: text.to_owned(),
                expected,
            });
        }
        Ok(Self {
            algorithm,
            text: text.to_owned(),
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_nothing_is_the_well_known_digest() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(digest.hex().len(), 64);
    }

    #[test]
    fn parse_round_trips_and_refuses() {
        let text = Digest::of(b"x").to_string();
        assert_eq!(text.parse::<Digest>().unwrap().as_str(), text);
        for bad in [
            "",
            "sha256",
            "sha256:",
            "md5:00",
            &text[..70],
            &text.to_uppercase(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sha512_is_accepted() {
        let mut digester = Digester::new(Algorithm::Sha512);
        digester.update(b"abc");
        let digest = digester.finish();
        assert_eq!(digest.hex().len(), 128);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }
}
