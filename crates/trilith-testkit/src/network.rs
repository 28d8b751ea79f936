//! Network namespaces for engines with networks of their own: nothing is there but loopback and what
//! they make, and this machine's network stays as it is. It needs root.

use std::process::Command;

/// Returns `service` with a network namespace of its own, which has nothing but loopback.
pub(crate) fn in_new(service: &Command) -> Command {
    let mut command = Command::new("unshare");
    let script = "busybox ip link set lo up && exec \"$0\" \"$@\"";
    command.args(["--net", "sh", "-c", script]);
    add(&mut command, service);
    command
}

/// Returns `command` as it is run in the network namespace of the process `pid`. Its environment
/// is what `command` sets, and nothing else.
pub(crate) fn inside(pid: u32, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/proc/{pid}/ns/net"));
    add(&mut inside, command);
    inside.env_clear();
    let set = command.get_envs();
    inside.envs(set.filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        inside.current_dir(directory);
    }
    inside
}

/// Adds a program and its arguments to a command that runs another.
fn add(command: &mut Command, other: &Command) {
    command.arg(other.get_program()).args(other.get_args());
}
