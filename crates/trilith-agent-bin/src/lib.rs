//! The agent as one static program, to be put into images.
//!
//! The build script compiles `trilith-agent` for the same processor with everything linked in, so
//! that whoever is compiled with this carries it and has nothing to look for. It runs on any
//! Linux of that processor, whatever else there is. Nothing else is here.

/// Returns the program: an ELF executable without an interpreter.
#[must_use]
pub fn binary() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/trilith-agent"))
}
