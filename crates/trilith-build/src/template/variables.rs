//! The variables that templates see.

use std::collections::BTreeMap;

use minijinja::Value;
use trilith_core::{Level, Platform};

/// What a build starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStart {
    /// The base image.
    Scratch,
    /// The image of level `versioned`.
    Versioned,
    /// The image of level `lock`.
    Lock,
}

impl BuildStart {
    /// All starts, from the least work done to the most.
    pub const ALL: [Self; 3] = [Self::Scratch, Self::Versioned, Self::Lock];

    /// Returns the start from the image of `level`; `None` for `source`, from which nothing is
    /// left to be built.
    #[must_use]
    pub fn from_level(level: Level) -> Option<Self> {
        match level {
            Level::Versioned => Some(Self::Versioned),
            Level::Lock => Some(Self::Lock),
            Level::Source => None,
        }
    }

    /// Returns the word that templates see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Versioned => "versioned",
            Self::Lock => "lock",
        }
    }
}

/// The variables of a template.
///
/// | name | value |
/// | --- | --- |
/// | `base_image` | the image to start from |
/// | `build_from` | `scratch`, `versioned` or `lock` |
/// | `build_from_scratch`, `build_from_versioned`, `build_from_lock` | whether it is that one |
/// | `extra_deps` | the extra dependencies, empty if there are none |
/// | `enable_browser` | whether a browser is wanted |
/// | `platform` | the platform, as in `linux/amd64` |
/// | `args` | the build arguments, by name |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVariables {
    /// The image to start from: the base, or the image of a level.
    pub base_image: String,
    /// What that image is.
    pub build_from: BuildStart,
    /// Extra dependencies, usually a shell command.
    pub extra_deps: Option<String>,
    /// Whether a browser is wanted.
    pub enable_browser: bool,
    /// The platform that is built for.
    pub platform: Platform,
    /// Build arguments, each by name.
    pub args: BTreeMap<String, String>,
}

impl TemplateVariables {
    /// Returns the variables as a template sees them.
    pub(super) fn value(&self) -> Value {
        let Self {
            base_image,
            build_from,
            extra_deps,
            enable_browser,
            platform,
            args,
        } = self;
        let mut values: BTreeMap<String, Value> = BTreeMap::from([
            ("base_image".to_owned(), Value::from(base_image.as_str())),
            ("build_from".to_owned(), Value::from(build_from.as_str())),
            (
                "extra_deps".to_owned(),
                Value::from(extra_deps.as_deref().unwrap_or_default()),
            ),
            ("enable_browser".to_owned(), Value::from(*enable_browser)),
            ("platform".to_owned(), Value::from(platform.to_string())),
            ("args".to_owned(), Value::from(args.clone())),
        ]);
        for start in BuildStart::ALL {
            let name = format!("build_from_{}", start.as_str());
            values.insert(name, Value::from(start == *build_from));
        }
        Value::from(values)
    }
}
