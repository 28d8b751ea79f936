//! What goes wrong in a request, and how it is told: a status and `{"detail": "..."}`.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A request that fails, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    detail: String,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, detail }
    }

    /// The request itself is wrong.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A parameter or a field of the request is wrong.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// The system refused: `what` failed on `path`.
    pub(crate) fn system(what: &str, path: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => StatusCode::FORBIDDEN,
            Kind::IsADirectory
            | Kind::NotADirectory
            | Kind::InvalidFilename
            | Kind::InvalidInput
            | Kind::AlreadyExists => StatusCode::BAD_REQUEST,
            Kind::ResourceBusy => StatusCode::CONFLICT,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, format!("cannot {what} `{path}`: {error}"))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// What should not happen did.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let document = serde_json::json!({ "detail": self.detail });
        (self.status, json(document.to_string())).into_response()
    }
}

/// Returns a response with a JSON document.
pub(crate) fn json(document: impl Into<Body>) -> Response {
    let mut response = Response::new(document.into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
