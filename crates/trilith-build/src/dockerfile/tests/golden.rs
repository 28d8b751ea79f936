//! The same reading as the parser that `BuildKit` itself uses, as recorded.

use serde_json::Value;

use super::super::lines::{self, Line};
use super::super::words::{self, Json};

const GOLDEN: &str = include_str!("../../../tests/golden/dockerfiles.json");

/// Returns the arguments as that parser splits them; `None` where it keeps more than words.
fn words_of(line: &Line, escape: char) -> Option<Vec<String>> {
    let listed = match (line.keyword.as_str(), words::json(&line.arguments)) {
        ("ENV" | "LABEL" | "ONBUILD" | "HEALTHCHECK", _) => return None,
        ("RUN" | "CMD" | "COPY" | "ADD" | "VOLUME", Json::Strings(words)) => words,
        ("FROM" | "COPY" | "ADD" | "VOLUME" | "EXPOSE", _) => {
            words::blank_separated(&line.arguments)
        }
        ("ARG", _) => words::quoted(&line.arguments, escape),
        _ => vec![line.arguments.clone()],
    };
    Some(listed)
}

#[test]
fn read_as_the_engine_reads() {
    let cases: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    assert!(cases.len() > 40);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let text = case["text"].as_str().unwrap();
        let read = lines::split(text);
        let Some(expected) = case["instructions"].as_array() else {
            assert!(read.is_err(), "{name}");
            continue;
        };
        let (directives, lines) = read.unwrap();
        assert_eq!(lines.len(), expected.len(), "{name}");
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(
                line.keyword,
                expected["keyword"].as_str().unwrap(),
                "{name}"
            );
            assert_eq!(line.number, expected["start"], "{name}");
            let breaks = text[line.span.clone()].matches('\n').count();
            assert_eq!(line.number + breaks, expected["end"], "{name}");
            assert_eq!(serde_json::json!(line.flags), expected["flags"], "{name}");
            if let Some(words) = words_of(line, directives.escape) {
                assert_eq!(serde_json::json!(words), expected["words"], "{name}");
            }
        }
    }
}
