//! Processes that the kernel killed because the container had used up its memory.

use std::fs;

use rustix::process::Pid;

/// Where the kernel counts them, in control groups of version 2 and of version 1, for a container that sees its own
/// group alone.
const COUNTERS: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
];

/// What a command is given to be killed before the agent, whose end would be that of the container.
const ADJUSTMENT: &str = "500";

/// Returns how many there were, or `None` where it is not counted.
pub(super) fn killed() -> Option<u64> {
    let text = COUNTERS
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// Says how many there are since there were `before`.
pub(super) fn killed_since(before: Option<u64>) -> Option<String> {
    match killed()?.checked_sub(before?)? {
        0 => None,
        1 => Some("Out of memory: the kernel killed a process of this container".to_owned()),
        many => Some(format!(
            "Out of memory: the kernel killed {many} processes of this container"
        )),
    }
}

/// Has the kernel kill the process, and what it starts, before the agent.
pub(crate) fn prefer_to_kill(pid: Pid) {
    // It may have ended already, and without /proc nothing can be preferred.
    let _ = fs::write(
        format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()),
        ADJUSTMENT,
    );
}
