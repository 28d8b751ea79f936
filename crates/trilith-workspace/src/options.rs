//! How a workspace is started. What is not said is the safe way.

use std::collections::BTreeMap;
use std::time::Duration;

use trilith_build::engine::{Gpus, PublishedPort};
use trilith_core::Platform;
use trilith_oci::place::Place;

/// What limits a workspace that says nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Defaults;

impl Defaults {
    /// The most processes and threads.
    pub const PIDS: u32 = 4096;
    /// The most memory, in bytes.
    pub const MEMORY: u64 = 4 << 30;
    /// How long the agent may take to answer.
    pub const HEALTH: Duration = Duration::from_secs(30);
    /// How long a workspace has to end before it is killed.
    pub const GRACE: Duration = Duration::from_secs(5);
}

/// How a workspace is started.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The image: what the engine has or can fetch, or a place that is loaded into it.
    pub image: Place,
    /// The container's name; one that is made up if `None`.
    pub name: Option<String>,
    /// Whether the image goes when the workspace is stopped, or does not come up, if it was
    /// brought to the engine for it. One that the engine had, or a container runs of, stays.
    pub remove_image: bool,
    /// Variables over those of the image.
    pub environment: BTreeMap<String, String>,
    /// As in `SOURCE:TARGET[:ro]`.
    pub volumes: Vec<String>,
    /// Ports to be reached besides the agent's.
    pub ports: Vec<PublishedPort>,
    /// The engine's network, or `host`.
    pub network: Option<String>,
    /// What the image must be for.
    pub platform: Option<Platform>,
    /// How many GPUs.
    pub gpus: Option<Gpus>,
    /// Whether the container's own files cannot be changed.
    pub read_only: bool,
    /// Capabilities to give; all others are dropped.
    pub capabilities: Vec<String>,
    /// The most processes and threads.
    pub pids: u32,
    /// The most memory, in bytes.
    pub memory: u64,
    /// How long the agent may take to answer.
    pub health_timeout: Duration,
}

impl StartOptions {
    /// Returns the options for `image`, all else being [`Defaults`].
    #[must_use]
    pub fn new(image: Place) -> Self {
        Self {
            image,
            name: None,
            remove_image: false,
            environment: BTreeMap::new(),
            volumes: Vec::new(),
            ports: Vec::new(),
            network: None,
            platform: None,
            gpus: None,
            read_only: false,
            capabilities: Vec::new(),
            pids: Defaults::PIDS,
            memory: Defaults::MEMORY,
            health_timeout: Defaults::HEALTH,
        }
    }
}
