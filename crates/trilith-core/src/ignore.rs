//! What the walk of a tree asks a list of ignore patterns, whatever its dialect.

use crate::pattern::{DirectoryPatterns, Patterns};

/// A list of patterns that says what of a tree is left out.
pub(crate) trait Ignore: Sync {
    /// The list as it applies in one directory.
    type Inside<'a>: Inside
    where
        Self: 'a;

    /// Whether trees are walked as Docker walks build contexts: sockets are passed over, and a
    /// directory counts that is not left out itself, but all that is in it.
    const AS_DOCKER: bool;

    /// Returns the list as it applies to the names in one directory. `prefix` is the directory's
    /// relative path with a slash at its end, or empty for the root.
    fn in_directory<'a>(&'a self, prefix: &'a [u8]) -> Self::Inside<'a>;
}

/// A list of patterns from which everything is taken out that a directory decides alone.
pub(crate) trait Inside: Sync {
    /// Returns whether the directory itself is left out.
    fn verdict(&self) -> bool;

    /// Returns whether no name in or below the directory can get another answer than
    /// [`Self::verdict`].
    fn is_decided(&self) -> bool;

    /// Returns whether the file or link `name` in the directory is left out.
    fn matches(&self, name: &[u8]) -> bool;
}

impl Ignore for Patterns {
    type Inside<'a> = DirectoryPatterns<'a>;

    const AS_DOCKER: bool = false;

    fn in_directory<'a>(&'a self, prefix: &'a [u8]) -> DirectoryPatterns<'a> {
        self.in_directory(prefix)
    }
}

impl Inside for DirectoryPatterns<'_> {
    fn verdict(&self) -> bool {
        self.verdict()
    }

    fn is_decided(&self) -> bool {
        self.is_decided()
    }

    fn matches(&self, name: &[u8]) -> bool {
        self.matches(name)
    }
}
