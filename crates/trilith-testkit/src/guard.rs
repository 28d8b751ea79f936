//! Services that end with the test, however it ends.
//!
//! A small shell script (`guard.sh`) starts the service and holds the other end of a pipe.
//! When the test drops its [`Guard`], panics or is killed with `SIGKILL`, the pipe ends and the
//! script stops the service, unmounts and removes its directory. That needs no `unsafe`, works
//! for values kept in a `static`, and does not depend on which thread started the service.
//!
//! It never looks for processes by name: only the child it started, and whatever
//! carries the path of its own unique directory on the command line.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::assert_success;

/// How long a service may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long cleaning up may take until the test goes on without waiting for it.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// A directory of its own and, mostly, a service that lives in it.
#[derive(Debug)]
pub(crate) struct Guard {
    dir: PathBuf,
    shell: Child,
    answers: BufReader<ChildStdout>,
    pid: Option<u32>,
}

/// Returns a new directory for a [`Guard`], named after what it is for.
pub(crate) fn new_dir(what: &str) -> PathBuf {
    // Short, as the sockets in it may have 108 bytes at most.
    tempfile::Builder::new()
        .prefix(&format!("trilith-{what}-"))
        .tempdir()
        .expect("cannot create a temporary directory")
        .keep()
}

impl Guard {
    /// Starts `service` with its output in `dir/stdout` and `dir/stderr`; `dir` is removed in the end.
    ///
    /// A shell script `dir/cleanup` is run before the service is stopped, in the service's environment.
    pub(crate) fn start(dir: PathBuf, service: &Command) -> Self {
        Self::spawn(dir, Some(service), service)
    }

    /// Guards `dir` without a service; `environment` lends its variables to `dir/cleanup`.
    pub(crate) fn without_service(dir: PathBuf, environment: &Command) -> Self {
        Self::spawn(dir, None, environment)
    }

    fn spawn(dir: PathBuf, service: Option<&Command>, environment: &Command) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", include_str!("guard.sh"), "guard"])
            .arg(&dir);
        if let Some(service) = service {
            command.arg(service.get_program()).args(service.get_args());
        }
        for (name, value) in environment.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // A process group of its own: an interrupt from the terminal reaches the test, not the guard.
        let mut shell = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("cannot start `sh`");
        let answers = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        let mut guard = Self {
            dir,
            shell,
            answers,
            pid: None,
        };
        guard.read_pid();
        assert_eq!(guard.pid.is_some(), service.is_some(), "no process id");
        guard
    }

    fn read_pid(&mut self) {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("cannot read the process id of the service");
        self.pid = line.trim().parse().ok();
    }

    /// Sends the service a signal, as in `TERM`, and waits for its end.
    ///
    /// # Panics
    /// When there is no service, or it is still there after a minute.
    pub(crate) fn stop(&self, signal: &str) {
        let pid = self.pid();
        // The shell's own `kill`: the program of that name is not on every system.
        let script = "kill -s \"$0\" \"$1\"";
        assert_success(Command::new("sh").args(["-c", script, signal, &pid.to_string()]));
        let deadline = Instant::now() + START_LIMIT;
        while self.is_running() {
            assert!(Instant::now() < deadline, "the service ignores {signal}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until no process has `file` on its command line.
    ///
    /// # Panics
    /// When one is still there after a minute.
    pub(crate) fn wait_for_end_of(file: &Path) {
        let file = file.to_str().expect("a path is UTF-8");
        let deadline = Instant::now() + START_LIMIT;
        while !processes_naming(file).is_empty() {
            assert!(Instant::now() < deadline, "a process goes on with {file}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the service again, which has ended.
    pub(crate) fn restart(&mut self) {
        let input = self.shell.stdin.as_mut().expect("stdin is piped");
        input.write_all(b"again\n").expect("the guard is gone");
        self.read_pid();
    }

    /// Returns the process id of the service.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.expect("a service")
    }

    /// Returns the directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until `probe` returns a value.
    ///
    /// # Panics
    /// When the service ends first or a minute passes, with the end of what it wrote to stderr.
    pub(crate) fn wait_until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(value) = probe() {
                return value;
            }
            assert!(self.is_running(), "{what} ended:\n{}", self.last_words());
            assert!(
                Instant::now() < deadline,
                "{what} is not ready after {START_LIMIT:?}:\n{}",
                self.last_words()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns whether the service is there and not a zombie. Without a service: true.
    fn is_running(&self) -> bool {
        self.pid.is_none_or(|pid| {
            // `123 (name) S 1 ...`; the name may hold anything.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
            state.is_some_and(|state| !state.starts_with(['Z', 'X']))
        })
    }

    /// Returns the last lines the service wrote to stderr.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.shell.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns the processes that carry `text` on their command line.
fn processes_naming(text: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_and_directory_end_with_the_guard() {
        let dir = new_dir("guard");
        let mut service = Command::new("sleep");
        service.arg("1000");
        let guard = Guard::start(dir.clone(), &service);
        let pid = guard.pid.unwrap();
        assert!(guard.is_running());
        drop(guard);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(!dir.exists());
    }

    #[test]
    fn a_service_can_be_started_again() {
        let mut service = Command::new("sleep");
        service.arg("1000");
        let mut guard = Guard::start(new_dir("guard"), &service);
        let first = guard.pid.unwrap();
        guard.stop("KILL");
        assert!(!guard.is_running());
        guard.restart();
        assert!(guard.is_running());
        let second = guard.pid.unwrap();
        assert_ne!(first, second);
        drop(guard);
        assert!(!Path::new(&format!("/proc/{second}")).exists());
    }

    #[test]
    fn a_service_that_ends_early_is_reported_with_what_it_said() {
        let mut service = Command::new("sh");
        service.args(["-c", "echo out of cheese >&2; exit 3"]);
        let guard = Guard::start(new_dir("guard"), &service);
        let outcome = std::panic::catch_unwind(|| guard.wait_until("cheese", || None::<()>));
        let message = *outcome
            .expect_err("there is nothing to wait for")
            .downcast::<String>()
            .expect("panics carry a message");
        assert_eq!(message, "cheese ended:\nout of cheese");
    }

    #[test]
    fn cleanup_runs_and_strays_that_name_the_directory_are_killed() {
        let dir = new_dir("guard");
        let witness = new_dir("witness");
        fs::write(
            dir.join("cleanup"),
            format!("echo \"$WORD\" > {}/said", witness.display()),
        )
        .unwrap();
        let mut service = Command::new("sh");
        // The stray leaves its parent and process group, as a container's monitor does.
        service
            .args(["-c", "touch $0/stray; setsid tail -f $0/stray & wait"])
            .arg(&dir)
            .env("WORD", "hello");
        let guard = Guard::start(dir.clone(), &service);
        let stray = format!("{}/stray", dir.display());
        guard.wait_until("the stray", || processes_naming(&stray).pop());
        drop(guard);
        assert_eq!(fs::read_to_string(witness.join("said")).unwrap(), "hello\n");
        assert_eq!(processes_naming(&stray), Vec::<u32>::new());
        fs::remove_dir_all(witness).unwrap();
    }
}
