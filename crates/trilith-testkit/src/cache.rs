//! Things that are slow to make and the same for every test: made once, kept in the target directory.
//!
//! `cargo clean` removes them. Safe for several test processes at once: the first one
//! makes the thing under a lock, the others wait. An attempt that fails leaves nothing behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Returns the target directory of the running test.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("cannot tell which program runs");
    // Cargo marks the directory with a tag file.
    let target = test
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists());
    target
        .unwrap_or_else(|| panic!("`{}` is in no target directory", test.display()))
        .to_owned()
}

/// Returns the path of the cached file or directory `name`; `make` makes it at the path it is given.
pub(crate) fn cached(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let dir = target_dir().join("testkit");
    fs::create_dir_all(&dir).expect("cannot create the testkit's cache");
    let path = dir.join(name);
    let lock = File::create(dir.join(format!("{name}.lock"))).expect("cannot create a lock file");
    lock.lock().expect("cannot lock the testkit's cache");
    if !path.exists() {
        let partial = dir.join(format!("{name}.partial"));
        remove(&partial);
        make(&partial);
        fs::rename(&partial, &path).expect("cannot put a thing into the testkit's cache");
    }
    path
}

/// Removes what a killed attempt left.
fn remove(partial: &Path) {
    if partial.is_dir() {
        fs::remove_dir_all(partial).expect("cannot remove a partial directory");
    } else if partial.exists() {
        fs::remove_file(partial).expect("cannot remove a partial file");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn one_of_many_makes_it() {
        let name = format!("self-test-{}", std::process::id());
        let made = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let path = cached(&name, |path| {
                        made.fetch_add(1, Ordering::SeqCst);
                        fs::write(path, "once").unwrap();
                    });
                    assert_eq!(fs::read_to_string(path).unwrap(), "once");
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
        let dir = target_dir().join("testkit");
        fs::remove_file(dir.join(&name)).unwrap();
        fs::remove_file(dir.join(format!("{name}.lock"))).unwrap();
    }
}
