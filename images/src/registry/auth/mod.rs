//! Authentication. A password is only sent to the registry or to its own token service, in a request that is made
//! here, so that the URL that was checked is the one that is used.

mod challenge;
mod credentials;
mod realm;

use attestations::Repository;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::hosts::served_by;
use super::response::{bounded, expect};
use super::retry::{Failed, asked_wait, is_passing};
use crate::error::{Error, RegistryFailure, Result};

use challenge::Challenge;
pub(super) use credentials::Auth;

/// The most bytes of a token service's response.
const MAX_TOKEN: u64 = 1 << 20;

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// The operation that a token is requested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Pull,
    Push,
}

/// The answer to a registry's challenge.
pub(super) enum Answer {
    /// The credentials themselves.
    Credentials(Auth),
    /// A token, which has to be requested first.
    Token(TokenRequest),
}

/// A request to a token service.
pub(super) struct TokenRequest {
    realm: Url,
    service: Option<String>,
    credentials: Auth,
}

/// Finds the user's credentials for a registry, and how its challenge is answered with them.
///
/// # Errors
/// When the challenge cannot be met, or would send credentials to another party.
pub(super) async fn answer(repository: &Repository, headers: &HeaderMap, plain: &[String]) -> Result<Answer> {
    let challenge = challenge::read(headers).map_err(|reason| failed(repository, reason))?;
    let credentials = credentials::of(&served_by(repository)).await.map_err(|reason| {
        let reason = format!("its credentials cannot be read: {reason}");
        Error::registry(repository.registry(), RegistryFailure::Unauthorized, reason)
    })?;
    match (challenge, credentials) {
        (Challenge::Bearer { realm, service }, credentials) => {
            let realm = realm::check(repository, &realm, plain)?;
            Ok(Answer::Token(TokenRequest { realm, service, credentials }))
        }
        (Challenge::Basic, basic @ Auth::Basic(..)) => Ok(Answer::Credentials(basic)),
        _ => {
            let hint = format!("it wants a login: run `docker login {}`", repository.registry());
            Err(Error::registry(repository.registry(), RegistryFailure::Unauthorized, hint))
        }
    }
}

impl TokenRequest {
    /// Whether the service is reached by plain HTTP.
    pub(super) fn is_plain(&self) -> bool {
        self.realm.scheme() == "http"
    }

    /// Requests a token (distribution's token specification; its OAuth 2 form for a refresh token).
    ///
    /// `http` must not follow redirects, since the request may contain a password or a refresh token.
    ///
    /// # Errors
    /// When the service cannot be reached, refuses, redirects, or does not send a token.
    pub(super) async fn send(
        self,
        http: &reqwest::Client,
        repository: &Repository,
        operation: Operation,
    ) -> Result<Auth, Failed> {
        let Self { mut realm, service, credentials } = self;
        let actions = if operation == Operation::Push { "pull,push" } else { "pull" };
        let mut query = vec![("scope", format!("repository:{}:{actions}", repository.path()))];
        query.extend(service.map(|service| ("service", service)));
        let asking = match credentials {
            Auth::Bearer(refresh) => {
                query.push(("grant_type", "refresh_token".to_owned()));
                query.push(("client_id", "countersign".to_owned()));
                query.push(("refresh_token", refresh));
                let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
                http.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
            }
            Auth::Basic(user, password) => {
                realm.query_pairs_mut().extend_pairs(query);
                http.get(realm).basic_auth(user, Some(password))
            }
            Auth::Anonymous => {
                realm.query_pairs_mut().extend_pairs(query);
                http.get(realm)
            }
        };
        let response = asking.send().await.map_err(|cause| Failed::of(repository, cause))?;
        if response.status().is_redirection() {
            let reason = "its token service redirects: no credentials are sent there";
            return Err(failed(repository, reason).into());
        }
        let (passes, wait) = (is_passing(response.status()), asked_wait(response.headers()));
        let response = match expect(repository, response, &[StatusCode::OK]).await {
            Err(error) if passes => return Err(Failed::Passing(error, wait)),
            other => other?,
        };
        let bytes = bounded(repository, response, MAX_TOKEN, "token").await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|cause| failed(repository, format!("its token cannot be read: {cause}")))?;
        let token =
            token.token.or(token.access_token).ok_or_else(|| failed(repository, "it gave no token"))?;
        Ok(Auth::Bearer(token))
    }
}

/// Adds credentials to a request.
pub(super) fn with_auth(building: reqwest::RequestBuilder, auth: Option<&Auth>) -> reqwest::RequestBuilder {
    match auth {
        Some(Auth::Basic(user, password)) => building.basic_auth(user, Some(password)),
        Some(Auth::Bearer(token)) => match HeaderValue::from_str(&format!("Bearer {token}")) {
            Ok(mut value) => {
                value.set_sensitive(true);
                building.header(AUTHORIZATION, value)
            }
            // `reqwest` reports it when the request is sent.
            Err(_) => building.bearer_auth(token),
        },
        Some(Auth::Anonymous) | None => building,
    }
}

fn failed(repository: &Repository, reason: impl Into<String>) -> Error {
    Error::registry(repository.registry(), RegistryFailure::Answer, reason)
}
