//! What CI and contributors run: `cargo xtask check`, and `cargo xtask bench`.
//!
//! Every part prints a header and its time, all parts run even when one fails, and the last
//! line counts the tests. It needs no tool that it does not install itself. It changes
//! no file of the repository and never talks to a registry other than the ones for packages.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to people"
)]

mod bench;
mod check;
mod deps;
mod leftovers;
mod packages;
mod run;
mod spdx;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask check [PART]...
       cargo xtask bench [NAME]...

Parts (all of them without one):
  fmt       formatting
  spelling  spelling, by typos
  deps      licences, versions, origins and directions of dependencies
  lint      clippy, warnings are errors
  docs      documentation, warnings are errors
  test      every test; installs what they need when run by root on Debian

Benchmarks (all of them without a name):
  hash, unchanged, source-change, large-layer, base-size, engine, context, batch,
  batch-size, start, exec, transfer";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["check", names @ ..] => match check::parse_parts(names) {
            Ok(parts) => check::run_all(&parts),
            Err(name) => wrong_usage(&format!("there is no part `{name}`")),
        },
        ["bench", names @ ..] => bench::run_benchmarks(names),
        [] => wrong_usage("a command is missing"),
        [other, ..] => wrong_usage(&format!("there is no command `{other}`")),
    }
}

fn wrong_usage(reason: &str) -> ExitCode {
    eprintln!("error: {reason}\n\n{USAGE}");
    ExitCode::from(2)
}
