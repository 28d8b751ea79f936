//! `trilith init`: a trilith.toml that fits the project.

use serde::Serialize;
use trilith_build::project::{PROJECT_FILE, render, suggest, write_new, write_over};

use crate::args::Init;
use crate::output::{Failure, Output};

#[derive(Serialize)]
struct Document<'a> {
    path: String,
    written: bool,
    content: &'a str,
}

pub(crate) fn run(args: &Init, output: Output) -> Result<(), Failure> {
    let content = render(&suggest(&args.project)?);
    let path = args.project.join(PROJECT_FILE);
    if !args.dry_run {
        let write = if args.force { write_over } else { write_new };
        write(&args.project, &content)?;
    }
    let document = Document {
        path: path.display().to_string(),
        written: !args.dry_run,
        content: &content,
    };
    output.result(&document, || {
        if args.dry_run {
            content.clone()
        } else {
            format!(
                "wrote {}\nnext: look it over, then run `trilith build`\n",
                path.display()
            )
        }
    })
}
