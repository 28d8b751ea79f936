//! `trilith run`: a workspace of an image.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Serialize;
use trilith_build::Context;
use trilith_build::engine::{Gpus, PublishedPort};
use trilith_oci::place::Place;
use trilith_workspace::{DockerWorkspace, Records, StartOptions};

use crate::args;
use crate::environment;
use crate::interrupt::ended;
use crate::output::{Failure, Output};
use crate::workspaces::one_engine;

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    name: &'a str,
    url: &'a str,
    image: &'a str,
    engine: &'a str,
    /// Where ports are reached, by port of the workspace.
    ports: &'a BTreeMap<u16, Vec<SocketAddr>>,
}

pub(crate) async fn run(
    context: &Context,
    records: &Records,
    args: &args::Run,
    output: Output,
) -> Result<(), Failure> {
    let options = options(args)?;
    let engine = one_engine(context, args.engine).await?;
    let interrupted = async {
        // Without signals there is nothing to wait for.
        if ended().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let workspace = DockerWorkspace::start(context, engine, records, &options, interrupted).await?;
    workspace.keep();
    let (record, container) = (workspace.record(), workspace.container());
    let document = Document {
        id: &record.id,
        name: &record.name,
        url: &record.url,
        image: &container.image,
        engine: &record.engine,
        ports: &container.ports,
    };
    output.result(&document, || {
        let mut text = format!(
            "started {}\n  id {}\n  url {}\n",
            record.name, record.id, record.url
        );
        for (port, addresses) in &container.ports {
            let mut wanted = options.ports.iter().map(|wanted| wanted.container_port);
            if wanted.any(|wanted| wanted == *port) {
                for address in addresses {
                    let _infallible = writeln!(text, "  port {port} at {address}");
                }
            }
        }
        text
    })
}

fn options(args: &args::Run) -> Result<StartOptions, Failure> {
    let image: Place = args.image.parse().map_err(Failure::usage)?;
    let environment = args.env.iter().map(|text| variable(text));
    let volumes = args.volume.iter().map(|text| volume(text));
    let ports = args.publish.iter().map(|text| port(text));
    Ok(StartOptions {
        name: args.name.clone(),
        remove_image: args.rm_image,
        environment: environment.collect::<Result<_, _>>()?,
        volumes: volumes.collect::<Result<_, _>>()?,
        ports: ports.collect::<Result<_, _>>()?,
        network: args.network.clone(),
        platform: args.platform.clone(),
        gpus: args.gpus.as_deref().map(gpus).transpose()?,
        read_only: args.read_only,
        capabilities: args.cap_add.clone(),
        pids: args.pids,
        memory: memory(&args.memory)?,
        health_timeout: args.health_timeout.0,
        ..StartOptions::new(image)
    })
}

/// Parses `NAME=VALUE`, or `NAME` for what this process has.
pub(crate) fn variable(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, environment::text(text)),
    };
    match value {
        Some(value) if !name.is_empty() => Ok((name.to_owned(), value)),
        Some(_) => Err(Failure::usage(format!("`--env {text}` names no variable"))),
        None => Err(Failure::usage(format!("variable `{text}` is not set"))),
    }
}

/// Checks `SOURCE:TARGET[:OPTIONS]`, and makes a relative source absolute.
fn volume(text: &str) -> Result<String, Failure> {
    let malformed = || Failure::usage(format!("`--volume {text}` is not SOURCE:TARGET[:ro]"));
    let (source, rest) = text.split_once(':').ok_or_else(malformed)?;
    if source.is_empty() || !rest.starts_with('/') {
        return Err(malformed());
    }
    if !source.starts_with('.') {
        return Ok(text.to_owned());
    }
    let source = std::path::absolute(source)
        .map_err(|error| Failure::system("cannot tell where we are", error))?;
    Ok(format!("{}:{rest}", source.display()))
}

/// Parses `[HOST_PORT:]PORT`.
fn port(text: &str) -> Result<PublishedPort, Failure> {
    let parse = |port: &str| port.parse::<u16>().ok().filter(|port| *port != 0);
    let parsed = match text.split_once(':') {
        Some((host, port)) => parse(host).map(Some).zip(parse(port)),
        None => parse(text).map(|port| (None, port)),
    };
    let (host_port, container_port) = parsed
        .ok_or_else(|| Failure::usage(format!("`--publish {text}` is not [HOST_PORT:]PORT")))?;
    Ok(PublishedPort {
        host: [127, 0, 0, 1].into(),
        host_port,
        container_port,
    })
}

fn gpus(text: &str) -> Result<Gpus, Failure> {
    match (text, text.parse()) {
        ("all", _) => Ok(Gpus::All),
        (_, Ok(count)) if count > 0 => Ok(Gpus::Count(count)),
        _ => Err(Failure::usage(format!(
            "`--gpus {text}` is neither `all` nor a number"
        ))),
    }
}

/// Parses a number of bytes, or of KiB, MiB or GiB with `k`, `m` or `g` after it.
fn memory(text: &str) -> Result<u64, Failure> {
    let malformed = || Failure::usage(format!("`--memory {text}` is no size, as in `512m`"));
    let digits = text.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G']);
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(malformed()),
    };
    let number: u64 = digits.parse().map_err(|_| malformed())?;
    number
        .checked_mul(1 << shift)
        .filter(|size| *size > 0)
        .ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("1", Some(1)),
            ("2k", Some(2048)),
            ("512m", Some(512 << 20)),
            ("4G", Some(4 << 30)),
            ("", None),
            ("0", None),
            ("1gg", None),
            ("m", None),
            ("99999999999999g", None),
        ] {
            assert_eq!(memory(text).ok(), size, "{text}");
        }
    }

    #[test]
    fn ports() {
        for (text, parsed) in [
            ("80", Some((None, 80))),
            ("81:80", Some((Some(81), 80))),
            ("0", None),
            ("a:80", None),
            ("70000", None),
        ] {
            let port = port(text).ok();
            let port = port.map(|port| (port.host_port, port.container_port));
            assert_eq!(port, parsed, "{text}");
        }
    }

    #[test]
    fn volumes() {
        for (text, is_one) in [
            ("/a:/b", true),
            ("name:/b:ro", true),
            ("./a:/b", true),
            ("a", false),
            (":/b", false),
            ("/a:b", false),
        ] {
            assert_eq!(volume(text).is_ok(), is_one, "{text}");
        }
        assert!(volume("./a:/b").ok().unwrap().starts_with('/'));
    }
}
