//! What went wrong, told by what Podman says.

use std::process::{ExitStatus, Output};

use trilith_oci::Kind;

use super::super::{EngineError, EngineKind};
use super::output::Failed;

/// What is built, in messages.
const IMAGE: &str = "the image";

/// Returns the error of a build that ended with `status` and did not say why.
pub(super) fn ended(status: ExitStatus) -> EngineError {
    EngineError::Lost {
        engine: EngineKind::Podman,
        operation: "build",
        object: IMAGE.to_owned(),
        source: format!("it ended with {status}, and does not say why").into(),
    }
}

/// Returns the error of a build that failed.
pub(super) fn of_build(failed: Failed) -> EngineError {
    if let Some((_, rest)) = failed.message.split_once("building at STEP \"") {
        let (step, instruction) = failed.step.unwrap_or_default();
        let reason = rest
            .strip_prefix(&instruction)
            .and_then(|rest| rest.strip_prefix("\": "))
            .or_else(|| rest.split_once("\": ").map(|(_, reason)| reason));
        return EngineError::Step {
            step,
            reason: tidy(reason.unwrap_or(rest)),
            log: failed.log,
        };
    }
    let pulled = failed.message.strip_prefix("creating build container: ");
    let base = failed.step.filter(|_| pulled.is_some());
    let base = base.and_then(|(_, instruction)| {
        let mut words = instruction.split_whitespace().skip(1);
        words
            .find(|word| !word.starts_with("--"))
            .map(str::to_owned)
    });
    match (base, pulled) {
        (Some(base), Some(reason)) => of_call("pull", &base, reason),
        _ => of_call("build", IMAGE, &failed.message),
    }
}

/// Returns what a call has put out, or its error if it failed.
pub(super) fn check(
    operation: &'static str,
    object: &str,
    output: Output,
) -> Result<Output, EngineError> {
    if output.status.success() {
        return Ok(output);
    }
    Err(of_call(operation, object, &last_error(&output.stderr)))
}

/// Returns the error of a call that failed and said `message`.
pub(super) fn of_call(operation: &'static str, object: &str, message: &str) -> EngineError {
    let reason = message.trim().trim_start_matches("Error: ");
    let reason = if reason.is_empty() {
        "it does not say why"
    } else {
        reason
    };
    // A Podman elsewhere. Its own client begins this in one case or the other.
    if reason.contains("onnect to Podman") {
        return EngineError::Unreachable {
            engine: EngineKind::Podman,
            address: socket(reason),
            source: Some(reason.into()),
        };
    }
    EngineError::Failed {
        engine: EngineKind::Podman,
        operation,
        object: object.to_owned(),
        reason: reason.to_owned(),
        kind: kind_of(reason),
    }
}

/// Returns the socket in `…: dial unix /run/podman.sock: connect: connection refused`.
fn socket(reason: &str) -> String {
    let dialled = reason.split_once("dial unix ").map(|(_, rest)| rest);
    let path = dialled.and_then(|rest| rest.split_once(": "));
    match path {
        Some((path, _)) => format!("unix://{path}"),
        None => "its socket".to_owned(),
    }
}

/// Returns the last thing that Podman says on stderr: warnings come before.
pub(super) fn last_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let at = text.rfind("\nError: ").map_or(0, |at| at + 1);
    let error = text[at..].trim();
    error.trim_start_matches("Error: ").to_owned()
}

fn kind_of(reason: &str) -> Kind {
    const KINDS: [(Kind, &[&str]); 5] = [
        (
            Kind::System,
            &["no space left on device", "permission denied"],
        ),
        (
            Kind::Denied,
            &[
                "unauthorized",
                "authentication required",
                "access to the resource is denied",
                "403 ",
            ],
        ),
        (
            Kind::NotFound,
            &[
                "manifest unknown",
                "name unknown",
                "not found",
                "could not be found",
                "image not known",
                "no such image",
            ],
        ),
        (
            Kind::Unavailable,
            &[
                "connection refused",
                "connection reset",
                "no such host",
                "timeout",
                "server misbehaving",
                "pinging container registry",
                "status: 5",
                "EOF",
            ],
        ),
        (
            Kind::Usage,
            &[
                "invalid ",
                "unknown flag",
                "Unknown instruction",
                "short-name",
            ],
        ),
    ];
    let found = KINDS
        .iter()
        .find(|(_, words)| words.iter().any(|word| reason.contains(word)));
    found.map_or(Kind::System, |(kind, _)| *kind)
}

/// Returns why a step failed in the words of the other engines.
fn tidy(reason: &str) -> String {
    match reason.strip_prefix("while running runtime: exit status ") {
        Some(code) => format!("exit code: {code}"),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn failures_of_builds() {
        for (instruction, message, expected) in [
            (
                "RUN a \"b\": c",
                "building at STEP \"RUN a \"b\": c\": while running runtime: exit status 3",
                "step `[1/2] RUN a \"b\": c` failed: exit code: 3",
            ),
            (
                "NOTHING x",
                "building at STEP \"NOTHING \": Build error: Unknown instruction: \"NOTHING\"",
                "step `[1/2] NOTHING x` failed: Build error: Unknown instruction: \"NOTHING\"",
            ),
            (
                "FROM --platform=linux/amd64 a.example/a:1 AS x",
                "creating build container: reading manifest 1: manifest unknown",
                "podman failed to pull `a.example/a:1`: reading manifest 1: manifest unknown",
            ),
            (
                "FROM a",
                "writing file: no space left on device",
                "podman failed to build `the image`: writing file: no space left on device",
            ),
        ] {
            let failed = Failed {
                step: Some((format!("[1/2] {instruction}"), instruction.to_owned())),
                message: message.to_owned(),
                log: Vec::new(),
            };
            let error = of_build(failed);
            assert_eq!(error.to_string(), expected);
        }
        let killed = ended(ExitStatus::from_raw(9));
        assert_eq!(killed.kind(), Kind::Unavailable);
        assert!(matches!(killed, EngineError::Lost { .. }));
    }

    #[test]
    fn a_podman_elsewhere_that_does_not_answer() {
        let reason = "unable to connect to Podman socket: Get \"http://d/_ping\": \
            dial unix /run/p.sock: connect: connection refused";
        let error = of_call("find", "x", reason);
        assert_eq!(
            error.to_string(),
            "podman does not answer at `unix:///run/p.sock`"
        );
        let other = of_call("find", "x", "Cannot connect to Podman. Please verify");
        assert_eq!(other.to_string(), "podman does not answer at `its socket`");
    }

    #[test]
    fn kinds() {
        for (reason, expected) in [
            ("reading manifest x: manifest unknown", Kind::NotFound),
            ("unauthorized: authentication required", Kind::Denied),
            (
                "dial tcp 127.0.0.1:1: connect: connection refused",
                Kind::Unavailable,
            ),
            ("write /x: no space left on device", Kind::System),
            ("anything else", Kind::System),
        ] {
            assert_eq!(of_call("pull", "x", reason).kind(), expected, "{reason}");
        }
        let stderr = b"time=1 level=warning\nError: one: two\n";
        assert_eq!(last_error(stderr), "one: two");
        assert_eq!(last_error(b"Error: one\n"), "one");
    }
}
