//! The control API of BuildKit: solve, watch, ask.

use bollard_buildkit_proto::moby::buildkit::v1::{
    BytesMessage, InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse,
};
use futures_util::Stream;
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::connection::{AnyConnection, Channel};

/// The control API at the other end of a connection.
pub(super) struct Control {
    channel: Channel,
}

impl Control {
    /// Starts to speak on `connection`.
    pub(super) async fn open(connection: AnyConnection) -> Result<Self, hyper::Error> {
        let channel = Channel::open(connection).await?;
        Ok(Self { channel })
    }

    /// Solves, and returns what the exporter says.
    pub(super) async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let path = "/moby.buildkit.v1.Control/Solve";
        self.ask(path, request).await
    }

    /// Returns what happens during the solve called `reference`.
    pub(super) async fn status(
        &self,
        reference: String,
    ) -> Result<Streaming<StatusResponse>, Status> {
        let mut client = self.channel.client();
        client.ready().await.map_err(lost)?;
        let request = Request::new(StatusRequest { r#ref: reference });
        let path = PathAndQuery::from_static("/moby.buildkit.v1.Control/Status");
        let codec = ProstCodec::<StatusRequest, StatusResponse>::new();
        let response = client.server_streaming(request, path, codec).await?;
        Ok(response.into_inner())
    }

    /// Returns what runs the steps.
    pub(super) async fn workers(&self) -> Result<ListWorkersResponse, Status> {
        let path = "/moby.buildkit.v1.Control/ListWorkers";
        self.ask(path, ListWorkersRequest { filter: Vec::new() })
            .await
    }

    /// Returns its version; older ones do not tell.
    pub(super) async fn info(&self) -> Result<InfoResponse, Status> {
        self.ask("/moby.buildkit.v1.Control/Info", InfoRequest {})
            .await
    }

    /// Opens a session within this connection.
    pub(super) async fn session(
        &self,
        metadata: MetadataMap,
        pieces: impl Stream<Item = BytesMessage> + Send + 'static,
    ) -> Result<Streaming<BytesMessage>, Status> {
        let mut client = self.channel.client();
        client.ready().await.map_err(lost)?;
        let mut request = Request::new(pieces);
        *request.metadata_mut() = metadata;
        let path = PathAndQuery::from_static("/moby.buildkit.v1.Control/Session");
        let codec = ProstCodec::<BytesMessage, BytesMessage>::new();
        let response = client.streaming(request, path, codec).await?;
        Ok(response.into_inner())
    }

    async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut client = self.channel.client();
        client.ready().await.map_err(lost)?;
        let codec = ProstCodec::<Q, A>::new();
        let path = PathAndQuery::from_static(path);
        let answer = client.unary(Request::new(question), path, codec).await;
        answer.map(Response::into_inner)
    }
}

fn lost(error: hyper::Error) -> Status {
    Status::from_error(Box::new(error))
}
