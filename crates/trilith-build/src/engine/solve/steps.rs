//! What happens during a solve: BuildKit's vertices as steps.
//!
//! Tells the observer of them, and remembers what an error needs: the step that failed and the
//! last lines that it wrote.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus};

use super::kind_of;
use crate::engine::redact::{Pieces, Redactor};
use crate::engine::{EngineError, EngineKind, Observer, Progress};

/// How many lines of a failing step an error has.
const LAST_LINES: usize = 50;
/// How much of a line is kept for an error.
const LONGEST_LINE: usize = 4096;

/// How the step begins that looks for a base image.
const METADATA: &str = "[internal] load metadata for ";

/// The steps of a build so far.
pub(in crate::engine) struct Steps<'a> {
    observer: Observer<'a>,
    redactor: Redactor,
    by_vertex: HashMap<String, usize>,
    all: Vec<Step>,
    failed: Option<usize>,
}

#[derive(Default)]
struct Step {
    title: String,
    running: bool,
    /// Whether the observer knows it.
    known: bool,
    /// Whether what it makes came from a cache. BuildKit takes it up again to fetch that.
    cached: bool,
    error: Option<String>,
    pieces: Pieces,
    log: LastLines,
    /// What its parts moved: bytes done, and bytes in all.
    moved: BTreeMap<String, (u64, u64)>,
    told: (u64, u64),
}

impl<'a> Steps<'a> {
    pub(in crate::engine) fn new(observer: Observer<'a>, redactor: Redactor) -> Self {
        Self {
            observer,
            redactor,
            by_vertex: HashMap::new(),
            all: Vec::new(),
            failed: None,
        }
    }

    /// Takes what BuildKit tells.
    pub(super) fn take(&mut self, news: StatusResponse) {
        for (index, vertex) in news.vertexes.iter().enumerate() {
            let mut later = news.vertexes[index + 1..].iter();
            let goes_on = later.any(|other| other.digest == vertex.digest);
            // Done, and taken up again at once: that is no end.
            let is_end = vertex.cached || !vertex.error.is_empty() || !goes_on;
            if vertex.completed.is_none() || is_end {
                self.vertex(vertex);
            }
        }
        for status in news.statuses {
            self.status(status);
        }
        for log in news.logs {
            self.log(&log);
        }
    }

    /// Returns the step that failed as an error of `engine`.
    pub(in crate::engine) fn failure(&mut self, engine: EngineKind) -> Option<EngineError> {
        let step = &mut self.all[self.failed?];
        step.log.add(&step.pieces.finish(&self.redactor));
        let said = step.error.clone().unwrap_or_default();
        if let Some(image) = step.title.strip_prefix(METADATA) {
            return Some(EngineError::Failed {
                engine,
                operation: "fetch",
                object: image.to_owned(),
                kind: kind_of(&said),
                reason: said,
            });
        }
        Some(EngineError::Step {
            step: step.title.clone(),
            reason: exit_code(&said).unwrap_or(said),
            log: step.log.lines(),
        })
    }

    fn vertex(&mut self, vertex: &Vertex) {
        if vertex.started.is_none() && vertex.completed.is_none() && vertex.error.is_empty() {
            return;
        }
        let index = self.index(&vertex.digest, &vertex.name);
        let step = &mut self.all[index];
        step.cached |= vertex.cached;
        let number = number(index);
        // BuildKit repeats itself, and it takes up again what it thought was done.
        if !step.running && (vertex.completed.is_none() || !step.known) {
            (step.running, step.known) = (true, true);
            (self.observer)(Progress::Started {
                step: number,
                title: step.title.clone(),
            });
        }
        let error = (!vertex.error.is_empty()).then(|| self.redactor.clean(&vertex.error));
        // What is cancelled when another step fails did not fail by itself.
        let is_cause = |error: &String| !error.contains("context canceled");
        if self.failed.is_none() && error.as_ref().is_some_and(is_cause) {
            self.failed = Some(index);
            step.error.clone_from(&error);
        }
        if step.running && (vertex.completed.is_some() || error.is_some()) {
            step.running = false;
            let rest = step.pieces.finish(&self.redactor);
            step.log.add(&rest);
            if !rest.is_empty() {
                (self.observer)(Progress::Log {
                    step: Some(number),
                    text: rest,
                });
            }
            (self.observer)(Progress::Finished {
                step: number,
                cached: step.cached,
                error,
            });
        }
    }

