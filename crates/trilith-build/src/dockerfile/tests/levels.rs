//! What each level covers, and that nothing else does.

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::{InputList, Level, Platform};

use super::super::{Dockerfile, ImageUse, StageLevels};
use super::{CHAIN, map, names, resolve, resolve_on};

/// Returns the levels whose keys differ between two texts and arguments.
fn moved(before: (&str, &[(&str, &str)]), after: (&str, &[(&str, &str)])) -> Vec<Level> {
    let keys = |(text, args): (&str, &[(&str, &str)])| {
        let dockerfile = Dockerfile::parse(text).unwrap();
        let levels = resolve(&dockerfile, args).unwrap();
        InputList::new(levels.inputs().to_vec()).unwrap()
    };
    let (before, after) = (keys(before), keys(after));
    let differs = |level: &Level| before.at(*level) != after.at(*level);
    Level::ALL.into_iter().filter(differs).collect()
}

#[test]
fn inputs_at_their_levels() {
    let dockerfile = Dockerfile::parse(CHAIN).unwrap();
    let args = [
        ("BASE_IMAGE", "ubuntu:24.04"),
        ("EXTRA", "x"),
        ("NOBODY", "1"),
        ("HTTP_PROXY", "p"),
    ];
    let levels = resolve(&dockerfile, &args).unwrap();
    let inputs = InputList::new(levels.inputs().to_vec()).unwrap();
    let inputs: Vec<(Level, &str)> = inputs
        .as_slice()
        .iter()
        .map(|i| (i.level, i.name.as_str()))
        .collect();
    assert_eq!(
        inputs,
        [
            (Level::Versioned, "dockerfile/stage/base"),
            (Level::Versioned, "dockerfile/syntax"),
            (Level::Lock, "dockerfile/arg/EXTRA"),
            (Level::Lock, "dockerfile/arg/PYTHON"),
            (Level::Lock, "dockerfile/stage/deps"),
            (Level::Source, "dockerfile/stage/runtime"),
        ]
    );
    assert_eq!(levels.unused_args(), ["NOBODY"]);
    let base = ImageUse {
        input: "dockerfile/base/base".to_owned(),
        reference: "ubuntu:24.04".to_owned(),
    };
    assert_eq!(
        levels.facts(Level::Versioned).images,
        BTreeSet::from([base])
    );
    assert!(levels.facts(Level::Source).images.is_empty());
    assert_eq!(
        levels.facts(Level::Lock).secrets,
        BTreeSet::from(["index".to_owned()])
    );
    assert_eq!(levels.stage(Level::Lock).name(), Some("deps"));
}

#[test]
fn files_at_their_levels() {
    let dockerfile = Dockerfile::parse(CHAIN).unwrap();
    let levels = resolve(&dockerfile, &[]).unwrap();
    for (path, expected) in [
        ("pyproject.toml", Some(Level::Lock)),
        ("uv.lock", Some(Level::Lock)),
        ("app/main.py", Some(Level::Source)),
        ("app/README.md", None),
        ("app/a/README.md", Some(Level::Source)),
        ("docs/index", None),
        ("Dockerfile", None),
        ("README.md", None),
    ] {
        assert_eq!(levels.level_of(path.as_bytes()), expected, "{path}");
    }
    let links: [(&[u8], &[u8]); 1] = [(b"uv.lock", b"locks/uv.lock")];
    let followed = levels.context_following(&links);
    assert_eq!(followed.level_of(b"locks/uv.lock"), Some(Level::Lock));
    assert_eq!(followed.level_of(b"app/main.py"), Some(Level::Source));
}

