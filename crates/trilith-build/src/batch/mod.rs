//! Batches: the same recipe on many base images.
//!
//! Every image gets the plan that a build of it alone would get. What is the same for all is done
//! once: files are hashed, payloads compressed and sent, connections opened. First it is asked
//! what exists, of all images at once; then what does not is built.

mod bases;
mod item;
mod journal;
mod matrix;
mod report;
mod run;
mod summary;

pub use bases::{BaseList, BaseListError, BatchBase, parse_bases};
pub use journal::{
    BatchError, BatchStatus, ImageLine, JournalError, JournalLine, PhaseSeconds, RunRecord,
    read_journal,
};
pub use matrix::{MatrixError, Variant, load_matrix};
pub use report::report_html;
pub use run::{BatchEvent, BatchOptions, run_batch};
pub use summary::{BatchSummary, FailureGroup};
