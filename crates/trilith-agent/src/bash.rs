//! The routes below `/api/bash`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Router, body};
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, unfold};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::command::{Commands, Request};
use crate::document::{self, Document};
use crate::events::{self, Event, Filter, Output, Progress};
use crate::failure::{Failure, Outcome, json as json_response};
use crate::id::Id;
use crate::server::{Agent, Parameters, read_document};
use crate::time::Timestamp;

/// The most events of a page, and how many there are unless it is said.
const PAGE: usize = 100;

/// How often something is sent to a client that follows a silent command.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(crate) fn routes() -> Router<Agent> {
    Router::new()
        .route("/start_bash_command", post(start))
        .route("/execute_bash_command", post(execute))
        .route("/bash_events/search", get(search))
        .route("/bash_events/", get(batch))
        .route("/bash_events/{id}", get(event))
        .route("/bash_events", delete(clear))
        .route("/bash_commands/{id}/stop", post(stop))
        .route("/bash_commands/{id}/events", get(follow))
        .route("/bash_commands/{id}/output", get(output))
        .route("/bash_commands/{id}/stdin", post(stdin))
        .route("/sessions", post(open_session).get(sessions))
        .route("/sessions/{id}", delete(close_session))
        .route("/sessions/{id}/start", post(start_in_session))
        .route("/sessions/{id}/execute", post(execute_in_session))
}

async fn start(State(agent): State<Agent>, body: Body) -> Outcome<Response> {
    let request = Request::parse(&read_document(body).await?)?;
    let event = agent.commands.start(request)?;
    Ok(json_response(document::command(&event).to_string()))
}

async fn execute(State(agent): State<Agent>, body: Body) -> Outcome<Response> {
    let request = Request::parse(&read_document(body).await?)?;
    let command = agent.commands.start(request)?.id;
    output_of(&agent, command).await
}

/// Waits for the end of a command and returns all of its output.
async fn output_of(agent: &Agent, command: Id) -> Outcome<Response> {
    agent.commands.wait(command).await;
    let outputs = agent
        .commands
        .events
        .outputs(command, 0)
        .unwrap_or_default();
    let Some(last) = outputs.last() else {
        return Err(Failure::internal("the output has been cleared"));
    };
    let mut document = Document::default();
    document.push_outputs(
        last,
        &outputs.iter().filter_map(as_output).collect::<Vec<_>>(),
    );
    Ok(json_response(document.into_body()))
}

