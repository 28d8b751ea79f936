//! The life of a workspace: image, container, agent, health, end.
//!
//! A container is made first and then given the agent and its key, by the engine's own way of
//! writing files into it, before it starts. They are in a volume of their own: nothing of them
//! gets into an image that is made of the container, and its own files may be read-only.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use trilith_build::engine::{
    Container, ContainerRequest, ContainerState, Containers, LogOptions, PublishedPort,
};
use trilith_build::{Context, copy, inspect};
use trilith_core::Reference;
use trilith_oci::place::{DaemonImage, Place};

use crate::agent::LISTENING;
use crate::records::{Record, Records};
use crate::{Agent, Defaults, Error, SessionKey, StartOptions};

/// The label of all workspaces; its value is the version of Trilith.
pub const LABEL: &str = "dev.trilith.workspace";

/// The label of workspaces whose image goes with them; its value is the image's name.
const IMAGE_LABEL: &str = "dev.trilith.workspace.image";

/// Where the agent is, and its key.
const DIRECTORY: &str = "/.trilith";
const KEY_FILE: &str = "/.trilith/key";
/// The agent's port in a network of the container's own.
const PORT: u16 = 8000;
/// The network in which the container has no port of its own.
const HOST_NETWORK: &str = "host";
/// How soon an agent that does not answer yet is asked again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);
/// How often a container whose agent has an address is looked at meanwhile, in questions to the agent.
const LOOK: u32 = 8;
/// How many lines of a container's output an error shows.
const LOG_LINES: u32 = 50;
/// The longest `/etc/passwd` that is looked through, in bytes.
const USERS: usize = 4 << 20;

/// A workspace whose agent has answered.
#[derive(Debug)]
pub(crate) struct Started {
    /// What is remembered of it.
    pub record: Record,
    /// Its container.
    pub container: Container,
    /// Its agent.
    pub agent: Agent,
}

/// The image of a workspace, in the engine.
struct Supplied {
    /// What the engine knows it by.
    name: String,
    /// Its name, where it was brought to the engine for this workspace.
    brought: Option<Reference>,
}

/// Removes a container unless it is kept.
struct Unfinished<'e> {
    engine: &'e dyn Containers,
    name: Option<String>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.engine.remove_now(name);
        }
    }
}

/// Starts a workspace and waits until its agent answers.
///
/// When the future is dropped, or `interrupted` is ready first, no container stays.
///
/// # Errors
/// [`Error::Died`], [`Error::Silent`], [`Error::Interrupted`], and those of the engine. No
/// container stays.
pub(crate) async fn start(
    context: &Context,
    engine: &dyn Containers,
    records: &Records,
    options: &StartOptions,
    interrupted: impl Future<Output = ()>,
) -> Result<Started, Error> {
    if options.network.as_deref() == Some("none") {
        let reason = "without a network the agent cannot be reached; use an internal one";
        return Err(Error::Usage(reason.to_owned()));
    }
    if options.network.as_deref() == Some(HOST_NETWORK) && !options.ports.is_empty() {
        let reason = "in the host's network every port is one of this machine; publish none";
        return Err(Error::Usage(reason.to_owned()));
    }
    let mut interrupted = pin!(interrupted);
    let mut image = tokio::select! {
        image = supply(context, engine, options) => image?,
        () = &mut interrupted => return Err(Error::Interrupted),
    };
    if !options.remove_image {
        image.brought = None;
    }
    let started = start_container(engine, records, options, &image, interrupted).await;
    if let (Err(_), Some(reference)) = (&started, &image.brought) {
        remove_image(engine, reference).await;
    }
    started
}

