//! Rewriting never changes what other stages are, whatever the file.

use std::collections::BTreeSet;

use proptest::prelude::*;
use trilith_core::Reference;

use super::super::{CutError, Dockerfile, StageGraph, cut_stage};
use super::arguments;

/// Instructions as people write them, some of them nastily.
fn instruction() -> impl Strategy<Value = String> {
    let stage = (0..5_u32).prop_map(|at| format!("s{at}"));
    let fixed = prop::sample::select(vec![
        "RUN a && \\\n  # FROM x AS y\n\n  b",
        "RUN <<EOF\nFROM x\nCOPY --from=s1 a b\nEOF",
        "COPY <<-'E F' <<B /d/\n\tFROM q AS s0\n\tE F\nARG X=1\nB",
        "RUN echo 'FROM x' \"<<EOF\" it\\'s",
        "RUN echo $((1 << 2))",
        "RUN [\"sh\", \"-c\", \"FROM <<x\"]",
        "copy a b \\\n c",
        "COPY [\"a b\", \"/c\"]",
        "ENV A=1 B=\"x \\\" y\"",
        "ENV A b = c",
        "ARG A=1",
        "ARG B=${A:-x}",
        "ARG C=\"a b\" D",
        "WORKDIR /x\\",
        "# a comment",
        "",
        "LABEL a=\"b\\\n c\"",
        "USER a\\\\",
    ]);
    prop_oneof![
        4 => fixed.prop_map(str::to_owned),
        1 => stage.clone().prop_map(|s| format!("COPY --from={s} /a /b")),
        1 => stage.prop_map(|s| format!("RUN --mount=from={s},target=/x make")),
        1 => (0..5_u32).prop_map(|at| format!("COPY --from={at} /a /b")),
    ]
}

fn file() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just("debian:12".to_owned()),
        Just("$G".to_owned()),
        (0..5_u32).prop_map(|at| format!("s{at}"))
    ];
    let stage = (base, prop::collection::vec(instruction(), 0..5));
    let end = prop::sample::select(vec!["\n", "\r\n"]);
    (prop::collection::vec(stage, 1..5), end, any::<bool>()).prop_map(|(stages, end, last)| {
        let mut lines = vec!["# syntax=x\n# escape=\\\nARG G=debian".to_owned()];
        for (at, (base, body)) in stages.into_iter().enumerate() {
            lines.push(format!("FROM {base} AS s{at}"));
            lines.extend(body);
        }
        let mut text = lines.join("\n").replace('\n', end);
        if last {
            text.push_str(end);
        }
        text
    })
}

/// Returns the instructions of each stage but one, without where they stand.
fn others(dockerfile: &Dockerfile, cut: usize) -> Vec<Vec<String>> {
    let stages = dockerfile
        .stages()
        .iter()
        .filter(|stage| stage.index() != cut);
    let texts = stages.map(|stage| {
        let lines = &dockerfile.instructions[stage.range.clone()];
        lines
            .iter()
            .map(|i| {
                format!(
                    "{} {:?} {} {:?}",
                    i.line.keyword, i.line.flags, i.line.arguments, i.line.heredocs
                )
            })
            .collect()
    });
    texts.collect()
}

proptest! {
    #[test]
    fn a_cut_leaves_the_others_alone(text in file(), at in 0..4_usize) {
        let Ok(dockerfile) = Dockerfile::parse(&text) else {
            // An escape at the end may have swallowed what follows.
            return Ok(());
        };
        prop_assume!(at < dockerfile.stages().len());
        let reference: Reference = "reg.io/a/b:t".parse().unwrap();
        let id = dockerfile.stages()[at].id();
        let arguments = arguments(&[]);
        let before = StageGraph::new(&dockerfile, &arguments);
        let text = match cut_stage(&dockerfile, &arguments, &id, &reference) {
            Ok(text) => text,
            Err(CutError::Argument { .. } | CutError::NoStage(_)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let rewritten = Dockerfile::parse(&text).unwrap();
        prop_assert_eq!(others(&rewritten, at), others(&dockerfile, at));
        prop_assert_eq!(&rewritten.directives, &dockerfile.directives);
        let after = StageGraph::new(&rewritten, &arguments);
        for stage in 0..dockerfile.stages().len() {
            prop_assert_eq!(rewritten.stages()[stage].id(), dockerfile.stages()[stage].id());
            if stage != at {
                prop_assert_eq!(after.base(stage).ok(), before.base(stage).ok());
                prop_assert_eq!(after.origins(stage).ok(), before.origins(stage).ok());
            }
        }
        let needed = after.needed(at, &BTreeSet::new()).unwrap();
        prop_assert_eq!(needed, BTreeSet::from([at]));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s)(FROM|RUN|COPY|ARG|ENV|#| |\\\\|\n|<<E|E|\\$\\{|\\}|['\"\\[=a-]|--from=|--mount=|\u{e9}){0,40}") {
        if let Ok(dockerfile) = Dockerfile::parse(&text) {
            let graph = StageGraph::new(&dockerfile, &arguments(&[]));
            for stage in dockerfile.stages() {
                let _ = graph.needed(stage.index(), &BTreeSet::new());
            }
        }
    }

    #[test]
    fn every_byte_of_an_instruction_is_in_its_span(text in file()) {
        if let Ok(dockerfile) = Dockerfile::parse(&text) {
            let mut at = 0;
            for instruction in &dockerfile.instructions {
                let span = instruction.line.span.clone();
                prop_assert!(at <= span.start && span.end <= text.len());
                // Between instructions there are only comments and blank lines.
                for line in text[at..span.start].lines() {
                    let line = line.trim_start_matches('\u{feff}').trim();
                    prop_assert!(line.is_empty() || line.starts_with('#'), "{}", line);
                }
                at = span.end;
            }
        }
    }
}
