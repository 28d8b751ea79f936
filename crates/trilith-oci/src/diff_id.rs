//! The digest of a layer before compression. Names no blob; that is what [`Digest`] does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use trilith_core::{Digest, DigestError};

/// Digest of a layer's uncompressed tar (OCI image specification 1.1, `config.md#layer-diffid`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(Digest);

impl DiffId {
    /// Returns the digest of the uncompressed tar.
    #[must_use]
    pub fn as_digest(&self) -> &Digest {
        &self.0
    }
}

impl From<Digest> for DiffId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl FromStr for DiffId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
