//! `trilith exec`: a program in a workspace, with the streams and the exit code of its own.

use std::process::ExitCode;

use tokio::io::{stderr, stdin, stdout};
use trilith_build::Context;
use trilith_build::engine::TerminalRequest;
use trilith_workspace::{Agent, Command, Record, Records, locate};

use super::run::variable;
use crate::args;
use crate::interrupt::ended;
use crate::output::{Failure, Output};
use crate::terminal;
use crate::workspaces::engine_of;

/// The exit code of a command whose time was over, as `timeout(1)` has it.
const TIMED_OUT: u8 = 124;

pub(crate) async fn run(
    context: &Context,
    records: &Records,
    args: args::Exec,
    output: Output,
) -> Result<ExitCode, Failure> {
    let environment = args.env.iter().map(|text| variable(text));
    let environment = environment.collect::<Result<_, _>>()?;
    if args.tty {
        let (engine, id) = engine_of(context, records, &args.id).await?;
        let request = TerminalRequest {
            argv: args.argv,
            environment,
            cwd: args.cwd,
            input: args.interactive,
        };
        let code = terminal::run(engine.as_ref(), &id, &request).await?;
        return Ok(exit_code(code));
    }
    let record = records.find(&args.id)?;
    let agent = agent_of(context, records, &record).await?;
    let command = Command {
        cwd: args.cwd,
        environment,
        timeout: args.timeout.map(|timeout| timeout.0),
        ..Command::argv(args.argv)
    };
    let interrupted = async {
        if ended().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let (mut stdout, mut stderr) = (stdout(), stderr());
    let run = agent.run(&command, stdin(), &mut stdout, &mut stderr, interrupted);
    let ended = run.await?;
    if let Some(note) = ended.note {
        output.note(&note);
    }
    Ok(ended.exit_code.map_or(ExitCode::from(TIMED_OUT), exit_code))
}

/// Returns the agent of a workspace, wherever it answers by now.
async fn agent_of(context: &Context, records: &Records, record: &Record) -> Result<Agent, Failure> {
    let agent = Agent::try_new(&record.url, record.key.clone())?;
    if agent.is_healthy().await {
        return Ok(agent);
    }
    let (engine, _) = engine_of(context, records, &record.id).await?;
    Ok(locate(engine.as_ref(), records, record).await?)
}

/// Returns an exit code as processes have them: its low 8 bits.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
