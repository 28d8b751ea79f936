//! Workspaces: containers with the agent in them, started, driven and stopped.
//!
//! The agent is put into a container that was made of any image, before it starts; the image
//! needs nothing, not even a shell. Prints nothing and reads no environment.

mod agent;
mod container;
mod copy;
mod error;
mod key;
mod options;
mod records;

pub use agent::{Agent, Command, Ended};
pub use container::{LABEL, Started, find_workspaces, resolve, start, stop};
pub use copy::{copy_in, copy_out};
pub use error::Error;
pub use key::SessionKey;
pub use options::{Defaults, StartOptions};
pub use records::{Record, Records};