#[test]
fn a_change_moves_the_lowest_level_that_sees_it() {
    use Level::{Lock, Source, Versioned};
    for (from, to, expected) in [
        ("# the interpreter", "# an interpreter", &[][..]),
        ("FROM base AS deps", "# deps\n\nfrom  base  as  Deps", &[]),
        (
            "apt-get update && \\\n    # the",
            "apt-get update && \\\n\n    # the",
            &[],
        ),
        (
            "ARG BASE_IMAGE=debian:bookworm",
            "ARG BASE_IMAGE=debian:trixie",
            &[],
        ),
        ("COPY docs /docs", "COPY docs /manual", &[]),
        ("docker/dockerfile:1", "docker/dockerfile:1.9", &[Versioned]),
        (
            "install -y python3",
            "install -y python3-venv",
            &[Versioned],
        ),
        ("LANG=C.UTF-8", "LANG=C", &[Versioned]),
        ("ARG PYTHON=3.11", "ARG PYTHON=3.12", &[Lock]),
        ("EXTRA=\"none at all\"", "EXTRA=\"none  at all\"", &[Lock]),
        ("uv.lock /app/", "poetry.lock /app/", &[Lock]),
        ("id=index", "id=other", &[Lock]),
        (
            "FROM deps AS runtime",
            "FROM base AS runtime\nCOPY --from=deps /app /app",
            &[Source],
        ),
        ("hello\nEOF", "hello \nEOF", &[Source]),
        (
            "CMD [\"/app/run\"]",
            "CMD [\"/app/run\", \"-v\"]",
            &[Source],
        ),
        ("--exclude=*.md", "--exclude=*.txt", &[Source]),
    ] {
        assert!(CHAIN.contains(from), "{from}");
        let changed = CHAIN.replacen(from, to, 1);
        assert_eq!(
            moved((CHAIN, &[]), (&changed, &[])),
            expected,
            "{from} -> {to}"
        );
    }
    for (args, expected) in [
        (&[("PYTHON", "3.12")][..], &[Lock][..]),
        (&[("PYTHON", "3.11")], &[]),
        (&[("EXTRA", "")], &[Lock]),
        (&[("BASE_IMAGE", "ubuntu:24.04")], &[]),
        (&[("HTTPS_PROXY", "http://user:secret@proxy")], &[]),
        (&[("NOBODY", "1")], &[]),
        (&[("TARGETARCH", "arm64")], &[]),
        (
            &[("BUILDKIT_SYNTAX", "docker/dockerfile:1.9")],
            &[Versioned],
        ),
    ] {
        assert_eq!(moved((CHAIN, &[]), (CHAIN, args)), expected, "{args:?}");
    }
}

#[test]
fn proxies_and_platforms_count_when_declared() {
    let text = CHAIN.replace(
        "ARG EXTRA",
        "ARG HTTP_PROXY TARGETARCH BUILDARCH\nARG EXTRA",
    );
    for (args, expected) in [
        (&[("HTTP_PROXY", "p")][..], &[Level::Lock][..]),
        (&[("TARGETARCH", "arm64")], &[Level::Lock]),
        (&[("HTTPS_PROXY", "p")], &[]),
    ] {
        assert_eq!(moved((&text, &[]), (&text, args)), expected, "{args:?}");
    }
}

#[test]
fn a_value_that_only_the_engine_knows_counts_by_its_text() {
    let text = |default: &str, other: &str| {
        CHAIN.replace(
            "ARG PYTHON=3.11",
            &format!("ARG OTHER={other}\nARG PYTHON={default}"),
        )
    };
    let before = text("${OTHER#v}", "v3");
    assert_eq!(
        moved((&before, &[]), (&text("${OTHER#v}", "v4"), &[])),
        [Level::Lock]
    );
    assert_eq!(
        moved((&before, &[]), (&text("${OTHER%v}", "v3"), &[])),
        [Level::Lock]
    );
    assert_eq!(
        moved((&before, &[]), (&before, &[("OTHER", "v5")])),
        [Level::Lock]
    );
}

