//! Which files of the build context a stage can see, as patterns.
//!
//! When in doubt a file is seen: a key that moves too often costs time, one that does not move
//! gives a wrong image. Nothing is read from disk, and `.dockerignore` has been applied before.

use std::collections::BTreeSet;

use super::glob::{self, Glob};
use super::instruction::Path;

/// The most patterns that following symlinks may lead to before everything counts as seen.
const MAX_FOLLOWED: usize = 100;

/// Files of a build context: those that `COPY`, `ADD` and `RUN --mount` name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextFiles {
    copied: BTreeSet<Copied>,
}

/// A source path and what is left out of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Copied {
    /// The components of the source; none for the whole context.
    source: Vec<Glob>,
    /// What is left out, relative to what the source matches.
    excludes: Vec<Vec<Glob>>,
}

impl ContextFiles {
    /// Returns whether the file, symlink or directory at `path` is among these files. `path` is
    /// relative to the context, with `/` between components; the empty path is the context.
    #[must_use]
    pub fn sees(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        let components: Vec<&str> = components(&path).collect();
        self.copied.iter().any(|copied| copied.sees(&components))
    }

    /// Returns whether no file can be told to be unseen.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.copied
            .iter()
            .any(|copied| copied.source.is_empty() && copied.excludes.is_empty())
    }

    /// Returns whether there are no such files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty()
    }

    /// Returns these files, the symlinks on the way to them, and what those lead to. `links` are
    /// the symlinks of the context, each with its target.
    ///
    /// Symlinks inside a copied directory are copied as such and not followed.
    #[must_use]
    pub fn following(&self, links: &[(&[u8], &[u8])]) -> Self {
        let mut all = self.clone();
        let mut next: Vec<Copied> = self.copied.iter().cloned().collect();
        let mut on_the_way = BTreeSet::new();
        while let Some(copied) = next.pop() {
            for (link, target) in links {
                let targets = copied.through(link, target);
                if !targets.is_empty() {
                    let link = String::from_utf8_lossy(link);
                    on_the_way.insert(Copied {
                        source: components(&link).map(Glob::literal).collect(),
                        excludes: Vec::new(),
                    });
                }
                next.extend(
                    targets
                        .into_iter()
                        .filter(|new| all.copied.insert(new.clone())),
                );
            }
            if all.copied.len() > self.copied.len() + MAX_FOLLOWED {
                all.add_everything();
                break;
            }
        }
        all.copied.extend(on_the_way);
        all
    }

    /// Adds the whole context.
    pub(super) fn add_everything(&mut self) {
        self.copied.insert(Copied {
            source: Vec::new(),
            excludes: Vec::new(),
        });
    }

    /// Adds the source of a copy or mount, less `excludes`.
    pub(super) fn add(&mut self, source: &Path, excludes: &[Path]) {
        let Path::Known(source) = source else {
            return self.add_everything();
        };
        let excludes: Option<Vec<Vec<Glob>>> = excludes.iter().map(exclude).collect();
        self.copied.insert(Copied {
            source: globs(source),
            // With one that is in doubt, all are: an exception takes back part of another.
            excludes: excludes.unwrap_or_default(),
        });
    }
}

impl Copied {
    fn sees(&self, path: &[&str]) -> bool {
        // A copied directory brings all that is below it.
        (0..=path.len()).any(|at| {
            let (matched, below) = path.split_at(at);
            glob::matches(&self.source, matched) && !self.excluded(below)
        })
    }

    /// Returns whether `below`, relative to what the source matches, or a directory above it is
    /// left out.
    fn excluded(&self, below: &[&str]) -> bool {
        let ancestors = || (1..=below.len()).map(|end| &below[..end]);
        self.excludes
            .iter()
            .any(|exclude| ancestors().any(|path| glob::matches(exclude, path)))
    }

    /// Returns what this source comes to when it passes through the symlink `link`.
    fn through(&self, link: &[u8], target: &[u8]) -> Vec<Self> {
        let link = String::from_utf8_lossy(link);
        let target = String::from_utf8_lossy(target);
        let link: Vec<&str> = components(&link).collect();
        let Some((_, directory)) = link.split_last() else {
            return Vec::new();
        };
        let mut reached: Vec<&str> = if target.starts_with('/') {
            Vec::new()
        } else {
            directory.to_vec()
        };
        reached = components_from(reached, &target);
        let ends = 1..=self.source.len();
        ends.filter(|end| glob::matches(&self.source[..*end], &link))
            .map(|end| {
                let literal = reached.iter().map(|component| Glob::literal(component));
                Self {
                    source: literal.chain(self.source[end..].iter().cloned()).collect(),
                    excludes: self.excludes.clone(),
                }
            })
            .collect()
    }
}

