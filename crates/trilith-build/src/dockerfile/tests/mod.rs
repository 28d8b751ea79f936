//! Whole Dockerfiles: levels and what moves them, rewriting, and another parser's answers.

mod cut;
mod golden;
mod levels;
mod property;

use std::collections::{BTreeMap, BTreeSet};

use trilith_core::Level;

use super::{BuildArguments, Dockerfile, LevelsError, StageLevels};

/// A Dockerfile of the usual shape: each level builds on the one below.
const CHAIN: &str = r#"# syntax=docker/dockerfile:1
ARG BASE_IMAGE=debian:bookworm
ARG PYTHON=3.11

FROM ${BASE_IMAGE} AS base
RUN apt-get update && \
    # the interpreter
    apt-get install -y python3
ENV LANG=C.UTF-8

FROM base AS deps
ARG PYTHON
ARG EXTRA="none at all"
COPY pyproject.toml uv.lock /app/
RUN --mount=type=cache,target=/cache --mount=type=secret,id=index make deps

FROM debian:bookworm AS docs
COPY docs /docs

FROM deps AS runtime
COPY --exclude=*.md app /app/app
COPY <<EOF /app/motd
hello
EOF
CMD ["/app/run"]
"#;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

fn names(versioned: &str, lock: &str, source: &str) -> BTreeMap<Level, String> {
    let names = [versioned, lock, source].map(str::to_owned);
    Level::ALL.into_iter().zip(names).collect()
}

fn resolve<'d>(
    dockerfile: &'d Dockerfile,
    args: &[(&str, &str)],
) -> Result<StageLevels<'d>, LevelsError> {
    resolve_on(dockerfile, args, &["linux/amd64"])
}

fn resolve_on<'d>(
    dockerfile: &'d Dockerfile,
    args: &[(&str, &str)],
    platforms: &[&str],
) -> Result<StageLevels<'d>, LevelsError> {
    let platforms: BTreeSet<_> = platforms.iter().map(|p| p.parse().unwrap()).collect();
    StageLevels::resolve(
        dockerfile,
        &names("base", "deps", "runtime"),
        &map(args),
        &platforms,
    )
}

fn arguments(args: &[(&str, &str)]) -> BuildArguments {
    BuildArguments {
        args: map(args),
        platform: "linux/amd64".parse().unwrap(),
    }
}
