//! `trilith hash` against Python's dirhash 0.5.0, the hash it has to equal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use trilith_testkit::{assert_success, stdout_of};

use crate::Trilith;
use crate::measure::{Line, in_turn, noise, time};

const FILES: usize = 25_000;
const RUNS: usize = 5;

const DIRHASH: &str = "import sys, dirhash\n\
    print(dirhash.dirhash(sys.argv[1], 'md5', ignore=['.*/', '__pycache__/', '*.pyc', '*.md']))";

pub(crate) fn hash(trilith: &Trilith) -> Vec<Line> {
    let tree = tree();
    let cache = tempfile::tempdir().unwrap();
    let python = python();
    let peer_command = || {
        let mut command = Command::new(&python);
        command.args(["-c", DIRHASH]).arg(tree.path());
        command
    };
    let our_command = || {
        let mut command = Command::new(&trilith.binary);
        command
            .args(["hash", "--scheme", "openhands-v1"])
            .arg(tree.path())
            .env("XDG_CACHE_HOME", cache.path());
        command
    };
    assert_eq!(
        stdout_of(&mut our_command()),
        stdout_of(&mut peer_command()),
        "the hashes agree"
    );
    // What is to be remembered has to be older than the clock is coarse.
    std::thread::sleep(std::time::Duration::from_secs(3));

    let forget = || drop(fs::remove_dir_all(cache.path().join("trilith")));
    let first = || {
        forget();
        time(&mut our_command())
    };
    let (cold, peer) = in_turn(RUNS, first, || time(&mut peer_command()));
    let (warm, peer_again) = in_turn(
        RUNS,
        || time(&mut our_command()),
        || time(&mut peer_command()),
    );
    let tree = format!("{FILES} files");
    vec![
        Line::faster(&format!("{tree}, first run"), cold, peer, "6 times"),
        Line::faster(&format!("{tree}, second run"), warm, peer_again, "25 times"),
    ]
}

/// Returns a tree of small files, as a large source tree has them: 1 to 16 KB in 500 directories.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    for number in 0..FILES {
        let directory = tree
            .path()
            .join(format!("package{}/module{}", number % 25, number % 500));
        fs::create_dir_all(&directory).unwrap();
        let size = 1000 + number * 7919 % 15_000;
        fs::write(
            directory.join(format!("file{number}.py")),
            noise(number as u64, size),
        )
        .unwrap();
    }
    tree
}

/// Returns a Python that has dirhash 0.5.0.
fn python() -> PathBuf {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-venv");
    let python = environment.join("bin/python");
    if !environment.join("ready").exists() {
        assert_success(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        );
        assert_success(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "-q",
            "dirhash==0.5.0",
        ]));
        fs::write(environment.join("ready"), "").unwrap();
    }
    python
}
