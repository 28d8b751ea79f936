//! What changes are compared with, unless it is said.

use std::path::Path;

use super::run::Git;
use crate::failure::Outcome;

/// The tree that has nothing in it.
const EMPTY: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// Returns the commit that changes in the repository `dir` are compared with: `reference`, or what shows
/// best what was done there.
///
/// That is the branch as it is upstream, unless all of it is there already; else where the
/// branch left the default one, upstream or, without an upstream, here; else the last commit.
/// Where there is no commit yet it is the empty tree.
pub(super) async fn base(git: &Git, dir: &Path, reference: Option<&str>) -> Outcome<String> {
    let repository = Repository { git, dir };
    if let Some(name) = reference {
        let commit = format!("{name}^{{commit}}");
        let answer = git.run(dir, &["rev-parse", "--verify", &commit]).await?;
        if name == "HEAD" && !answer.succeeded() {
            return Ok(EMPTY.to_owned());
        }
        return Ok(String::from_utf8_lossy(&answer.success()?)
            .trim()
            .to_owned());
    }
    let head = repository.commit("HEAD").await?;
    let branch = repository
        .line(&["rev-parse", "--abbrev-ref", "HEAD"])
        .await?;
    let branch = branch.filter(|branch| branch != "HEAD");
    if let Some(branch) = &branch
        && let Some(upstream) = repository.commit(&format!("origin/{branch}")).await?
        && (Some(&upstream) != head.as_ref() || repository.is_dirty().await?)
    {
        return Ok(upstream);
    }
    let fork = match repository.remote_default().await? {
        Some(default) => {
            let default = format!("origin/{default}");
            match repository.line(&["merge-base", "HEAD", &default]).await? {
                Some(fork) => Some(fork),
                None => repository.commit(&default).await?,
            }
        }
        None => repository.local_fork(branch.as_deref()).await?,
    };
    Ok(fork.or(head).unwrap_or_else(|| EMPTY.to_owned()))
}

struct Repository<'a> {
    git: &'a Git,
    dir: &'a Path,
}

impl Repository<'_> {
    async fn line(&self, arguments: &[&str]) -> Outcome<Option<String>> {
        Ok(self.git.run(self.dir, arguments).await?.line())
    }

    async fn commit(&self, name: &str) -> Outcome<Option<String>> {
        self.line(&["rev-parse", "--verify", name]).await
    }

    /// Returns whether a file that git knows differs from the last commit.
    async fn is_dirty(&self) -> Outcome<bool> {
        let arguments = ["status", "--porcelain", "--untracked-files=no"];
        Ok(self.line(&arguments).await?.is_some())
    }

    /// Returns the default branch of the remote, as far as is known without asking it.
    async fn remote_default(&self) -> Outcome<Option<String>> {
        let head = self
            .line(&["symbolic-ref", "--short", "refs/remotes/origin/HEAD"])
            .await?;
        if let Some(name) = head
            .as_deref()
            .and_then(|head| head.strip_prefix("origin/"))
        {
            return Ok(Some(name.to_owned()));
        }
        for name in ["main", "master"] {
            if self.commit(&format!("origin/{name}")).await?.is_some() {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// Returns where `branch` left the local default branch, if all of that one is in it.
    async fn local_fork(&self, branch: Option<&str>) -> Outcome<Option<String>> {
        for name in ["main", "master"] {
            let Some(tip) = self.commit(name).await? else {
                continue;
            };
            if branch == Some(name) {
                return Ok(None);
            }
            let fork = self.line(&["merge-base", "HEAD", name]).await?;
            return Ok(fork.filter(|fork| *fork == tip));
        }
        Ok(None)
    }
}
