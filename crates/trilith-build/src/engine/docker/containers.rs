//! Containers of a Docker Engine.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::{Body, Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use trilith_core::{Platform, Reference};
use trilith_oci::Kind;

use super::api::ApiVersion;
use super::{Api, DockerEngine, Doing};
use crate::engine::{
    Connection, Container, ContainerRequest, ContainerState, Containers, EngineError, Gpus,
    LogOptions, LogSink, OutputStream, Pieces, Terminal, TerminalControl, TerminalRequest,
};

/// How long a removal may take that somebody waits for who can wait for nothing else.
const REMOVAL: Duration = Duration::from_secs(30);

/// The first version of the API that knows `DeviceRequests`.
const GPUS: ApiVersion = ApiVersion(1, 40);
/// The first version of the API that is told a container's platform.
const PLATFORM: ApiVersion = ApiVersion(1, 41);

/// The length of what is before each piece of output: the stream, three zeros, the length.
const FRAME: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Identified {
    id: String,
}

/// What an engine says of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    created: String,
    state: State,
    config: Config,
    network_settings: NetworkSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    out_of_memory: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// The networks of a container; Podman prints the same.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::engine) struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    networks: Option<BTreeMap<String, Network>>,
    /// The file of its network namespace.
    #[serde(default)]
    sandbox_key: String,
}

#[derive(Deserialize)]
struct Network {
    /// Empty where there is none, as in the host's network.
    #[serde(rename = "IPAddress", default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    host_ip: String,
    host_port: String,
}

impl NetworkSettings {
    /// Returns where the TCP ports are reached.
    pub(in crate::engine) fn ports(&self) -> BTreeMap<u16, Vec<SocketAddr>> {
        let ports = self.ports.iter().flatten();
        let address = |binding: &Binding| {
            let host = binding.host_ip.parse().unwrap_or(IpAddr::from([0; 4]));
            Some(SocketAddr::new(host, binding.host_port.parse().ok()?))
        };
        ports
            .filter_map(|(port, bindings)| {
                let port = port.strip_suffix("/tcp")?.parse().ok()?;
                Some((
                    port,
                    bindings.as_ref()?.iter().filter_map(address).collect(),
                ))
            })
            .collect()
    }

    /// Returns the file of the container's network namespace; empty where it has none of its own.
    pub(in crate::engine) fn namespace(&self) -> &str {
        &self.sandbox_key
    }

    /// Returns the names of the engine's networks that the container is in.
    pub(in crate::engine) fn networks(&self) -> impl Iterator<Item = &str> {
        self.networks
            .iter()
            .flatten()
            .map(|(name, _)| name.as_str())
    }

    /// Returns the container's own addresses.
    pub(in crate::engine) fn addresses(&self) -> Vec<Ipv4Addr> {
        let networks = self.networks.iter().flatten();
        networks
            .filter_map(|(_, network)| network.address.parse().ok())
            .collect()
    }
}

impl From<Inspected> for Container {
    fn from(found: Inspected) -> Self {
        let state = found.state;
        Self {
            id: found.id,
            name: found.name.trim_start_matches('/').to_owned(),
            image: found.config.image,
            created: found.created,
            state: ContainerState::new(&state.status, state.exit_code, state.out_of_memory),
            labels: found.config.labels.unwrap_or_default(),
            ports: found.network_settings.ports(),
            addresses: found.network_settings.addresses(),
            user: found.config.user,
        }
    }
}