#[test]
fn names_that_change_their_meaning_count() {
    let text = |first: &str, second: &str| {
        format!(
            "FROM x AS {first}\nRUN a\nFROM x AS {second}\nRUN a\nFROM x AS base\nFROM base AS deps\nFROM deps AS runtime\nCOPY --from=0 /a /a\nCOPY --from=1 /b /b\n"
        )
    };
    let (before, after) = (text("one", "two"), text("two", "one"));
    assert_eq!(moved((&before, &[]), (&after, &[])), [Level::Source]);

    // `tool` is an image before, and a stage after.
    let before = "FROM x AS base\nFROM base AS deps\nFROM deps AS runtime\nCOPY --from=tool / /\n";
    let after = format!("FROM y AS tool\n{before}");
    let keys = |text: &str| {
        let dockerfile = Dockerfile::parse(text).unwrap();
        let inputs = resolve(&dockerfile, &[]).unwrap().inputs().to_vec();
        inputs
            .into_iter()
            .find(|i| i.name == "dockerfile/stage/runtime")
            .unwrap()
    };
    assert_ne!(keys(before), keys(&after));
}

#[test]
fn what_cannot_be_told_covers_everything() {
    for (instruction, everything) in [
        ("COPY . .", true),
        ("COPY $DIR /x", true),
        ("COPY --exclude=$NOT app /x", false),
        ("COPY ../ /x", true),
        ("RUN --mount=target=/src make", true),
        ("RUN --mount=type=$KIND,source=app,target=/src make", false),
        ("RUN --mount=type=bind,source=${DIR},target=/src make", true),
        (
            "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t make",
            false,
        ),
        (
            "RUN --mount=type=ssh --mount=from=base,target=/b make",
            false,
        ),
        ("ADD https://example.com/a.tar /x", false),
    ] {
        let text =
            format!("FROM x AS base\nFROM base AS deps\nFROM deps AS runtime\n{instruction}\n");
        let dockerfile = Dockerfile::parse(&text).unwrap();
        let levels = resolve(&dockerfile, &[]).unwrap();
        let facts = levels.facts(Level::Source);
        assert_eq!(facts.context.is_everything(), everything, "{instruction}");
        assert!(levels.facts(Level::Lock).context.is_empty());
    }
    let dockerfile = Dockerfile::parse(
        "FROM x AS base\nFROM base AS deps\nFROM deps AS runtime\nADD https://a/b c /x\nRUN --mount=type=ssh,id=k x\n",
    )
    .unwrap();
    let levels = resolve(&dockerfile, &[]).unwrap();
    let facts = levels.facts(Level::Source);
    assert_eq!(facts.remote, BTreeSet::from(["https://a/b".to_owned()]));
    assert_eq!(facts.ssh, BTreeSet::from(["k".to_owned()]));
    assert!(facts.context.sees(b"c") && !facts.context.sees(b"d"));
}

#[test]
fn triggers_count_where_they_fire() {
    let dockerfile = Dockerfile::parse(
        "FROM x AS base\nFROM base AS deps\nFROM x AS onbuild\nONBUILD COPY trig /t\nONBUILD ARG T\nONBUILD COPY --from=deps /d /d\nFROM onbuild AS runtime\n",
    )
    .unwrap();
    let levels = resolve(&dockerfile, &[("T", "1")]).unwrap();
    assert_eq!(levels.level_of(b"trig/x"), Some(Level::Source));
    assert!(levels.unused_args().is_empty());
}

#[test]
fn platforms_that_differ() {
    let dockerfile = Dockerfile::parse(
        "FROM x AS base\nFROM base AS deps-amd64\nCOPY amd /x\nFROM base AS deps-arm64\nCOPY arm /x\nFROM deps-$TARGETARCH AS deps\nFROM deps AS runtime\n",
    )
    .unwrap();
    let levels = resolve_on(&dockerfile, &[], &["linux/amd64", "linux/arm64"]).unwrap();
    let inputs = InputList::new(levels.inputs().to_vec()).unwrap();
    let lock: Vec<&str> = inputs
        .at(Level::Lock)
        .iter()
        .map(|i| i.name.as_str())
        .collect();
    assert_eq!(
        lock,
        [
            "dockerfile/stage/deps-amd64@linux/amd64",
            "dockerfile/stage/deps-arm64@linux/arm64",
            "dockerfile/stage/deps@linux/amd64",
            "dockerfile/stage/deps@linux/arm64",
        ]
    );
    assert_eq!(levels.level_of(b"amd"), Some(Level::Lock));
    assert_eq!(levels.level_of(b"arm"), Some(Level::Lock));
    let one = resolve_on(&dockerfile, &[], &["linux/arm64"]).unwrap();
    assert_eq!(one.level_of(b"amd"), None);
}

