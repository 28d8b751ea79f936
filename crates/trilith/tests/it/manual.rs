//! What shells and `man` are told of the command line.

use std::fs;
use std::process::Command;

use trilith_testkit::stdout_of;

use crate::support::Trilith;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// Returns what a real bash offers for the last of `words`.
fn offered(trilith: &Trilith, words: &[&str]) -> Vec<String> {
    let script = trilith.home().join("completions.bash");
    let complete = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                    _trilith trilith \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; \
                    printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", complete, "bash"]).arg(script);
    let offered = stdout_of(bash.args(words));
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_and_their_flags() {
    let trilith = Trilith::new();
    for shell in SHELLS {
        let script = trilith.run(&["completions", shell]).stdout;
        let script = String::from_utf8(script).unwrap();
        assert_eq!(trilith.json(&["completions", shell])["script"], script);
        // A command, and a flag of it that is made only when that command is run.
        for word in ["rebase", "new-base"] {
            assert!(script.contains(word), "{shell} is not told of {word}");
        }
        fs::write(trilith.home().join(format!("completions.{shell}")), script).unwrap();
    }
    assert_eq!(offered(&trilith, &["trilith", "reb"]), ["rebase"]);
    assert_eq!(
        offered(&trilith, &["trilith", "rebase", "--new"]),
        ["--new-base"]
    );
    let builders = offered(&trilith, &["trilith", "build", "--builder", ""]);
    assert!(builders.contains(&"podman".to_owned()), "{builders:?}");
    assert_eq!(trilith.run(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_page() {
    let trilith = Trilith::new();
    let directory = trilith.home().join("share/man/man1");
    let written = trilith.json(&["man", "--output", directory.to_str().unwrap()]);
    let written = written["written"].as_array().unwrap();
    let pages = fs::read_dir(&directory).unwrap().count();
    assert_eq!(written.len(), pages);
    let render = |page: &str| {
        let mut groff = Command::new("groff");
        // A mistake in the page is said on standard error.
        let groff = groff.args(["-man", "-Tascii", "-P-cbou", "-ww"]);
        let output = trilith_testkit::assert_success(groff.arg(directory.join(page)));
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for path in written {
        let page = path.as_str().unwrap().rsplit('/').next().unwrap();
        assert!(render(page).contains("trilith"), "{page}");
    }
    let build = render("trilith-build.1");
    for word in ["SYNOPSIS", "--inject-agent", "--add-host"] {
        assert!(build.contains(word), "{word}");
    }
    let top = render("trilith.1");
    assert!(top.contains("trilith-rebase(1)"), "{top}");
    let page = trilith.run(&["man"]).stdout;
    assert_eq!(fs::read(directory.join("trilith.1")).unwrap(), page);
}
