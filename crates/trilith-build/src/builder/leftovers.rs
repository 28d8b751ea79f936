//! Names that a build uses in an engine for a while, and cannot give back when it dies or the engine
//! does: the next build on that engine takes them away.
//!
//! A build's directory in the store holds a note with the names it may use, locked for as long as
//! it lives. A note that nobody has locked is of the dead. Only names that Trilith makes up are in it:
//! those of levels may have become somebody's.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::engine::{Engine, EngineIdentity};

/// What the directories of builds on engines begin with.
pub(crate) const PREFIX: &str = "engine-";
/// The file in the directory of a build.
const NOTE: &str = "names";

/// The note of a build that lives.
#[derive(Debug)]
pub(super) struct Note {
    _locked: File,
}

impl Note {
    /// Notes in `directory` that `names` may be used in the engine.
    pub(super) fn write(
        directory: &Path,
        engine: &EngineIdentity,
        names: impl Iterator<Item = String>,
    ) -> io::Result<Self> {
        // Nobody may see it before it is locked.
        let hidden = directory.join("names.new");
        let mut file = File::create(&hidden)?;
        file.lock()?;
        writeln!(file, "{}", engine.address)?;
        for name in names {
            writeln!(file, "{name}")?;
        }
        fs::rename(&hidden, directory.join(NOTE))?;
        Ok(Self { _locked: file })
    }
}

/// Takes away what dead builds in `store` have left in `engine`, as far as that can be done.
pub(super) async fn sweep(store: &Path, engine: &dyn Engine, identity: &EngineIdentity) {
    let entries = fs::read_dir(store).into_iter().flatten().flatten();
    let builds = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
    });
    for build in builds {
        let directory = build.path();
        let Some(note) = read_of_dead(&directory) else {
            continue;
        };
        let mut lines = note.lines();
        if lines.next() != Some(&identity.address) {
            continue;
        }
        let mut all_gone = true;
        for name in lines.filter_map(|line| line.parse().ok()) {
            all_gone &= engine.untag(&name).await.is_ok();
        }
        if all_gone {
            // What cannot be removed now is there for the next build.
            let _stays = fs::remove_dir_all(&directory);
        }
    }
}

/// Returns the note in `directory` if the build that wrote it is dead.
fn read_of_dead(directory: &Path) -> Option<String> {
    let mut file = File::open(directory.join(NOTE)).ok()?;
    file.try_lock().ok()?;
    let mut note = String::new();
    file.read_to_string(&mut note).ok()?;
    Some(note)
}

/// Returns whether `directory` holds a note, which the next build on its engine needs.
pub(crate) fn has_note(directory: &Path) -> bool {
    directory.join(NOTE).exists()
}

/// Removes everything but the note from `directory`.
pub(crate) fn leave_only_note(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name() != NOTE {
            let _stays_for_the_next_build = fs::remove_file(entry.path());
        }
    }
}