#[test]
fn refused() {
    let text = "FROM x AS base\nFROM base AS deps\nFROM x AS apart\nFROM deps AS runtime\nFROM --platform=$BUILDPLATFORM base AS cross\nCOPY --from=deps / /\nFROM base AS triggering\nCOPY --from=deps / /\nONBUILD RUN x\nFROM triggering AS top\nFROM $NONE AS late\nCOPY --from=deps / /\n";
    let dockerfile = Dockerfile::parse(text).unwrap();
    for (stages, message, hint) in [
        (
            names("base", "deps", "missing"),
            "stage `missing` of level `source` does not exist",
            "there are `base`, `deps`, `apart`, `runtime`, `cross`, `triggering`, `top`, `late`",
        ),
        (
            names("base", "base", "runtime"),
            "levels `versioned` and `lock` are both stage `base`",
            "add a stage that starts with `FROM base`",
        ),
        (
            names("base", "apart", "runtime"),
            "stage `apart` of level `lock` takes nothing from stage `base` of the level below",
            "let `apart` start with `FROM base`, or copy from it",
        ),
        (
            names("base", "deps", "cross"),
            "stage `cross` of level `source` is built for `$BUILDPLATFORM`, not for the target",
            "only stages that are no level can be built for another platform",
        ),
        (
            names("deps", "triggering", "top"),
            "stage `triggering` of level `lock` cannot be replaced by its image",
            "move the instruction to the stages that build on this one",
        ),
        (
            names("base", "deps", "late"),
            "line 11: `$NONE` is empty, as no build argument says what it is",
            "give the argument a default, or set it",
        ),
        (
            BTreeMap::from([(Level::Source, "runtime".to_owned())]),
            "no stage is named for level `versioned`",
            "name it under `[dockerfile]`, as in `levels = { versioned = \"STAGE\" }`",
        ),
    ] {
        let platforms = BTreeSet::from([Platform::host()]);
        let error = StageLevels::resolve(&dockerfile, &stages, &map(&[]), &platforms).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint().as_deref(), Some(hint), "{message}");
    }
}

#[test]
fn levels_for_the_platform_of_the_builder() {
    for (arguments, platform, refused) in [
        ("", "$BUILDPLATFORM", true),
        ("", "${BUILDOS}/amd64", true),
        ("ARG WHERE=$BUILDPLATFORM", "$WHERE", true),
        ("ARG ARCH=$BUILDARCH\nARG WHERE=linux/$ARCH", "$WHERE", true),
        ("ARG WHERE=linux/amd64", "$WHERE", false),
        ("ARG BUILD_ON=linux/amd64", "$BUILD_ON", false),
        ("", "$TARGETPLATFORM", false),
    ] {
        let text = format!(
            "{arguments}\nFROM x AS base\nFROM base AS deps\n\
             FROM --platform={platform} base AS top\nCOPY --from=deps / /\n"
        );
        let dockerfile = Dockerfile::parse(&text).unwrap();
        let platforms = BTreeSet::from(["linux/amd64".parse().unwrap()]);
        let stages = names("base", "deps", "top");
        let resolved = StageLevels::resolve(&dockerfile, &stages, &map(&[]), &platforms);
        let message = resolved.err().map(|error| error.to_string());
        let expected =
            format!("stage `top` of level `source` is built for `{platform}`, not for the target");
        assert_eq!(message, refused.then_some(expected), "{text}");
    }
}

#[test]
fn the_format_is_pinned() {
    let dockerfile = Dockerfile::parse(CHAIN).unwrap();
    let levels = resolve(&dockerfile, &[("EXTRA", "x")]).unwrap();
    let keys = InputList::new(levels.inputs().to_vec()).unwrap().keys();
    // Another value here makes every image in the world be built again: a change of the format
    // is a new version of its domain.
    assert_eq!(
        keys.source.to_hex(),
        "baa490b01bd6608cfcf750efeb9f51ab36d874c8b96bff398c82bda644c08763"
    );
}
