//! Build arguments: those the engine sets by itself, and the values `FROM` sees.
//!
//! Which stage may use which argument is told by the stage's own `ARG`s, not here.

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::Platform;

use super::expand::{self, ExpandError, Variable};
use super::file::Dockerfile;

/// What a Dockerfile is built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildArguments {
    /// The arguments that are set, by name.
    pub args: BTreeMap<String, String>,
    /// The platform of the result.
    pub platform: Platform,
}

#[cfg(test)]
impl BuildArguments {
    pub(super) fn of(args: &[(&str, &str)], platform: &str) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            args: args.iter().map(owned).collect(),
            platform: platform.parse().unwrap(),
        }
    }
}

/// Returns the value that the engine gives to `name` by itself.
///
/// `BUILDPLATFORM` and its parts depend on the machine that builds and `TARGETSTAGE` on the
/// level that is built, so nothing that is the same everywhere can depend on them.
pub(super) fn automatic(name: &str, platform: &Platform) -> Option<Variable> {
    let value = match name {
        "TARGETPLATFORM" => platform.to_string(),
        "TARGETOS" => platform.os().to_owned(),
        "TARGETOSVERSION" => String::new(),
        "TARGETARCH" => platform.architecture().to_owned(),
        "TARGETVARIANT" => platform.variant().unwrap_or_default().to_owned(),
        _ if name == "TARGETSTAGE" || is_of_the_builder(name) => return Some(Variable::Unknown),
        _ => return None,
    };
    Some(Variable::Set(value))
}

/// Returns whether `name` is `BUILDPLATFORM` or one of its parts.
pub(super) fn is_of_the_builder(name: &str) -> bool {
    let part = name.strip_prefix("BUILD");
    part.is_some_and(|part| matches!(part, "PLATFORM" | "OS" | "OSVERSION" | "ARCH" | "VARIANT"))
}

/// Returns whether the engine uses `name` although no stage declares it: proxies, which change
/// no result, and the settings of `BuildKit` itself.
pub(super) fn needs_no_declaration(name: &str, platform: &Platform) -> bool {
    const PROXIES: [&str; 5] = [
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "all_proxy",
    ];
    PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
        || name.starts_with("BUILDKIT_")
        || name == "SOURCE_DATE_EPOCH"
        || automatic(name, platform).is_some()
}

/// The arguments that `FROM` sees: those declared before the first stage.
#[derive(Clone, Debug)]
pub(super) struct Globals<'a> {
    arguments: &'a BuildArguments,
    values: BTreeMap<&'a str, Variable>,
}

impl<'a> Globals<'a> {
    pub(super) fn new(dockerfile: &'a Dockerfile, arguments: &'a BuildArguments) -> Self {
        let mut globals = Self {
            arguments,
            values: BTreeMap::new(),
        };
        for (_, declaration) in dockerfile.global_arguments() {
            let name = declaration.name.as_str();
            let set = arguments.args.get(name).cloned().map(Variable::Set);
            let default = || {
                let default = declaration.default.as_deref()?;
                let value = globals.expand(default, dockerfile.directives.escape);
                // A default that cannot be told matters where it is used and only there.
                Some(value.map_or(Variable::Unknown, Variable::Set))
            };
            if let Some(value) = set.or_else(default) {
                globals.values.insert(name, value);
            }
        }
        globals
    }

    /// Returns what is known of `name`.
    pub(super) fn get(&self, name: &str) -> Variable {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        match automatic(name, &self.arguments.platform) {
            Some(automatic) => match self.arguments.args.get(name) {
                Some(value) => Variable::Set(value.clone()),
                None => automatic,
            },
            None => Variable::Unset,
        }
    }

    /// Returns `word` with its variables replaced.
    pub(super) fn expand(&self, word: &str, escape: char) -> Result<String, ExpandError> {
        expand::expand(word, escape, &mut |name| self.get(name))
    }
}

/// Returns the arguments declared before the first stage that `word` depends on, directly or by
/// the defaults of others; `None` where that cannot be told.
pub(super) fn global_names(dockerfile: &Dockerfile, word: &str) -> Option<BTreeSet<String>> {
    let escape = dockerfile.directives.escape;
    let mut found = BTreeSet::new();
    let mut next: Vec<String> = expand::names(word, escape)?.into_iter().collect();
    while let Some(name) = next.pop() {
        for (_, declaration) in dockerfile.global_arguments() {
            if declaration.name == name && !found.contains(&name) {
                let default = declaration.default.as_deref().unwrap_or_default();
                next.extend(expand::names(default, escape)?);
            }
        }
        found.insert(name);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_from_sees() {
        let dockerfile = Dockerfile::parse(
            "ARG A=1\nARG B=$A-x C D=\"$TARGETARCH$TARGETVARIANT\"\nARG E=$BUILDARCH\nARG TARGETOS\nARG A\nFROM a\nARG Z=1\n",
        )
        .unwrap();
        for (args, word, expected) in [
            (&[][..], "$A/$B/$C/$D", Ok("1/1-x//armv7")),
            (&[("A", "2"), ("C", "3")], "$A/$B/$C", Ok("2/2-x/3")),
            (&[("Z", "2")], "$Z", Ok("")),
            (&[("TARGETARCH", "x")], "$D", Ok("xv7")),
            (&[], "$TARGETOS-$TARGETPLATFORM", Ok("linux-linux/arm/v7")),
            (&[], "$E", Err("only the engine knows `E`")),
            (&[("BUILDARCH", "amd64")], "$E", Ok("amd64")),
        ] {
            let arguments = BuildArguments::of(args, "linux/arm/v7");
            let globals = Globals::new(&dockerfile, &arguments);
            let value = globals
                .expand(word, '\\')
                .map_err(|error| error.to_string());
            assert_eq!(
                value.as_deref().map_err(String::as_str),
                expected,
                "{args:?} {word}"
            );
        }
    }

    #[test]
    fn names_through_defaults() {
        let dockerfile = Dockerfile::parse("ARG A=$B\nARG B=$C\nARG C=$A\nFROM a\n").unwrap();
        let names = global_names(&dockerfile, "x$A").unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["A", "B", "C"]);
    }

    #[test]
    fn arguments_of_the_engine() {
        let platform = Platform::host();
        for (name, expected) in [
            ("HTTP_PROXY", true),
            ("no_proxy", true),
            ("BUILDKIT_INLINE_CACHE", true),
            ("TARGETARCH", true),
            ("PYTHON", false),
        ] {
            assert_eq!(needs_no_declaration(name, &platform), expected, "{name}");
        }
    }
}
