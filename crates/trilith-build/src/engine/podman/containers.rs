//! Containers of Podman.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::try_unfold;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use trilith_core::{Platform, Reference};

use super::arguments::Arguments;
use super::prepare::add_transport;
use super::{Podman, Redactor, Workspace, auth, failure};
use crate::engine::docker::NetworkSettings;
use crate::engine::{
    Container, ContainerRequest, ContainerState, Containers, EngineError, EngineKind, Gpus,
    LogOptions, LogSink, OutputStream, Pieces, Terminal, TerminalRequest,
};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// The most that is kept of what a call says of its failure.
const MESSAGE: u64 = 64 << 10;
/// The network that containers are in by default, which is not internal.
const DEFAULT_NETWORK: &str = "podman";
/// Where network namespaces are that root has made.
const ROOT_NAMESPACES: &str = "/run/netns/";

/// What `podman inspect` says of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    image_name: String,
    created: String,
    state: State,
    config: Config,
    #[serde(default)]
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled", default)]
    out_of_memory: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    user: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Inspected {
    /// Returns the networks that root publishes its ports in.
    fn publishing(&self) -> impl Iterator<Item = &str> {
        // Without root they are published by a program that reaches into the container.
        let of_root = self
            .network_settings
            .namespace()
            .starts_with(ROOT_NAMESPACES);
        let has_ports = !self.network_settings.ports().is_empty();
        self.network_settings
            .networks()
            .filter(move |_| of_root && has_ports)
    }

    /// Returns whether its ports are published in networks alone that are `internal`: there they are
    /// not, though Podman says so.
    fn is_hidden(&self, internal: &BTreeSet<String>) -> bool {
        let mut networks = self.publishing().peekable();
        networks.peek().is_some() && networks.all(|network| internal.contains(network))
    }

    /// Returns the container, in networks some of which are `internal`.
    fn into_container(self, internal: &BTreeSet<String>) -> Container {
        let ports = if self.is_hidden(internal) {
            BTreeMap::new()
        } else {
            self.network_settings.ports()
        };
        let state = self.state;
        Container {
            id: self.id,
            name: self.name,
            image: self.image_name,
            created: self.created,
            state: ContainerState::new(&state.status, state.exit_code, state.out_of_memory),
            labels: self.config.labels.unwrap_or_default(),
            ports,
            addresses: self.network_settings.addresses(),
            user: self.config.user,
        }
    }
}

/// What `podman network inspect` says of a network.
#[derive(Deserialize)]
struct InspectedNetwork {
    name: String,
    internal: bool,
}

/// Returns the command line that makes a container. Variables are there by name alone: their
/// values are for nobody else's eyes.
fn arguments(request: &ContainerRequest) -> Arguments {
    let mut arguments = Arguments::new(&[
        "create",
        "--pull=never",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--no-healthcheck",
        "--stop-signal=SIGTERM",
    ]);
    arguments.option("--name", &request.name);
    for (name, value) in &request.labels {
        arguments.pair("--label", name, value);
    }
    for name in request.environment.keys() {
        arguments.option("--env", name);
    }
    for port in &request.ports {
        let host_port = port.host_port.map(|port| port.to_string());
        let host_port = host_port.unwrap_or_default();
        let text = format!("{}:{host_port}:{}", port.host, port.container_port);
        arguments.option("--publish", text);
    }
    for volume in request.volumes.iter().chain(&request.private) {
        arguments.option("--volume", volume);
    }
    if let Some(network) = &request.network {
        arguments.option("--network", network);
    }
    if let Some(platform) = &request.platform {
        arguments.option("--platform", platform.to_string());
    }
    match request.gpus {
        Some(Gpus::All) => arguments.option("--device", "nvidia.com/gpu=all"),
        Some(Gpus::Count(count)) => {
            for index in 0..count {
                arguments.option("--device", format!("nvidia.com/gpu={index}"));
            }
        }
        None => {}
    }
    if request.read_only {
        arguments.flag("--read-only");
    }
    for capability in &request.capabilities {
        arguments.option("--cap-add", capability);
    }
    if let Some(pids) = request.pids {
        arguments.option("--pids-limit", pids.to_string());
    }
    if let Some(memory) = request.memory {
        arguments.option("--memory", memory.to_string());
        arguments.option("--memory-swap", memory.to_string());
    }
    let entrypoint: Vec<&String> = request.argv.iter().take(1).collect();
    arguments.option("--entrypoint", serde_json::json!(entrypoint).to_string());
    arguments.flag(&request.image);
    for argument in request.argv.iter().skip(1) {
        arguments.flag(argument);
    }
    arguments
}

