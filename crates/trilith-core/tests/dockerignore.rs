//! What Docker's `patternmatcher` answers for thousands of pattern lists.

use serde::Deserialize;
use trilith_core::DockerIgnore;

#[derive(Deserialize)]
struct Golden {
    paths: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    patterns: Vec<String>,
    /// One answer per path, or null where the list is refused.
    dockerignore: Option<Vec<bool>>,
}

#[derive(Deserialize)]
struct Odd {
    paths: Vec<String>,
    cases: Vec<OddCase>,
}

#[derive(Deserialize)]
struct OddCase {
    patterns: Vec<String>,
    /// One digit per path, or null where the list is refused.
    answers: Option<String>,
}

#[test]
fn odd_patterns_are_as_odd_as_with_docker() {
    let odd: Odd = serde_json::from_str(include_str!("golden/dockerignore.json")).unwrap();
    assert_eq!(odd.cases.len(), 500);
    for case in odd.cases {
        let answers = DockerIgnore::new(&case.patterns).ok().map(|patterns| {
            let digit = |path: &String| if patterns.matches(path) { '1' } else { '0' };
            odd.paths.iter().map(digit).collect::<String>()
        });
        assert_eq!(answers, case.answers, "{:?}", case.patterns);
    }
}

#[test]
fn every_answer_is_that_of_docker() {
    let golden: Golden = serde_json::from_str(include_str!("golden/patterns.json")).unwrap();
    assert_eq!(golden.cases.len(), 3000);
    for case in golden.cases {
        let answers = DockerIgnore::new(&case.patterns).ok().map(|patterns| {
            let matches = |path: &String| patterns.matches(path);
            golden.paths.iter().map(matches).collect::<Vec<_>>()
        });
        assert_eq!(answers, case.dockerignore, "{:?}", case.patterns);
    }
}
