//! The routes below `/api/file`.

mod listing;
mod multipart;
mod range;
mod root;
mod stage;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use rustix::fs::{FileType, OFlags, fstat};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::failure::{Failure, Outcome, json as json_response};
use crate::server::{Agent, Parameters};
use multipart::Multipart;
use range::Wanted;
pub(crate) use root::Root;
use stage::Stage;
use transfer::Writer;

/// The most files of a page, and how many there are unless it is said.
const PAGE: usize = 1000;

pub(crate) fn routes() -> Router<Agent> {
    let upload = post(upload_form)
        .put(upload_raw)
        .get(received)
        .delete(discard);
    Router::new()
        .route("/upload", upload)
        .route("/download", get(download))
        .route("/create_directory", post(create_directory))
        .route("/list", get(list))
        .route("/stat", get(stat))
}

#[derive(Debug, Deserialize)]
struct Target {
    path: PathBuf,
}

/// Runs what blocks on the disk off the thread that serves requests.
async fn blocking<T: Send + 'static>(
    agent: &Agent,
    path: &Path,
    run: impl FnOnce(&Root, &Path) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let (root, path) = (Arc::clone(&agent.root), path.to_owned());
    let result = spawn_blocking(move || run(&root, &path)).await;
    result.map_err(Failure::internal)?
}

fn document(value: impl Serialize) -> Outcome<Response> {
    serde_json::to_string(&value)
        .map(json_response)
        .map_err(Failure::internal)
}

/// A file as a form has it: what the SDK sends.
async fn upload_form(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Response> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let form = kind.and_then(Multipart::new);
    let form = form.ok_or_else(|| Failure::invalid("a form with a part named `file` is needed"))?;
    upload(&agent, &path, body, Some(form)).await
}

/// A file as it is, or a part of one.
async fn upload_raw(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
    headers: HeaderMap,
    body: Body,
) -> Outcome<Response> {
    match headers.get(header::CONTENT_RANGE) {
        None => upload(&agent, &path, body, None).await,
        Some(range) => {
            let piece = range.to_str().ok().and_then(range::piece);
            let piece = piece.ok_or_else(|| Failure::invalid("`Content-Range` is malformed"))?;
            upload_piece(&agent, &path, body, piece).await
        }
    }
}

async fn upload(
    agent: &Agent,
    path: &Path,
    body: Body,
    mut form: Option<Multipart>,
) -> Outcome<Response> {
    let (stage, file) = blocking(agent, path, Stage::create).await?;
    let kept = file
        .try_clone()
        .map_err(|error| root::failure("write", path, error))?;
    let mut writer = Writer::new(file);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Failure::bad(format!("the body is cut off: {error}")))?;
        let pieces = match &mut form {
            Some(form) => form.push(piece).map_err(Failure::invalid)?,
            None => vec![piece],
        };
        for piece in pieces {
            let written = writer.write(piece).await;
            written.map_err(|error| root::failure("write", path, error))?;
        }
    }
    if let Some(form) = form {
        form.finish().map_err(Failure::invalid)?;
    }
    let size = writer
        .finish()
        .await
        .map_err(|error| root::failure("write", path, error))?;
    blocking(agent, path, move |_, path| stage.publish(path, &kept)).await?;
    document(json!({ "success": true, "file_size": size }))
}