    fn status(&mut self, status: VertexStatus) {
        let Some(&index) = self.by_vertex.get(&status.vertex) else {
            return;
        };
        let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
        let step = &mut self.all[index];
        let moved = (bytes(status.current), bytes(status.total));
        step.moved.insert(status.id, moved);
        let sum = |part: fn(&(u64, u64)) -> u64| step.moved.values().map(part).sum();
        let (done, total): (u64, u64) = (sum(|moved| moved.0), sum(|moved| moved.1));
        if (done, total) != step.told {
            step.told = (done, total);
            (self.observer)(Progress::Bytes {
                step: number(index),
                done,
                total: (total >= done && total > 0).then_some(total),
            });
        }
    }

    fn log(&mut self, log: &VertexLog) {
        let index = self.index(&log.vertex, "");
        let step = &mut self.all[index];
        // What could not be fetched is run after all.
        step.cached = false;
        let text = step.pieces.add(&log.msg, &self.redactor);
        if !text.is_empty() {
            step.log.add(&text);
            (self.observer)(Progress::Log {
                step: Some(number(index)),
                text,
            });
        }
    }

    fn index(&mut self, vertex: &str, name: &str) -> usize {
        if let Some(&index) = self.by_vertex.get(vertex) {
            if self.all[index].title.is_empty() {
                self.all[index].title = self.redactor.clean(name);
            }
            return index;
        }
        let index = self.all.len();
        self.by_vertex.insert(vertex.to_owned(), index);
        self.all.push(Step {
            title: self.redactor.clean(name),
            ..Step::default()
        });
        index
    }
}

fn number(index: usize) -> u64 {
    index as u64
}

/// Returns `exit code: 3` where that is what a longer message says.
pub(in crate::engine) fn exit_code(message: &str) -> Option<String> {
    let position = message.rfind("exit code: ")?;
    let code = message[position + "exit code: ".len()..].trim_end();
    let is_number = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("exit code: {code}"))
}

/// The last lines of a text.
#[derive(Default)]
pub(in crate::engine) struct LastLines {
    lines: VecDeque<String>,
    /// The line that has not ended.
    open: String,
}

