//! What a batch came to.

use std::collections::BTreeMap;

use serde::Serialize;
use trilith_oci::registry::Stats;

use super::journal::{BatchStatus, ImageLine};

/// How many of the images of a group are named.
const EXAMPLES: usize = 5;

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BatchSummary {
    /// The run, as the journal names it.
    pub run: String,
    /// How many images it was about.
    pub images: usize,
    /// How many lines of the list said what another had said.
    pub duplicates: usize,
    /// How many were built and published.
    pub built: usize,
    /// How many were there.
    pub reused: usize,
    /// How many are not there.
    pub failed: usize,
    /// How long it took.
    pub seconds: f64,
    /// Images by second.
    pub images_per_second: f64,
    /// Bytes of blobs sent.
    pub uploaded_bytes: u64,
    /// HTTP requests made.
    pub requests: u64,
    /// Requests among them that repeated a failed one.
    pub retries: u64,
    /// How often a registry's limit held all requests to it back.
    pub rate_limit_waits: u64,
    /// The failures by cause, the most frequent first.
    pub failures: Vec<FailureGroup>,
    /// Where the journal is.
    pub manifest: String,
    #[serde(skip)]
    pub(super) groups: BTreeMap<String, FailureGroup>,
}

/// Images that failed for the same reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FailureGroup {
    /// The reason: the innermost cause.
    pub cause: String,
    /// Its kind, as in the journal.
    pub kind: String,
    /// How many failed for it.
    pub count: usize,
    /// Some of the bases.
    pub bases: Vec<String>,
}

impl BatchSummary {
    /// Takes in an image that is done with.
    pub(super) fn add(&mut self, line: &ImageLine) {
        match line.status {
            BatchStatus::Built => self.built += 1,
            BatchStatus::Reused => self.reused += 1,
            BatchStatus::Failed => self.failed += 1,
        }
        self.uploaded_bytes += line.uploaded_bytes;
        let (Some(error), Some(cause)) = (&line.error, line.cause()) else {
            return;
        };
        let group = self.groups.entry(cause.clone()).or_default();
        group.cause = cause;
        group.kind.clone_from(&error.kind);
        group.count += 1;
        if group.bases.len() < EXAMPLES {
            group.bases.push(line.base.clone());
        }
    }

    /// Returns the summary after `seconds`, in which the client did `stats`.
    pub(super) fn finish(mut self, seconds: f64, stats: Stats) -> Self {
        self.failures = std::mem::take(&mut self.groups).into_values().collect();
        self.failures
            .sort_by_key(|group| std::cmp::Reverse(group.count));
        self.seconds = seconds;
        let done = u32::try_from(self.built + self.reused + self.failed).unwrap_or(u32::MAX);
        self.images_per_second = f64::from(done) / seconds.max(f64::EPSILON);
        self.requests = stats.requests;
        self.retries = stats.retries;
        self.rate_limit_waits = stats.pauses;
        self
    }
}