#[async_trait]
impl Containers for Podman {
    async fn answers(&self) -> Result<(), EngineError> {
        let output = self.program.output(["info", "--format", "json"]).await?;
        self.answered(output).map(drop)
    }

    async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<(), EngineError> {
        let name = reference.to_string();
        let workspace = Workspace::new(&self.temporary)?;
        let redactor = Redactor::default();
        let repositories = [reference.repository().clone()].into();
        let auth = auth::write(&self.registry, &repositories, &workspace, &redactor).await?;
        let mut arguments = Arguments::new(&["pull", "--quiet"]);
        if let Some(platform) = platform {
            arguments.option("--platform", platform.to_string());
        }
        let plain = self.registry.is_plain_http(reference.registry());
        add_transport(&mut arguments, plain, auth.as_deref());
        arguments.flag(&name);
        let output = self.program.output(&arguments.0).await?;
        if output.status.success() {
            return Ok(());
        }
        let message = redactor.clean(&failure::last_error(&output.stderr));
        Err(failure::of_call("pull", &name, &message))
    }

    async fn create(&self, request: &ContainerRequest) -> Result<String, EngineError> {
        let mut command = self.program.command(&arguments(request).0);
        command.envs(&request.environment);
        let mut command = Command::from(command);
        let output = command.kill_on_drop(true).output().await;
        let output = output.map_err(|error| broken("create", &request.name, error))?;
        let output = failure::check("create", &request.name, output)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        // The container's monitor keeps this directory as long as it runs, and makes a file `oom` in it when memory is
        // used up: not in the caller's. Once the directory is gone it makes none.
        let directory = Workspace::new(&self.temporary)?;
        let mut command = self.program.command(["start", id]);
        command.current_dir(directory.path());
        // Not killed when nobody waits any more: in the middle of it there are processes that Podman does not know of
        // yet. Whoever removes the container waits for its lock.
        let output = self.program.output_of(command.into()).await?;
        failure::check("start", id, output).map(drop)
    }

