//! Which images a build takes from registries, and how Podman is to get them.
//!
//! Podman speaks TLS to every registry unless told otherwise, and can only be told for all
//! registries of a call. So that one registry on loopback does not open the way to the others, images at
//! registries of plain HTTP are pulled first, by calls of their own, where a build needs others too.

use std::collections::BTreeSet;

use trilith_core::{Reference, Repository};

use super::super::BuildRequest;
use crate::dockerfile::{BuildArguments, Dockerfile, Origin, StageGraph};

/// How a build gets its images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Supply {
    /// Pulled before the build, with whether that is over plain HTTP.
    pub(super) first: Vec<(Reference, bool)>,
    /// Whether the build asks for images again that are there.
    pub(super) pull: bool,
    /// Whether the build does without TLS.
    pub(super) plain: bool,
}

/// The images that a build takes from registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Images {
    pub(super) all: BTreeSet<Reference>,
    /// Those that stages for the platform of the result are built on.
    pub(super) bases: BTreeSet<Reference>,
}

/// Returns the images that are named by the stages that a build needs and by what replaces
/// stages; `None` where the Dockerfile does not tell.
pub(super) fn images(request: &BuildRequest<'_>, text: &str) -> Option<Images> {
    let dockerfile = Dockerfile::parse(text).ok()?;
    let arguments = BuildArguments {
        args: request.args.clone(),
        platform: request.platform.clone(),
    };
    let graph = StageGraph::new(&dockerfile, &arguments);
    let target = match request.target {
        Some(name) => dockerfile
            .stage(name)
            .or_else(|| dockerfile.stages().get(name.parse::<usize>().ok()?))?,
        None => dockerfile.stages().last()?,
    };
    let named = request.named_contexts.iter();
    let replaced: BTreeSet<usize> = named
        .clone()
        .filter_map(|context| Some(dockerfile.stage(&context.stage)?.index()))
        .collect();
    let mut images = Images {
        all: named.map(|context| context.image.clone()).collect(),
        bases: BTreeSet::new(),
    };
    for stage in graph.needed(target.index(), &replaced).ok()? {
        if replaced.contains(&stage) {
            continue;
        }
        if let Origin::Image(name) = graph.base(stage).ok()? {
            let image: Reference = name.parse().ok()?;
            if !graph.has_platform(stage) {
                images.bases.insert(image.clone());
            }
            images.all.insert(image);
        }
        for origin in graph.origins(stage).ok()? {
            if let Origin::Image(name) = origin {
                images.all.insert(name.parse().ok()?);
            }
        }
    }
    Some(images)
}

