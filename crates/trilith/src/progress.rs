//! What a build looks like while it runs: a live view, plain lines, or one JSON object per line.
//!
//! All of it goes to stderr. Nothing here knows what an engine is; it is told of steps.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use trilith_build::Event;
use trilith_build::engine::Progress as Happened;

use crate::args::ProgressFormat;
use crate::output::{Output, bytes};

/// How often a live view moves.
const TICK: Duration = Duration::from_millis(100);

/// Shows what happens in a build.
pub(crate) struct Progress {
    output: Output,
    started: Instant,
    view: Mutex<View>,
}

enum View {
    Live(Live),
    Plain(Plain),
    Json,
}

impl Progress {
    pub(crate) fn new(format: ProgressFormat, output: Output) -> Self {
        let view = match format {
            ProgressFormat::Json => View::Json,
            ProgressFormat::Auto if std::io::stderr().is_terminal() && !output.is_quiet() => {
                View::Live(Live::default())
            }
            ProgressFormat::Auto | ProgressFormat::Plain => View::Plain(Plain::default()),
        };
        Self {
            output,
            started: Instant::now(),
            view: Mutex::new(view),
        }
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &Event<'_>) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *view {
            View::Json => {
                let seconds = self.started.elapsed().as_secs_f64();
                if let Some(mut document) = document(event) {
                    document["seconds"] = json!((seconds * 1000.0).round() / 1000.0);
                    // With stderr gone there is nobody left to tell.
                    let _closed = writeln!(std::io::stderr().lock(), "{document}");
                }
            }
            View::Live(live) => live.event(event, self.output),
            View::Plain(plain) => plain.event(event, self.output),
        }
    }
}

/// Returns an event as an object, `None` for what is new to this version.
fn document(event: &Event<'_>) -> Option<Value> {
    Some(match event {
        Event::Warning(text) => json!({"event": "warning", "text": text}),
        Event::Planned(plan) => json!({"event": "planned", "reasons": plan.reasons}),
        Event::Layer {
            level,
            title,
            size,
            reused,
        } => json!({
            "event": "layer", "level": level, "title": title, "size": size, "reused": reused,
        }),
        Event::Waiting { reference } => {
            json!({"event": "waiting", "reference": reference.to_string()})
        }
        Event::Publishing { place } => json!({"event": "publishing", "place": place}),
        Event::Building {
            level,
            platform,
            engine,
        } => json!({
            "event": "building", "level": level, "platform": platform.to_string(),
            "engine": engine,
        }),
        Event::Engine(happened) => match happened {
            Happened::Started { step, title } => {
                json!({"event": "step", "step": step, "title": title})
            }
            Happened::Log { step, text } => json!({"event": "log", "step": step, "text": text}),
            Happened::Bytes { step, done, total } => {
                json!({"event": "bytes", "step": step, "done": done, "total": total})
            }
            Happened::Finished {
                step,
                cached,
                error,
            } => json!({"event": "finished", "step": step, "cached": cached, "error": error}),
        },
        _ => return None,
    })
}

/// Returns the line for the beginning of a level.
fn building(event: &Event<'_>) -> Option<String> {
    let Event::Building {
        level,
        platform,
        engine,
    } = event
    else {
        return None;
    };
    Some(format!(
        "building {level} image for {platform} with {engine}"
    ))
}

/// A step that is going on.
struct Step {
    title: String,
    started: Instant,
    /// What it wrote since its last line end.
    line: String,
}

impl Step {
    fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            started: Instant::now(),
            line: String::new(),
        }
    }

    /// Takes in what the step wrote and returns the lines that are whole.
    fn lines(&mut self, text: &str) -> Vec<String> {
        self.line.push_str(text);
        let Some(end) = self.line.rfind('\n') else {
            return Vec::new();
        };
        let rest = self.line.split_off(end + 1);
        let whole = std::mem::replace(&mut self.line, rest);
        whole.lines().map(shown).collect()
    }

    /// Returns how the step ended.
    fn end(&self, cached: bool, error: Option<&str>) -> String {
        match error {
            Some(error) => format!("failed: {error}"),
            None if cached => "cached".to_owned(),
            None => format!("{:.1} s", self.started.elapsed().as_secs_f64()),
        }
    }
}

