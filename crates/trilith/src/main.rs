//! The command line of Trilith: parse, call, print.
//!
//! The only crate that prints, reads the environment and picks exit codes; it has no logic
//! of its own. Results go to stdout, everything else to stderr.

mod args;
mod batch_progress;
mod commands;
mod engine_flags;
mod engines;
mod environment;
mod interrupt;
mod output;
mod overrides;
mod presets;
mod progress;
mod quantity;
mod terminal;
mod workspaces;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use args::{Cli, Command};
use environment::Environment;
use output::{Failure, Output};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(&cli.global);
    let environment = Environment::load();
    let runtime = match runtime(&cli.command) {
        Ok(runtime) => runtime,
        Err(error) => return Output::fail(&Failure::system("cannot start", error)),
    };
    let reads_stdin = matches!(cli.command, Command::Exec(_));
    let done = runtime.block_on(run(cli, &environment, output));
    // A failure waits for threads that clear up behind it. Otherwise nobody waits for those that are
    // idle, nor for one that reads a standard input that has no reader any more.
    if done.is_ok() || reads_stdin {
        runtime.shutdown_background();
    }
    done.unwrap_or_else(|failure| Output::fail(&failure))
}

/// Returns the runtime for `command`. Hashing and compression have threads of their own, so one
/// is enough for requests, and answers a single one soonest; only what moves many blobs at a time
/// gains by more.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = match command {
        Command::Copy(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

async fn run(cli: Cli, environment: &Environment, output: Output) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    let done = match cli.command {
        Command::Completions(args) => commands::completions::run(&args, output),
        Command::Man(args) => commands::man::run(&args, output),
        Command::Init(args) => commands::init::run(&args, output),
        Command::Hash(args) => commands::hash::run(args, environment, output),
        Command::Tags(args) => {
            let context = environment.context(global, output)?;
            commands::tags::run(&context, &args, output).await
        }
        Command::Plan(args) => {
            let context = environment.context(global, output)?;
            commands::plan::run(&context, &args, output).await
        }
        Command::Build(args) => {
            let context = environment.context(global, output)?;
            Box::pin(commands::build::run(context, &args, output)).await
        }
        Command::Batch(args) => commands::batch::run(environment, global, args, output).await,
        Command::Explain(args) => {
            let context = environment.context(global, output)?;
            commands::explain::run(&context, &args, output).await
        }
        Command::Inspect(args) => {
            let context = environment.context(global, output)?;
            commands::inspect::run(&context, &args, output).await
        }
        Command::Doctor(args) => {
            let context = environment.context(global, output)?;
            commands::doctor::run(&context, &args, output).await
        }
        Command::Rebase(args) => {
            let context = environment.context(global, output)?;
            commands::rebase::run(&context, &args, output).await
        }
        Command::Prune(args) => {
            let context = environment.context(global, output)?;
            commands::prune::run(&context, &args, output).await
        }
        Command::Copy(args) => {
            let context = environment.context(global, output)?;
            commands::copy::run(&context, &args, output).await
        }
        Command::Run(args) => {
            let context = environment.context(global, output)?;
            let records = environment.workspaces()?;
            commands::run::run(&context, &records, &args, output).await
        }
        Command::Exec(args) => {
            let context = environment.context(global, output)?;
            let records = environment.workspaces()?;
            return commands::exec::run(&context, &records, args, output).await;
        }
        Command::Ps(args) => {
            let context = environment.context(global, output)?;
            commands::ps::run(&context, &environment.workspaces()?, &args, output).await
        }
        Command::Stop(args) => {
            let context = environment.context(global, output)?;
            commands::stop::run(&context, &environment.workspaces()?, &args, output).await
        }
        Command::Pause(args) => {
            let context = environment.context(global, output)?;
            commands::pause::pause(&context, &environment.workspaces()?, &args, output).await
        }
        Command::Resume(args) => {
            let context = environment.context(global, output)?;
            commands::pause::resume(&context, &environment.workspaces()?, &args, output).await
        }
        Command::Logs(args) => {
            let context = environment.context(global, output)?;
            commands::logs::run(&context, &environment.workspaces()?, &args, output).await
        }
        Command::Cp(args) => {
            let context = environment.context(global, output)?;
            commands::cp::run(&context, &environment.workspaces()?, &args, output).await
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
