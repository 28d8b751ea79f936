//! Runs every test and doctest, counts them, and looks for what they left behind.
//!
//! A run in which no test was executed is a failure, as is one that leaves a process or a mount.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::leftovers::Scratch;
use crate::run::{Outcome, cargo, show};

/// How many tests were executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that passed.
    pub(crate) passed: u64,
    /// Those that failed.
    pub(crate) failed: u64,
}

impl Counts {
    /// Adds the numbers of a line such as `test result: ok. 3 passed; 0 failed; ...`, if it is one.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim_end().strip_prefix("test result: ") else {
            return;
        };
        for part in rest.split(['.', ';']) {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse::<u64>().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse::<u64>().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Runs all tests of the workspace.
pub(crate) fn run_all() -> (Counts, Outcome) {
    let mut counts = Counts::default();
    let outcome = Scratch::create().and_then(|scratch| {
        let ran = run_counting(&scratch, &mut counts);
        let left = scratch.finish();
        ran.and(left)
    });
    let outcome = outcome.and_then(|()| match counts {
        Counts { passed: 0, .. } => Err("no test was executed".to_owned()),
        Counts { failed: 0, .. } => Ok(()),
        Counts { failed, .. } => Err(format!("{failed} tests failed")),
    });
    (counts, outcome)
}

/// Runs cargo's tests with their output passed on line by line, and counts what it tells.
fn run_counting(scratch: &Scratch, counts: &mut Counts) -> Outcome {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::piped());
    let shown = show(&command);
    println!("$ {shown}");
    let wrap = |error: std::io::Error| format!("cannot run `{shown}`: {error}");
    let mut child = command.spawn().map_err(wrap)?;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).map_err(wrap)? > 0 {
            counts.add(&String::from_utf8_lossy(&line));
            std::io::stdout().write_all(&line).map_err(wrap)?;
            line.clear();
        }
    }
    let status = child.wait().map_err(wrap)?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{shown}` failed: {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.02s\n",
            "test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "test prints ... 5 passed; 5 failed",
            "test result: nonsense",
        ] {
            counts.add(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 43,
                failed: 2
            }
        );
    }
}
