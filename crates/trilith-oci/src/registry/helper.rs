//! Credential helpers: programs that keep credentials (`docker-credential-NAME get`).
//!
//! Asks them for credentials and for nothing else. What they print is never shown, except
//! the first line of a failure.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::credentials::Credential;
use super::failure::{Cause, Failure, clean};
use super::secret::Secret;

/// How long a helper may take; it may ask its user for a passphrase.
const TIMEOUT: Duration = Duration::from_secs(120);
/// What every helper prints, with a failing exit code, when it has no credentials
/// (`docker-credential-helpers`, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks the secret as an identity token.
const IDENTITY_USER: &str = "<token>";

/// What a helper answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Credential(Credential),
    NotFound,
    NotInstalled,
}

/// Returns the name of the program behind `helper`.
pub(crate) fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Asks `helper` for the credential of `server`.
pub(crate) async fn get(helper: &str, server: &str) -> Result<Answer, Failure> {
    let program = program(helper);
    if helper.contains(['/', '\\']) {
        return Err(failed(&program, "its name must not hold a path"));
    }
    ask(Path::new(&program), server).await
}

async fn ask(program: &Path, server: &str) -> Result<Answer, Failure> {
    let name = program.display().to_string();
    let io_failed = |error: io::Error| failed(&name, &error.to_string());
    let spawned = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Answer::NotInstalled),
        other => other.map_err(io_failed)?,
    };
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(format!("{server}\n").as_bytes()).await {
            // A helper may answer without reading.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.map_err(io_failed)?,
        }
    }
    let output = tokio::time::timeout(TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| failed(&name, &format!("no answer in {} s", TIMEOUT.as_secs())))?
        .map_err(io_failed)?;
    if output.status.success() {
        return parse(&output.stdout).ok_or_else(|| {
            failed(
                &name,
                "it printed something else than `Username` and `Secret`",
            )
        });
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    if printed.contains(NOT_FOUND) {
        return Ok(Answer::NotFound);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line = [printed, complaint]
        .iter()
        .find_map(|text| text.lines().find(|line| !line.trim().is_empty()).map(clean))
        .unwrap_or_else(|| output.status.to_string());
    Err(failed(&name, &line))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    username: String,
    secret: Secret,
}

fn parse(printed: &[u8]) -> Option<Answer> {
    let Printed { username, secret } = serde_json::from_slice(printed).ok()?;
    if username.is_empty() && secret.expose().is_empty() {
        return Some(Answer::NotFound);
    }
    Some(Answer::Credential(if username == IDENTITY_USER {
        Credential::Identity(secret)
    } else {
        Credential::Password {
            username,
            password: secret,
        }
    }))
}

fn failed(program: &str, reason: &str) -> Failure {
    Failure::new(Cause::Credentials {
        origin: format!("`{program}`"),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn script(body: &str) -> Result<Answer, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        loop {
            match ask(&path, "reg.example").await {
                // Another test's child still holds the script open for writing.
                Err(error) if error.to_string().contains("Text file busy") => {}
                other => return other,
            }
        }
    }

    #[tokio::test]
    async fn answers() {
        let password = |username: &str, password: &str| {
            Answer::Credential(Credential::Password {
                username: username.to_owned(),
                password: Secret::new(password),
            })
        };
        for (body, expected) in [
            (
                r#"read server; [ "$1" = get ] && echo "{\"ServerURL\":\"$server\",\"Username\":\"u\",\"Secret\":\"$server\"}""#,
                password("u", "reg.example"),
            ),
            (
                r#"echo '{"Username":"<token>","Secret":"t"}'"#,
                Answer::Credential(Credential::Identity(Secret::new("t"))),
            ),
            (
                "echo credentials not found in native keychain; exit 1",
                Answer::NotFound,
            ),
            (r#"echo '{"Username":"","Secret":""}'"#, Answer::NotFound),
        ] {
            assert_eq!(script(body).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn failures_show_no_secret() {
        for (body, reason) in [
            ("echo hunter2", "something else"),
            (r#"echo '{"Secret":"hunter2"}'"#, "something else"),
            ("echo boom >&2; exit 3", "boom"),
            ("exit 3", "exit status: 3"),
        ] {
            let text = script(body).await.unwrap_err().to_string();
            assert!(text.contains(reason) && !text.contains("hunter2"), "{text}");
        }
        assert!(get("../x", "y").await.is_err());
    }
}
