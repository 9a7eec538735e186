//! Responses of registries and token services: expected statuses, error messages, and limited bodies.

use attestations::Repository;
use reqwest::{Response, StatusCode};

use super::retry::{Failed, asked_wait, is_passing};
use crate::error::{Error, RegistryFailure, Result};

/// The response, unless its status is a temporary failure.
pub(super) async fn passing(repository: &Repository, response: Response) -> Result<Response, Failed> {
    if !is_passing(response.status()) {
        return Ok(response);
    }
    let wait = asked_wait(response.headers());
    Err(Failed::Passing(refusal(repository, response).await, wait))
}

/// Fails with the registry's own message, shortened, unless the status is one of `wanted`.
pub(super) async fn expect(
    repository: &Repository,
    response: Response,
    wanted: &[StatusCode],
) -> Result<Response> {
    match wanted.contains(&response.status()) {
        true => Ok(response),
        false => Err(refusal(repository, response).await),
    }
}

async fn refusal(repository: &Repository, response: Response) -> Error {
    let (status, path) = (response.status(), response.url().path().to_owned());
    let said = bounded(repository, response, 1 << 16, "error").await.unwrap_or_default();
    let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(300).collect();
    let reason = format!("{path} answered {status} {said}").trim_end().to_owned();
    Error::registry(repository.registry(), failure_of(status), reason)
}

/// The kind of failure for a response with this status.
pub(super) fn failure_of(status: StatusCode) -> RegistryFailure {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryFailure::Unauthorized,
        _ => RegistryFailure::Answer,
    }
}

/// Reads a body of at most `max` bytes.
pub(super) async fn bounded(
    repository: &Repository,
    mut response: Response,
    max: u64,
    what: &str,
) -> Result<Vec<u8>, Failed> {
    let too_large = || Error::TooLarge { what: format!("{what} of {}", repository.registry()), limit: max };
    if response.content_length().is_some_and(|length| length > max) {
        return Err(too_large().into());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|cause| Failed::of(repository, cause))? {
        if (bytes.len() + chunk.len()) as u64 > max {
            return Err(too_large().into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
