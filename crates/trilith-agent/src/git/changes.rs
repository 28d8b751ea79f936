//! Which files have changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::base::base;
use super::run::Git;
use crate::failure::{Failure, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    status: Status,
    /// Below the directory that was asked about.
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Added,
    Deleted,
    Updated,
}

/// Returns what has changed in `dir` and in the repositories that are right below it, in the order
/// of the paths. Where there is no repository nothing has.
pub(super) async fn changes(
    git: &Git,
    dir: &Path,
    reference: Option<&str>,
) -> Outcome<Vec<Change>> {
    let nested = nested(dir);
    let mut changes = Vec::new();
    if git.is_repository(dir).await? {
        changes = changes_in(git, dir, reference).await?;
        changes.retain(|change| !nested.iter().any(|name| change.path.starts_with(name)));
    }
    for name in nested {
        let dir = dir.join(&name);
        // One that is broken does not hide the others.
        let found = match git.is_repository(&dir).await {
            Ok(true) => changes_in(git, &dir, reference).await,
            _ => continue,
        };
        for change in found.unwrap_or_default() {
            let path = name.join(change.path);
            changes.push(Change { path, ..change });
        }
    }
    changes.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    Ok(changes)
}

/// Returns the names of the directories in `dir` that are repositories.
fn nested(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_repository = |name: &PathBuf| {
        // As a shell's `*` does not match it.
        let is_hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
        !is_hidden && dir.join(name).join(".git").exists()
    };
    let names = entries.map(|entry| PathBuf::from(entry.file_name()));
    let mut names: Vec<PathBuf> = names.filter(is_repository).collect();
    names.sort();
    names
}

async fn changes_in(git: &Git, dir: &Path, reference: Option<&str>) -> Outcome<Vec<Change>> {
    let base = base(git, dir, reference).await?;
    let diff = [
        "diff",
        "--name-status",
        "-z",
        "--no-ext-diff",
        "--relative",
        "--find-renames",
    ];
    let known = git
        .run(dir, &[&diff[..], &[&base]].concat())
        .await?
        .success()?;
    let others = ["ls-files", "--others", "--exclude-standard", "-z"];
    let unknown = git.run(dir, &others).await?.success()?;
    let mut changes =
        parse(&known).ok_or_else(|| Failure::internal("git's answer is malformed"))?;
    changes.extend(fields(&unknown).map(|path| change(Status::Added, path)));
    Ok(changes)
}

/// Parses what `git diff --name-status -z` prints. What was renamed is gone there and added here.
fn parse(text: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let mut fields = fields(text);
    while let Some(status) = fields.next() {
        let path = fields.next()?;
        match status.first()? {
            b'A' => changes.push(change(Status::Added, path)),
            b'D' => changes.push(change(Status::Deleted, path)),
            // Changed, unmerged, or of another kind than before.
            b'M' | b'U' | b'T' => changes.push(change(Status::Updated, path)),
            b'R' => {
                changes.push(change(Status::Deleted, path));
                changes.push(change(Status::Added, fields.next()?));
            }
            b'C' => changes.push(change(Status::Added, fields.next()?)),
            _ => return None,
        }
    }
    Some(changes)
}

fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == 0)
        .filter(|field| !field.is_empty())
}

fn change(status: Status, path: &[u8]) -> Change {
    // JSON knows no other text.
    let path = String::from_utf8_lossy(path).into_owned().into();
    Change { status, path }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_status_is_read() {
        let text = b"M\0a b\0A\0c\0D\0d\0R100\0old\0new\0C75\0from\0to\0T\0kind\0U\0both\0";
        let changes = parse(text).unwrap();
        let lines: Vec<String> = changes
            .iter()
            .map(|change| format!("{:?} {}", change.status, change.path.display()))
            .collect();
        assert_eq!(
            lines,
            [
                "Updated a b",
                "Added c",
                "Deleted d",
                "Deleted old",
                "Added new",
                "Added to",
                "Updated kind",
                "Updated both",
            ]
        );
        assert_eq!(parse(b"X\0a\0"), None);
        assert_eq!(parse(b"R100\0a\0"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text: Vec<u8>) {
            let _ = parse(&text);
        }
    }
}
