//! Stages replaced by images.

use std::collections::BTreeMap;

use trilith_core::{Level, Reference};

use super::super::{CutError, Dockerfile, cut_stage};
use super::{CHAIN, arguments, resolve, resolve_on};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn cut(text: &str, stage: &str) -> Result<String, String> {
    let dockerfile = Dockerfile::parse(text).unwrap();
    cut_stage(
        &dockerfile,
        &arguments(&[]),
        stage,
        &reference("reg.io/a/b:t"),
    )
    .map_err(|error| error.to_string())
}

#[test]
fn one_stage_and_nothing_else() {
    let from = CHAIN.find("FROM base AS deps").unwrap();
    let to = CHAIN.find("\n\nFROM debian:bookworm AS docs").unwrap();
    let expected = format!(
        "{}FROM reg.io/a/b:t AS deps\nARG PYTHON\nARG EXTRA=\"none at all\"{}",
        &CHAIN[..from],
        &CHAIN[to..]
    );
    assert_eq!(cut(CHAIN, "Deps").unwrap(), expected);
    assert_eq!(
        cut(CHAIN, "nowhere").unwrap_err(),
        "stage `nowhere` does not exist"
    );
}

#[test]
fn texts_around_a_cut() {
    for (text, expected) in [
        // Comments between stages stay, those inside go with their stage.
        (
            "# a\nFROM x AS s\n# b\nRUN y\n# c\nFROM s\n",
            "# a\nFROM reg.io/a/b:t AS s\n# c\nFROM s\n",
        ),
        ("FROM x AS s", "FROM reg.io/a/b:t AS s"),
        (
            "\u{feff}FROM x AS s\r\nARG A\r\nFROM s\r\n",
            "\u{feff}FROM reg.io/a/b:t AS s\r\nARG A\r\nFROM s\r\n",
        ),
        (
            "# escape=`\nFROM x AS s\nRUN a `\n b\nRUN <<E\nFROM c\nE\nFROM s\n",
            "# escape=`\nFROM reg.io/a/b:t AS s\nFROM s\n",
        ),
        (
            "FROM --platform=$TARGETPLATFORM x AS r\nFROM r AS s\nRUN y\n",
            "FROM --platform=$TARGETPLATFORM x AS r\nFROM --platform=$TARGETPLATFORM reg.io/a/b:t AS s\n",
        ),
    ] {
        assert_eq!(cut(text, "s").unwrap(), expected, "{text}");
    }
}

#[test]
fn arguments_that_others_inherit() {
    for (body, expected) in [
        ("ARG A=1\nARG A", "ARG A=1\nARG A\n"),
        ("ARG A=1 B=\"x y\" C", "ARG A=1\nARG B=\"x y\"\nARG C\n"),
        // The image holds what a variable comes to.
        ("ARG A=1\nENV A=$A-x", ""),
        ("ENV A=1\nARG A=2", "ARG A=2\n"),
        ("ENV A=1\nARG B=$A", "ARG B=$A\n"),
        ("ARG A=1\nARG B=$A\nARG A=2", "ARG A=1\nARG B=$A\nARG A=2\n"),
        ("ENV $X=1\nARG B=1", "ARG B=1\n"),
        ("RUN x", ""),
    ] {
        let text = format!("FROM x AS s\n{body}\nFROM s\nRUN y\n");
        let expected = format!("FROM reg.io/a/b:t AS s\n{expected}FROM s\nRUN y\n");
        assert_eq!(cut(&text, "s").as_deref(), Ok(expected.as_str()), "{body}");
    }
    // Those of the stages it builds on too, and those that these trigger.
    let text = "FROM x AS r\nARG A=1\nONBUILD ARG B=2\nFROM r AS s\nARG C=3\nFROM s\n";
    let expected = "FROM x AS r\nARG A=1\nONBUILD ARG B=2\nFROM reg.io/a/b:t AS s\nARG A=1\nARG B=2\nARG C=3\nFROM s\n";
    assert_eq!(cut(text, "s").unwrap(), expected);
    // None where nothing builds on it.
    let text = "FROM x AS s\nARG A=1\nFROM y\nCOPY --from=s / /\n";
    assert_eq!(
        cut(text, "s").unwrap(),
        "FROM reg.io/a/b:t AS s\nFROM y\nCOPY --from=s / /\n"
    );
}

#[test]
fn refused_rather_than_changed() {
    for (body, message) in [
        (
            "ARG A=1\nARG B=$A\nENV A=2",
            "line 3: the value of `B` depends on a variable that changes afterwards",
        ),
        (
            "ENV A=1\nARG B=$A\nENV A=2",
            "line 3: the value of `B` depends on a variable that changes afterwards",
        ),
        (
            "ARG B=1\nENV $X=1",
            "line 2: the value of `B` depends on a variable that changes afterwards",
        ),
        (
            "ARG B=${A#x}\nENV A=2",
            "line 2: the value of `B` depends on a variable that changes afterwards",
        ),
        (
            "RUN x\nONBUILD RUN y",
            "line 3: `ONBUILD` in stage `s` is meant for stages that build on it",
        ),
    ] {
        let text = format!("FROM x AS s\n{body}\nFROM s\n");
        assert_eq!(cut(&text, "s").unwrap_err(), message, "{body}");
    }
    let error = cut("FROM --platform='a b' x AS s\n", "s").unwrap_err();
    assert_eq!(error, "line 1: `--platform=a b` holds quotes or blanks");
}