async fn upload_piece(
    agent: &Agent,
    path: &Path,
    body: Body,
    piece: range::Piece,
) -> Outcome<Response> {
    let (stage, file, size) = blocking(agent, path, Stage::resume).await?;
    if size != piece.offset {
        return Err(Failure::conflict(format!(
            "{size} bytes have been received"
        )));
    }
    let kept = file
        .try_clone()
        .map_err(|error| root::failure("write", path, error))?;
    let mut writer = Writer::new(file);
    let mut left = piece.length;
    let mut pieces = body.into_data_stream();
    let mut outcome = Ok(());
    while let Some(bytes) = pieces.next().await {
        let Ok(bytes) = bytes else {
            outcome = Err(Failure::bad("the body is cut off"));
            break;
        };
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            outcome = Err(Failure::invalid(
                "the body is longer than `Content-Range` says",
            ));
            break;
        };
        left = rest;
        let written = writer.write(bytes).await;
        written.map_err(|error| root::failure("write", path, error))?;
    }
    // What came is kept in any case: that is what parts are for.
    let written = writer
        .finish()
        .await
        .map_err(|error| root::failure("write", path, error))?;
    outcome?;
    let received = piece.offset + written;
    if received < piece.total {
        let status = StatusCode::ACCEPTED;
        return Ok((status, document(json!({ "received": received }))?).into_response());
    }
    blocking(agent, path, move |_, path| stage.publish(path, &kept)).await?;
    document(json!({ "success": true, "file_size": received }))
}

/// How much there is of a file that is uploaded in parts.
async fn received(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
) -> Outcome<Response> {
    let received = blocking(&agent, &path, Stage::received).await?;
    document(json!({ "received": received }))
}

async fn discard(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
) -> Outcome<Response> {
    blocking(&agent, &path, Stage::discard).await?;
    document(json!({ "success": true }))
}

async fn download(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
    headers: HeaderMap,
) -> Outcome<Response> {
    let (file, stat) = blocking(&agent, &path, |root, path| {
        // Opening a pipe must not wait for whoever writes to it.
        let file = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let stat = fstat(&file).map_err(|error| root::failure("read", path, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            _ => Err(Failure::bad("Path is not a file")),
        }
    })
    .await?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let tag = format!(
        "\"{:x}-{size:x}-{:x}.{:x}\"",
        stat.st_ino, stat.st_mtime, stat.st_mtime_nsec
    );
    let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // A file that has changed since is sent from the beginning.
    let is_same = value(header::IF_RANGE).is_none_or(|known| known == tag);
    let wanted = range::wanted(value(header::RANGE).filter(|_| is_same), size);
    let (status, offset, length) = match wanted {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part { offset, length } => (StatusCode::PARTIAL_CONTENT, offset, length),
        Wanted::Nothing => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let failure = Failure::new(status, format!("the file has {size} bytes"));
            let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((range, failure).into_response());
        }
    };
    let mut response = (status, transfer::body(file, offset, length)).into_response();
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::CONTENT_LENGTH, length.into());
    fields.insert(header::CONTENT_DISPOSITION, disposition(&path));
    fields.insert(header::ETAG, text(&tag));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {offset}-{}/{size}", offset + length - 1);
        fields.insert(header::CONTENT_RANGE, text(&range));
    }
    Ok(response)
}

/// Returns text of our own as a header.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

/// Names the file for whoever stores it (RFC 6266, RFC 8187).
fn disposition(path: &Path) -> HeaderValue {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let encoded: String = name
        .iter()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                char::from(*byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect();
    text(&if encoded.as_bytes() == name {
        format!("attachment; filename=\"{encoded}\"")
    } else {
        format!("attachment; filename*=utf-8''{encoded}")
    })
}

async fn create_directory(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
) -> Outcome<Response> {
    blocking(&agent, &path, |root, path| root.directory(path, true)).await?;
    document(json!({ "success": true }))
}

#[derive(Debug, Deserialize)]
struct Listing {
    path: PathBuf,
    #[serde(default)]
    page_id: String,
    limit: Option<usize>,
}

async fn list(
    State(agent): State<Agent>,
    Parameters(Listing {
        path,
        page_id,
        limit,
    }): Parameters<Listing>,
) -> Outcome<Response> {
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(Failure::invalid(format!("`limit` cannot be `{limit}`")));
    }
    let list = move |root: &Root, path: &Path| listing::list(root, path, page_id.as_bytes(), limit);
    document(blocking(&agent, &path, list).await?)
}

async fn stat(
    State(agent): State<Agent>,
    Parameters(Target { path }): Parameters<Target>,
) -> Outcome<Response> {
    document(blocking(&agent, &path, listing::stat).await?)
}
