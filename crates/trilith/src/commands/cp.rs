//! `trilith cp`: files into a workspace and out of it.

use std::path::Path;

use serde::Serialize;
use trilith_build::Context;
use trilith_workspace::{Records, copy_in, copy_out};

use crate::args;
use crate::output::{Failure, Output};
use crate::workspaces::engine_of;

#[derive(Serialize)]
struct Document<'a> {
    from: &'a str,
    to: &'a str,
}

pub(crate) async fn run(
    context: &Context,
    records: &Records,
    args: &args::Cp,
    output: Output,
) -> Result<(), Failure> {
    match (inside(&args.from), inside(&args.to)) {
        (None, Some((name, path))) => {
            let (engine, id) = engine_of(context, records, name).await?;
            copy_in(engine.as_ref(), &id, Path::new(&args.from), path).await?;
        }
        (Some((name, path)), None) => {
            let (engine, id) = engine_of(context, records, name).await?;
            copy_out(engine.as_ref(), &id, path, Path::new(&args.to)).await?;
        }
        _ => {
            let reason = "one of both has to be in a workspace, as in `ID:/PATH`";
            return Err(Failure::usage(reason));
        }
    }
    let document = Document {
        from: &args.from,
        to: &args.to,
    };
    output.result(&document, || {
        format!("copied {} to {}\n", args.from, args.to)
    })
}

/// Returns the workspace and the path in it of `ID:PATH`. A path of this machine that has a `:` in it
/// is written with a `/` before that.
fn inside(text: &str) -> Option<(&str, &str)> {
    let (name, path) = text.split_once(':')?;
    (!name.contains('/')).then_some((name, path))
}
