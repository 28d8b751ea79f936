//! Workspaces: containers with the agent in them, started, driven and stopped.
//!
//! The agent is put into a container that was made of any image, before it starts; the image
//! needs nothing, not even a shell. Prints nothing and reads no environment.

mod agent;
mod container;
mod copy;
mod docker;
mod error;
mod key;
mod local;
mod options;
mod records;
mod remote;
mod workspace;

pub use agent::{Agent, Change, ChangeStatus, Command, Diff, Ended, Program};
pub use container::{LABEL, find_workspaces, resolve, stop};
pub use copy::{copy_in, copy_out};
pub use docker::DockerWorkspace;
pub use error::Error;
pub use key::SessionKey;
pub use local::LocalWorkspace;
pub use options::{Defaults, StartOptions};
pub use records::{Record, Records};
pub use remote::RemoteWorkspace;
pub use workspace::{Input, Output, Sink, Workspace};
