//! Events as JSON, written while they are sent: a page may hold megabytes of output, and memory
//! never more than a piece of it.

use std::collections::VecDeque;
use std::io;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::events::{self, Event, Output, Text};

/// A document of text that is there and output that is read when it is its turn.
#[derive(Debug, Default)]
pub(crate) struct Document(VecDeque<Piece>);

#[derive(Debug)]
enum Piece {
    Written(String),
    /// The inside of a JSON string.
    Output {
        text: Text,
        is_stderr: bool,
    },
}

impl Document {
    pub(crate) fn push(&mut self, text: &str) {
        if let Some(Piece::Written(last)) = self.0.back_mut() {
            last.push_str(text);
        } else {
            self.0.push_back(Piece::Written(text.to_owned()));
        }
    }

    /// Adds an event as an object.
    pub(crate) fn push_event(&mut self, event: &Event) {
        match &event.body {
            events::Body::Command(_) => self.push(&command(event).to_string()),
            events::Body::Output(output) => self.push_outputs(event, &[output]),
        }
    }

    /// Adds one output with all the text of `outputs`; `event` is the last of them.
    pub(crate) fn push_outputs(&mut self, event: &Event, outputs: &[&Output]) {
        let Some(last) = outputs.last() else {
            return;
        };
        let head = json!({
            "id": event.id,
            "timestamp": event.timestamp,
            "command_id": last.command,
            "order": last.order,
            "exit_code": last.exit_code,
        });
        let head = head.to_string();
        self.push(head.strip_suffix('}').unwrap_or(&head));
        for (name, is_stderr) in [("stdout", false), ("stderr", true)] {
            self.push(&format!(",\"{name}\":"));
            self.push_text(outputs, is_stderr);
        }
        self.push(",\"kind\":\"BashOutput\"}");
    }

    fn push_text(&mut self, outputs: &[&Output], is_stderr: bool) {
        let mut is_empty = true;
        let mut open = |document: &mut Self| {
            if std::mem::take(&mut is_empty) {
                document.push("\"");
            }
        };
        let mut ends_line = true;
        for output in outputs {
            if let Some(text) = &output.text {
                let length = if is_stderr { text.stderr } else { text.stdout };
                if length > 0 {
                    open(self);
                    ends_line = false;
                    self.0.push_back(Piece::Output {
                        text: text.clone(),
                        is_stderr,
                    });
                }
            }
            if let (Some(note), true) = (&output.note, is_stderr) {
                open(self);
                if !ends_line {
                    self.push("\\n");
                }
                self.push(&escaped(note));
            }
        }
        self.push(if is_empty { "null" } else { "\"" });
    }

    /// Returns the next part as bytes; `None` at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let bytes = match self.0.pop_front() {
            None => return Ok(None),
            Some(Piece::Written(text)) => text,
            Some(Piece::Output { text, is_stderr }) => read(text, is_stderr).await?,
        };
        Ok(Some((bytes.into(), self)))
    }

    pub(crate) fn into_body(self) -> Body {
        Body::from_stream(try_unfold(self, Self::next))
    }

    /// Returns all of it. For documents of single events.
    pub(crate) async fn into_text(self) -> io::Result<String> {
        let mut text = String::new();
        for piece in self.0 {
            match piece {
                Piece::Written(written) => text.push_str(&written),
                Piece::Output {
                    text: stored,
                    is_stderr,
                } => {
                    text.push_str(&read(stored, is_stderr).await?);
                }
            }
        }
        Ok(text)
    }
}

/// Reads output as the inside of a JSON string.
async fn read(text: Text, is_stderr: bool) -> io::Result<String> {
    let read = spawn_blocking(move || {
        let bytes = bytes(&text, is_stderr)?;
        Ok(escaped(&String::from_utf8_lossy(&bytes)))
    });
    read.await.map_err(io::Error::other)?
}

/// Reads one stream of a piece of output. Blocks on the disk.
pub(crate) fn bytes(text: &Text, is_stderr: bool) -> io::Result<Vec<u8>> {
    if is_stderr {
        text.stored.read(text.stdout as u64, text.stderr)
    } else {
        text.stored.read(0, text.stdout)
    }
}

/// Returns `text` as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Returns the event that starts a command as an object.
pub(crate) fn command(event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), json!(event.id));
    object.insert("timestamp".into(), json!(event.timestamp));
    if let events::Body::Command(request) = &event.body {
        object.insert("command".into(), request.text().into());
        if let Some(argv) = &request.argv {
            object.insert("argv".into(), json!(argv));
        }
        object.insert("cwd".into(), json!(request.cwd));
        object.insert("timeout".into(), number(request.timeout));
    }
    object.insert("kind".into(), "BashCommand".into());
    Value::Object(object)
}

/// Returns whole seconds as an integer, as clients that know no fractions expect them.
fn number(seconds: f64) -> Value {
    let text = seconds.to_string();
    text.parse::<u64>().map_or(json!(seconds), Value::from)
}
