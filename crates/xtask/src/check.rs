//! The parts of `cargo xtask check`, and the summary after them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::run::{Outcome, cargo, command, run};
use crate::{deps, packages, test};

/// The version of typos whose dictionary the repository is checked with.
const TYPOS: &str = "1.52.0";

/// One part of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Fmt,
    Spelling,
    Deps,
    Lint,
    Docs,
    Test,
}

impl Part {
    /// All parts, the quick ones first.
    const ALL: [Self; 6] = [
        Self::Fmt,
        Self::Spelling,
        Self::Deps,
        Self::Lint,
        Self::Docs,
        Self::Test,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Spelling => "spelling",
            Self::Deps => "deps",
            Self::Lint => "lint",
            Self::Docs => "docs",
            Self::Test => "test",
        }
    }
}

/// Returns the parts with these names, all for none; the first unknown name is the error.
pub(crate) fn parse_parts(names: &[&str]) -> Result<Vec<Part>, String> {
    if names.is_empty() {
        return Ok(Part::ALL.to_vec());
    }
    let find = |name: &&str| {
        let part = Part::ALL.into_iter().find(|part| part.name() == *name);
        part.ok_or_else(|| (*name).to_owned())
    };
    names.iter().map(find).collect()
}

/// Runs `parts`, one after the other, whatever comes of each, and prints what came of all.
pub(crate) fn run_all(parts: &[Part]) -> ExitCode {
    let mut results = Vec::new();
    let mut counts = None;
    for &part in parts {
        println!("\n==== {}", part.name());
        let begin = Instant::now();
        let outcome = run_part(part, &mut counts);
        if let Err(reason) = &outcome {
            println!("error: {reason}");
        }
        results.push((part, outcome, begin.elapsed()));
    }
    println!("\n==== summary");
    for (part, outcome, time) in &results {
        println!("{}", summary_line(*part, outcome, *time));
    }
    if let Some(counts) = counts {
        // CI reads this line; it has to be the last.
        println!("{} passed, {} failed", counts.passed, counts.failed);
    }
    if results.iter().all(|(_, outcome, _)| outcome.is_ok()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn summary_line(part: Part, outcome: &Outcome, time: Duration) -> String {
    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
    format!("{:<9} {word:<7} {:>6.1} s", part.name(), time.as_secs_f64())
}

fn run_part(part: Part, counts: &mut Option<test::Counts>) -> Outcome {
    match part {
        Part::Fmt => run(cargo().args(["fmt", "--all", "--check"])),
        Part::Spelling => spelling(),
        Part::Deps => deps::check(),
        Part::Lint => run(cargo()
            .args(["clippy", "--workspace", "--all-targets", "--locked"])
            .args(["--", "-D", "warnings"])),
        Part::Docs => run(cargo()
            .args(["doc", "--workspace", "--no-deps", "--locked"])
            .env("RUSTDOCFLAGS", "-D warnings")),
        Part::Test => {
            packages::ensure(packages::FOR_TESTS)?;
            let (seen, outcome) = test::run_all();
            *counts = Some(seen);
            outcome
        }
    }
}

/// Checks the spelling with typos from the Python package index, kept in the target directory.
fn spelling() -> Outcome {
    let dir = deps::target_dir()?.join(format!("xtask/typos-{TYPOS}"));
    let program = dir.join("bin/typos");
    if !program.exists() {
        packages::ensure(&[packages::PIP])?;
        run(command("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args([
                "--no-deps",
                "--root-user-action=ignore",
                "--upgrade",
                "--target",
            ])
            .arg(&dir)
            .arg(format!("typos=={TYPOS}")))?;
    }
    run(command(program).args(["--format=brief", "."]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_name() {
        assert_eq!(parse_parts(&[]).map(|parts| parts.len()), Ok(6));
        assert_eq!(
            parse_parts(&["test", "fmt"]),
            Ok(vec![Part::Test, Part::Fmt])
        );
        assert_eq!(parse_parts(&["fmt", "tset"]), Err("tset".to_owned()));
    }

    #[test]
    fn the_summary_lines_up() {
        let line =
            |part, outcome: Outcome| summary_line(part, &outcome, Duration::from_millis(1234));
        assert_eq!(line(Part::Fmt, Ok(())), "fmt       ok         1.2 s");
        assert_eq!(
            line(Part::Spelling, Err(String::new())),
            "spelling  FAILED     1.2 s"
        );
    }
}
