//! Which commit a checkout is of, read from git's own files.
//!
//! Never an input of a hash, so that what cannot be told is `unknown` and no failure. Repositories
//! that keep their references in the `reftable` format are unknown: git is not run.

use std::path::{Path, PathBuf};

use crate::project::manifest::read_text;

/// What cannot be told.
const UNKNOWN: &str = "unknown";
/// How many symbolic references may lead from one to the next.
const MAX_STEPS: usize = 5;
/// How many digits a short digest has.
const SHORT: usize = 7;

/// What is known of the commit already, and not looked up.
#[derive(Clone, Debug, Default)]
pub struct GitOverrides {
    /// The commit.
    pub sha: Option<String>,
    /// The branch, or a reference such as `refs/tags/v1.0.0`.
    pub reference: Option<String>,
}

/// The commit of a checkout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitInfo {
    /// The commit in hexadecimal, or `unknown`.
    pub sha: String,
    /// The branch, as in `main`, or `unknown` where a commit is checked out.
    pub reference: String,
}

impl GitInfo {
    /// Returns the commit of the checkout that `directory` is in, `overrides` first.
    #[must_use]
    pub fn load(directory: &Path, overrides: GitOverrides) -> Self {
        let head = || Head::load(directory).unwrap_or_default();
        let GitOverrides { sha, reference } = overrides;
        let (sha, reference) = match (sha, reference) {
            (Some(sha), Some(reference)) => (Some(sha), Some(reference)),
            (sha, reference) => {
                let head = head();
                (sha.or(head.sha), reference.or(head.branch))
            }
        };
        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
        Self {
            sha: or_unknown(sha),
            reference: or_unknown(reference),
        }
    }

    /// Returns the first seven digits of the commit, or `unknown`.
    #[must_use]
    pub fn short_sha(&self) -> &str {
        self.sha.get(..SHORT).unwrap_or(&self.sha)
    }
}

/// What `HEAD` says.
#[derive(Debug, Default)]
struct Head {
    sha: Option<String>,
    branch: Option<String>,
}

/// Where git keeps what it knows.
struct Places {
    /// Of this work tree.
    own: PathBuf,
    /// Of all work trees of the repository.
    common: PathBuf,
}

impl Head {
    fn load(directory: &Path) -> Option<Self> {
        let places = Places::find(directory)?;
        let head = text(&places.own.join("HEAD"))?;
        match head.strip_prefix("ref:") {
            None => Some(Self {
                sha: digest(&head),
                branch: None,
            }),
            Some(name) => {
                let name = name.trim();
                let branch = name.strip_prefix("refs/heads/").unwrap_or(name);
                Some(Self {
                    sha: places.resolve(name),
                    branch: Some(branch.to_owned()),
                })
            }
        }
    }
}

impl Places {
    /// Finds `.git` in `directory` or above. In a submodule or a second work tree it is a file that
    /// says where the directory is (gitrepository-layout).
    fn find(directory: &Path) -> Option<Self> {
        let mut candidates = directory.ancestors().map(|above| above.join(".git"));
        let git = candidates.find(|git| git.exists())?;
        let own = if git.is_dir() {
            git
        } else {
            let text = text(&git)?;
            let target = text.strip_prefix("gitdir:")?.trim();
            git.parent()?.join(target)
        };
        let common = match text(&own.join("commondir")) {
            Some(common) => own.join(common),
            None => own.clone(),
        };
        Some(Self { own, common })
    }

    /// Returns the commit that the reference `name` leads to.
    fn resolve(&self, name: &str) -> Option<String> {
        let mut name = name.to_owned();
        for _ in 0..MAX_STEPS {
            let is_plain = name.split('/').all(|part| !part.is_empty() && part != "..");
            if !name.starts_with("refs/") || !is_plain {
                return None;
            }
            let loose = text(&self.own.join(&name)).or_else(|| text(&self.common.join(&name)));
            match loose {
                None => return self.packed(&name),
                Some(text) => match text.strip_prefix("ref:") {
                    Some(next) => next.trim().clone_into(&mut name),
                    None => return digest(&text),
                },
            }
        }
        None
    }

    /// Looks up `name` in `packed-refs`: lines of a digest, a space and a name.
    fn packed(&self, name: &str) -> Option<String> {
        let packed = text(&self.common.join("packed-refs"))?;
        let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
        let (sha, _) = lines.find(|(_, packed)| packed.trim() == name)?;
        digest(sha)
    }
}

/// Returns the text of a file without white space around it.
fn text(path: &Path) -> Option<String> {
    let text = read_text(path).ok()??;
    Some(text.trim().to_owned())
}

/// Returns `text` if it is a SHA-1 or SHA-256 digest in hexadecimal.
fn digest(text: &str) -> Option<String> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && matches!(text.len(), 40 | 64)).then(|| text.to_owned())
}