/// Returns what the engine is told of a container.
fn document(request: &ContainerRequest) -> Value {
    let variables = request.environment.iter();
    let variables: Vec<String> = variables.map(|(n, v)| format!("{n}={v}")).collect();
    let mut exposed = BTreeMap::new();
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &request.ports {
        let name = format!("{}/tcp", port.container_port);
        exposed.insert(name.clone(), json!({}));
        let host_port = port.host_port.map(|port| port.to_string());
        let binding = json!({ "HostIp": port.host, "HostPort": host_port.unwrap_or_default() });
        bindings.entry(name).or_default().push(binding);
    }
    let gpus = request.gpus.map(|gpus| {
        let count = match gpus {
            Gpus::All => -1,
            Gpus::Count(count) => i64::from(count),
        };
        json!([{ "Count": count, "Capabilities": [["gpu"]] }])
    });
    let private = request.private.iter();
    let private: BTreeMap<&str, Value> = private.map(|path| (path.as_str(), json!({}))).collect();
    let temporary = request.read_only.then(|| json!({ "/tmp": "" }));
    let memory = request.memory.unwrap_or(0);
    json!({
        "Image": request.image,
        "Entrypoint": request.argv.first().into_iter().collect::<Vec<_>>(),
        "Cmd": request.argv.iter().skip(1).collect::<Vec<_>>(),
        "Env": variables,
        "Labels": request.labels,
        "ExposedPorts": exposed,
        "Volumes": private,
        // They are those of the program that was replaced.
        "Healthcheck": { "Test": ["NONE"] },
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "PortBindings": bindings,
            "Binds": request.volumes,
            "NetworkMode": request.network.as_deref().unwrap_or("default"),
            "DeviceRequests": gpus,
            "ReadonlyRootfs": request.read_only,
            "Tmpfs": temporary,
            "CapDrop": ["ALL"],
            "CapAdd": request.capabilities,
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": request.pids.unwrap_or(0),
            "Memory": memory,
            "MemorySwap": memory,
        },
    })
}

#[async_trait]
impl Containers for DockerEngine {
    async fn answers(&self) -> Result<(), EngineError> {
        self.version().await.map(drop)
    }

    async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<(), EngineError> {
        self.pull_image(reference, platform).await
    }

    async fn create(&self, request: &ContainerRequest) -> Result<String, EngineError> {
        let doing = Doing("create", &request.name);
        self.refuse_unheard(request).await?;
        let platform = request.platform.as_ref().map(Platform::to_string);
        let query = [
            ("name", request.name.as_str()),
            ("platform", platform.as_deref().unwrap_or_default()),
        ];
        let path = "/containers/create";
        let call = self.api.query(Method::POST, path, &query).await?;
        let call = call
            .header("Content-Type", "application/json")
            .body(document(request).to_string());
        let created: Identified = self.api.get(call, doing).await?;
        Ok(created.id)
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.act(id, "start").await
    }

    async fn container(&self, name: &str) -> Result<Option<Container>, EngineError> {
        let path = format!("/containers/{name}/json");
        let request = self.api.request(Method::GET, &path).await?;
        let found: Option<Inspected> = self.api.find(request, Doing("inspect", name)).await?;
        Ok(found.map(Container::from))
    }

    async fn containers(&self, label: &str) -> Result<Vec<Container>, EngineError> {
        let filters = json!({ "label": [label] }).to_string();
        let query = [("all", "1"), ("filters", &filters)];
        let request = self
            .api
            .query(Method::GET, "/containers/json", &query)
            .await?;
        let found: Vec<Identified> = self.api.get(request, Doing("list", "containers")).await?;
        let each = found.iter().map(|found| self.container(&found.id));
        let containers = futures_util::future::try_join_all(each).await?;
        // One may have gone in between.
        Ok(containers.into_iter().flatten().collect())
    }

    async fn write_archive(
        &self,
        id: &str,
        directory: &str,
        archive: Pieces,
    ) -> Result<(), EngineError> {
        let path = format!("/containers/{id}/archive");
        let query = [("path", directory)];
        let request = self.api.query(Method::PUT, &path, &query).await?;
        let request = request
            .header("Content-Type", "application/x-tar")
            .body(Body::wrap_stream(archive));
        let doing = Doing("write to", directory);
        self.api.call(request, doing).await.map(drop)
    }

    async fn read_archive(&self, id: &str, path: &str) -> Result<Pieces, EngineError> {
        let address = format!("/containers/{id}/archive");
        let query = [("path", path)];
        let request = self.api.query(Method::GET, &address, &query).await?;
        let response = self.api.call(request, Doing("read", path)).await?;
        Ok(Box::pin(response.bytes_stream().map_err(io::Error::other)))
    }

