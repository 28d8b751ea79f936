//! Build contexts: what an engine is sent to build a Dockerfile with.
//!
//! A context is listed and hashed first ([`BuildContext`]), and everything else comes from that
//! one list: its hash, its archive, the answers to an engine that asks for single files. So what
//! is not hashed is not sent, and what is sent is hashed: a file that is no longer what it was
//! when it was listed is an error, not a surprise in an image.
//!
//! The archive is the same bytes on every machine: sorted, times 0, owner 0:0, modes without what
//! a umask leaves in them. It is streamed; only the list is ever in memory.
//!
//! # Dockerfile and `.dockerignore`
//!
//! The rules are those of `NAME.dockerignore` beside the Dockerfile NAME if there is one, else
//! those of `.dockerignore` in the context.
//!
//! Engines differ in what they need of the two files. `BuildKit` asks for the Dockerfile by
//! itself, and a context for it holds what the rules let through ([`BuildContext::entries`]). The
//! classic builder, and Podman, take one archive and look for the Dockerfile there, so it is put
//! in even where the rules leave it out or where it lies elsewhere, together with a
//! `.dockerignore` that has the engine hide both before it copies a single file
//! ([`BuildContext::archive_entries`]). Docker's own client does the same, but under random names.
//!
//! Nothing here starts an engine or reads a Dockerfile's instructions.

mod agent_server;
mod context;
mod directory;
mod error;
mod ignore_file;
mod parts;
mod stream;
mod tarball;

pub(crate) use agent_server::parts_of;
pub use agent_server::{
    AGENT_SERVER_DOCKERFILE, AgentServerContext, agent_server_parts, load_agent_server_context,
};
pub use context::{BuildContext, ContextEntry, Dockerfile};
pub use error::BuildContextError;
pub use ignore_file::{IgnoreRules, find_ignore_file};
pub use parts::{ContextParts, FilePart, PartsContext, TreePart, load_parts};
pub use stream::ContextStream;
pub use tarball::{
    ContextArchive, ContextOptions, create_agent_server_context_tarball,
    create_build_context_tarball,
};
