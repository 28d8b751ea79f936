//! Running other programs, in the repository's root and without standard input.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a part says when it fails.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest_dir.ancestors().nth(2);
    root.unwrap_or(manifest_dir).to_owned()
}

/// Returns `program`, to be run in the root without standard input.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Returns the cargo that runs this program.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` with its output in view.
pub(crate) fn run(command: &mut Command) -> Outcome {
    println!("$ {}", show(command));
    let status = command
        .status()
        .map_err(|error| format!("cannot start `{}`: {error}", show(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` failed: {status}", show(command)))
    }
}

/// Returns the command as it is typed.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
