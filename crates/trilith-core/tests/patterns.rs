//! What Python's `pathspec` 1.1.1 answers for thousands of pattern lists.

use serde::Deserialize;
use trilith_core::Patterns;

#[derive(Deserialize)]
struct Golden {
    paths: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    patterns: Vec<String>,
    /// One answer per path, or null where the list is refused.
    gitwildmatch: Option<Vec<bool>>,
}

#[test]
fn every_answer_is_that_of_pathspec() {
    let golden: Golden = serde_json::from_str(include_str!("golden/patterns.json")).unwrap();
    assert_eq!(golden.cases.len(), 3000);
    for case in golden.cases {
        let answers = Patterns::parse(&case.patterns).ok().map(|patterns| {
            let matches = |path: &String| patterns.matches(path);
            golden.paths.iter().map(matches).collect::<Vec<_>>()
        });
        assert_eq!(answers, case.gitwildmatch, "{:?}", case.patterns);
    }
}
