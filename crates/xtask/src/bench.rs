//! `cargo xtask bench`: Trilith against its peers, built for release.

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
        "--release",
        "--package",
        "trilith",
        "--package",
        "trilith-bench",
    ]))?;
    let release = root().join("target/release");
    run(command(release.join("trilith-bench"))
        .arg(release.join("trilith"))
        .args(names))
}
