//! SSH agents for BuildKit: steps speak to an agent of this machine, through the session.
//!
//! Bytes are passed on as they are; no key is read.

use std::path::PathBuf;

use bollard_buildkit_proto::moby::sshforward::v1::{
    BytesMessage, CheckAgentRequest, CheckAgentResponse,
};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

use super::session::Answers;
use crate::engine::SshAgent;

/// Bytes that are passed on at once.
const PIECE: usize = 32 * 1024;

/// The agents of a build.
pub(super) struct Agents(pub(super) Vec<SshAgent>);

impl Agents {
    /// Answers `SSH/CheckAgent`.
    pub(super) fn check(
        &self,
        request: &Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.get_ref().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    /// Answers `SSH/ForwardAgent`.
    pub(super) async fn forward(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Answers<BytesMessage>>, Status> {
        let id = request.metadata().get("buildkit.ssh.id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        let socket = self.socket(id)?;
        let agent = UnixStream::connect(socket).await.map_err(|error| {
            let socket = socket.display();
            Status::unavailable(format!("the SSH agent at `{socket}` is gone: {error}"))
        })?;
        let (from_agent, mut to_agent) = agent.into_split();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if to_agent.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            // Dropped here: the agent sees the end, and ends too.
        });
        let answers = futures_util::stream::try_unfold(from_agent, |mut agent| async {
            let mut data = Vec::with_capacity(PIECE);
            let read = agent.read_buf(&mut data).await?;
            Ok((read > 0).then_some((BytesMessage { data }, agent)))
        });
        Ok(Response::new(answers.boxed()))
    }

    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { "default" } else { id };
        let agent = self.0.iter().find(|agent| agent.id == id);
        let agent = agent.ok_or_else(|| Status::not_found(format!("no SSH agent `{id}`")))?;
        Ok(&agent.socket)
    }
}