/// Returns how to get `images` and to use `caches`, where `is_plain` tells which registries are
/// spoken to over plain HTTP.
///
/// # Errors
/// The cache that is in the way: it is at one registry of plain HTTP, and something else is not.
pub(super) fn supply<'c>(
    images: Option<&Images>,
    caches: &'c [Repository],
    pull: bool,
    is_plain: impl Fn(&str) -> bool,
) -> Result<Supply, &'c Repository> {
    let Some(images) = images else {
        return Ok(Supply {
            pull,
            ..Supply::default()
        });
    };
    let images = &images.all;
    let registries = images.iter().map(Reference::registry);
    let registries = registries.chain(caches.iter().map(Repository::registry));
    let (plain, secure): (BTreeSet<&str>, BTreeSet<&str>) =
        registries.partition(|name| is_plain(name));
    if plain.is_empty() || secure.is_empty() {
        return Ok(Supply {
            first: Vec::new(),
            pull,
            plain: !plain.is_empty(),
        });
    }
    if let Some(cache) = caches.iter().find(|cache| plain.contains(cache.registry())) {
        return Err(cache);
    }
    let with_scheme = images
        .iter()
        .map(|image| (image, plain.contains(image.registry())));
    Ok(Supply {
        first: with_scheme
            .filter(|(_, plain)| pull || *plain)
            .map(|(image, plain)| (image.clone(), plain))
            .collect(),
        pull: false,
        plain: false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use trilith_core::{Platform, StatCache};

    use super::super::super::{NamedContext, Network};
    use super::*;
    use crate::build_context::{BuildContext, IgnoreRules};

    #[test]
    fn images_of_what_is_needed() {
        let text = "ARG TAG=1\nFROM a.example/a:$TAG AS base\nFROM base AS deps\n\
            COPY --from=b.example/tool /t /t\nFROM scratch AS other\nCOPY --from=c.example/c:1 / /\n\
            FROM deps AS runtime\nRUN --mount=type=bind,from=localhost/d true\n";
        let dockerfile = crate::build_context::Dockerfile::Text(text.to_owned());
        let directory = tempfile::tempdir().unwrap();
        let load = |at: &Path| {
            BuildContext::load(
                at,
                &dockerfile,
                &IgnoreRules::Nothing,
                &StatCache::disabled(),
            )
        };
        let context = Arc::new(load(directory.path()).unwrap());
        let (platform, labels) = (Platform::host(), BTreeMap::new());
        let args: BTreeMap<String, String> = [("TAG".to_owned(), "2".to_owned())].into();
        let deps = [NamedContext {
            stage: "deps".to_owned(),
            image: "e.example/e:1".parse().unwrap(),
        }];
        let names = |target, named_contexts| {
            let request = BuildRequest {
                context: Arc::clone(&context),
                target,
                args: &args,
                platform: &platform,
                labels: &labels,
                named_contexts,
                secrets: &[],
                ssh: &[],
                extra_hosts: &[],
                network: Network::Default,
                cache_from: &[],
                cache_to: &[],
                no_cache: false,
                pull: false,
            };
            images(&request, text).map(|images| {
                assert!(images.bases.is_subset(&images.all));
                let names = images.all.iter().map(ToString::to_string);
                names.collect::<Vec<_>>().join(" ")
            })
        };
        for (target, named, expected) in [
            (
                None,
                &[][..],
                "a.example/a:2 b.example/tool:latest localhost/d:latest",
            ),
            (Some("base"), &[], "a.example/a:2"),
            (Some("OTHER"), &[], "c.example/c:1"),
            (Some("0"), &[], "a.example/a:2"),
            (None, &deps, "e.example/e:1 localhost/d:latest"),
        ] {
            assert_eq!(
                names(target, named).as_deref(),
                Some(expected),
                "{target:?}"
            );
        }
        assert_eq!(names(Some("nothing"), &[]), None);
    }

    #[test]
    fn plain_http_is_only_for_those_it_is_meant_for() {
        let all = |names: &str| -> BTreeSet<Reference> {
            names
                .split_whitespace()
                .map(|name| name.parse().unwrap())
                .collect()
        };
        let is_plain = |registry: &str| registry.starts_with("plain");
        let cache: Vec<Repository> = vec!["plain.example/cache".parse().unwrap()];
        let of = |images: &str, caches, pull| {
            let images = Images {
                all: all(images),
                ..Images::default()
            };
            let supply = supply(Some(&images), caches, pull, is_plain);
            supply.map(|supply| {
                let first = supply.first.iter();
                let first: Vec<String> = first
                    .map(|(image, plain)| format!("{image} {plain}"))
                    .collect();
                (first.join(", "), supply.pull, supply.plain)
            })
        };
        let ok = |first: &str, pull, plain| Ok((first.to_owned(), pull, plain));
        assert_eq!(of("", &[], true), ok("", true, false));
        assert_eq!(of("a.example/a:1", &[], true), ok("", true, false));
        assert_eq!(of("plain.example/a:1", &[], true), ok("", true, true));
        assert_eq!(of("plain.example/a:1", &cache, false), ok("", false, true));
        let both = "a.example/a:1 plain.example/a:1";
        assert_eq!(
            of(both, &[], false),
            ok("plain.example/a:1 true", false, false)
        );
        let first = "a.example/a:1 false, plain.example/a:1 true";
        assert_eq!(of(both, &[], true), ok(first, false, false));
        assert_eq!(of("a.example/a:1", &cache, false), Err(&cache[0]));
        assert_eq!(
            supply(None, &cache, true, is_plain),
            Ok(Supply {
                pull: true,
                ..Supply::default()
            })
        );
    }
}
