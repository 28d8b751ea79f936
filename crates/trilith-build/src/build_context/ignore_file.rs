//! Which ignore file speaks for a context, and what it says.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use trilith_core::DockerIgnore;

use super::context::Dockerfile;
use super::error::BuildContextError;

/// The name of the file in a context.
pub(super) const NAME: &str = ".dockerignore";

/// The most bytes of an ignore file that are read.
pub(super) const MAX_SIZE: u64 = 16 << 20;

/// Where the rules come from that say what is left out of a context.
#[derive(Clone, Debug, Default)]
pub enum IgnoreRules {
    /// The file that [`find_ignore_file`] finds; without one, nothing is left out.
    #[default]
    Find,
    /// These rules, whatever files there are.
    Given(DockerIgnore),
    /// No rules: nothing is left out.
    Nothing,
}

impl IgnoreRules {
    /// Returns the rules that these come to for a context, as they are now.
    ///
    /// # Errors
    /// The ignore file that is found is refused or cannot be read.
    pub fn resolve(
        &self,
        context: &Path,
        dockerfile: &Dockerfile,
    ) -> Result<Self, BuildContextError> {
        self.load(context, dockerfile).map(Self::Given)
    }

    /// Returns the rules for a context.
    pub(super) fn load(
        &self,
        context: &Path,
        dockerfile: &Dockerfile,
    ) -> Result<DockerIgnore, BuildContextError> {
        match self {
            Self::Find => match find_ignore_file(context, dockerfile)? {
                Some((path, file)) => load_ignore_file(path, file),
                None => Ok(DockerIgnore::default()),
            },
            Self::Given(rules) => Ok(rules.clone()),
            Self::Nothing => Ok(DockerIgnore::default()),
        }
    }
}

/// Returns the ignore file that speaks for `context`, opened: `NAME.dockerignore` beside the
/// Dockerfile NAME, else `.dockerignore` in the context.
///
/// # Errors
/// It is there, but cannot be opened or is not a file.
pub fn find_ignore_file(
    context: &Path,
    dockerfile: &Dockerfile,
) -> Result<Option<(PathBuf, File)>, BuildContextError> {
    if let Dockerfile::File(path) = dockerfile {
        let mut own = OsString::from(path);
        own.push(NAME);
        if let Some(found) = open(PathBuf::from(own))? {
            return Ok(Some(found));
        }
    }
    open(context.join(NAME))
}

fn open(path: PathBuf) -> Result<Option<(PathBuf, File)>, BuildContextError> {
    // If it is a named pipe, there is no waiting for a writer.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BuildContextError::io("open", &path)(error)),
    };
    let metadata = file
        .metadata()
        .map_err(BuildContextError::io("examine", &path))?;
    if !metadata.is_file() {
        let what = "ignore file";
        return Err(BuildContextError::NotAFile { what, path });
    }
    Ok(Some((path, file)))
}

fn load_ignore_file(path: PathBuf, file: File) -> Result<DockerIgnore, BuildContextError> {
    let mut text = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut text)
        .map_err(BuildContextError::io("read", &path))?;
    if text.len() as u64 > MAX_SIZE {
        return Err(BuildContextError::IgnoreTooLarge { path });
    }
    DockerIgnore::parse(&text).map_err(|source| BuildContextError::Ignore { path, source })
}

/// Returns a line for an ignore file that leaves out `path` and nothing beside it.
pub(super) fn line_for(path: &[u8]) -> Vec<u8> {
    // The slash keeps `#` at the start from meaning something; `!` would mean something again
    // once the reader has dropped the slash.
    let mut line = b"/".to_vec();
    for byte in path {
        if matches!(
            byte,
            b'!' | b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'{' | b'}' | b'|'
        ) {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_out_one_path() {
        for path in [
            "Dockerfile",
            "#a",
            "!a",
            "a b",
            "deploy/Docker[file].{x|y}^2",
            r"a\d*",
            "?",
        ] {
            let rules = DockerIgnore::parse(line_for(path.as_bytes())).unwrap();
            assert!(rules.matches(path), "{path}");
            for other in ["x", "a", "a1", "ab", "deploy", "y}^2"] {
                assert!(!rules.matches(other), "{path} {other}");
            }
        }
    }
}