/// Starts a workspace of an image that the engine has.
async fn start_container(
    engine: &dyn Containers,
    records: &Records,
    options: &StartOptions,
    image: &Supplied,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Started, Error> {
    let request = request(options, image)?;
    let mut unfinished = Unfinished {
        engine,
        name: Some(request.name.clone()),
    };
    // Not interrupted: an engine that is at it may go on, and what it makes has to be known.
    let created = engine.create(&request).await;
    let id = match created {
        Ok(id) => id,
        Err(error) => {
            // The name may be that of another, which is not to be removed.
            unfinished.name = None;
            return Err(error.into());
        }
    };
    unfinished.name = Some(id.clone());
    let started = tokio::select! {
        started = bring_up(engine, options, &request, &id) => started?,
        () = &mut interrupted => return Err(Error::Interrupted),
    };
    records.save(&started.record)?;
    unfinished.name = None;
    Ok(started)
}

/// Brings the image to the engine, where it is not there.
async fn supply(
    context: &Context,
    engine: &dyn Containers,
    options: &StartOptions,
) -> Result<Supplied, Error> {
    let platform = options.platform.as_ref();
    let present = |name: String| Supplied {
        name,
        brought: None,
    };
    let (reference, is_remote) = match &options.image {
        Place::Registry(reference) => (reference.clone(), true),
        Place::DockerDaemon(DaemonImage::Reference(reference)) => {
            return Ok(present(reference.to_string()));
        }
        Place::DockerDaemon(DaemonImage::Id(id)) => return Ok(present(id.to_string())),
        place => {
            let digest = inspect(context, place, platform).await?.manifest;
            let name = format!("localhost/trilith/workspace:{}", &digest.hex()[..32]);
            let reference = name.parse();
            let reference =
                reference.map_err(|_| Error::Usage(format!("`{name}` is no reference")))?;
            (reference, false)
        }
    };
    if engine.find(&reference).await?.is_some() {
        return Ok(present(reference.to_string()));
    }
    if is_remote {
        engine.pull(&reference, platform).await?;
    } else {
        load(context, engine, options, &reference).await?;
    }
    Ok(Supplied {
        name: reference.to_string(),
        brought: Some(reference),
    })
}

/// Removes an image, unless a container runs of it.
async fn remove_image(engine: &dyn Containers, reference: &Reference) {
    let (image, running) = (engine.find(reference).await, engine.running().await);
    let (Ok(Some(image)), Ok(running)) = (image, running) else {
        return;
    };
    if running.iter().all(|running| running.id != image) {
        // One that the engine still needs stays, and is not why anything fails.
        let _kept = engine.untag(reference).await;
    }
}

/// Brings an image from a place into the engine.
async fn load(
    context: &Context,
    engine: &dyn Containers,
    options: &StartOptions,
    reference: &Reference,
) -> Result<(), Error> {
    let temporary = &context.engines.temporary;
    let directory = tempfile::Builder::new()
        .prefix("trilith-load-")
        .tempdir_in(temporary);
    let directory = directory.map_err(|error| {
        Error::system(
            format!("create a directory in `{}`", temporary.display()),
            error,
        )
    })?;
    let path = directory.path().join("image.tar");
    let archive = Place::DockerArchive {
        path: path.clone(),
        reference: Some(reference.clone()),
    };
    copy(context, &options.image, &archive, options.platform.as_ref()).await?;
    Ok(engine.load(&path).await?)
}

/// Returns what the engine is to make.
fn request(options: &StartOptions, image: &Supplied) -> Result<ContainerRequest, Error> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => format!("trilith-{}", &SessionKey::random()?.expose()[..12]),
    };
    let is_on_host = options.network.as_deref() == Some(HOST_NETWORK);
    // In the host's network the agent takes a free port by itself, and says which.
    let (host, port) = if is_on_host {
        ("127.0.0.1", 0)
    } else {
        ("0.0.0.0", PORT)
    };
    let port = port.to_string();
    let argv = [
        trilith_agent_bin::PATH,
        "--host",
        host,
        "--port",
        &port,
        "--key-file",
        KEY_FILE,
    ];
    let mut ports = options.ports.clone();
    let agents = PublishedPort {
        host: [127, 0, 0, 1].into(),
        host_port: None,
        container_port: PORT,
    };
    if !is_on_host && !ports.contains(&agents) {
        ports.push(agents);
    }
    let mut labels = BTreeMap::from([(LABEL.to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    if let Some(reference) = &image.brought {
        labels.insert(IMAGE_LABEL.to_owned(), reference.to_string());
    }
    Ok(ContainerRequest {
        name,
        image: image.name.clone(),
        argv: argv.map(str::to_owned).into(),
        environment: options.environment.clone(),
        labels,
        ports,
        volumes: options.volumes.clone(),
        private: Some(DIRECTORY.to_owned()),
        network: options.network.clone(),
        platform: options.platform.clone(),
        gpus: options.gpus,
        read_only: options.read_only,
        capabilities: options.capabilities.clone(),
        pids: Some(options.pids),
        memory: Some(options.memory),
    })
}

/// Puts the agent into a container, starts it and waits for the agent.
async fn bring_up(
    engine: &dyn Containers,
    options: &StartOptions,
    request: &ContainerRequest,
    id: &str,
) -> Result<Started, Error> {
    let key = SessionKey::random()?;
    let made = container(engine, id).await?;
    let user = user_id(engine, id, &made.user).await?;
    let archive = archive(&key, user).map_err(|error| Error::system("write a tar", error))?;
    let archive = futures_util::stream::iter([Ok(Bytes::from(archive))]);
    engine
        .write_archive(id, DIRECTORY, Box::pin(archive))
        .await?;
    engine.start(id).await?;
    let waited = wait_for_agent(engine, &request.image, id, &key, options.health_timeout);
    let (agent, url, container) = waited.await?;
    let record = Record {
        id: id.to_owned(),
        name: container.name.clone(),
        engine: engine.kind().to_string(),
        url,
        key,
    };
    Ok(Started {
        record,
        container,
        agent,
    })
}

async fn container(engine: &dyn Containers, id: &str) -> Result<Container, Error> {
    let found = engine.container(id).await?;
    found.ok_or_else(|| Error::Missing(id.to_owned()))
}

/// Returns a tar with the agent and its key, which `user` alone can read.
fn archive(key: &SessionKey, user: u64) -> std::io::Result<Vec<u8>> {
    let program = trilith_agent_bin::binary();
    let mut archive = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    let files = [
        ("agent", trilith_agent_bin::MODE, 0, program),
        ("key", 0o400, user, key.expose().as_bytes()),
    ];
    for (name, mode, owner, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(0);
        archive.append_data(&mut header, name, content)?;
    }
    archive.into_inner()
}

/// Returns the number of the user that an image names: itself, or as the image's own
/// `/etc/passwd` has it.
async fn user_id(engine: &dyn Containers, id: &str, user: &str) -> Result<u64, Error> {
    let name = user.split(':').next().unwrap_or_default();
    if name.is_empty() {
        return Ok(0);
    }
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let mut archive = Vec::new();
    let mut pieces = engine.read_archive(id, "/etc/passwd").await?;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Error::system("read `/etc/passwd`", error))?;
        archive.extend_from_slice(&piece);
        if archive.len() > USERS {
            break;
        }
    }
    let text = String::from_utf8_lossy(&archive);
    // The first line comes after the header of the tar.
    let mut lines = text.lines().map(|line| line.trim_start_matches('\0'));
    let number = lines.find_map(|line| {
        let mut fields = line.rsplit('\0').next()?.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    });
    number.ok_or_else(|| Error::Usage(format!("the image has no user `{name}`")))
}

