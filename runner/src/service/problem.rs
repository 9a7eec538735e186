//! What a caller is told when something is wrong: a code for programs, a message for people, and what to do about it.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{queue, worker::Failure};

/// A typed error of the interface. What only the administrator should see goes to the log instead.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    remedy: &'static str,
    internal: Option<String>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Problem { status, code, message: message.into(), remedy, internal: None }
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>, remedy: &'static str) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, code, message, remedy)
    }

    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        let problem = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server could not do this",
            "ask the administrator to look into the server's log",
        );
        Problem { internal: Some(cause.to_string()), ..problem }
    }
}

impl From<queue::Error> for Problem {
    fn from(error: queue::Error) -> Problem {
        use queue::Error as E;
        let text = error.to_string();
        match error {
            E::NotFound(_) => Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                text,
                "list the tasks to see which there are",
            ),
            E::WrongState { .. } => Problem::new(
                StatusCode::CONFLICT,
                "wrong_state",
                text,
                "look at the task to see its state and reason",
            ),
            E::KeyReused(_) => Problem::new(
                StatusCode::CONFLICT,
                "key_reused",
                text,
                "use a new idempotency key for a new request, and the same one only to repeat the same request",
            ),
            E::TooLarge { .. } => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                text,
                "send less, or keep it in a database",
            ),
            E::DiskFull(_) => {
                let status = StatusCode::INSUFFICIENT_STORAGE;
                let told = "the server's disk is full; nothing was accepted";
                let remedy = "ask the administrator to free space, then try again";
                Problem { internal: Some(text), ..Problem::new(status, "disk_full", told, remedy) }
            }
            E::Newer { .. } | E::InUse(_) | E::File { .. } | E::Corrupt(_) | E::Sqlite(_) => {
                Problem::internal(text)
            }
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        match failure {
            Failure::Queue(error) => error.into(),
            Failure::Record(error) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let told = "the record of what this node does cannot be written, and nothing is given out without it";
                let remedy = "ask the administrator to look into the server's log";
                let internal = Some(errors::chain::line(&error));
                Problem { internal, ..Problem::new(status, "no_record", told, remedy) }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.internal {
            tracing::error!(code = self.code, cause, "a request failed");
        }
        let body = json!({ "code": self.code, "message": self.message, "remedy": self.remedy });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