#[test]
fn levels_on_a_chain() {
    let dockerfile = Dockerfile::parse(CHAIN).unwrap();
    let levels = resolve(&dockerfile, &[]).unwrap();
    assert_eq!(
        levels.replaced(Level::Source, Level::Lock).unwrap(),
        [Level::Lock]
    );
    assert_eq!(
        levels.replaced(Level::Source, Level::Versioned).unwrap(),
        [Level::Versioned]
    );
    assert_eq!(
        levels.replaced(Level::Lock, Level::Source).unwrap(),
        [Level::Versioned]
    );
    let images = BTreeMap::from([(Level::Lock, reference("reg.io/a/b:lock"))]);
    insta::assert_snapshot!(levels.cut(Level::Source, &images).unwrap(), @r#"
    # syntax=docker/dockerfile:1
    ARG BASE_IMAGE=debian:bookworm
    ARG PYTHON=3.11

    FROM scratch AS base

    FROM reg.io/a/b:lock AS deps
    ARG PYTHON
    ARG EXTRA="none at all"

    FROM scratch AS docs

    FROM deps AS runtime
    COPY --exclude=*.md app /app/app
    COPY <<EOF /app/motd
    hello
    EOF
    CMD ["/app/run"]
    "#);
    // The stage that is built is never replaced, and what only others need is gone.
    let lock = levels.cut(Level::Lock, &images).unwrap();
    assert!(lock.contains("FROM base AS deps\nARG PYTHON\n"), "{lock}");
    assert!(
        lock.ends_with("FROM scratch AS docs\n\nFROM scratch AS runtime\n"),
        "{lock}"
    );
}

#[test]
fn levels_that_copy_from_each_other() {
    let text = "FROM x AS base\nRUN a\nFROM base AS deps\nRUN b\nFROM base AS runtime\nCOPY --from=deps /v /v\nCOPY --from=0 /w /w\n";
    let dockerfile = Dockerfile::parse(text).unwrap();
    let levels = resolve(&dockerfile, &[]).unwrap();
    let needed = levels.replaced(Level::Source, Level::Lock).unwrap();
    assert_eq!(needed, [Level::Versioned, Level::Lock]);
    let images = BTreeMap::from([
        (Level::Versioned, reference("reg.io/a/b:v")),
        (Level::Lock, reference("reg.io/a/b:l")),
    ]);
    assert_eq!(
        levels.cut(Level::Source, &images).unwrap(),
        "FROM reg.io/a/b:v AS base\nFROM reg.io/a/b:l AS deps\nFROM base AS runtime\nCOPY --from=deps /v /v\nCOPY --from=0 /w /w\n"
    );
}

#[test]
fn named_contexts() {
    let dockerfile = Dockerfile::parse(CHAIN).unwrap();
    let levels = resolve(&dockerfile, &[]).unwrap();
    let image = reference("reg.io/a/b:t");
    assert_eq!(
        levels.named_context(Level::Versioned, &image).unwrap(),
        "base=docker-image://reg.io/a/b:t"
    );
    let error = levels.named_context(Level::Lock, &image).unwrap_err();
    assert!(matches!(error, CutError::Inherited { .. }));
    assert_eq!(
        error.to_string(),
        "stages that build on `deps` inherit its build arguments `PYTHON`, `EXTRA`"
    );
}

#[test]
fn platforms_that_inherit_differently() {
    let text = "FROM x AS p-amd64\nARG A=1\nFROM x AS p-arm64\nARG B=1\nFROM p-$TARGETARCH AS base\nFROM base AS deps\nFROM deps AS runtime\n";
    let dockerfile = Dockerfile::parse(text).unwrap();
    let levels = resolve_on(&dockerfile, &[], &["linux/amd64", "linux/arm64"]).unwrap();
    let images = BTreeMap::from([(Level::Lock, reference("reg.io/a/b:l"))]);
    let error = levels.cut(Level::Source, &images).unwrap_err();
    assert_eq!(
        error.to_string(),
        "what stages inherit from `deps` differs between platforms"
    );
    let levels = resolve_on(&dockerfile, &[], &["linux/arm64"]).unwrap();
    let text = levels.cut(Level::Source, &images).unwrap();
    assert!(text.contains("FROM scratch AS p-amd64\n"), "{text}");
    assert!(
        text.contains("FROM reg.io/a/b:l AS deps\nARG B=1\n"),
        "{text}"
    );
}