    async fn logs(
        &self,
        id: &str,
        options: LogOptions,
        sink: LogSink<'_>,
    ) -> Result<(), EngineError> {
        let path = format!("/containers/{id}/logs");
        let tail = options.tail.map(|lines| lines.to_string());
        let query = [
            ("stdout", "1"),
            ("stderr", "1"),
            ("follow", if options.follow { "1" } else { "0" }),
            ("tail", tail.as_deref().unwrap_or("all")),
        ];
        let doing = Doing("read the output of", id);
        let request = self.api.query(Method::GET, &path, &query).await?;
        let response = self.api.call(request, doing).await?;
        split(response, doing, sink).await
    }

    async fn pause(&self, id: &str) -> Result<(), EngineError> {
        self.act(id, "pause").await
    }

    async fn resume(&self, id: &str) -> Result<(), EngineError> {
        self.act(id, "unpause").await
    }

    async fn terminal<'e>(
        &'e self,
        id: &str,
        request: &TerminalRequest,
    ) -> Result<Terminal<'e>, EngineError> {
        let doing = Doing("run in a terminal of", id);
        let variables = request.environment.iter();
        let variables: Vec<String> = variables.map(|(n, v)| format!("{n}={v}")).collect();
        let mut what = json!({
            "Cmd": request.argv,
            "Env": variables,
            "Tty": true,
            "AttachStdin": request.input,
            "AttachStdout": true,
            "AttachStderr": true,
        });
        if let Some(cwd) = &request.cwd {
            what["WorkingDir"] = json!(cwd);
        }
        let path = format!("/containers/{id}/exec");
        let call = self.api.post(&path, &what).await?;
        let made: Identified = self.api.get(call, doing).await?;
        let path = format!("/exec/{}/start", made.id);
        let call = self.api.post(&path, &json!({ "Tty": true })).await?;
        let connection: Box<dyn Connection> = self.api.upgrade(call, "tcp", doing).await?;
        let control = Exec {
            api: &self.api,
            id: made.id,
        };
        Ok(Terminal::Connected {
            connection,
            control: Box::new(control),
        })
    }

    async fn remove(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = grace.as_secs().to_string();
        let query = [("t", seconds.as_str())];
        let path = format!("/containers/{id}/stop");
        let request = self.api.query(Method::POST, &path, &query).await?;
        // Whether it has ended by itself or not at all, it is removed.
        let _asked = self.api.call(request, Doing("stop", id)).await;
        self.delete(id).await
    }

    fn remove_now(&self, id: &str) {
        let address = self.api.address().clone();
        // Connections belong to the runtime that may be waiting here.
        let removal = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let engine = Self::try_new(address, self.registry.clone());
            if let (Ok(runtime), Ok(engine)) = (runtime, engine) {
                // Nobody is left to be told; the label still tells of what stays.
                let _left = runtime
                    .block_on(async { tokio::time::timeout(REMOVAL, engine.delete(id)).await });
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(removal);
        });
    }
}

impl DockerEngine {
    /// Refuses what the engine is too old to read in a request, and would leave out in silence.
    async fn refuse_unheard(&self, request: &ContainerRequest) -> Result<(), EngineError> {
        let version = self.api.version().await?;
        if request.gpus.is_some() && version < GPUS {
            return Err(self.unsupported("give GPUs to containers, as Docker 19.03 can"));
        }
        if let Some(platform) = &request.platform
            && version < PLATFORM
            && let Some(reason) = self.mismatch(&request.image, platform).await?
        {
            return Err(Doing("create", &request.name).failed(&reason, Kind::NotFound));
        }
        Ok(())
    }

    /// Has something done with a container that needs no saying more.
    async fn act(&self, id: &str, what: &'static str) -> Result<(), EngineError> {
        let path = format!("/containers/{id}/{what}");
        let request = self.api.request(Method::POST, &path).await?;
        self.api.call(request, Doing(what, id)).await.map(drop)
    }

