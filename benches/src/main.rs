//! Trilith against its peers: each line is measured in one run, ours and theirs in turn, and
//! told as a ratio. `cargo xtask bench [NAME]...` builds what is measured and runs this.
//!
//! Needs root and Debian's packages, as the tests do. Nothing here fails for being slow.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot get its parts has to stop; its result is what it prints"
)]

mod batch;
mod engines;
mod hashing;
mod measure;
mod pushing;
mod replay;
mod workspaces;

use std::path::PathBuf;

use measure::Line;

type Benchmark = fn(&Trilith) -> Vec<Line>;

const BENCHMARKS: [(&str, Benchmark); 12] = [
    ("hash", hashing::hash),
    ("unchanged", pushing::unchanged),
    ("source-change", pushing::source_change),
    ("large-layer", pushing::large_layer),
    ("base-size", pushing::base_size),
    ("batch", batch::batch),
    ("batch-size", batch::batch_size),
    ("engine", engines::engine),
    ("context", engines::context),
    ("start", workspaces::start),
    ("exec", workspaces::exec),
    ("transfer", workspaces::transfer),
];

/// The binary that is measured.
pub(crate) struct Trilith {
    binary: PathBuf,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let binary = arguments
        .next()
        .expect("the first argument is the trilith to measure");
    let trilith = Trilith {
        binary: binary.into(),
    };
    let chosen: Vec<String> = arguments.collect();
    measure::print_machine();
    for (name, benchmark) in BENCHMARKS {
        if chosen.is_empty() || chosen.iter().any(|c| c == name) {
            println!("\n## {name}\n");
            measure::print_lines(&benchmark(&trilith));
        }
    }
}
