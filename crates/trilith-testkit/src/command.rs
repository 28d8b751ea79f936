//! Running other programs: with a time limit, and with their output in the message on failure.
//!
//! It refuses to wait forever, and to hide what a failing program said.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a program may run unless the caller says otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Runs `command` to its end and returns its output, whatever its exit code.
///
/// # Panics
/// When it cannot be started or runs longer than [`TIME_LIMIT`]; then its process group is killed.
pub fn run(command: &mut Command) -> Output {
    run_within(command, TIME_LIMIT)
}

/// Runs `command` as [`run`] does, with `limit` instead of [`TIME_LIMIT`].
///
/// # Panics
/// When it cannot be started or runs longer than `limit`.
pub fn run_within(command: &mut Command, limit: Duration) -> Output {
    // A group of its own, so that what it started can be ended with it.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = Collector::start(child.stdout.take());
    let stderr = Collector::start(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("cannot wait for a child") {
            break Some(status);
        }
        if Instant::now() >= deadline {
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    if status.is_none() {
        kill_group(child.id());
        let _ = child.kill();
        let _ = child.wait();
    }
    let output = Output {
        status: status.unwrap_or_default(),
        stdout: stdout.finish(),
        stderr: stderr.finish(),
    };
    assert!(
        status.is_some(),
        "{command:?} was stopped after {limit:?}\n{}",
        transcript(&output)
    );
    output
}

/// Runs `command` and returns its output.
///
/// # Panics
/// When it does not exit with 0, with everything it printed.
pub fn assert_success(command: &mut Command) -> Output {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}",
        output.status,
        transcript(&output)
    );
    output
}

/// Runs `command` and returns what it printed on stdout, without white space at the ends.
///
/// # Panics
/// When it does not exit with 0 or prints what is not UTF-8.
pub fn stdout_of(command: &mut Command) -> String {
    let output = assert_success(command);
    let text = String::from_utf8(output.stdout).expect("stdout is not UTF-8");
    text.trim().to_owned()
}

/// Runs `command`, which has to fail, and returns its output.
///
/// # Panics
/// When it exits with 0, with everything it printed.
pub fn assert_failure(command: &mut Command) -> Output {
    let output = run(command);
    assert!(
        !output.status.success(),
        "{command:?} succeeded\n{}",
        transcript(&output)
    );
    output
}

/// Returns `skopeo SUBCOMMAND` with what it needs to talk to registries over plain HTTP.
///
/// No signature policy is applied. Credentials of the user are not read: pass `--creds` and the like.
#[must_use]
pub fn skopeo(subcommand: &str) -> Command {
    let mut command = Command::new("skopeo");
    command
        .args(["--insecure-policy", subcommand])
        .env("REGISTRY_AUTH_FILE", "/nonexistent/auth.json");
    match subcommand {
        "copy" => command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]),
        _ => command.arg("--tls-verify=false"),
    };
    command
}

/// Returns `umoci`.
#[must_use]
pub fn umoci() -> Command {
    Command::new("umoci")
}

/// Reads a pipe on a thread of its own, so that neither of two pipes can fill up.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Collector {
    fn start<R: Read + Send + 'static>(pipe: Option<R>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                lock(&shared).extend_from_slice(&buffer[..read]);
            }
        });
        Self { bytes, thread }
    }

    /// Returns what came, once the program has ended.
    ///
    /// Waits for the end of the pipe, but not for long: a process that escaped may hold it open.
    fn finish(self) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut *lock(&self.bytes))
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills the process group that `leader` leads.
fn kill_group(leader: u32) {
    // The shell's own `kill`: the program of that name is not on every system.
    let _ = Command::new("sh")
        .args(["-c", "kill -s KILL -- \"-$0\"", &leader.to_string()])
        .status();
}

/// Returns both streams of `output` as text for a message.
fn transcript(output: &Output) -> String {
    format!(
        "--- stdout\n{}\n--- stderr\n{}",
        String::from_utf8_lossy(&output.stdout).trim_end(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn panic_of(body: impl FnOnce()) -> String {
        *std::panic::catch_unwind(std::panic::AssertUnwindSafe(body))
            .expect_err("a panic was expected")
            .downcast()
            .expect("panics carry a message")
    }

    #[test]
    fn output_of_both_streams_is_kept_however_long() {
        let output = assert_success(&mut sh("yes | head -c 300000; yes e | head -c 300000 >&2"));
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (300_000, 300_000)
        );
        assert_eq!(stdout_of(&mut sh("echo ' a b '")), "a b");
    }

    #[test]
    fn failures_tell_what_was_printed() {
        let message = panic_of(|| drop(assert_success(&mut sh("echo one; echo two >&2; exit 7"))));
        for part in ["exit status: 7", "--- stdout\none", "--- stderr\ntwo"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(assert_failure(&mut sh("exit 3")).status.code(), Some(3));
        assert!(panic_of(|| drop(assert_failure(&mut sh("true")))).contains("succeeded"));
    }

    #[test]
    fn what_runs_too_long_is_killed_with_its_children() {
        let mut command = sh("sleep 1000 & echo \"<$!>\"; wait");
        let message = panic_of(move || drop(run_within(&mut command, Duration::from_millis(200))));
        assert!(message.contains("was stopped after 200ms"), "{message}");
        let (_, rest) = message.split_once("--- stdout\n<").unwrap();
        let (pid, _) = rest.split_once('>').unwrap();
        // It may take a moment to die, and stays a zombie until its new parent looks after it.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        assert!((0..1000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            is_gone()
        }));
    }
}