/// Returns a line as it can be shown: what it has overwritten itself, and no control characters.
fn shown(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let last = line.rsplit('\r').next().unwrap_or(line);
    last.chars()
        .filter(|character| *character == '\t' || !character.is_control())
        .collect()
}

/// Lines, each with the number of its step.
#[derive(Default)]
struct Plain {
    steps: HashMap<u64, Step>,
    /// The steps that have begun and ended; some engines begin one more than once.
    ended: HashSet<u64>,
}

impl Plain {
    fn event(&mut self, event: &Event<'_>, output: Output) {
        let Event::Engine(happened) = event else {
            if let Some(line) = building(event) {
                self.steps.clear();
                self.ended.clear();
                output.note(&line);
            }
            return output.event(event);
        };
        match happened {
            Happened::Started { step, title } => {
                if !self.ended.contains(step) {
                    output.note(&format!("#{step} {title}"));
                }
                self.steps.insert(*step, Step::new(title));
            }
            Happened::Log { step, text } => {
                let number = step.unwrap_or_default();
                let entry = self.steps.entry(number).or_insert_with(|| Step::new(""));
                for line in entry.lines(text) {
                    output.note(&format!("#{number} {line}"));
                }
            }
            Happened::Bytes { .. } => {}
            Happened::Finished {
                step,
                cached,
                error,
            } => {
                if let Some(ended) = self.steps.remove(step) {
                    if !ended.line.is_empty() {
                        output.note(&format!("#{step} {}", shown(&ended.line)));
                    }
                    if self.ended.insert(*step) || error.is_some() {
                        let end = ended.end(*cached, error.as_deref());
                        output.note(&format!("#{step} {end}"));
                    }
                }
            }
        }
    }
}

/// What is going on now at the bottom, what is done above it.
#[derive(Default)]
struct Live {
    bars: MultiProgress,
    steps: HashMap<u64, (Step, ProgressBar)>,
}

impl Live {
    fn event(&mut self, event: &Event<'_>, output: Output) {
        let Event::Engine(happened) = event else {
            let line = building(event);
            self.bars.suspend(|| match line {
                Some(line) => output.note(&line),
                None => output.event(event),
            });
            return;
        };
        match happened {
            Happened::Started { step, title } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_prefix(shown(title));
                bar.enable_steady_tick(TICK);
                self.steps.insert(*step, (Step::new(title), bar));
            }
            Happened::Log { step, text } => {
                if let Some((step, bar)) = step.and_then(|step| self.steps.get_mut(&step))
                    && let Some(line) = step.lines(text).pop()
                {
                    bar.set_message(line);
                }
            }
            Happened::Bytes { step, done, total } => {
                if let Some((_, bar)) = self.steps.get(step) {
                    let total = total.map(|total| format!(" of {}", bytes(total)));
                    bar.set_message(format!("{}{}", bytes(*done), total.unwrap_or_default()));
                }
            }
            Happened::Finished {
                step,
                cached,
                error,
            } => {
                if let Some((step, bar)) = self.steps.remove(step) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                    let end = step.end(*cached, error.as_deref());
                    let line = format!("{} {end}", shown(&step.title));
                    self.bars.suspend(|| output.note(&line));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let mut step = Step::new("x");
        assert!(step.lines("a").is_empty());
        assert_eq!(step.lines("b\nc\nd"), ["ab", "c"]);
        assert_eq!(step.lines("\n"), ["d"]);
    }

    #[test]
    fn lines_cannot_move_the_cursor() {
        assert_eq!(shown("10%\r20%\r"), "20%");
        assert_eq!(shown("\u{1b}[2Jx"), "[2Jx");
    }
}