    async fn delete(&self, id: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{id}");
        let query = [("force", "1"), ("v", "1")];
        let request = self.api.query(Method::DELETE, &path, &query).await?;
        match self.api.call(request, Doing("remove", id)).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// A program that the engine runs in a terminal.
struct Exec<'e> {
    api: &'e Api,
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ended {
    exit_code: Option<i32>,
}

#[async_trait]
impl TerminalControl for Exec<'_> {
    async fn resize(&self, columns: u16, rows: u16) -> Result<(), EngineError> {
        let path = format!("/exec/{}/resize", self.id);
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let query = [("w", columns.as_str()), ("h", &rows)];
        let request = self.api.query(Method::POST, &path, &query).await?;
        let doing = Doing("resize", "the terminal");
        self.api.call(request, doing).await.map(drop)
    }

    async fn exit_code(&self) -> Result<i32, EngineError> {
        let path = format!("/exec/{}/json", self.id);
        let request = self.api.request(Method::GET, &path).await?;
        let doing = Doing("ask for the exit code of", "the program");
        let ended: Ended = self.api.get(request, doing).await?;
        let running = || doing.failed("it is still running", Kind::Unavailable);
        ended.exit_code.ok_or_else(running)
    }
}

/// Takes both streams out of an answer.
async fn split(response: Response, doing: Doing<'_>, sink: LogSink<'_>) -> Result<(), EngineError> {
    let mut pieces = response.bytes_stream();
    let mut head = Vec::with_capacity(FRAME);
    let (mut stream, mut left) = (OutputStream::Stdout, 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| doing.broken(&error))?;
        let mut rest = &piece[..];
        while !rest.is_empty() {
            if left == 0 {
                let count = rest.len().min(FRAME - head.len());
                head.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
                if let [kind, _, _, _, a, b, c, d] = head[..] {
                    stream = match kind {
                        2 => OutputStream::Stderr,
                        _ => OutputStream::Stdout,
                    };
                    left = u32::from_be_bytes([a, b, c, d]) as usize;
                    head.clear();
                }
            } else {
                let count = rest.len().min(left);
                sink(stream, &rest[..count]);
                left -= count;
                rest = &rest[count..];
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PublishedPort;

    #[test]
    fn what_is_asked_for_is_said() {
        let request = ContainerRequest {
            image: "a".to_owned(),
            argv: vec!["/agent".to_owned(), "--port".to_owned()],
            ports: vec![
                PublishedPort {
                    host: IpAddr::from([127, 0, 0, 1]),
                    host_port: None,
                    container_port: 8000,
                },
                PublishedPort {
                    host: IpAddr::from([127, 0, 0, 1]),
                    host_port: Some(81),
                    container_port: 80,
                },
                PublishedPort {
                    host: IpAddr::from([127, 0, 0, 1]),
                    host_port: Some(82),
                    container_port: 80,
                },
            ],
            gpus: Some(Gpus::Count(2)),
            read_only: true,
            pids: Some(7),
            memory: Some(1 << 20),
            ..ContainerRequest::default()
        };
        let document = document(&request);
        let host = &document["HostConfig"];
        assert_eq!(document["Entrypoint"], json!(["/agent"]));
        assert_eq!(document["Cmd"], json!(["--port"]));
        assert_eq!(
            host["PortBindings"],
            json!({
                "8000/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }],
                "80/tcp": [
                    { "HostIp": "127.0.0.1", "HostPort": "81" },
                    { "HostIp": "127.0.0.1", "HostPort": "82" },
                ],
            })
        );
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
        assert_eq!(host["DeviceRequests"][0]["Count"], 2);
        assert_eq!(host["Tmpfs"], json!({ "/tmp": "" }));
        assert_eq!(
            (&host["PidsLimit"], &host["Memory"]),
            (&json!(7), &json!(1 << 20))
        );
    }

    #[test]
    fn ports_and_addresses_are_read() {
        let settings = r#"{
            "Ports": {
                "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}],
                "53/udp": [{"HostIp": "", "HostPort": "53"}],
                "80/tcp": null,
                "81/tcp": [{"HostIp": "", "HostPort": "82"}, {"HostIp": "::1", "HostPort": "83"}]
            },
            "Networks": {"bridge": {"IPAddress": "172.17.0.2"}, "host": {"IPAddress": ""}}
        }"#;
        let settings: NetworkSettings = serde_json::from_str(settings).unwrap();
        let ports = settings.ports();
        let ports: Vec<String> = ports
            .iter()
            .map(|(port, addresses)| format!("{port} {addresses:?}"))
            .collect();
        let expected = ["81 [0.0.0.0:82, [::1]:83]", "8000 [127.0.0.1:49153]"];
        assert_eq!(ports, expected);
        assert_eq!(settings.addresses(), [Ipv4Addr::new(172, 17, 0, 2)]);
    }
}
