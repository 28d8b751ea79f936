//! A workspace in a container of Docker or Podman, which goes when it does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use trilith_build::Context;
use trilith_build::engine::{Container, Containers};

use crate::container::{Started, start, stop};
use crate::{Agent, Error, Record, Records, StartOptions, Workspace};

/// A container with the agent in it. When it is dropped the container is killed and removed,
/// unless it was stopped or [kept](Self::keep).
pub struct DockerWorkspace {
    engine: Arc<dyn Containers>,
    records: Records,
    started: Started,
    /// Whether the container is to go with this.
    is_bound: AtomicBool,
}

impl DockerWorkspace {
    /// Starts a workspace and waits until its agent answers.
    ///
    /// When the future is dropped, or `interrupted` is ready first, no container stays.
    ///
    /// # Errors
    /// [`Error::Died`], [`Error::Silent`], [`Error::Interrupted`], and those of the engine. No
    /// container stays.
    pub async fn start(
        context: &Context,
        engine: Arc<dyn Containers>,
        records: &Records,
        options: &StartOptions,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Self, Error> {
        let started = start(context, engine.as_ref(), records, options, interrupted).await?;
        Ok(Self {
            engine,
            records: records.clone(),
            started,
            is_bound: AtomicBool::new(true),
        })
    }

    /// Returns what is remembered of it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.started.record
    }

    /// Returns its container, as it was when the agent answered.
    #[must_use]
    pub fn container(&self) -> &Container {
        &self.started.container
    }

    /// Lets the container go on without this.
    pub fn keep(&self) {
        self.is_bound.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl Workspace for DockerWorkspace {
    fn kind(&self) -> &'static str {
        "a workspace in a container"
    }

    fn agent(&self) -> &Agent {
        &self.started.agent
    }

    async fn pause(&self) -> Result<(), Error> {
        Ok(self.engine.pause(&self.record().id).await?)
    }

    async fn resume(&self) -> Result<(), Error> {
        Ok(self.engine.resume(&self.record().id).await?)
    }

    async fn stop(&self) -> Result<(), Error> {
        stop(self.engine.as_ref(), &self.records, &self.record().id).await?;
        self.keep();
        Ok(())
    }
}

impl Drop for DockerWorkspace {
    fn drop(&mut self) {
        if self.is_bound.load(Ordering::Relaxed) {
            self.engine.remove_now(&self.record().id);
            self.records.forget(&self.record().id);
        }
    }
}

impl fmt::Debug for DockerWorkspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerWorkspace")
            .field("record", self.record())
            .finish_non_exhaustive()
    }
}
