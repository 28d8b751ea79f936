//! `trilith inspect`: an image, described.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use trilith_build::{Context, Inspection, inspect};
use trilith_core::{Digest, InputHash, Level, Platform};
use trilith_oci::place::Place;

use crate::args;
use crate::output::{Failure, Output, bytes};

#[derive(Serialize)]
struct Document<'a> {
    image: &'a str,
    digest: &'a Digest,
    media_type: &'a str,
    platforms: &'a [Platform],
    platform: Platform,
    manifest: &'a Digest,
    image_id: Digest,
    created: Option<&'a str>,
    size: u64,
    layers: Vec<Layer<'a>>,
    config: Config<'a>,
    labels: BTreeMap<&'a str, &'a str>,
    inputs: Option<Inputs>,
}

#[derive(Serialize)]
struct Layer<'a> {
    digest: &'a Digest,
    media_type: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct Config<'a> {
    entrypoint: Vec<&'a str>,
    cmd: Vec<&'a str>,
    env: Vec<&'a str>,
    user: Option<&'a str>,
    workdir: Option<&'a str>,
    expose: Vec<&'a str>,
}

#[derive(Serialize)]
struct Inputs {
    level: Level,
    key: InputHash,
    count: usize,
}

pub(crate) async fn run(
    context: &Context,
    args: &args::Inspect,
    output: Output,
) -> Result<(), Failure> {
    let place: Place = args.image.parse().map_err(Failure::usage)?;
    let inspection = inspect(context, &place, args.platform.as_ref()).await?;
    if args.raw {
        return Output::print(&inspection.top.bytes);
    }
    let document = document(&inspection);
    output.result(&document, || text(&document))
}

fn document(inspection: &Inspection) -> Document<'_> {
    let config = inspection.selected.config();
    Document {
        image: &inspection.image,
        digest: &inspection.top.descriptor.digest,
        media_type: &inspection.top.descriptor.media_type,
        platforms: &inspection.platforms,
        platform: config.platform(),
        manifest: &inspection.manifest,
        image_id: config.digest(),
        created: config.created(),
        size: inspection.layers().iter().map(|layer| layer.size).sum(),
        layers: inspection
            .layers()
            .iter()
            .map(|l| Layer {
                digest: &l.digest,
                media_type: &l.media_type,
                size: l.size,
            })
            .collect(),
        config: Config {
            entrypoint: config.entrypoint(),
            cmd: config.cmd(),
            env: config.env(),
            user: config.user(),
            workdir: config.workdir(),
            expose: config.exposed_ports(),
        },
        labels: config.labels(),
        inputs: inspection.inputs.as_ref().map(|inputs| Inputs {
            level: inputs.level(),
            key: inputs.key(),
            count: inputs.inputs().as_slice().len(),
        }),
    }
}

fn text(document: &Document<'_>) -> String {
    let mut text = String::new();
    let platforms: Vec<String> = document.platforms.iter().map(ToString::to_string).collect();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _infallible = writeln!(text, "{name:<11}{value}");
        }
    };
    line("image", document.image);
    line("digest", document.digest.as_str());
    line("type", document.media_type);
    line("platforms", &platforms.join(", "));
    line("image id", document.image_id.as_str());
    line("created", document.created.unwrap_or_default());
    line("entrypoint", &document.config.entrypoint.join(" "));
    line("cmd", &document.config.cmd.join(" "));
    line("user", document.config.user.unwrap_or_default());
    line("workdir", document.config.workdir.unwrap_or_default());
    line("expose", &document.config.expose.join(", "));
    for variable in &document.config.env {
        line("env", variable);
    }
    for (name, value) in &document.labels {
        line("label", &format!("{name}={value}"));
    }
    for layer in &document.layers {
        line("layer", &format!("{} {}", layer.digest, bytes(layer.size)));
    }
    line("size", &bytes(document.size));
    if let Some(inputs) = &document.inputs {
        line(
            "inputs",
            &format!(
                "{} at level {}, key {}",
                inputs.count, inputs.level, inputs.key
            ),
        );
    }
    text
}
