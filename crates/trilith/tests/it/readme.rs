//! What the README shows is what happens.

use std::path::Path;
use std::process::Command;

use trilith_testkit::{
    ImageOptions, Project, Registry, RegistryOptions, assert_success, busybox_image,
};

use crate::support::{Trilith, project};

const README: &str = include_str!("../../../../README.md");

/// Makes `command` find the binary under test as `trilith`.
fn with_trilith(command: &mut Command) -> &mut Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_trilith")).parent().unwrap();
    command.env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
}

/// Returns `text` without what differs from run to run: seconds.
fn without_times(text: &str) -> String {
    let words = text
        .lines()
        .map(|line| match line.rsplit_once(" uploaded, ") {
            Some((sent, time)) if time.ends_with(" s") => format!("{sent} uploaded, _ s"),
            _ => line.trim_end().to_owned(),
        });
    words.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_session_is_real() {
    let trilith = Trilith::new();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart");
    let here = Project::empty();
    std::fs::create_dir(here.path().join("examples")).unwrap();
    assert_success(
        Command::new("cp")
            .arg("-r")
            .arg(examples)
            .arg(here.path().join("examples/quickstart")),
    );
    let (_, rest) = README.split_once("<!-- session: quickstart -->\n").unwrap();
    let (session, _) = rest.split_once("<!-- end -->").unwrap();
    let shown: Vec<&str> = session
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let mut commands = 0;
    let mut lines = shown.iter().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ") else {
            continue;
        };
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            expected.push(*line);
        }
        let mut shell = trilith.command();
        let program = std::mem::replace(&mut shell, Command::new("sh"));
        shell.envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let output = assert_success(
            with_trilith(&mut shell)
                .current_dir(here.path())
                .args(["-c", command]),
        );
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            without_times(&stdout),
            without_times(&expected.join("\n")),
            "{command}"
        );
        commands += 1;
    }
    assert_eq!(commands, 4);
}

#[test]
fn every_command_runs() {
    let registry = Registry::start(RegistryOptions::default());
    let base = busybox_image(&registry, "base:1", &ImageOptions::default());
    let trilith = Trilith::new();
    let project = project(&registry, "acme/app", &base.reference);
    project.write("bases.txt", format!("{}\n", base.reference));
    let commands = README
        .lines()
        .filter_map(|line| line.strip_prefix("    trilith "));
    let mut count = 0;
    for command in commands {
        let command = command.split('#').next().unwrap().trim_end();
        let command = command
            .replace("IMAGE", &base.reference)
            .replace("FROM", &base.reference)
            .replace("TO", &registry.reference("acme/copy:1"))
            .replace("FILE", "bases.txt");
        if command.contains("--bases") {
            // Each is somebody's first.
            let _none_yet = std::fs::remove_file(project.path().join("trilith-batch.jsonl"));
        }
        let mut program = trilith.command();
        assert_success(
            program
                .args(command.split_whitespace())
                .current_dir(project.path()),
        );
        count += 1;
    }
    assert_eq!(count, 12);
}
