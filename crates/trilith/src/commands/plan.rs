//! `trilith plan`: what a build would do, and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use trilith_build::{BuildReport, Context, plan_anywhere};
use trilith_core::{Action, BuildFrom, Existence, Level, PlanOptions};

use crate::args;
use crate::output::{Failure, Output};
use crate::overrides::settings;

/// The plan as scripts read it.
#[derive(Serialize)]
pub(crate) struct Document {
    action: &'static str,
    /// The level that is reused, or built from; `null` for a build from the base.
    level: Option<Level>,
    /// The image that is reused or built from.
    from: String,
    tags: Vec<String>,
    reasons: Vec<String>,
    existence: BTreeMap<Level, &'static str>,
    /// What was written of what an engine would be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    written: Vec<String>,
}

impl Document {
    pub(crate) fn new(report: &BuildReport, base: &str) -> Self {
        let plan = &report.plan;
        let (action, level) = match &plan.action {
            Action::Reuse { level, .. } => ("reuse", Some(*level)),
            Action::Build {
                from: BuildFrom::Base,
            } => ("build", None),
            Action::Build {
                from: BuildFrom::Level(level, _),
            } => ("build", Some(*level)),
        };
        Self {
            action,
            level,
            from: report
                .ground
                .as_ref()
                .map_or_else(|| base.to_owned(), ToString::to_string),
            tags: report.tags.iter().map(ToString::to_string).collect(),
            reasons: plan.reasons.clone(),
            existence: plan
                .existence
                .iter()
                .map(|(&level, e)| (level, word(e)))
                .collect(),
            written: report
                .written
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = match self.level {
            Some(level) => format!("{} {level} {}\n", self.action, self.from),
            None => format!("{} from {}\n", self.action, self.from),
        };
        for reason in &self.reasons {
            let _infallible = writeln!(text, "  because {reason}");
        }
        for tag in &self.tags {
            let _infallible = writeln!(text, "  writes {tag}");
        }
        for path in &self.written {
            let _infallible = writeln!(text, "  an engine would be sent {path}");
        }
        text
    }
}

fn word(existence: &Existence) -> &'static str {
    match existence {
        Existence::Present(_) => "present",
        Existence::Stale { .. } => "stale",
        Existence::Absent => "absent",
        Existence::Unknown(_) => "unknown",
    }
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Plan,
    output: Output,
) -> Result<(), Failure> {
    let settings = settings(&args.project)?;
    let options = PlanOptions {
        strategy: args.cache_strategy,
        force: args.force,
    };
    let report = plan_anywhere(context, &settings, options).await?;
    let document = Document::new(&report, &settings.base_text);
    output.result(&document, || document.text())
}
