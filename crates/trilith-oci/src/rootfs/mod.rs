//! Root file systems in directories: images unpacked into them, and images made of them.
//!
//! Runs nothing of what it unpacks, mounts nothing, and needs no privileges; without them
//! owners are not kept and devices are left out, and it says so.

mod apply;
mod entries;
mod find;
mod pack;
#[cfg(test)]
mod pack_tests;
mod root;
mod scan;
#[cfg(test)]
mod tests;
mod unpack;
mod watch;

pub use find::{FindOptions, FoundFiles, ImageFile, find_files};
pub use pack::{RootFsSource, open_rootfs, open_scratch};
pub use unpack::{Ownership, UnpackOptions, UnpackReport, unpack_image};
pub use watch::Subtree;
