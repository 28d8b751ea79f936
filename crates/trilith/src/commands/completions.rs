//! `trilith completions`: what a shell is told of the command line.

use clap::CommandFactory as _;
use serde::Serialize;

use crate::args::{Cli, Completions};
use crate::output::{Failure, Output};

#[derive(Serialize)]
struct Document {
    shell: String,
    script: String,
}

pub(crate) fn run(args: &Completions, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    // This makes the flags of every command, which are otherwise made of one alone.
    clap_complete::generate(args.shell, &mut Cli::command(), "trilith", &mut script);
    let document = Document {
        shell: args.shell.to_string(),
        script: String::from_utf8_lossy(&script).into_owned(),
    };
    output.result(&document, || document.script.clone())
}
