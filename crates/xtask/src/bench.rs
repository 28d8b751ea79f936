//! `cargo xtask bench`: Trilith against its peers, built as it is handed on.

use std::process::ExitCode;

use crate::packages;
use crate::run::{Outcome, cargo, command, root, run};

/// Builds what is measured and runs the benchmarks with these names, all for none.
pub(crate) fn run_benchmarks(names: &[&str]) -> ExitCode {
    match try_run(names) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(names: &[&str]) -> Outcome {
    packages::ensure(packages::FOR_TESTS)?;
    run(cargo().args([
        "build",
        "--profile",
        "dist",
        "--package",
        "trilith",
        "--package",
        "trilith-bench",
    ]))?;
    let built = root().join("target/dist");
    run(command(built.join("trilith-bench"))
        .arg(built.join("trilith"))
        .args(names))
}
