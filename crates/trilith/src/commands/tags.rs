//! `trilith tags`: the three tags.

use serde::Serialize;
use serde_json::Value;
use trilith_build::Context;
use trilith_core::{Level, Tag};

use crate::args::ProjectArgs;
use crate::output::{Failure, Output};
use crate::overrides::settings;
use crate::presets;

#[derive(Serialize)]
struct Document<'a> {
    scheme: &'static str,
    source: &'a Tag,
    lock: &'a Tag,
    versioned: &'a Tag,
    references: References,
    /// What the preset is, where one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<Value>,
}

/// Full names, `null` where the project names no repository.
#[derive(Serialize)]
struct References {
    source: Option<String>,
    lock: Option<String>,
    versioned: Option<String>,
}

pub(crate) async fn run(
    context: &Context,
    args: &ProjectArgs,
    output: Output,
) -> Result<(), Failure> {
    let preset = presets::config(args)?;
    let settings = match &preset {
        Some(preset) => preset.settings()?,
        None => settings(args)?,
    };
    let report = trilith_build::tags(context, &settings).await?;
    for warning in &report.warnings {
        output.note(&format!("warning: {warning}"));
    }
    let tags = &report.tags;
    let reference = |level: Level| {
        let repository = settings.repository.as_ref()?;
        Some(repository.with_tag(tags.get(level).clone()).to_string())
    };
    let document = Document {
        scheme: settings.scheme.as_str(),
        source: &tags.source,
        lock: &tags.lock,
        versioned: &tags.versioned,
        references: References {
            source: reference(Level::Source),
            lock: reference(Level::Lock),
            versioned: reference(Level::Versioned),
        },
        preset: preset.map(|preset| preset.describe(tags)),
    };
    output.result(&document, || {
        let line = |(level, tag)| format!("{level:<10} {tag}\n");
        tags.iter().rev().map(line).collect()
    })
}
