//! Logging in. A password goes to the registry itself or to its own token service, by a request that is made here: what
//! was judged is what is used.

mod credentials;

use attestations::Repository;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::hosts::{host_of, is_plain, served_by};
use super::response::{bounded, expect};
use super::retry::{Failed, asked_wait, is_passing};
use crate::error::{Error, Result};

pub(super) use credentials::Auth;

/// The most bytes of a token service's answer.
const MAX_TOKEN: u64 = 1 << 20;

/// Endings of two labels below which strangers get names. The list is short and not complete: short labels below a
/// country's ending count too.
const SHARED: [&str; 8] = [
    "amazonaws.com",
    "azurecr.io",
    "cloudfront.net",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "pkg.dev",
];
/// Second labels that stand for a kind of holder below a country's ending.
const KINDS: [&str; 6] = ["asso", "gouv", "govt", "info", "name", "school"];

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Pull,
    Push,
}

/// How a registry's challenge is answered.
pub(super) enum Answer {
    /// By the credentials themselves.
    Credentials(Auth),
    /// By a token, which has to be asked for first.
    Token(TokenRequest),
}

/// What a token service is asked.
pub(super) struct TokenRequest {
    realm: Url,
    service: Option<String>,
    credentials: Auth,
}

/// Finds people's credentials for a registry, and what its challenge wants of them.
///
/// # Errors
/// When the challenge cannot be met, or asks to send credentials to somebody else.
pub(super) async fn answer(
    repository: &Repository,
    challenge: Option<&HeaderValue>,
    plain: &[String],
) -> Result<Answer> {
    let challenge = challenge
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| failed(repository, "it refuses without saying how to authenticate"))?;
    let credentials = credentials::of(&served_by(repository))
        .await
        .map_err(|reason| failed(repository, format!("its credentials cannot be read: {reason}")))?;
    match (parameter(challenge, "realm"), is_scheme(challenge, "bearer"), credentials) {
        (Some(realm), true, credentials) => {
            let realm = check_realm(repository, &realm, plain)?;
            let service = parameter(challenge, "service");
            Ok(Answer::Token(TokenRequest { realm, service, credentials }))
        }
        (_, false, basic @ Auth::Basic(..)) if is_scheme(challenge, "basic") => {
            Ok(Answer::Credentials(basic))
        }
        _ => {
            let hint = format!("it wants a login: run `docker login {}`", repository.registry());
            Err(failed(repository, hint))
        }
    }
}

impl TokenRequest {
    /// Whether the service is reached by plain HTTP.
    pub(super) fn is_plain(&self) -> bool {
        self.realm.scheme() == "http"
    }

    /// Asks the token service (distribution's token specification; its OAuth 2 form for a refresh token).
    ///
    /// # Errors
    /// When it cannot be reached, refuses, or answers something else than a token.
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

/// Adds what was granted to a request.
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
    Error::Registry { registry: repository.registry().to_owned(), reason: reason.into() }
}

fn is_scheme(challenge: &str, scheme: &str) -> bool {
    challenge.split_ascii_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(scheme))
}

/// A quoted parameter of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// A token service gets the registry's password, so it has to be the registry's own: its host, the domain that the host is
/// in, or a sibling in that domain. A domain has two labels at least and is none that strangers share.
fn check_realm(repository: &Repository, realm: &str, plain: &[String]) -> Result<Url> {
    let refused = |reason: &str| failed(repository, format!("its token service `{realm}` {reason}"));
    let url = Url::parse(realm).map_err(|_| refused("is no URL"))?;
    let host = url.host_str().ok_or_else(|| refused("has no host"))?;
    let served = served_by(repository);
    let registry = host_of(&served);
    let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    match url.scheme() {
        "https" => {}
        "http" if is_plain(plain, &named) => {}
        _ => return Err(refused("is not reached by TLS: no credentials are sent there")),
    }
    let near =
        host == registry || domain(registry).is_some_and(|ours| host == ours || domain(host) == Some(ours));
    if near {
        return Ok(url);
    }
    Err(refused("is on a host of another domain: no credentials are sent there"))
}

/// The name without its first label, unless that is an address or an ending that strangers share.
fn domain(host: &str) -> Option<&str> {
    if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        return None;
    }
    let (_, parent) = host.split_once('.')?;
    let (second, top) = parent.split_once('.')?;
    let country = top.len() == 2 && (second.len() <= 3 || KINDS.contains(&second));
    (!second.is_empty() && !top.is_empty() && !country && !SHARED.contains(&parent)).then_some(parent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn password_goes_to_the_registrys_own_domain_only() {
        let fine = |registry: &str, realm: &str| {
            let repository: Repository = format!("{registry}/a/b").parse().unwrap();
            check_realm(&repository, realm, &[]).is_ok()
        };
        assert!(fine("registry.example.org", "https://registry.example.org/token"));
        assert!(fine("registry.example.org:5000", "https://auth.example.org/token"));
        assert!(fine("registry.example.org", "https://example.org/jwt"));
        assert!(fine("r.example.co.uk", "https://auth.example.co.uk/t"));
        assert!(!fine("example.co.uk", "https://evil.co.uk/t"));
        assert!(!fine("example.org", "https://evil.org/t"));
        assert!(!fine("mine.azurecr.io", "https://evil.azurecr.io/t"));
        assert!(!fine("registry.example.org", "http://registry.example.org/token"));
        assert!(!fine("10.0.0.1:5000", "https://11.0.0.1/t"));
        assert!(!fine("registry.example.org", "https://auth.example.org.evil.net/t"));
    }
}
