//! `trilith explain`: why a build would happen, and what it would cost.

use std::fmt::Write as _;

use serde::Serialize;
use trilith_build::{Context, Explanation, explain};
use trilith_core::{Change, ChangeKind, Digest, Level};
use trilith_oci::place::Place;

use crate::args;
use crate::output::{Failure, Output, bytes};
use crate::overrides::settings;

#[derive(Serialize)]
struct Document<'a> {
    image: &'a str,
    digest: &'a Digest,
    rebuild: bool,
    /// The lowest level that is built again.
    from_level: Option<Level>,
    changes: Vec<DocumentChange<'a>>,
    layers: Vec<DocumentLayer<'a>>,
    steps: Vec<DocumentSteps>,
    /// Bytes that go into new layers, before compression.
    cost_bytes: u64,
    cost: String,
}

#[derive(Serialize)]
struct DocumentChange<'a> {
    level: Level,
    change: &'static str,
    input: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct DocumentLayer<'a> {
    level: Level,
    to: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct DocumentSteps {
    level: Level,
    size: u64,
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Explain,
    output: Output,
) -> Result<(), Failure> {
    let settings = settings(&args.project)?;
    let place: Option<Place> = args
        .image
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(Failure::usage)?;
    let explanation = explain(context, &settings, place.as_ref()).await?;
    let cost = cost(&explanation);
    let document = Document {
        image: &explanation.image,
        digest: &explanation.digest,
        rebuild: !explanation.changes.is_empty(),
        from_level: explanation.rebuilt_from(),
        changes: explanation.changes.iter().map(change).collect(),
        layers: explanation
            .layers
            .iter()
            .map(|layer| DocumentLayer {
                level: layer.level,
                to: &layer.to,
                size: layer.size,
            })
            .collect(),
        steps: explanation
            .steps
            .iter()
            .map(|steps| DocumentSteps {
                level: steps.level,
                size: steps.size,
            })
            .collect(),
        cost_bytes: explanation.cost(),
        cost: cost.clone(),
    };
    output.result(&document, || text(&explanation, &cost))
}

fn change(change: &Change) -> DocumentChange<'_> {
    DocumentChange {
        level: change.level,
        change: word(change.kind),
        input: &change.name,
        size: change.size,
    }
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
    }
}

/// Returns what a rebuild costs in a phrase: `source layer only, 2.1 MB`.
fn cost(explanation: &Explanation) -> String {
    if explanation.changes.is_empty() {
        return "nothing".to_owned();
    }
    let bytes = bytes(explanation.cost());
    let mut layers: Vec<&str> = explanation
        .layers
        .iter()
        .map(|l| l.level.as_str())
        .collect();
    layers.dedup();
    let steps: Vec<&str> = explanation.steps.iter().map(|s| s.level.as_str()).collect();
    match (layers.as_slice(), steps.as_slice()) {
        ([], []) => "manifests and tags only, no layer".to_owned(),
        ([level], _) => format!("{level} layer only, {bytes}"),
        ([], [level]) => format!("{level} steps only, with {bytes} of context"),
        ([], levels) => format!("{} steps, with {bytes} of context", levels.join(" and ")),
        (levels, _) => format!("{} layers, {bytes}", levels.join(" and ")),
    }
}

fn text(explanation: &Explanation, cost: &str) -> String {
    let mut text = format!("compared with {}\n", explanation.image);
    if explanation.changes.is_empty() {
        text.push_str("nothing changed: the image would be reused\n");
        return text;
    }
    for level in Level::ALL {
        let changes: Vec<&Change> = explanation
            .changes
            .iter()
            .filter(|change| change.level == level)
            .collect();
        if changes.is_empty() {
            continue;
        }
        let _infallible = writeln!(text, "{level}");
        for change in changes {
            // The second slash tells names apart, and says nothing to people.
            let name = change.name.replacen("//", "/", 1);
            let _infallible = writeln!(text, "  {:<8}{name}", word(change.kind));
        }
    }
    let _infallible = writeln!(text, "cost: {cost}");
    text
}
