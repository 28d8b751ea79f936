//! `trilith man`: the command line as manual pages.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use serde::Serialize;

use crate::args::{self, Cli};
use crate::output::{Failure, Output};

#[derive(Serialize)]
struct Document {
    /// The page of the program, where no directory is named.
    page: Option<String>,
    written: Vec<String>,
}

pub(crate) fn run(args: &args::Man, output: Output) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    // This makes the flags of every command, which are otherwise made of one alone.
    command.build();
    let document = match &args.output {
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .map_err(|error| Failure::system(&cannot_write(directory), error))?;
            Document {
                page: None,
                written: write(&command, directory)?,
            }
        }
        None => Document {
            page: Some(String::from_utf8_lossy(&page(&command)?).into_owned()),
            written: Vec::new(),
        },
    };
    output.result(&document, || match &document.page {
        Some(page) => page.clone(),
        None => document.written.join("\n") + "\n",
    })
}

/// Returns the page of one command.
fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(|error| Failure::system("cannot make a manual page", error))?;
    Ok(page)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// Writes the pages of `command` and of all below it, and returns their paths.
fn write(command: &Command, directory: &Path) -> Result<Vec<String>, Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?)
        .map_err(|error| Failure::system(&cannot_write(&path), error))?;
    let mut written = vec![path.display().to_string()];
    for below in command.get_subcommands() {
        written.extend(write(below, directory)?);
    }
    Ok(written)
}
