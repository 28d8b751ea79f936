//! `trilith ps`: the workspaces of all engines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Serialize;
use trilith_build::Context;
use trilith_build::engine::Container;
use trilith_workspace::{Records, find_workspaces};

use crate::args;
use crate::output::{Failure, Output};
use crate::workspaces::engines;

#[derive(Serialize)]
struct Workspace {
    id: String,
    name: String,
    image: String,
    engine: String,
    state: &'static str,
    created: String,
    /// `null` where this machine does not know how to reach it.
    url: Option<String>,
    /// Where ports are reached, by port of the workspace.
    ports: BTreeMap<u16, Vec<SocketAddr>>,
}

pub(crate) async fn run(
    context: &Context,
    records: &Records,
    args: &args::Ps,
    output: Output,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for engine in engines(context, args.engine).await? {
        let found = find_workspaces(engine.as_ref()).await?;
        let kind = engine.kind().to_string();
        all.extend(
            found
                .into_iter()
                .map(|found| workspace(found, &kind, records)),
        );
    }
    output.result(&all, || {
        let mut text = String::new();
        for found in &all {
            let Workspace {
                id,
                name,
                state,
                image,
                ..
            } = found;
            let _infallible = writeln!(
                text,
                "{}  {state:7}  {name}  {image}",
                &id[..id.len().min(12)]
            );
        }
        text
    })
}

fn workspace(found: Container, engine: &str, records: &Records) -> Workspace {
    Workspace {
        url: records.find(&found.id).ok().map(|record| record.url),
        id: found.id,
        name: found.name,
        image: found.image,
        engine: engine.to_owned(),
        state: found.state.as_str(),
        created: found.created,
        ports: found.ports,
    }
}
