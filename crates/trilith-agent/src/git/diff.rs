//! What has changed in one file: the whole of it, then and now.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::base::base;
use super::run::{Git, closest};
use crate::failure::{Failure, Outcome};
use crate::files::Root;

/// The longest file that is compared, in bytes.
const SIZE: u64 = 1 << 20;

/// Both sides; a file that is not there is empty. `None` where there is no repository.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Diff {
    modified: Option<String>,
    original: Option<String>,
}

/// Returns both sides of the file `path`.
pub(super) async fn diff(git: &Git, path: &Path, reference: Option<&str>) -> Outcome<Diff> {
    let path = &resolve(path);
    let (root, file) = (Arc::clone(git.root()), path.clone());
    let now = spawn_blocking(move || read(&root, &file))
        .await
        .map_err(Failure::internal)??;
    let missing = || Failure::bad(format!("File does not exist: {}", path.display()));
    let repository = closest(path.parent().unwrap_or(path));
    let repository = match repository {
        Some(dir) if git.is_repository(&dir).await? => dir,
        _ if now.is_none() => return Err(missing()),
        _ => return Ok(Diff::default()),
    };
    let base = base(git, &repository, reference).await?;
    let below = path.strip_prefix(&repository).unwrap_or(path);
    let name = format!("{base}:{}", below.to_string_lossy());
    let size = git
        .run(&repository, &["cat-file", "-s", &name])
        .await?
        .line();
    let kind = git
        .run(&repository, &["cat-file", "-t", &name])
        .await?
        .line();
    let original = match (kind.as_deref(), size.and_then(|size| size.parse().ok())) {
        (Some("blob"), Some(size)) => {
            check(size)?;
            Some(
                git.run(&repository, &["cat-file", "blob", &name])
                    .await?
                    .success()?,
            )
        }
        _ => None,
    };
    if original.is_none() && now.is_none() {
        return Err(missing());
    }
    let original = original.map(|text| lines(&String::from_utf8_lossy(&text)));
    // A file that is no text is shown as if it were empty, as the reference does.
    let modified = now
        .and_then(|text| String::from_utf8(text).ok())
        .map(|text| lines(&text));
    Ok(Diff {
        modified: Some(modified.unwrap_or_default()),
        original: Some(original.unwrap_or_default()),
    })
}

/// Returns the path that `path` leads to; of what is not there, as far as it is.
fn resolve(path: &Path) -> std::path::PathBuf {
    for dir in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (dir.canonicalize(), path.strip_prefix(dir)) {
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    path.to_owned()
}

/// Reads the file as it is now; `None` when it is not there.
fn read(root: &Root, path: &Path) -> Outcome<Option<Vec<u8>>> {
    let mut file = match root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(failure) if failure.is_not_found() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let fail = |error| Failure::system("read", &path.display().to_string(), &error);
    let found = file.metadata().map_err(fail)?;
    if !found.is_file() {
        return Err(Failure::bad("Path is not a file"));
    }
    check(found.len())?;
    let mut text = Vec::new();
    (&mut file)
        .take(SIZE)
        .read_to_end(&mut text)
        .map_err(fail)?;
    Ok(Some(text))
}

fn check(size: u64) -> Outcome<()> {
    if size > SIZE {
        return Err(Failure::bad(format!(
            "File too large for git diff: {size} bytes (max: {SIZE} bytes)"
        )));
    }
    Ok(())
}

/// Returns `text` with all its lines ended alike and the last not at all, as Python's `splitlines` and `join` do.
fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let ends = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    text.strip_suffix(ends).unwrap_or(&text).replace(ends, "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_alike() {
        for (text, expected) in [
            ("", ""),
            ("a\r\nb\rc\n", "a\nb\nc"),
            ("a\n\n", "a\n"),
            ("a\u{2028}b\u{c}", "a\nb"),
            ("a\n\r\n", "a\n"),
        ] {
            assert_eq!(lines(text), expected, "{text:?}");
        }
    }
}
