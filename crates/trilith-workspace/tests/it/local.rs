//! A workspace on this machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::io::empty;
use tokio::time::sleep;
use trilith_workspace::{Error, LocalWorkspace, Workspace as _};

use crate::conformance::{conforms, sh};

#[tokio::test]
async fn a_directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let workspace = LocalWorkspace::start(directory.path()).await.unwrap();
    conforms(&workspace, directory.path().to_str().unwrap()).await;
    for outcome in [workspace.pause().await, workspace.resume().await] {
        assert!(matches!(outcome, Err(Error::Unable { .. })), "{outcome:?}");
    }
    workspace.stop().await.unwrap();
    assert!(!workspace.is_healthy().await);
    workspace.stop().await.unwrap();
}

#[tokio::test]
async fn no_path_leads_out_of_the_directory() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(outer.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
    std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
    let workspace = LocalWorkspace::start(&inner).await.unwrap();
    let secret = outer.path().join("secret");
    let (inner, secret) = (inner.to_str().unwrap(), secret.to_str().unwrap());
    for path in [
        secret.to_owned(),
        format!("{inner}/../secret"),
        format!("{inner}/up/secret"),
        format!("{inner}/link"),
    ] {
        let mut read = Vec::new();
        assert!(
            workspace.download(&path, &mut read).await.is_err(),
            "{path}"
        );
        assert!(read.is_empty(), "{path}");
        let written = workspace.upload(Box::new(empty()), &path).await;
        assert!(written.is_err(), "{path}");
    }
    assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
    let above = outer.path().to_str().unwrap();
    assert!(workspace.git_changes(above, None).await.is_err());
}

#[tokio::test]
async fn what_runs_ends_with_the_workspace() {
    let directory = tempfile::tempdir().unwrap();
    for is_stopped in [true, false] {
        let workspace = LocalWorkspace::start(directory.path()).await.unwrap();
        let line = "sleep 3600 >/dev/null 2>&1 & echo $!";
        let pid = sh(&workspace, line).await;
        let process = format!("/proc/{}", pid.trim());
        assert!(Path::new(&process).exists());
        if is_stopped {
            workspace.stop().await.unwrap();
        }
        drop(workspace);
        // It is killed, and then the system takes it away.
        while Path::new(&process).exists() {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_directory_is_needed() {
    let error = LocalWorkspace::start(Path::new("/no/such")).await;
    assert!(error.unwrap_err().to_string().contains("/no/such"));
    let error = LocalWorkspace::start(Path::new("/dev/null")).await;
    assert!(error.is_err());
}
