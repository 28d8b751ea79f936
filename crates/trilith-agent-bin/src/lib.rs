//! The agent as one static program, to be put into images.
//!
//! The build script compiles `trilith-agent` for the same processor with everything linked in, so
//! that whoever is compiled with this carries it and has nothing to look for. It runs on any
//! Linux of that processor, whatever else there is. Besides it, only how it stands in an image is here.

/// Absolute path of the program in images and containers.
pub const PATH: &str = "/.trilith/agent";

/// Mode bits of the program there: everybody may run it, and nobody change it.
pub const MODE: u32 = 0o555;

/// Returns the program: an ELF executable without an interpreter.
#[must_use]
pub fn binary() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/trilith-agent"))
}
