//! How an engine spent its time: seconds in each phase, and how many steps its cache saved.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::engine::Progress;

/// How the engines of one build spent their time.
///
/// Seconds are those in which anything of the phase was going on; phases overlap.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Telemetry {
    /// Sending the Dockerfile and the build context.
    pub context: f64,
    /// Reading caches from elsewhere.
    pub cache_import: f64,
    /// Fetching images and running steps.
    pub steps: f64,
    /// Writing images, and caches to elsewhere.
    pub export: f64,
    /// Sending images to a registry.
    pub push: f64,
    /// Instructions that make files (`RUN`, `COPY`, `ADD`, `WORKDIR`) and were needed.
    pub step_count: usize,
    /// Those for which nothing had to be run.
    pub cached_steps: usize,
    /// Those that were run.
    pub cache_misses: usize,
}

/// What a step is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Context,
    CacheImport,
    Steps,
    Export,
    Push,
}

impl Phase {
    /// Returns the phase of the step that engines call `title`.
    fn of(title: &str) -> Self {
        let title = title.to_lowercase();
        let begins = |words: &[&str]| words.iter().any(|word| title.starts_with(word));
        if begins(&[
            "[internal] load",
            "sending build context",
            "transferring context",
        ]) {
            Self::Context
        } else if begins(&["importing cache"]) {
            Self::CacheImport
        } else if begins(&["pushing", "push "]) {
            Self::Push
        } else if begins(&["exporting", "writing image", "save ", "committing"]) {
            Self::Export
        } else {
            Self::Steps
        }
    }
}

/// Turns progress into [`Telemetry`].
#[derive(Default)]
pub(crate) struct Collector(Mutex<State>);

#[derive(Default)]
struct State {
    /// The steps that are going on: what each is called, and its phase.
    open: HashMap<u64, (String, Phase)>,
    /// How many steps of a phase are going on, and since when.
    running: HashMap<Phase, (usize, Instant)>,
    spent: HashMap<Phase, Duration>,
    /// Instructions that make files: whether every time nothing had to be run.
    steps: BTreeMap<String, bool>,
}

impl Collector {
    /// Takes note of something that happened now.
    pub(crate) fn observe(&self, progress: &Progress) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::Started { step, title } => state.start(*step, title),
            Progress::Finished { step, cached, .. } => state.finish(*step, *cached),
            Progress::Log { .. } | Progress::Bytes { .. } => {}
        }
    }

    /// Returns what was noted, and `push` besides.
    pub(crate) fn finish(&self) -> Telemetry {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = |phase| {
            let spent = state.spent.get(&phase).copied().unwrap_or_default();
            spent.as_secs_f64()
        };
        let cached = state.steps.values().filter(|cached| **cached).count();
        Telemetry {
            context: spent(Phase::Context),
            cache_import: spent(Phase::CacheImport),
            steps: spent(Phase::Steps),
            export: spent(Phase::Export),
            push: spent(Phase::Push),
            step_count: state.steps.len(),
            cached_steps: cached,
            cache_misses: state.steps.len() - cached,
        }
    }

    /// Runs `work`, all of whose time counts as `push` or else as exporting.
    pub(crate) async fn time<T>(&self, push: bool, work: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let done = work.await;
        let phase = if push { Phase::Push } else { Phase::Export };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state.spent.entry(phase).or_default() += started.elapsed();
        done
    }
}

impl State {
    fn start(&mut self, step: u64, title: &str) {
        let phase = Phase::of(title);
        if self.open.insert(step, (title.to_owned(), phase)).is_none() {
            let running = self.running.entry(phase).or_insert((0, Instant::now()));
            running.0 += 1;
        }
    }

    fn finish(&mut self, step: u64, cached: bool) {
        let Some((title, phase)) = self.open.remove(&step) else {
            return;
        };
        if let Some((count, since)) = self.running.get_mut(&phase) {
            *count -= 1;
            if *count == 0 {
                *self.spent.entry(phase).or_default() += since.elapsed();
                self.running.remove(&phase);
            }
        }
        if let Some(step) = instruction(&title) {
            let always = self.steps.entry(step).or_insert(true);
            *always &= cached;
        }
    }
}

/// Returns the stage and text of an instruction that makes files, as in `[deps 2/3] RUN uv sync`.
///
/// Where it stands in the stage is left out: engines that add labels as instructions count
/// otherwise for a stage that is built and for one that is built on.
fn instruction(title: &str) -> Option<String> {
    const MAKE_FILES: [&str; 4] = ["RUN ", "COPY ", "ADD ", "WORKDIR "];
    let (place, text) = title.strip_prefix('[')?.split_once("] ")?;
    let stage = place.rsplit_once(' ').map_or("", |(stage, _)| stage);
    let makes_files = |word: &str| {
        let keyword = text.get(..word.len());
        keyword.is_some_and(|keyword| keyword.eq_ignore_ascii_case(word))
    };
    let is_own = !place.starts_with("internal") && !place.starts_with("context ");
    (is_own && MAKE_FILES.iter().any(|word| makes_files(word))).then(|| format!("{stage} {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_once() {
        let collector = Collector::default();
        for (step, title, cached) in [
            (1, "[internal] load build context", false),
            (2, "[base 1/2] FROM debian", false),
            (3, "[base 2/2] RUN a", false),
            (4, "[deps 1/1] RUN b", true),
            // The next level finds what this one did.
            (5, "[base 2/4] RUN a", true),
            (8, "[base 3/4] LABEL a=b", false),
            (6, "exporting to image", false),
            (7, "[context deps] ghcr.io/acme/app@sha256:0", false),
        ] {
            let title = title.to_owned();
            collector.observe(&Progress::Started { step, title });
            let error = None;
            collector.observe(&Progress::Finished {
                step,
                cached,
                error,
            });
        }
        let telemetry = collector.finish();
        let counts = [
            telemetry.step_count,
            telemetry.cached_steps,
            telemetry.cache_misses,
        ];
        assert_eq!(counts, [2, 1, 1]);
    }
}