fn as_output(event: &Event) -> Option<&Output> {
    match &event.body {
        events::Body::Output(output) => Some(output),
        events::Body::Command(_) => None,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Search {
    #[serde(rename = "kind__eq")]
    kind: Option<String>,
    #[serde(rename = "command_id__eq")]
    command: Option<String>,
    #[serde(rename = "timestamp__gte")]
    since: Option<String>,
    #[serde(rename = "timestamp__lt")]
    before: Option<String>,
    #[serde(rename = "order__gt")]
    order_above: Option<i64>,
    sort_order: Option<String>,
    page_id: Option<String>,
    limit: Option<usize>,
}

impl Search {
    fn filter(&self) -> Outcome<Filter> {
        let time = |text: &Option<String>| match text {
            Some(text) => Timestamp::parse(text)
                .map(Some)
                .ok_or_else(|| wrong("timestamp", text)),
            None => Ok(None),
        };
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&limit) {
            return Err(wrong("limit", limit));
        }
        let (outputs_only, commands_only) = match self.kind.as_deref() {
            None => (false, false),
            Some("BashOutput") => (true, false),
            Some("BashCommand") => (false, true),
            Some(kind) => return Err(wrong("kind__eq", kind)),
        };
        let page = match self.page_id.as_deref() {
            None | Some("") => None,
            Some(page) => Some(page.parse().map_err(|_| wrong("page_id", page))?),
        };
        Ok(Filter {
            outputs_only,
            commands_only,
            command: self.command.as_deref().map(parse_id).transpose()?,
            since: time(&self.since)?,
            before: time(&self.before)?,
            order_above: self.order_above,
            newest_first: match self.sort_order.as_deref() {
                None | Some("TIMESTAMP") => false,
                Some("TIMESTAMP_DESC") => true,
                Some(order) => return Err(wrong("sort_order", order)),
            },
            page,
            limit,
        })
    }
}

fn wrong(name: &str, value: impl std::fmt::Display) -> Failure {
    Failure::invalid(format!("`{name}` cannot be `{value}`"))
}

pub(crate) fn parse_id(text: &str) -> Outcome<Id> {
    Id::parse(text).ok_or_else(|| Failure::invalid(format!("`{text}` is no identifier")))
}

async fn search(
    State(agent): State<Agent>,
    Parameters(search): Parameters<Search>,
) -> Outcome<Response> {
    let (events, next) = agent.commands.events.search(&search.filter()?);
    let mut document = Document::default();
    document.push("{\"items\":[");
    for (index, event) in events.iter().enumerate() {
        document.push(if index == 0 { "" } else { "," });
        document.push_event(event);
    }
    let next = next.map(|number| number.to_string());
    document.push(&format!("],\"next_page_id\":{}}}", json!(next)));
    Ok(json_response(document.into_body()))
}

async fn event(State(agent): State<Agent>, Path(id): Path<String>) -> Outcome<Response> {
    let event = Id::parse(&id).and_then(|id| agent.commands.events.get(id));
    let event = event.ok_or_else(|| Failure::not_found("there is no such event"))?;
    let mut document = Document::default();
    document.push_event(&event);
    Ok(json_response(document.into_body()))
}

/// Events by their identifiers, which the reference takes from the body of a GET request.
async fn batch(State(agent): State<Agent>, body: Body) -> Outcome<Response> {
    let ids: Vec<String> = serde_json::from_slice(&read_document(body).await?)
        .map_err(|error| Failure::invalid(error.to_string()))?;
    let mut document = Document::default();
    document.push("[");
    for (index, id) in ids.iter().enumerate() {
        document.push(if index == 0 { "" } else { "," });
        match Id::parse(id).and_then(|id| agent.commands.events.get(id)) {
            Some(event) => document.push_event(&event),
            None => document.push("null"),
        }
    }
    document.push("]");
    Ok(json_response(document.into_body()))
}

async fn clear(State(agent): State<Agent>) -> Response {
    let count = agent.commands.events.clear();
    json_response(json!({ "cleared_count": count }).to_string())
}

async fn stop(State(agent): State<Agent>, Path(id): Path<String>) -> Outcome<Response> {
    if agent.commands.stop(parse_id(&id)?).await {
        Ok(json_response(json!({ "success": true }).to_string()))
    } else {
        Err(no_command())
    }
}

fn no_command() -> Failure {
    Failure::not_found("there is no such command")
}

/// A reader of the outputs of one command, as they come.
struct Follower {
    commands: Arc<Commands>,
    command: Id,
    progress: watch::Receiver<Progress>,
    seen: u64,
}

impl Follower {
    fn new(commands: &Arc<Commands>, command: Id, seen: u64) -> Outcome<Self> {
        let progress = commands.events.progress(command).ok_or_else(no_command)?;
        let commands = Arc::clone(commands);
        Ok(Self {
            commands,
            command,
            progress,
            seen,
        })
    }

    /// Returns the next output; `None` after the last.
    async fn next(&mut self) -> Option<Event> {
        loop {
            self.progress.mark_unchanged();
            let outputs = self.commands.events.outputs(self.command, self.seen)?;
            if let Some(event) = outputs.into_iter().next() {
                self.seen = as_output(&event).map_or(self.seen, |output| output.order) + 1;
                return Some(event);
            }
            if self.progress.borrow().is_none() {
                return None;
            }
            self.progress.changed().await.ok()?;
        }
    }
}

/// Outputs as server-sent events. Their identifier is the order, so that a client can go on
/// where it was cut off.
async fn follow(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Outcome<Response> {
    let seen = match headers.get("last-event-id") {
        Some(value) => {
            let order = value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            order
                .ok_or_else(|| Failure::invalid("`Last-Event-ID` is no order"))?
                .saturating_add(1)
        }
        None => 0,
    };
    let follower = Follower::new(&agent.commands, parse_id(&id)?, seen)?;
    let messages = unfold(follower, async |mut follower| {
        let message = match timeout(KEEP_ALIVE, follower.next()).await {
            Err(_) => ":\n\n".to_owned(),
            Ok(event) => message(&event?).await.ok()?,
        };
        Some((Ok::<_, Infallible>(message), follower))
    });
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((kind, Body::from_stream(messages)).into_response())
}

async fn message(event: &Event) -> std::io::Result<String> {
    let order = as_output(event).map_or(0, |output| output.order);
    let mut document = Document::default();
    document.push_event(event);
    let data = document.into_text().await?;
    Ok(format!("id: {order}\nevent: BashOutput\ndata: {data}\n\n"))
}

#[derive(Debug, Deserialize)]
struct Bytewise {
    stream: String,
    #[serde(default)]
    offset: u64,
}

/// One stream as the bytes it is, as they come.
async fn output(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Parameters(Bytewise { stream, offset }): Parameters<Bytewise>,
) -> Outcome<Response> {
    let is_stderr = match stream.as_str() {
        "stdout" => false,
        "stderr" => true,
        other => return Err(wrong("stream", other)),
    };
    let command = parse_id(&id)?;
    let follower = Follower::new(&agent.commands, command, 0)?;
    let events = &agent.commands.events;
    if offset > 0 && events.is_attached(command) {
        let reason = "what was read of an attached command is forgotten; `offset` has to be 0";
        return Err(Failure::invalid(reason));
    }
    let reader = events.read(command, is_stderr);
    let reader = reader.map_err(|_| Failure::conflict("the stream has had its reader"))?;
    let pieces = unfold(
        (follower, offset, reader),
        move |(mut follower, mut skip, reader)| async move {
            loop {
                if let Some(reader) = &reader {
                    reader.has_read(follower.seen);
                }
                let event = follower.next().await?;
                let Some(text) = as_output(&event).and_then(|output| output.text.clone()) else {
                    continue;
                };
                let length = if is_stderr { text.stderr } else { text.stdout } as u64;
                if length <= skip {
                    skip -= length;
                    continue;
                }
                let bytes = spawn_blocking(move || document::bytes(&text, is_stderr)).await;
                let bytes = bytes.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                let rest = usize::try_from(std::mem::take(&mut skip)).unwrap_or(usize::MAX);
                let bytes = bytes.map(|bytes| Bytes::from(bytes).slice(rest..));
                return Some((bytes, (follower, skip, reader)));
            }
        },
    );
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Input {
    close: bool,
}

/// Standard input of a command that was started with `"stdin": true`.
async fn stdin(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    Query(Input { close }): Query<Input>,
    body: Body,
) -> Outcome<Response> {
    let id = parse_id(&id)?;
    let running = agent.commands.get(id).ok_or_else(no_command)?;
    let mut chunks = body::Body::into_data_stream(body);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failure::bad(error.to_string()))?;
        let written = running.write(&chunk).await;
        written.map_err(|_| Failure::conflict("the command reads no standard input"))?;
    }
    if close {
        running.close();
    }
    Ok(json_response(json!({ "success": true }).to_string()))
}

/// Starts a shell that stays, in a directory and with variables.
async fn open_session(State(agent): State<Agent>, body: Body) -> Outcome<Response> {
    let request = Request::parse_place(&read_document(body).await?)?;
    let id = agent
        .commands
        .sessions
        .open(&agent.commands, &request)
        .await?;
    Ok(json_response(
        json!({ "id": id, "kind": "BashSession" }).to_string(),
    ))
}

async fn sessions(State(agent): State<Agent>) -> Response {
    let ids = agent.commands.sessions.ids();
    json_response(json!({ "items": ids }).to_string())
}

async fn close_session(State(agent): State<Agent>, Path(id): Path<String>) -> Outcome<Response> {
    agent.commands.sessions.close(parse_id(&id)?)?;
    Ok(json_response(json!({ "success": true }).to_string()))
}

async fn start_in_session(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    body: Body,
) -> Outcome<Response> {
    let request = Request::parse(&read_document(body).await?)?;
    let event = agent.commands.start_in(parse_id(&id)?, request)?;
    Ok(json_response(document::command(&event).to_string()))
}

async fn execute_in_session(
    State(agent): State<Agent>,
    Path(id): Path<String>,
    body: Body,
) -> Outcome<Response> {
    let request = Request::parse(&read_document(body).await?)?;
    let command = agent.commands.start_in(parse_id(&id)?, request)?.id;
    output_of(&agent, command).await
}
