//! What holds in every workspace.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncRead, ReadBuf};
use trilith_workspace::{ChangeStatus, Command, Workspace};

/// Checks a workspace that has a shell and git, in `directory`, which is there and empty.
pub(crate) async fn conforms(workspace: &dyn Workspace, directory: &str) {
    assert!(workspace.is_healthy().await);
    programs(workspace, directory).await;
    long_output(workspace).await;
    limits(workspace).await;
    many_at_once(workspace).await;
    files(workspace, directory).await;
    git(workspace, directory).await;
}

/// Runs a line that succeeds, and returns what it prints.
pub(crate) async fn sh(workspace: &dyn Workspace, line: &str) -> String {
    let output = workspace.output(&Command::shell(line)).await.unwrap();
    assert_eq!(output.ended.exit_code, Some(0), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn programs(workspace: &dyn Workspace, directory: &str) {
    let command = Command {
        cwd: Some(directory.to_owned()),
        environment: [("A".to_owned(), "b c".to_owned())].into(),
        ..Command::shell("echo $A; pwd; echo oops >&2; exit 7")
    };
    let output = workspace.output(&command).await.unwrap();
    assert_eq!(output.ended.exit_code, Some(7));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout, format!("b c\n{directory}\n"));
    assert_eq!(output.stderr, b"oops\n");

    // What goes in comes out, byte for byte, and its end is an end.
    let bytes = bytes();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let input = Box::new(io::Cursor::new(bytes.clone()));
    let cat = Command::argv(["cat"]);
    let ended = workspace.exec(&cat, input, &mut stdout, &mut stderr);
    assert_eq!(ended.await.unwrap().exit_code, Some(0));
    assert!(stdout == bytes && stderr.is_empty());

    // Arguments are not a shell's.
    let echo = Command::argv(["echo", "$HOME  *"]);
    let output = workspace.output(&echo).await.unwrap();
    assert_eq!(output.stdout, b"$HOME  *\n");
    let missing = Command::argv(["no-such-program"]);
    let output = workspace.output(&missing).await.unwrap();
    assert_eq!(output.ended.exit_code, Some(127));
    let told = [output.stderr, output.ended.note.unwrap().into_bytes()].concat();
    assert!(String::from_utf8_lossy(&told).contains("no-such-program"));
    let output = workspace.output(&Command::shell("kill -9 $$")).await;
    assert_eq!(output.unwrap().ended.exit_code, Some(137));
}

/// However much it is, whoever reads it gets it all.
async fn long_output(workspace: &dyn Workspace) {
    let line = "head -c 160000000 /dev/zero; echo end >&2";
    let output = workspace.output(&Command::shell(line)).await.unwrap();
    assert_eq!(output.ended.exit_code, Some(0));
    assert_eq!(output.stdout.len(), 160_000_000);
    assert_eq!(output.stderr, b"end\n");
}

/// A timeout ends a command that ignores the wish, and what it has started.
async fn limits(workspace: &dyn Workspace) {
    let stubborn = "trap '' TERM; sleep 3600 & echo $!; wait; sleep 3600";
    let command = Command {
        timeout: Some(Duration::from_millis(500)),
        ..Command::shell(stubborn)
    };
    let output = workspace.output(&command).await.unwrap();
    assert_eq!(output.ended.exit_code, None, "{output:?}");
    let note = output.ended.note.unwrap();
    assert!(note.contains("timed out after 0.5 seconds"), "{note}");
    let pid = String::from_utf8(output.stdout).unwrap();
    let alive = Command::shell(format!("kill -0 {}", pid.trim()));
    let alive = workspace.output(&alive).await.unwrap();
    assert_ne!(alive.ended.exit_code, Some(0), "what it started still runs");
}

async fn many_at_once(workspace: &dyn Workspace) {
    let numbers = join_all((0..32).map(async |number: u32| {
        let line = format!("for i in 1 2 3; do echo {number}; done");
        assert_eq!(sh(workspace, &line).await, format!("{number}\n").repeat(3));
    }));
    numbers.await;
}

async fn files(workspace: &dyn Workspace, directory: &str) {
    // Any length, any name, directories that are not there.
    for (name, content) in [("empty", Vec::new()), ("new/ä &?#%20+=", bytes())] {
        let path = format!("{directory}/files/{name}");
        let size = content.len() as u64;
        let input = Box::new(io::Cursor::new(content.clone()));
        assert_eq!(workspace.upload(input, &path).await.unwrap(), size);
        let mut back = Vec::new();
        assert_eq!(workspace.download(&path, &mut back).await.unwrap(), size);
        assert!(back == content, "{path}");
    }
    // Whole or not at all.
    let path = format!("{directory}/files/empty");
    let error = workspace.upload(Box::new(Broken(false)), &path).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the source broke"), "{error}");
    let listed = sh(workspace, &format!("ls {directory}/files; cat {path}")).await;
    assert_eq!(listed, "empty\nnew\n");

    let missing = format!("{directory}/no/such");
    for path in [missing.as_str(), directory, "relative"] {
        let mut nothing = Vec::new();
        let outcome = workspace.download(path, &mut nothing).await;
        assert!(outcome.is_err() && nothing.is_empty(), "{path}");
    }
    for path in ["relative", directory] {
        let outcome = workspace.upload(Box::new(tokio::io::empty()), path).await;
        assert!(outcome.is_err(), "{path}");
    }
}

async fn git(workspace: &dyn Workspace, directory: &str) {
    let plain = format!("{directory}/plain");
    let repository = format!("{directory}/repository");
    sh(
        workspace,
        &format!(
            "export HOME={directory} && mkdir {plain} && git init -q -b main {repository} && \
             cd {repository} && echo one >kept && echo two >changed && echo three >gone && \
             git add . && git -c user.name=n -c user.email=e commit -q -m first && \
             echo 2 >changed && rm gone && echo four >'a new'"
        ),
    )
    .await;
    let changes = workspace.git_changes(&repository, None).await.unwrap();
    let changes: Vec<_> = changes
        .iter()
        .map(|change| (change.path.as_str(), change.status))
        .collect();
    let expected = [
        ("a new", ChangeStatus::Added),
        ("changed", ChangeStatus::Updated),
        ("gone", ChangeStatus::Deleted),
    ];
    assert_eq!(changes, expected);
    let file = format!("{repository}/changed");
    let diff = workspace.git_diff(&file, Some("HEAD")).await.unwrap();
    assert_eq!(diff.original.as_deref(), Some("two"));
    assert_eq!(diff.modified.as_deref(), Some("2"));
    assert_eq!(workspace.git_changes(&plain, None).await.unwrap(), []);
    let outcome = workspace.git_changes(&repository, Some("--help")).await;
    assert!(outcome.is_err());
}

/// Returns bytes of all kinds, more than go at once.
fn bytes() -> Vec<u8> {
    (0..=255_u8).cycle().take(3 << 20).collect()
}

/// A source that gives something and then breaks.
struct Broken(bool);

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 {
            return Poll::Ready(Err(io::Error::other("the source broke")));
        }
        self.0 = true;
        buffer.put_slice(b"half");
        Poll::Ready(Ok(()))
    }
}