impl LastLines {
    pub(in crate::engine) fn add(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            let (line, ends) = match piece.strip_suffix('\n') {
                Some(line) => (line, true),
                None => (piece, false),
            };
            let room = LONGEST_LINE.saturating_sub(self.open.len());
            self.open.extend(line.chars().take(room));
            if ends {
                if self.lines.len() == LAST_LINES {
                    self.lines.pop_front();
                }
                let line = std::mem::take(&mut self.open);
                self.lines.push_back(line.trim_end_matches('\r').to_owned());
            }
        }
    }

    pub(in crate::engine) fn lines(&self) -> Vec<String> {
        let open = (!self.open.is_empty()).then(|| self.open.clone());
        let all: Vec<String> = self.lines.iter().cloned().chain(open).collect();
        all[all.len().saturating_sub(LAST_LINES)..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bollard_buildkit_proto::google::protobuf::Timestamp;

    use super::*;

    fn vertex(digest: &str, state: &str, error: &str) -> Vertex {
        Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            cached: state == "cached",
            started: (state != "planned").then(Timestamp::default),
            completed: matches!(state, "done" | "cached").then(Timestamp::default),
            error: error.to_owned(),
            ..Vertex::default()
        }
    }

    fn log(digest: &str, text: &str) -> VertexLog {
        VertexLog {
            vertex: digest.to_owned(),
            msg: text.into(),
            ..VertexLog::default()
        }
    }

    fn moved(digest: &str, id: &str, current: i64, total: i64) -> VertexStatus {
        VertexStatus {
            vertex: digest.to_owned(),
            id: id.to_owned(),
            current,
            total,
            ..VertexStatus::default()
        }
    }

    /// Returns what is told of `news`, in short, and the failure.
    fn follow(news: Vec<StatusResponse>) -> (Vec<String>, Option<EngineError>) {
        let told = Mutex::new(Vec::new());
        let observer = |progress: Progress| {
            told.lock().unwrap().push(match progress {
                Progress::Started { step, title } => format!("{step} {title}"),
                Progress::Log { step, text } => format!("{step:?} says {text:?}"),
                Progress::Bytes { step, done, total } => format!("{step} {done}/{total:?}"),
                Progress::Finished {
                    step,
                    cached,
                    error,
                } => format!("{step} ends {cached} {error:?}"),
            });
        };
        let mut steps = Steps::new(&observer, Redactor::default());
        for some in news {
            steps.take(some);
        }
        let failure = steps.failure(EngineKind::Docker);
        (told.into_inner().unwrap(), failure)
    }

    fn vertexes(vertexes: &[(&str, &str, &str)]) -> StatusResponse {
        StatusResponse {
            vertexes: vertexes.iter().map(|(d, s, e)| vertex(d, s, e)).collect(),
            ..StatusResponse::default()
        }
    }

    #[test]
    fn steps_begin_move_bytes_and_end() {
        let news = vec![
            vertexes(&[("a", "planned", ""), ("b", "cached", "")]),
            vertexes(&[
                ("a", "started", ""),
                ("a", "done", ""),
                ("a", "started", ""),
            ]),
            StatusResponse {
                statuses: vec![
                    moved("a", "x", 5, 10),
                    moved("a", "y", 1, 0),
                    moved("?", "x", 1, 1),
                ],
                logs: vec![log("a", "b\u{c3}"), log("a", "\n")],
                ..StatusResponse::default()
            },
            vertexes(&[("a", "done", ""), ("b", "cached", "")]),
        ];
        let (told, failure) = follow(news);
        let expected = [
            "0 step b",
            "0 ends true None",
            "1 step a",
            "1 5/Some(10)",
            "1 6/Some(10)",
            "Some(1) says \"bÃ\"",
            "Some(1) says \"\\n\"",
            "1 ends false None",
        ];
        assert_eq!(told, expected);
        assert!(failure.is_none());
    }

    #[test]
    fn what_is_fetched_from_a_cache_is_cached() {
        let found = || vertexes(&[("a", "cached", "")]);
        let again = || vertexes(&[("a", "started", "")]);
        let fetches = StatusResponse {
            statuses: vec![moved("a", "layer", 1, 1)],
            ..StatusResponse::default()
        };
        let runs = StatusResponse {
            logs: vec![log("a", "\n")],
            ..StatusResponse::default()
        };
        for (does, end) in [(fetches, "0 ends true None"), (runs, "0 ends false None")] {
            let done = vertexes(&[("a", "done", "")]);
            let (told, _) = follow(vec![found(), again(), does, done]);
            assert_eq!(told.last().unwrap(), end);
        }
    }

    #[test]
    fn the_first_step_that_fails_by_itself_is_the_cause() {
        let cancelled = "context canceled";
        let news = vec![
            vertexes(&[
                ("a", "started", ""),
                ("b", "started", ""),
                ("c", "started", ""),
            ]),
            vertexes(&[
                ("a", "done", cancelled),
                ("b", "done", "process \"x\" failed: exit code: 7"),
            ]),
            vertexes(&[("c", "done", "something else")]),
            StatusResponse {
                logs: vec![log("b", "last "), log("b", "words")],
                ..StatusResponse::default()
            },
        ];
        match follow(news).1 {
            Some(EngineError::Step { step, reason, log }) => {
                assert_eq!((step.as_str(), reason.as_str()), ("step b", "exit code: 7"));
                assert_eq!(log, ["last words"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn last_lines() {
        let mut lines = LastLines::default();
        for number in 0..70 {
            lines.add(&format!("{number}\r\n"));
        }
        lines.add(&"x".repeat(2 * LONGEST_LINE));
        let lines = lines.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (LAST_LINES, "21"));
        assert_eq!(lines[LAST_LINES - 1].len(), LONGEST_LINE);
    }

    #[test]
    fn exit_codes() {
        for (message, code) in [
            (
                "executor failed running [/bin/sh -c x]: exit code: 3",
                Some("exit code: 3"),
            ),
            ("exit code: 137\n", Some("exit code: 137")),
            ("exit code: what", None),
            ("no code", None),
        ] {
            assert_eq!(exit_code(message).as_deref(), code, "{message}");
        }
    }
}
