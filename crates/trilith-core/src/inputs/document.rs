//! The list of inputs as an image carries it: `application/vnd.trilith.inputs.v1+json`.
//!
//! A document's keys follow from its list. They are recomputed on reading, so a document
//! that contradicts itself is refused.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::input_hash::InputHash;
use crate::level::Level;
use crate::scheme::TRILITH_SCHEME;

use super::list::{Input, InputList, InputsError};

/// The version of the document's shape.
const SCHEMA: u64 = 1;

/// The inputs of the image of one level.
///
/// As JSON, compact, fields and inputs in this order (`inputs` by level and name):
///
/// ```text
/// {"schema":1,"scheme":"trilith/v1","level":"lock",
///  "keys":{"versioned":"<64 hex digits>","lock":"<64 hex digits>"},
///  "inputs":[{"level":"versioned","name":"base","digest":"sha256:…","size":0},…]}
/// ```
///
/// `keys` has the level's key and those below, `inputs` what these keys cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputsDocument {
    level: Level,
    inputs: InputList,
}

impl InputsDocument {
    /// Returns the document of the image of `level`, which leaves out what lies above.
    #[must_use]
    pub fn new(inputs: &InputList, level: Level) -> Self {
        Self {
            level,
            inputs: inputs.up_to(level),
        }
    }

    /// Returns the level of the image.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the inputs of that level and those below.
    #[must_use]
    pub fn inputs(&self) -> &InputList {
        &self.inputs
    }

    /// Returns the image's key, that of its level.
    #[must_use]
    pub fn key(&self) -> InputHash {
        self.inputs.keys().get(self.level)
    }

    /// Returns the document as JSON. The same inputs give the same bytes.
    #[must_use]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "plain structs can always be written into memory"
    )]
    pub fn to_json(&self) -> String {
        let keys = self.inputs.keys();
        let up_to = |level| (level <= self.level).then(|| keys.get(level));
        let wire = Wire {
            schema: SCHEMA,
            scheme: TRILITH_SCHEME.to_owned(),
            level: self.level,
            keys: WireKeys {
                versioned: keys.versioned,
                lock: up_to(Level::Lock),
                source: up_to(Level::Source),
            },
            inputs: self.inputs.as_slice().iter().map(WireInput::from).collect(),
        };
        serde_json::to_string(&wire).expect("strings and numbers have a JSON form")
    }

    /// Returns the document that `bytes` hold, its keys checked against its list.
    ///
    /// # Errors
    /// [`InputsDocumentError`], by what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, InputsDocumentError> {
        let Header { schema } = serde_json::from_slice(bytes)?;
        if schema != SCHEMA {
            return Err(InputsDocumentError::Schema(schema));
        }
        let wire: Wire = serde_json::from_slice(bytes)?;
        if wire.scheme != TRILITH_SCHEME {
            return Err(InputsDocumentError::Scheme(wire.scheme));
        }
        let inputs = wire.inputs.into_iter().map(Input::from).collect();
        let document = Self {
            level: wire.level,
            inputs: InputList::new(inputs)?,
        };
        document.check_levels()?;
        document.check_keys(&wire.keys)?;
        Ok(document)
    }

    fn check_levels(&self) -> Result<(), InputsDocumentError> {
        match self.inputs.as_slice().last() {
            Some(input) if input.level > self.level => Err(InputsDocumentError::Level {
                name: input.name.clone(),
                level: input.level,
                document: self.level,
            }),
            _ => Ok(()),
        }
    }

    fn check_keys(&self, stated: &WireKeys) -> Result<(), InputsDocumentError> {
        let computed = self.inputs.keys();
        for level in Level::ALL {
            let stated = match level {
                Level::Versioned => Some(stated.versioned),
                Level::Lock => stated.lock,
                Level::Source => stated.source,
            };
            let expected = (level <= self.level).then(|| computed.get(level));
            if stated != expected {
                return Err(InputsDocumentError::Key { level });
            }
        }
        Ok(())
    }
}

/// Why bytes are not a document of inputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputsDocumentError {
    /// It is not JSON, or not of the document's shape.
    #[error("the list of inputs is malformed")]
    Json(#[from] serde_json::Error),
    /// Its shape is of another version.
    #[error("the list of inputs has schema `{0}`, only `{SCHEMA}` is known")]
    Schema(u64),
    /// Its keys are those of another scheme.
    #[error("the list of inputs is of scheme `{0}`, not `{TRILITH_SCHEME}`")]
    Scheme(String),
    /// It names an input twice.
    #[error("the list of inputs is malformed")]
    List(#[from] InputsError),
    /// It has an input that its image cannot depend on.
    #[error("the list of inputs of a {document} image names `{name}` of level {level}")]
    Level {
        /// The input's name.
        name: String,
        /// The input's level.
        level: Level,
        /// The document's level.
        document: Level,
    },
    /// A key does not follow from the inputs, is missing or is too much.
    #[error("the list of inputs contradicts its own {level} key")]
    Key {
        /// The key's level.
        level: Level,
    },
}

impl InputsDocumentError {
    /// Returns what to do next, where there is something better than reading the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Schema(_) | Self::Scheme(_) => Some(
                "it was written by another version of trilith; build the image anew".to_owned(),
            ),
            _ => None,
        }
    }
}

/// All that is read before the schema is known.
#[derive(Deserialize)]
struct Header {
    schema: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    schema: u64,
    scheme: String,
    level: Level,
    keys: WireKeys,
    inputs: Vec<WireInput>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireKeys {
    versioned: InputHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<InputHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<InputHash>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireInput {
    level: Level,
    name: String,
    digest: Digest,
    size: u64,
}

impl From<&Input> for WireInput {
    fn from(input: &Input) -> Self {
        Self {
            level: input.level,
            name: input.name.clone(),
            digest: input.digest.clone(),
            size: input.size,
        }
    }
}

impl From<WireInput> for Input {
    fn from(wire: WireInput) -> Self {
        let WireInput {
            level,
            name,
            digest,
            size,
        } = wire;
        Self {
            level,
            name,
            digest,
            size,
        }
    }
}
