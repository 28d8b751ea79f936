//! Workspaces: the agent and what is around it, started, driven and stopped.
//!
//! The agent is put into a container that was made of any image, before it starts; the image
//! needs nothing, not even a shell. Prints nothing and reads no environment.
//!
//! [`Workspace`] is the seam. What is written against it works in a container of Docker or Podman
//! ([`DockerWorkspace`]), with any agent at an address ([`RemoteWorkspace`]) and in a directory of
//! this machine ([`LocalWorkspace`]):
//!
//! ```
//! use trilith_workspace::{Command, Error, LocalWorkspace, Workspace};
//!
//! async fn count_lines(workspace: &dyn Workspace, path: &str) -> Result<Vec<u8>, Error> {
//!     workspace.upload(Box::new(&b"one\ntwo\n"[..]), path).await?;
//!     let output = workspace.output(&Command::argv(["wc", "-l", path])).await?;
//!     assert_eq!(output.ended.exit_code, Some(0));
//!     Ok(output.stdout)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let workspace = LocalWorkspace::start(directory.path()).await?;
//! let path = directory.path().join("text").display().to_string();
//! assert!(count_lines(&workspace, &path).await?.starts_with(b"2 "));
//! workspace.stop().await?;
//! # Ok(())
//! # }
//! ```

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
pub use container::{LABEL, find_workspaces, locate, resolve, stop};
pub use copy::{copy_in, copy_out};
pub use docker::DockerWorkspace;
pub use error::Error;
pub use key::SessionKey;
pub use local::LocalWorkspace;
pub use options::{Defaults, StartOptions};
pub use records::{Record, Records};
pub use remote::RemoteWorkspace;
pub use workspace::{Input, Output, Sink, Workspace};