    async fn container(&self, name: &str) -> Result<Option<Container>, EngineError> {
        let exists = self.program.output(["container", "exists", name]).await?;
        match exists.status.code() {
            Some(0) => Ok(self.inspect_containers(&[name]).await?.pop()),
            Some(1) => Ok(None),
            _ => {
                let message = failure::last_error(&exists.stderr);
                Err(failure::of_call("inspect", name, &message))
            }
        }
    }

    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError> {
        let filter = format!("label={label}");
        let arguments = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter];
        let output = self.call("list", "containers", &arguments).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let ids: Vec<&str> = text.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.inspect_containers(&ids).await
    }

    async fn write_archive(
        &self,
        id: &str,
        directory: &str,
        mut archive: Pieces,
    ) -> Result<(), EngineError> {
        let target = format!("{id}:{directory}");
        let doing = "write to";
        let lost = |error| broken(doing, directory, error);
        let mut child = self.streaming(["cp", "-", &target], true).map_err(lost)?;
        if let Some(mut input) = child.stdin.take() {
            while let Some(piece) = archive.try_next().await.map_err(lost)? {
                // One that has failed says why.
                if input.write_all(&piece).await.is_err() {
                    break;
                }
            }
        }
        let output = child.wait_with_output().await.map_err(lost)?;
        failure::check(doing, directory, output).map(drop)
    }

    async fn read_archive(&self, id: &str, path: &str) -> Result<Pieces, EngineError> {
        let source = format!("{id}:{path}");
        let lost = |error| broken("read", path, error);
        let mut child = self.streaming(["cp", &source, "-"], false).map_err(lost)?;
        let mut output = child.stdout.take();
        // Whether there is such a path shows in whether anything comes.
        let first = next(&mut output).await.map_err(lost)?;
        if first.is_none() {
            ended(&mut child)
                .await
                .map_err(|error| failure::of_call("read", path, &error.to_string()))?;
        }
        let rest = try_unfold((child, output), |(mut child, mut output)| async {
            if let Some(piece) = next(&mut output).await? {
                return Ok(Some((piece, (child, output))));
            }
            ended(&mut child).await?;
            Ok::<_, io::Error>(None)
        });
        let first = futures_util::stream::iter(first.map(Ok));
        Ok(Box::pin(futures_util::StreamExt::chain(first, rest)))
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
        sink: LogSink<'_>,
    ) -> Result<(), EngineError> {
        let mut arguments = Arguments::new(&["logs"]);
        if options.follow {
            arguments.flag("--follow");
        }
        if let Some(lines) = options.tail {
            arguments.option("--tail", lines.to_string());
        }
        arguments.flag(id);
        let lost = |error| broken("read the output of", id, error);
        let mut child = self.streaming(&arguments.0, false).map_err(lost)?;
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        while stdout.is_some() || stderr.is_some() {
            let (stream, piece) = tokio::select! {
                piece = next(&mut stdout), if stdout.is_some() => (OutputStream::Stdout, piece),
                piece = next(&mut stderr), if stderr.is_some() => (OutputStream::Stderr, piece),
            };
            match (piece.map_err(lost)?, stream) {
                (Some(piece), stream) => sink(stream, &piece),
                (None, OutputStream::Stdout) => stdout = None,
                (None, OutputStream::Stderr) => stderr = None,
            }
        }
        ended(&mut child).await.map_err(lost)
    }

    async fn pause(&self, id: &str) -> Result<(), EngineError> {
        self.call("pause", id, &["pause", id]).await.map(drop)
    }

    async fn resume(&self, id: &str) -> Result<(), EngineError> {
        self.call("resume", id, &["unpause", id]).await.map(drop)
    }

    async fn terminal<'e>(
        &'e self,
        id: &str,
        request: &TerminalRequest,
    ) -> Result<Terminal<'e>, EngineError> {
        let mut arguments = Arguments::new(&["exec", "--tty"]);
        if request.input {
            arguments.flag("--interactive");
        }
        for name in request.environment.keys() {
            arguments.option("--env", name);
        }
        if let Some(cwd) = &request.cwd {
            arguments.option("--workdir", cwd);
        }
        arguments.flag(id);
        for word in &request.argv {
            arguments.flag(word);
        }
        let mut command = self.program.foreground(&arguments.0);
        command.envs(&request.environment);
        Ok(Terminal::Program(command))
    }

    async fn remove(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = grace.as_secs().to_string();
        let arguments = removal(id, &seconds);
        self.call("remove", id, &arguments).await.map(drop)
    }

    fn remove_now(&self, id: &str) {
        let mut command = self.program.command(removal(id, "0"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // Nobody is left to be told; the label still tells of what stays.
        let _left = command.status();
    }
}

fn removal<'a>(id: &'a str, seconds: &'a str) -> [&'a str; 7] {
    [
        "rm",
        "--force",
        "--ignore",
        "--volumes",
        "--time",
        seconds,
        id,
    ]
}

