//! Images named by digest, so that an engine builds on what was hashed and on nothing newer or
//! older that it has under the same name.
//!
//! A flag that is written in an unusual way, as in quotes, stays as it is: it means what it meant
//! before.

use std::collections::BTreeMap;
use std::ops::Range;

use trilith_core::Reference;

use super::arguments::BuildArguments;
use super::file::Dockerfile;
use super::graph::{Origin, StageGraph};
use super::instruction::{Instruction, Step};

/// Returns the text of `dockerfile` with the images that are keys of `pins`, as they are called
/// when it is built with `arguments`, replaced by their values; for stages that name a platform of
/// their own, by those of `for_any_platform`. All else stays as it is.
#[must_use]
pub fn pin_images(
    dockerfile: &Dockerfile,
    arguments: &BuildArguments,
    pins: &BTreeMap<String, Reference>,
    for_any_platform: &BTreeMap<String, Reference>,
) -> String {
    let graph = StageGraph::new(dockerfile, arguments);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for stage in dockerfile.stages() {
        if let (Some(from), Ok(Origin::Image(image))) =
            (dockerfile.from(stage), graph.base(stage.index()))
        {
            let instruction = &dockerfile.instructions[stage.range.start];
            let word = words(dockerfile, instruction).find(|(_, word)| *word == from.image);
            let own = from.platform.is_some();
            let pin = if own { for_any_platform } else { pins }.get(image);
            if let (Some((range, _)), Some(pin)) = (word, pin) {
                edits.push((range, pin.to_string()));
            }
        }
        for instruction in dockerfile.body(stage) {
            for name in copied_images(dockerfile, &instruction.step) {
                if let Some(pin) = pins.get(name) {
                    edits.extend(flag_edit(dockerfile, instruction, name, pin));
                }
            }
        }
    }
    rewritten(dockerfile.text(), edits)
}

/// Returns the names that a step copies or mounts from and that are no stages.
fn copied_images<'s>(dockerfile: &Dockerfile, step: &'s Step) -> Vec<&'s str> {
    let names: Vec<&str> = match step {
        Step::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Step::Run(mounts) => mounts
            .iter()
            .filter_map(|mount| mount.from.as_deref())
            .collect(),
        _ => Vec::new(),
    };
    let is_image = |name: &&str| dockerfile.stage(name).is_none();
    names.into_iter().filter(is_image).collect()
}

/// Returns the words of an instruction as written, each with where it stands.
fn words<'d>(
    dockerfile: &'d Dockerfile,
    instruction: &Instruction,
) -> impl Iterator<Item = (Range<usize>, &'d str)> {
    let start = instruction.line.span.start;
    let text = &dockerfile.text()[instruction.line.span.clone()];
    text.split_ascii_whitespace().skip(1).map(move |word| {
        let at = start + (word.as_ptr() as usize - text.as_ptr() as usize);
        (at..at + word.len(), word)
    })
}

/// Returns the edit of the flag that names `image`: `--from=IMAGE`, or `--mount=…,from=IMAGE,…`.
fn flag_edit(
    dockerfile: &Dockerfile,
    instruction: &Instruction,
    image: &str,
    pin: &Reference,
) -> Option<(Range<usize>, String)> {
    let option = format!("from={image}");
    let escape = dockerfile.directives.escape;
    let is_continuation = |word: &str| word.len() == 1 && word.starts_with(escape);
    let flags = words(dockerfile, instruction)
        .take_while(|(_, word)| word.starts_with("--") || is_continuation(word));
    for (range, word) in flags {
        let Some(options) = word.strip_prefix("--mount=").or(word.strip_prefix("--")) else {
            continue;
        };
        if options.split(',').any(|given| given == option) {
            let pinned: Vec<String> = options
                .split(',')
                .map(|given| {
                    if given == option {
                        format!("from={pin}")
                    } else {
                        given.to_owned()
                    }
                })
                .collect();
            let flag = &word[..word.len() - options.len()];
            return Some((range, format!("{flag}{}", pinned.join(","))));
        }
    }
    None
}

fn rewritten(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, replacement) in edits {
        // Two mounts of one image in one instruction: the second finds the first's flag.
        if range.start < at {
            continue;
        }
        out.push_str(&text[at..range.start]);
        out.push_str(&replacement);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_digest() {
        let pin = |name: &str| -> Reference {
            format!("{name}@sha256:{}", "a".repeat(64)).parse().unwrap()
        };
        let pins = BTreeMap::from([
            ("debian:12".to_owned(), pin("debian")),
            ("uv".to_owned(), pin("uv")),
        ]);
        let digest = format!("@sha256:{}", "a".repeat(64));
        for (text, expected) in [
            (
                "ARG BASE\nFROM --platform=linux/amd64 $BASE AS deps",
                "ARG BASE\nFROM --platform=linux/amd64 docker.io/library/debian% AS deps",
            ),
            (
                "FROM debian:12 AS uv\nCOPY --from=uv /a /a",
                "FROM docker.io/library/debian% AS uv\nCOPY --from=uv /a /a",
            ),
            (
                "from debian:12\ncopy --chown=1 --from=uv --link /uv --from=uv",
                "from docker.io/library/debian%\ncopy --chown=1 --from=docker.io/library/uv% --link /uv --from=uv",
            ),
            (
                "FROM other\nRUN --mount=type=bind,from=uv,target=/uv \\\n  --mount=from=debian:12,target=/d uv from=uv",
                "FROM other\nRUN --mount=type=bind,from=docker.io/library/uv%,target=/uv \\\n  --mount=from=docker.io/library/debian%,target=/d uv from=uv",
            ),
            (
                "FROM \"debian:12\"\nRUN x",
                "FROM docker.io/library/debian%\nRUN x",
            ),
            ("FROM debian\n", "FROM debian\n"),
            ("FROM scratch\n", "FROM scratch\n"),
        ] {
            let dockerfile = Dockerfile::parse(text).unwrap();
            let arguments = BuildArguments {
                args: BTreeMap::from([("BASE".to_owned(), "debian:12".to_owned())]),
                platform: "linux/amd64".parse().unwrap(),
            };
            let pinned = pin_images(&dockerfile, &arguments, &pins, &pins);
            assert_eq!(pinned, expected.replace('%', &digest), "{text}");
        }
    }
}