/// Returns the agent of a workspace that does not answer where it did, as after a restart of its
/// container: asks the engine anew, waits until it answers there, and remembers where that is.
///
/// # Errors
/// [`Error::Missing`], [`Error::Died`] and [`Error::Silent`]; nothing is removed.
pub async fn locate(
    engine: &dyn Containers,
    records: &Records,
    record: &Record,
) -> Result<Agent, Error> {
    let image = container(engine, &record.id).await?.image;
    let waited = wait_for_agent(engine, &image, &record.id, &record.key, Defaults::HEALTH);
    let (agent, url, _) = waited.await?;
    records.save(&Record {
        url,
        ..record.clone()
    })?;
    Ok(agent)
}

/// Does what [`answer`] does, for `time` at most.
async fn wait_for_agent(
    engine: &dyn Containers,
    image: &str,
    id: &str,
    key: &SessionKey,
    time: Duration,
) -> Result<(Agent, String, Container), Error> {
    match timeout(time, answer(engine, image, id, key)).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::Silent {
            image: image.to_owned(),
            seconds: time.as_secs_f64(),
            log: last_lines(engine, id).await,
        }),
    }
}

/// Waits until the agent answers, and returns it, its address and its container.
async fn answer(
    engine: &dyn Containers,
    image: &str,
    id: &str,
    key: &SessionKey,
) -> Result<(Agent, String, Container), Error> {
    let mut known: Option<(Agent, String, Container)> = None;
    let mut pause = FIRST_PAUSE;
    for question in 0_u32.. {
        if known.is_none() || question % LOOK == 0 {
            let container = container(engine, id).await?;
            match container.state {
                ContainerState::Exited {
                    code,
                    out_of_memory,
                } => {
                    return Err(Error::Died {
                        image: image.to_owned(),
                        code,
                        out_of_memory,
                        log: last_lines(engine, id).await,
                    });
                }
                ContainerState::Paused => return Err(Error::Paused(container.name)),
                ContainerState::Created | ContainerState::Running => {}
            }
            // What a container wrote before it was started again may come first.
            if let Some(url) = url(engine, &container).await?
                && known.as_ref().is_none_or(|(_, known, _)| *known != url)
            {
                known = Some((Agent::try_new(&url, key.clone())?, url, container));
            }
        }
        if let Some((agent, ..)) = &known
            && agent.is_healthy().await
            && let Some(known) = known.take()
        {
            return Ok(known);
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
    Err(Error::Missing(id.to_owned()))
}

/// Returns where the agent of a container listens, as far as it is known.
async fn url(engine: &dyn Containers, container: &Container) -> Result<Option<String>, Error> {
    let published = container.ports.get(&PORT);
    if let Some(address) = published.and_then(|addresses| addresses.first()) {
        return Ok(Some(format!("http://{address}")));
    }
    // Where nothing is published, as in an internal network, this machine is in the network too.
    if let Some(address) = container.addresses.first() {
        return Ok(Some(format!("http://{address}:{PORT}")));
    }
    let log = lines(engine, &container.id, LogOptions::default()).await?;
    let mut said = log.iter().filter_map(|line| line.strip_prefix(LISTENING));
    Ok(said
        .next_back()
        .filter(|url| url.starts_with("http://127.0.0.1:"))
        .map(str::to_owned))
}

async fn last_lines(engine: &dyn Containers, id: &str) -> Vec<String> {
    let options = LogOptions {
        tail: Some(LOG_LINES),
        follow: false,
    };
    // What cannot be read cannot be shown; the error is about something else.
    lines(engine, id, options).await.unwrap_or_default()
}

async fn lines(
    engine: &dyn Containers,
    id: &str,
    options: LogOptions,
) -> Result<Vec<String>, Error> {
    let mut text = Vec::new();
    engine
        .logs(id, options, &mut |_, piece| text.extend_from_slice(piece))
        .await?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(str::to_owned).collect())
}

/// Returns the workspaces of an engine, those that this machine does not remember too.
pub async fn find_workspaces(engine: &dyn Containers) -> Result<Vec<Container>, Error> {
    Ok(engine.containers(LABEL).await?)
}

/// Returns the workspace with this id, unique beginning of an id, or name.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Ambiguous`]. A container that is no workspace is missing.
pub async fn resolve(engine: &dyn Containers, name: &str) -> Result<Container, Error> {
    let all = find_workspaces(engine).await?;
    if let Some(found) = all.iter().find(|found| found.name == name) {
        return Ok(found.clone());
    }
    let mut found = all
        .into_iter()
        .filter(|container| !name.is_empty() && container.id.starts_with(name));
    match (found.next(), found.next()) {
        (Some(container), None) => Ok(container),
        (None, _) => Err(Error::Missing(name.to_owned())),
        (Some(_), Some(_)) => Err(Error::Ambiguous(name.to_owned())),
    }
}

/// Ends a workspace and removes it, and its image where that goes with it.
pub async fn stop(engine: &dyn Containers, records: &Records, id: &str) -> Result<(), Error> {
    let found = engine.container(id).await?;
    engine.remove(id, Defaults::GRACE).await?;
    records.forget(id);
    let image = found.and_then(|found| found.labels.get(IMAGE_LABEL)?.parse().ok());
    if let Some(reference) = image {
        remove_image(engine, &reference).await;
    }
    Ok(())
}
