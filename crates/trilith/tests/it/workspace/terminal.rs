//! What goes on while somebody watches: a terminal, and logs that are followed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use trilith_testkit::assert_success;

use super::parts::{Engine, Start};
use crate::support::on;

on!([docker_20, podman_4, podman_5]: a_program_has_this_terminal, logs_are_followed_to_the_end);

/// A terminal, and what was shown on it.
struct Screen {
    master: File,
    /// Kept open, so that the terminal outlives what runs on it.
    slave: File,
    shown: Vec<u8>,
}

impl Screen {
    fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.to_bytes()))
            .unwrap();
        Self {
            master: master.into(),
            slave,
            shown: Vec::new(),
        }
    }

    /// Runs `command` in a session that has this terminal.
    fn run(&self, command: &Command) -> Child {
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]);
        session.arg(command.get_program()).args(command.get_args());
        session.env_clear();
        let set = command.get_envs();
        session.envs(set.filter_map(|(name, value)| Some((name, value?))));
        let stream = || Stdio::from(self.slave.try_clone().unwrap());
        let session = session.stdin(stream()).stdout(stream()).stderr(stream());
        session.spawn().unwrap()
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    fn type_line(&mut self, line: &str) {
        self.master.write_all(line.as_bytes()).unwrap();
        self.master.write_all(b"\n").unwrap();
    }

    /// Waits until `text` was shown after what was waited for before.
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        loop {
            let shown = String::from_utf8_lossy(&self.shown).into_owned();
            if let Some(position) = shown.find(text) {
                self.shown = shown.as_bytes()[position + text.len()..].to_vec();
                return;
            }
            let count = self.master.read(&mut buffer).unwrap();
            self.shown.extend_from_slice(&buffer[..count]);
        }
    }

    /// Returns whether what is typed is edited line by line, as it is before a program says
    /// otherwise.
    fn edits_lines(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

fn a_program_has_this_terminal(start: Start) {
    let engine = &start();
    let started = engine.start(&[&engine.base]);
    let id = started["id"].as_str().unwrap();
    let mut screen = Screen::new();
    screen.resize(100, 30);
    let mut exec = screen.run(&engine.command(&["exec", "-it", id, "--", "sh"]));
    screen.type_line("test -t 0 && test -t 1 && echo ter''minal");
    screen.wait_for("terminal");
    assert!(!screen.edits_lines(), "the program edits its lines itself");
    // The program may be there before its terminal has the size.
    let until = |size: &str| {
        format!("until [ \"$(stty size)\" = '{size}' ]; do sleep 0.02; done; echo fit''ting")
    };
    screen.type_line(&until("30 100"));
    screen.wait_for("fitting");
    screen.resize(120, 40);
    screen.type_line(&until("40 120"));
    screen.wait_for("fitting");
    screen.type_line("exit 7");
    assert_eq!(exec.wait().unwrap().code(), Some(7));
    assert!(screen.edits_lines(), "the terminal is as it was");

    let output = engine.exec(id, &["--tty"], &["true"], b"");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_success(&mut engine.command(&["stop", id]));
}

fn logs_are_followed_to_the_end(start: Start) {
    let engine = &start();
    let started = engine.start(&[&engine.base]);
    let id = started["id"].as_str().unwrap();
    let mut logs = engine.command(&["logs", "--follow", id]);
    let mut logs = logs.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("listening on http://"), "{first}");
    assert_eq!(logs.try_wait().unwrap(), None, "there may be more");
    assert_success(&mut engine.command(&["stop", id]));
    assert!(logs.wait().unwrap().success());
}
