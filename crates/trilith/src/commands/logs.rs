//! `trilith logs`: what the container of a workspace has written.

use std::io::Write as _;

use serde::Serialize;
use trilith_build::Context;
use trilith_build::engine::{LogOptions, OutputStream};
use trilith_workspace::Records;

use crate::args;
use crate::output::{Failure, Output};
use crate::workspaces::engine_of;

#[derive(Default, Serialize)]
struct Document {
    stdout: String,
    stderr: String,
}

pub(crate) async fn run(
    context: &Context,
    records: &Records,
    args: &args::Logs,
    output: Output,
) -> Result<(), Failure> {
    let (engine, id) = engine_of(context, records, &args.id).await?;
    let options = LogOptions {
        follow: args.follow,
        tail: args.tail,
    };
    if output.is_json() {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut collect = |stream: OutputStream, piece: &[u8]| match stream {
            OutputStream::Stdout => stdout.extend_from_slice(piece),
            OutputStream::Stderr => stderr.extend_from_slice(piece),
        };
        engine.logs(&id, options, &mut collect).await?;
        let document = Document {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        return output.result(&document, String::new);
    }
    let mut pass_on = |stream: OutputStream, piece: &[u8]| {
        // Whoever has closed a stream has seen what they wanted.
        let _closed = match stream {
            OutputStream::Stdout => Output::print(piece).map_err(|_| ()),
            OutputStream::Stderr => std::io::stderr().lock().write_all(piece).map_err(|_| ()),
        };
    };
    Ok(engine.logs(&id, options, &mut pass_on).await?)
}