impl Podman {
    async fn inspect_containers(&self, names: &[&str]) -> Result<Vec<Container>, EngineError> {
        let object = names.join(" ");
        let arguments: Vec<&str> = ["container", "inspect"]
            .into_iter()
            .chain(names.iter().copied())
            .collect();
        let output = self.call("inspect", &object, &arguments).await?;
        let found: Vec<Inspected> = parse(&object, &output.stdout)?;
        let internal = self.internal_networks(&found).await?;
        let containers = found.into_iter();
        Ok(containers
            .map(|found| found.into_container(&internal))
            .collect())
    }

    /// Returns the internal ones of the networks that ports are published in.
    async fn internal_networks(
        &self,
        containers: &[Inspected],
    ) -> Result<BTreeSet<String>, EngineError> {
        let networks = containers.iter().flat_map(Inspected::publishing);
        let names: BTreeSet<&str> = networks.filter(|name| *name != DEFAULT_NETWORK).collect();
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let names: Vec<&str> = names.into_iter().collect();
        let object = names.join(" ");
        let arguments = [&["network", "inspect"], &names[..]].concat();
        let output = self.call("inspect", &object, &arguments).await?;
        let found: Vec<InspectedNetwork> = parse(&object, &output.stdout)?;
        let internal = found.into_iter().filter(|network| network.internal);
        Ok(internal.map(|network| network.name).collect())
    }

    /// Starts a call whose output, and input where it has any, are streams.
    fn streaming(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
        has_input: bool,
    ) -> io::Result<Child> {
        let mut command = self.program.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if has_input {
            command.stdin(Stdio::piped());
        }
        Command::from(command).kill_on_drop(true).spawn()
    }
}

/// Reads what Podman says of `object`.
fn parse<T: DeserializeOwned>(object: &str, answer: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(answer).map_err(|error| {
        let message = format!("its answer is malformed: {error}");
        failure::of_call("inspect", object, &message)
    })
}

fn broken(operation: &'static str, object: &str, error: io::Error) -> EngineError {
    EngineError::Lost {
        engine: EngineKind::Podman,
        operation,
        object: object.to_owned(),
        source: error.into(),
    }
}

/// Returns what comes next; `None` at the end.
async fn next(output: &mut Option<impl AsyncRead + Unpin>) -> io::Result<Option<Bytes>> {
    let Some(output) = output else {
        return Ok(None);
    };
    let mut piece = vec![0; PIECE];
    let count = output.read(&mut piece).await?;
    piece.truncate(count);
    Ok((count > 0).then(|| piece.into()))
}

/// Waits for the end of a call; the error is what it says.
async fn ended(child: &mut Child) -> io::Result<()> {
    let mut message = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MESSAGE).read_to_end(&mut message).await?;
    }
    if child.wait().await?.success() {
        return Ok(());
    }
    Err(io::Error::other(failure::last_error(&message)))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::engine::PublishedPort;

    #[test]
    fn values_of_variables_are_not_on_the_command_line() {
        let request = ContainerRequest {
            name: "a".to_owned(),
            image: "b".to_owned(),
            argv: vec!["/agent".to_owned(), "--port".to_owned()],
            environment: BTreeMap::from([("TOKEN".to_owned(), "secret".to_owned())]),
            ports: vec![PublishedPort {
                host: IpAddr::from([127, 0, 0, 1]),
                host_port: None,
                container_port: 8000,
            }],
            private: Some("/.trilith".to_owned()),
            gpus: Some(Gpus::All),
            ..ContainerRequest::default()
        };
        let words = arguments(&request).0;
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        assert_eq!(
            words.join(" "),
            "create --pull=never --cap-drop=all --security-opt=no-new-privileges \
             --no-healthcheck --stop-signal=SIGTERM --name a --env TOKEN \
             --publish 127.0.0.1::8000 --volume /.trilith --device nvidia.com/gpu=all \
             --entrypoint [\"/agent\"] b --port"
        );
    }
}
