//! Stopping a build, so that nothing of it is left.
//!
//! Podman 4.3 ends at once on `SIGTERM` and leaves the step's processes running and its working
//! container in the storage; on `SIGINT` it leaves the container. But when a step fails it
//! tidies up. So what a step runs is killed first, and Podman fails and ends by itself. Only where no
//! step runs, or Podman hangs, is it ended by signals; then its working containers are looked for
//! and removed. They name the files of the build in their description (`buildah.json`), which
//! tells them from those of other builds.
//!
//! A Podman behind a socket goes on with the step it is at, whoever hangs up: it is out of reach.
//!
//! This blocks, up to some seconds: it is called where a future is dropped, and the process may
//! end right after.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use tokio::process::Child;

use super::process::Program;

/// How often the processes of a step are looked for.
const ROUNDS: usize = 3;
/// How long Podman may take to tidy up after a step, and to end on a signal.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call may take that looks for what is left.
const CALL: Duration = Duration::from_secs(20);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(10);

/// Stops a build and waits for its end.
pub(super) fn stop(child: &mut Child, program: &Program, mark: Option<&Path>) {
    let Some(pid) = child.id() else {
        return;
    };
    for _ in 0..ROUNDS {
        let steps: Vec<u32> = descendants(pid).filter(|pid| is_step(*pid)).collect();
        if steps.is_empty() {
            break;
        }
        kill_all(steps);
        if has_ended(child, PATIENCE) {
            return;
        }
    }
    signal_group(pid, Signal::TERM);
    if !has_ended(child, PATIENCE) {
        signal_group(pid, Signal::KILL);
        has_ended(child, PATIENCE);
    }
    if let Some(mark) = mark {
        remove_left(program, mark);
    }
}

fn has_ended(child: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// Kills processes; those that are gone already do not matter.
fn kill_all(pids: Vec<u32>) {
    for pid in pids.into_iter().filter_map(to_pid) {
        let _gone = kill_process(pid, Signal::KILL);
    }
}

fn signal_group(leader: u32, signal: Signal) {
    if let Some(leader) = to_pid(leader) {
        let _gone = kill_process_group(leader, signal);
    }
}

fn to_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(pid.try_into().ok()?)
}

/// Returns the processes that `ancestor` started, and those that they started.
fn descendants(ancestor: u32) -> impl Iterator<Item = u32> {
    let parents: BTreeMap<u32, u32> = processes()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let pids: Vec<u32> = parents.keys().copied().collect();
    pids.into_iter().filter(move |pid| {
        let ancestors = std::iter::successors(Some(*pid), |pid| parents.get(pid).copied());
        ancestors
            .skip_while(|at| at == pid)
            .any(|pid| pid == ancestor)
    })
}

/// Returns all processes, none where the system does not tell.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    // `123 (name) S 1 …`; the name may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// Returns whether a process below Podman is one of a step, rather than Podman again or one of
/// its tools, which have to live for it to tidy up.
fn is_step(pid: u32) -> bool {
    const TOOLS: [&str; 8] = [
        "podman",
        "runc",
        "crun",
        "conmon",
        "fuse-overlayfs",
        "slirp4netns",
        "pasta",
        "netavark",
    ];
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = program
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or_default();
    // A zombie has no command line.
    !(name.is_empty()
        || name.starts_with(b"buildah-")
        || name.starts_with(b"storage-")
        || TOOLS.iter().any(|tool| tool.as_bytes() == name))
}

/// Removes what a build left that was ended or failed: the working containers whose descriptions
/// name `mark`, with the processes in them.
///
/// Podman 5.4 leaves them where its disk is full, and cannot remove them there without room for a
/// record of that. What they have written makes some.
pub(super) fn remove_left(program: &Program, mark: &Path) {
    let format = "{{.Store.GraphRoot}}/{{.Store.GraphDriverName}}-containers";
    let Some(root) = call(program.command(["info", "--format", format])) else {
        return;
    };
    let containers = ["ps", "--all", "--external", "--quiet", "--no-trunc"];
    let containers = call(program.command(containers)).unwrap_or_default();
    let mark = mark.display().to_string();
    let remove = |id: &str| call(program.command(["rm", "--force", id])).is_some();
    let mut stubborn = Vec::new();
    for id in containers.lines() {
        let description = Path::new(root.trim())
            .join(id)
            .join("userdata/buildah.json");
        let description = fs::read_to_string(description).unwrap_or_default();
        if description.contains(&mark) {
            let container = serde_json::from_str(&description);
            let Container { mountpoint } = container.unwrap_or_default();
            kill_all(within(&mountpoint));
            if !remove(id) {
                stubborn.push((id, mountpoint));
            }
        }
    }
    for (_, mountpoint) in &stubborn {
        empty_written(mountpoint);
    }
    for (id, _) in stubborn {
        remove(id);
    }
}

/// Removes what was written into the file system of a working container, as far as that can be
/// done: below `/…/overlay/LAYER/diff`, which is of that container alone.
fn empty_written(mountpoint: &Path) {
    if mountpoint.ends_with("merged") {
        let written = mountpoint.with_file_name("diff");
        for entry in fs::read_dir(written).into_iter().flatten().flatten() {
            let path = entry.path();
            let _stays = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}

/// A working container's description.
#[derive(Default, Deserialize)]
struct Container {
    /// Where its file system is mounted, as in `/…/overlay/LAYER/merged`.
    #[serde(default)]
    mountpoint: PathBuf,
}

/// Returns the processes whose root is the file system of a working container.
fn within(mountpoint: &Path) -> Vec<u32> {
    let mut names = mountpoint.iter().rev().filter_map(OsStr::to_str);
    // 64 hexadecimal digits, like no other.
    let Some(layer) = names.find(|name| name.len() == 64) else {
        return Vec::new();
    };
    let is_within = |pid: &u32| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let mut roots = mounts
            .lines()
            .filter(|line| line.split(' ').nth(4) == Some("/"));
        roots.any(|line| line.contains(layer))
    };
    processes().filter(is_within).collect()
}

/// Returns what a call prints, `None` where it fails or takes too long.
fn call(mut command: Command) -> Option<String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + CALL;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= deadline {
            let _gone = child.kill();
        }
        thread::sleep(PAUSE);
    }
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_and_what_they_are() {
        let script = "sleep 1000 & (exec -a buildah-oci-runtime sleep 1000) & echo; wait";
        let mut child = Command::new("bash")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let named = |pid: &u32, name: &str| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(name.as_bytes()))
        };
        let found = loop {
            let found: Vec<u32> = descendants(child.id()).collect();
            let ready = |name| found.iter().any(|pid| named(pid, name));
            if ready("sleep") && ready("buildah-") || Instant::now() > deadline {
                break found;
            }
            thread::sleep(PAUSE);
        };
        let steps: Vec<u32> = found.iter().copied().filter(|pid| is_step(*pid)).collect();
        let tools: Vec<u32> = found
            .iter()
            .copied()
            .filter(|pid| named(pid, "buildah-"))
            .collect();
        kill_all(found.clone());
        child.wait().unwrap();
        assert_eq!(
            (tools.len(), steps.len()),
            (1, found.len() - 1),
            "{found:?}"
        );
    }
}
