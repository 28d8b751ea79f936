//! `trilith pause` and `trilith resume`: workspaces frozen and going on.

use serde::Serialize;
use trilith_build::Context;
use trilith_workspace::Records;

use crate::args;
use crate::output::{Failure, Output};
use crate::workspaces::engine_of;

#[derive(Serialize)]
struct Document {
    id: String,
    state: &'static str,
}

pub(crate) async fn pause(
    context: &Context,
    records: &Records,
    args: &args::Workspace,
    output: Output,
) -> Result<(), Failure> {
    let (engine, id) = engine_of(context, records, &args.id).await?;
    engine.pause(&id).await?;
    let document = Document {
        id,
        state: "paused",
    };
    output.result(&document, || format!("paused {}\n", document.id))
}

pub(crate) async fn resume(
    context: &Context,
    records: &Records,
    args: &args::Workspace,
    output: Output,
) -> Result<(), Failure> {
    let (engine, id) = engine_of(context, records, &args.id).await?;
    engine.resume(&id).await?;
    let document = Document {
        id,
        state: "running",
    };
    output.result(&document, || format!("resumed {}\n", document.id))
}
