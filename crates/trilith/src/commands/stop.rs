//! `trilith stop`: the end of workspaces.

use std::fmt::Write as _;

use serde::Serialize;
use trilith_build::Context;
use trilith_workspace::{Records, find_workspaces, stop};

use crate::args;
use crate::output::{Failure, Output};
use crate::workspaces::{engine_of, engines};

#[derive(Serialize)]
struct Document {
    stopped: Vec<String>,
}

pub(crate) async fn run(
    context: &Context,
    records: &Records,
    args: &args::Stop,
    output: Output,
) -> Result<(), Failure> {
    let mut stopped = Vec::new();
    if args.all {
        for engine in engines(context, None).await? {
            for found in find_workspaces(engine.as_ref()).await? {
                stop(engine.as_ref(), records, &found.id).await?;
                stopped.push(found.id);
            }
        }
    }
    for name in &args.ids {
        let (engine, id) = engine_of(context, records, name).await?;
        stop(engine.as_ref(), records, &id).await?;
        stopped.push(id);
    }
    output.result(
        &Document {
            stopped: stopped.clone(),
        },
        || {
            let mut text = String::new();
            for id in &stopped {
                let _infallible = writeln!(text, "stopped {id}");
            }
            text
        },
    )
}
