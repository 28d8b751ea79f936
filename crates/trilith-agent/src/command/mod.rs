//! Commands: what is asked for, and the life of one.

mod memory;
mod recorder;
mod run;
mod session;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::failure::{Failure, Outcome};

pub(crate) use memory::prefer_to_kill;
pub(crate) use run::Commands;

/// Where shells are looked for, in this order. The last is where distroless images have theirs.
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/bash", "/busybox/sh"];

/// How many seconds a command may run unless it is said.
const TIMEOUT: f64 = 300.0;

/// What to run, as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Request {
    /// A command for the image's shell.
    pub(crate) command: Option<String>,
    /// A program and its arguments, for which no shell is needed.
    pub(crate) argv: Option<Vec<String>>,
    pub(crate) cwd: Option<String>,
    /// Variables to set, or to remove.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, Option<String>>,
    /// In seconds.
    #[serde(default = "default_timeout")]
    pub(crate) timeout: f64,
    /// Whether there will be standard input.
    #[serde(default)]
    pub(crate) stdin: bool,
    /// Whether the output is read while the command runs, by one reader of each stream.
    #[serde(default)]
    pub(crate) attached: bool,
}

fn default_timeout() -> f64 {
    TIMEOUT
}

impl Request {
    /// Parses and checks a request.
    pub(crate) fn parse(document: &[u8]) -> Outcome<Self> {
        let request = Self::parse_place(document)?;
        match (&request.command, &request.argv) {
            (Some(_), None) => Ok(request),
            (None, Some(argv)) if !argv.is_empty() => Ok(request),
            _ => Err(Failure::invalid("either `command` or `argv` is needed")),
        }
    }

    /// Parses and checks a request that need not have a command.
    pub(crate) fn parse_place(document: &[u8]) -> Outcome<Self> {
        let request: Self = serde_json::from_slice(document)
            .map_err(|error| Failure::invalid(error.to_string()))?;
        // More than a century is no timeout, and does not fit into the clock's types.
        if !(0.0..=4e9).contains(&request.timeout) {
            return Err(Failure::invalid("`timeout` is out of range"));
        }
        let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
        if !request.env.keys().all(is_name) {
            return Err(Failure::invalid("a name in `env` is none"));
        }
        Ok(request)
    }

    /// Returns the command as text: as it was given, or `argv` quoted for a shell.
    pub(crate) fn text(&self) -> String {
        match (&self.command, &self.argv) {
            (Some(command), _) => command.clone(),
            (None, argv) => {
                let words = argv.iter().flatten().map(|word| quoted(word));
                words.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// Returns the shell of this image.
pub(crate) fn shell() -> Option<&'static str> {
    SHELLS
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
}

/// Says what to do where there is no shell.
pub(crate) fn no_shell() -> String {
    let places = SHELLS.join(", ");
    format!("this image has no shell ({places}); give the program and its arguments as `argv`")
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_checked() {
        let request = Request::parse(br#"{"command": "ls", "timeout": 5}"#).unwrap();
        assert!((request.timeout - 5.0).abs() < 0.001);
        assert_eq!(request.text(), "ls");
        let request = Request::parse(br#"{"argv": ["/a", "b c", "it's"]}"#).unwrap();
        assert!((request.timeout - TIMEOUT).abs() < 0.001);
        assert_eq!(request.text(), r"/a 'b c' 'it'\''s'");
        for document in [
            "",
            "[]",
            "{}",
            r#"{"argv": []}"#,
            r#"{"command": "a", "argv": ["a"]}"#,
            r#"{"command": "a", "timeout": -1}"#,
            r#"{"command": "a", "timeout": 1e300}"#,
            r#"{"command": "a", "env": {"a=b": "c"}}"#,
        ] {
            assert!(Request::parse(document.as_bytes()).is_err(), "{document}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(document: Vec<u8>, command: String, timeout: f64) {
            let _ = Request::parse(&document);
            let text = serde_json::json!({"command": command, "timeout": timeout}).to_string();
            let _ = Request::parse(text.as_bytes());
        }

        #[test]
        fn quoted_words_are_read_by_a_shell_as_they_were(words: Vec<String>) {
            let words: Vec<String> = words.iter().map(|word| word.replace('\0', "")).collect();
            prop_assume!(!words.is_empty());
            let argv = Some(words.clone());
            let text = Request { argv, ..Request::default() }.text();
            let script = format!(r"printf '%s\0' {text}");
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let expected: String = words.iter().flat_map(|word| [word, "\0"]).collect();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        }
    }
}
