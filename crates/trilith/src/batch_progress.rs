//! What a batch looks like while it runs: a few lines whatever its size, or lines for a log.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use trilith_build::batch::{BatchEvent, BatchStatus, ImageLine};
use trilith_oci::registry::RegistryClient;

use crate::args::ProgressFormat;
use crate::output::{Output, bytes};

/// How often a log is told how far the batch is.
const EVERY: Duration = Duration::from_secs(5);
/// How often the live view moves.
const TICK: Duration = Duration::from_millis(100);
/// Over how long the speed is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// Shows what happens in a batch.
pub(crate) struct BatchProgress {
    output: Output,
    registry: RegistryClient,
    images: usize,
    state: RefCell<State>,
    view: View,
}

enum View {
    Live(ProgressBar),
    Plain,
    Json,
}

struct State {
    started: Instant,
    told: Instant,
    built: usize,
    reused: usize,
    failed: usize,
    /// When the last images were done with.
    recent: VecDeque<Instant>,
}

impl BatchProgress {
    pub(crate) fn new(
        format: ProgressFormat,
        output: Output,
        images: usize,
        registry: &RegistryClient,
    ) -> Self {
        let view = match format {
            ProgressFormat::Json => View::Json,
            ProgressFormat::Auto if std::io::stderr().is_terminal() && !output.is_quiet() => {
                let bar = ProgressBar::new(images as u64);
                let template = "{bar:40} {pos}/{len}  {msg}";
                let style = ProgressStyle::with_template(template);
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.enable_steady_tick(TICK);
                View::Live(bar)
            }
            ProgressFormat::Auto | ProgressFormat::Plain => View::Plain,
        };
        let now = Instant::now();
        Self {
            output,
            registry: registry.clone(),
            images,
            state: RefCell::new(State {
                started: now,
                told: now,
                built: 0,
                reused: 0,
                failed: 0,
                recent: VecDeque::new(),
            }),
            view,
        }
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &BatchEvent<'_>) {
        match event {
            BatchEvent::Warning(text) => self.note(
                &json!({"event": "warning", "text": text}),
                &format!("warning: {text}"),
            ),
            BatchEvent::Asked { to_build } => self.note(
                &json!({"event": "asked", "to_build": to_build}),
                &format!("plan: {to_build} of {} images to build", self.images),
            ),
            BatchEvent::Retrying { base, error, delay } => self.note(
                &json!({
                    "event": "retrying", "base": base, "error": error.to_string(),
                    "delay": delay.as_secs_f64(),
                }),
                &format!("{base}: {error}; again in {} s", delay.as_secs()),
            ),
            BatchEvent::Finished(line) => self.finished(line),
            _ => {}
        }
    }

    /// Takes the live view away.
    pub(crate) fn end(&self) {
        if let View::Live(bar) = &self.view {
            bar.finish_and_clear();
        }
    }

    fn finished(&self, line: &ImageLine) {
        {
            let mut state = self.state.borrow_mut();
            match line.status {
                BatchStatus::Built => state.built += 1,
                BatchStatus::Reused => state.reused += 1,
                BatchStatus::Failed => state.failed += 1,
            }
            let now = Instant::now();
            state.recent.push_back(now);
            while state.recent.front().is_some_and(|&at| now - at > WINDOW) {
                state.recent.pop_front();
            }
        }
        if let Some(error) = &line.error {
            let causes = error.causes.iter().map(|cause| format!(": {cause}"));
            let causes: String = causes.collect();
            let text = format!("failed {}: {}{causes}", line.base, error.message);
            match &self.view {
                View::Json => {}
                View::Live(bar) => bar.suspend(|| self.output.note(&text)),
                View::Plain => self.output.note(&text),
            }
        }
        match &self.view {
            View::Json => {
                let mut document = json!(line);
                document["event"] = json!("finished");
                to_stderr(&document);
            }
            View::Live(bar) => {
                let state = self.state.borrow();
                bar.set_position(state.done() as u64);
                bar.set_message(self.standing(&state));
            }
            View::Plain => {
                let mut state = self.state.borrow_mut();
                if state.told.elapsed() >= EVERY {
                    state.told = Instant::now();
                    let standing = self.standing(&state);
                    let (done, images) = (state.done(), self.images);
                    self.output.note(&format!("{done}/{images}  {standing}"));
                }
            }
        }
    }

    /// Returns how far the batch is, and how fast.
    fn standing(&self, state: &State) -> String {
        let State {
            built,
            reused,
            failed,
            ..
        } = state;
        let mut text = format!("{built} built, {reused} reused, {failed} failed");
        if let Some(speed) = state.speed() {
            let left = self.images.saturating_sub(state.done());
            let left = f64::from(u32::try_from(left).unwrap_or(u32::MAX)) / speed;
            let left = duration(left);
            let _infallible = write!(text, ", {speed:.0} images/s, {left} left");
        }
        let counters = self.registry.stats();
        let _infallible = write!(text, ", {} sent", bytes(counters.uploaded_bytes));
        if counters.pauses > 0 {
            let _infallible = write!(text, ", {} waits for rate limits", counters.pauses);
        }
        text
    }

    fn note(&self, json: &serde_json::Value, text: &str) {
        match &self.view {
            View::Json => to_stderr(json),
            View::Live(bar) => bar.suspend(|| self.output.note(text)),
            View::Plain => self.output.note(text),
        }
    }
}

impl State {
    fn done(&self) -> usize {
        self.built + self.reused + self.failed
    }

    /// Returns the images by second of the last seconds.
    fn speed(&self) -> Option<f64> {
        let seconds = self.started.elapsed().min(WINDOW).as_secs_f64();
        let count = f64::from(u32::try_from(self.recent.len()).unwrap_or(u32::MAX));
        (seconds > 0.0 && count > 0.0).then(|| count / seconds)
    }
}

/// Returns seconds for people: `40 s`, `3 min`, `1 h 20 min`.
fn duration(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let minutes = duration.as_secs().div_ceil(60);
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn to_stderr(document: &serde_json::Value) {
    // With stderr gone there is nobody left to tell.
    let _closed = writeln!(std::io::stderr().lock(), "{document}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.0, "59 s"),
            (61.0, "2 min"),
            (4800.0, "1 h 20 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
