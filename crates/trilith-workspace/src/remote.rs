//! A workspace that somebody else has started: an agent at an address.

use async_trait::async_trait;

use crate::{Agent, Error, SessionKey, Workspace};

/// A workspace of which no more is known than where its agent answers.
#[derive(Clone, Debug)]
pub struct RemoteWorkspace {
    agent: Agent,
}

impl RemoteWorkspace {
    /// Returns the workspace whose agent is at `url`, which is plain HTTP. Nothing is asked.
    ///
    /// # Errors
    /// HTTP cannot be set up.
    pub fn try_new(url: &str, key: SessionKey) -> Result<Self, Error> {
        let agent = Agent::try_new(url, key)?;
        Ok(Self { agent })
    }
}

#[async_trait]
impl Workspace for RemoteWorkspace {
    fn kind(&self) -> &'static str {
        "a remote workspace"
    }

    fn agent(&self) -> &Agent {
        &self.agent
    }

    async fn stop(&self) -> Result<(), Error> {
        Ok(())
    }
}
