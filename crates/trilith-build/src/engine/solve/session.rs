//! The session: what BuildKit asks of whoever called for a build.
//!
//! The roles are turned around here: BuildKit is the client, on a connection that we opened. It
//! is told which methods there are, and the rest it does not ask for.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse};
use futures_util::stream::BoxStream;
use hyper::body::Incoming;
use hyper::http;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::auth::Logins;
use super::connection::AnyConnection;
use super::content::{InfoResponse, Stores};
use super::files::Files;
use super::receive::Receiver;
use super::secrets::Secrets;
use super::ssh::Agents;
use crate::engine::EngineError;

/// What a session offers.
pub(super) struct Session {
    /// Unique in the world.
    pub(super) id: String,
    /// What BuildKit keeps the files of a context by, from one build to the next.
    pub(super) shared_key: String,
    pub(super) files: Files,
    pub(super) logins: Logins,
    pub(super) secrets: Secrets,
    pub(super) agents: Agents,
    pub(super) receiver: Option<Receiver>,
    pub(super) stores: Stores,
}

/// The first failure of this side, which explains what BuildKit says afterwards.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnFailure(Arc<Mutex<Option<EngineError>>>);

impl OwnFailure {
    /// Notes `error` if it is the first, and returns what BuildKit is told.
    pub(super) fn note(&self, error: EngineError) -> Status {
        let status = Status::aborted(error.to_string());
        // A second one follows from the first.
        self.lock().get_or_insert(error);
        status
    }

    /// Takes the failure out.
    pub(super) fn take(&self) -> Option<EngineError> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<EngineError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Returns what is said of the session when it is opened, as header fields.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-docker-expose-session-uuid", self.id.clone()),
            ("x-docker-expose-session-name", "trilith".to_owned()),
            ("x-docker-expose-session-sharedkey", self.shared_key.clone()),
        ];
        headers.extend(self.methods().map(|method| {
            let name = "x-docker-expose-session-grpc-method";
            (name, method.to_owned())
        }));
        headers
    }

    /// Returns the same as metadata of gRPC.
    pub(super) fn metadata(&self) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in self.headers() {
            // All of them are plain ASCII.
            if let Ok(value) = MetadataValue::try_from(value) {
                metadata.append(name, value);
            }
        }
        metadata
    }

    fn methods(&self) -> impl Iterator<Item = &'static str> {
        let receives = self
            .receiver
            .as_ref()
            .map(|_| "/moby.filesync.v1.FileSend/DiffCopy");
        let always = [
            "/grpc.health.v1.Health/Check",
            "/moby.filesync.v1.FileSync/DiffCopy",
            "/moby.filesync.v1.Auth/Credentials",
            "/moby.buildkit.secrets.v1.Secrets/GetSecret",
            "/moby.sshforward.v1.SSH/CheckAgent",
            "/moby.sshforward.v1.SSH/ForwardAgent",
            "/containerd.services.content.v1.Content/Info",
            "/containerd.services.content.v1.Content/Read",
            "/containerd.services.content.v1.Content/Update",
            "/containerd.services.content.v1.Content/Write",
        ];
        always.into_iter().chain(receives)
    }

    /// Answers on `connection` until it is closed.
    pub(super) async fn serve(self: Arc<Self>, connection: AnyConnection) {
        let answer = service_fn(move |request| {
            let session = Arc::clone(&self);
            async move { Ok::<_, Infallible>(session.answer(request).await) }
        });
        let served = Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(connection), answer)
            .await;
        // A broken connection shows in what was asked of the engine.
        drop(served);
    }

    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/grpc.health.v1.Health/Check" => {
                unary(request, |_: Request<HealthCheckRequest>| {
                    ready(Ok(Response::new(HealthCheckResponse { status: SERVING })))
                })
                .await
            }
            "/moby.filesync.v1.FileSync/DiffCopy" => {
                streaming(request, |request| ready(self.files.send(request))).await
            }
            "/moby.filesync.v1.Auth/Credentials" => {
                unary(request, |request| self.logins.find(request)).await
            }
            "/moby.buildkit.secrets.v1.Secrets/GetSecret" => {
                unary(request, |request| self.secrets.find(request)).await
            }
            "/moby.sshforward.v1.SSH/CheckAgent" => {
                unary(request, |request| ready(self.agents.check(&request))).await
            }
            "/moby.sshforward.v1.SSH/ForwardAgent" => {
                streaming(request, |request| self.agents.forward(request)).await
            }
            "/moby.filesync.v1.FileSend/DiffCopy" => match &self.receiver {
                Some(receiver) => {
                    streaming(request, |request| ready(Ok(receiver.receive(request)))).await
                }
                None => Status::unimplemented("nothing is received").into_http(),
            },
            "/containerd.services.content.v1.Content/Info" => {
                unary(request, |request| self.stores.info(request)).await
            }
            "/containerd.services.content.v1.Content/Read" => {
                let mut grpc = Grpc::new(ProstCodec::new());
                let read = Method(|request| self.stores.read(request));
                grpc.server_streaming(read, request).await
            }
            // Labels are not kept; they matter to those who collect garbage.
            "/containerd.services.content.v1.Content/Update" => {
                unary(request, |request: Request<InfoResponse>| {
                    ready(Ok(Response::new(request.into_inner())))
                })
                .await
            }
            "/containerd.services.content.v1.Content/Write" => {
                streaming(request, |request| ready(self.stores.write(request))).await
            }
            _ => Status::unimplemented(format!("`{path}` is not offered")).into_http(),
        }
    }
}

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// A stream of answers.
pub(super) type Answers<T> = BoxStream<'static, Result<T, Status>>;

async fn unary<Q, A, F, R>(request: http::Request<Incoming>, answer: F) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: FnMut(Request<Q>) -> R + Send,
    R: Future<Output = Result<Response<A>, Status>> + Send,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::new());
    grpc.unary(Method(answer), request).await
}

async fn streaming<Q, A, F, R>(request: http::Request<Incoming>, answer: F) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: FnMut(Request<tonic::Streaming<Q>>) -> R + Send,
    R: Future<Output = Result<Response<Answers<A>>, Status>> + Send,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::new());
    grpc.streaming(Method(answer), request).await
}

/// A function that answers requests.
struct Method<F>(F);

impl<F, R, Q, A> tower_service::Service<Request<Q>> for Method<F>
where
    F: FnMut(Request<Q>) -> R,
    R: Future<Output = Result<Response<A>, Status>>,
{
    type Response = Response<A>;
    type Error = Status;
    type Future = R;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Status>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> R {
        (self.0)(request)
    }
}