/// Returns what surely is left out; `None` for an exception or anything that is in doubt.
fn exclude(path: &Path) -> Option<Vec<Glob>> {
    match path {
        Path::Known(path) if !path.starts_with('!') => {
            Some(globs(path)).filter(|globs| !globs.contains(&Glob::Doubtful))
        }
        _ => None,
    }
}

fn globs(path: &str) -> Vec<Glob> {
    let components = components_from(Vec::new(), path);
    components.into_iter().map(Glob::new).collect()
}

/// Returns the components of a path in normal form.
fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|component| !matches!(*component, "" | "."))
}

/// Returns where `path` leads from `start`; `..` never leads out of the context.
fn components_from<'p>(start: Vec<&'p str>, path: &'p str) -> Vec<&'p str> {
    components(path).fold(start, |mut reached, component| {
        if component == ".." {
            reached.pop();
        } else {
            reached.push(component);
        }
        reached
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(path: &str) -> Path {
        Path::Known(path.to_owned())
    }

    fn files(source: &str, excludes: &[&str]) -> ContextFiles {
        let mut files = ContextFiles::default();
        let excludes: Vec<Path> = excludes.iter().map(|exclude| known(exclude)).collect();
        files.add(&known(source), &excludes);
        files
    }

    #[test]
    fn seen() {
        for (source, excludes, seen, unseen) in [
            (
                "app",
                &[][..],
                &["app", "app/a", "app/b/c"][..],
                &["apps", "a", "b/app", ""][..],
            ),
            ("./app/", &[], &["app/a"], &["a"]),
            ("/app", &[], &["app/a"], &["a"]),
            ("../app/x/..", &[], &["app/a"], &["a"]),
            (".", &[], &["", "a", "a/b"], &[]),
            ("..", &[], &["a"], &[]),
            (
                "*.toml",
                &[],
                &["a.toml", "b.toml/c"],
                &["a/b.toml", "toml"],
            ),
            ("a?c/[b-d]", &[], &["abc/c/x"], &["ac/c", "abc/e"]),
            ("**/x", &[], &["x", "a/x", "a/b/x/c"], &["a/y"]),
            (".", &["*.md"], &["a/b.md", "c"], &["a.md", "d.md/x"]),
            (".", &["**/*.md", "docs"], &["a"], &["a/b.md", "docs/x"]),
            (
                "app",
                &["*.md"],
                &["app", "app/a/b.md"],
                &["app/a.md", "b.md"],
            ),
            ("app", &["*.md", "!a.md"], &["app/a.md", "app/b.md"], &["b"]),
            ("app", &["*.md", "[a"], &["app/a.md"], &["b"]),
            ("a.md", &["*.md"], &["a.md"], &["b.md"]),
            ("a[", &[], &["a[", "ab", "b"], &[]),
        ] {
            let files = files(source, excludes);
            for path in seen {
                assert!(files.sees(path.as_bytes()), "{source} {excludes:?} {path}");
            }
            for path in unseen {
                assert!(!files.sees(path.as_bytes()), "{source} {excludes:?} {path}");
            }
        }
    }

    #[test]
    fn doubt_covers_everything() {
        let mut files = files("a", &[]);
        assert!(!files.is_everything() && !files.is_empty());
        files.add(&Path::Unknown, &[]);
        assert!(files.is_everything());
        assert!(files.sees(b"\xff"));
        let mut excluded = ContextFiles::default();
        excluded.add(&known("."), &[Path::Unknown]);
        assert!(excluded.is_everything());
        assert!(ContextFiles::default().is_empty());
    }

    #[test]
    fn symlinks_are_followed_up_to_the_source() {
        let links: [(&[u8], &[u8]); 5] = [
            (b"app", b"src/app"),
            (b"src", b"/real"),
            (b"up/link", b"../other"),
            (b"loop", b"loop/a"),
            (b"unrelated", b"secret"),
        ];
        for (source, seen, unseen) in [
            (
                "app",
                &["app", "src/app/x", "real/app/x"][..],
                &["secret", "real/x"][..],
            ),
            (
                "app/x",
                &["app", "src", "real/app/x"],
                &["real/app/y", "up/link"],
            ),
            ("up/*", &["other/x"], &["secret"]),
            ("up", &["up/link"], &["other/x"]),
            ("loop", &["loop/a"], &[]),
        ] {
            let files = files(source, &[]).following(&links);
            for path in seen {
                assert!(files.sees(path.as_bytes()), "{source} {path}");
            }
            for path in unseen {
                assert!(!files.sees(path.as_bytes()), "{source} {path}");
            }
        }
    }
}
