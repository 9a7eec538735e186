//! Requests to a registry, with limited response bodies. Credentials are only sent to the registry and its own token
//! service.

use attestations::{Digest, Repository};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::super::auth::{self, Auth, Operation, with_auth};
use super::super::hosts::{is_plain, served_by};
use super::super::response::{bounded, expect, passing};
use super::super::retry::{Failed, Server, Tries, noting, registry_error};
use super::Client;
use super::body::{Body, stream_of};
use super::places::RegistryPlace;
use crate::descriptor;
use crate::error::{Error, Result};
use crate::image::{MAX_MANIFEST, refuse_schema_1};

/// A manifest as received, with the digest of its bytes.
#[derive(Debug)]
pub(in crate::registry) struct RawManifest {
    pub(in crate::registry) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(in crate::registry) media_type: String,
}

/// A complete response.
pub(in crate::registry) struct Fetched {
    pub(in crate::registry) headers: HeaderMap,
    pub(in crate::registry) bytes: Vec<u8>,
}

impl Client {
    /// Reads a manifest by its digest, from any server.
    pub(in crate::registry) async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<RawManifest> {
        self.manifest_at(&self.places(repository)?, &digest.to_string()).await
    }

    /// Reads a manifest by tag or digest, from the first of these servers that has it. One requested by digest is
    /// verified.
    pub(super) async fn manifest_at(&self, places: &[RegistryPlace], version: &str) -> Result<RawManifest> {
        let mut passed = Passed::new(self, places);
        for place in places {
            let found = self.manifest_if_any(&place.repository, version).await;
            let missing = || Error::NotFound { what: format!("{} with `{version}`", place.repository) };
            match found.and_then(|found| found.ok_or_else(missing)) {
                Ok(found) => return Ok(found),
                Err(error) => passed.over(place, error)?,
            }
        }
        Err(passed.none())
    }

    /// The same from one server, where it may be missing.
    pub(in crate::registry) async fn manifest_if_any(
        &self,
        repository: &Repository,
        version: &str,
    ) -> Result<Option<RawManifest>> {
        let accept =
            [descriptor::MANIFEST, descriptor::INDEX, descriptor::DOCKER_MANIFEST, descriptor::DOCKER_INDEX]
                .join(", ");
        let request = Request { accept: Some(accept), ..Request::get(format!("manifests/{version}")) };
        let what = format!("manifest {version}");
        let Some(Fetched { headers, bytes }) = self.fetch(repository, &request, MAX_MANIFEST, &what).await?
        else {
            return Ok(None);
        };
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let digest = Digest::of(&bytes);
        match version.parse::<Digest>() {
            Ok(wanted) if wanted != digest => Err(Error::Digest {
                what: format!("the manifest that {} sent", repository.registry()),
                wanted,
                found: digest,
            }),
            _ => {
                // Not every registry respects the Accept header.
                refuse_schema_1(media_type)?;
                Ok(Some(RawManifest { bytes, digest, media_type: media_type.to_owned() }))
            }
        }
    }

    /// Reads a small blob completely.
    pub(in crate::registry) async fn small_blob(
        &self,
        repository: &Repository,
        wanted: &Digest,
        max: u64,
    ) -> Result<Vec<u8>> {
        let places = self.places(repository)?;
        let mut passed = Passed::new(self, &places);
        for place in &places {
            match self.small_blob_at(&place.repository, wanted, max).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => passed.over(place, error)?,
            }
        }
        Err(passed.none())
    }

    async fn small_blob_at(&self, repository: &Repository, wanted: &Digest, max: u64) -> Result<Vec<u8>> {
        let what = format!("blob {wanted}");
        let request = Request::get(format!("blobs/{wanted}"));
        let found = self.fetch(repository, &request, max, &what).await?;
        let bytes = found.ok_or_else(|| Error::NotFound { what: format!("{what} in {repository}") })?.bytes;
        let found = Digest::of(&bytes);
        if found != *wanted {
            return Err(Error::Digest {
                what: format!("the blob that {} sent", repository.registry()),
                wanted: *wanted,
                found,
            });
        }
        Ok(bytes)
    }

    /// Reads a response of at most `max` bytes; none if there is no such thing. Retried where that can help.
    pub(in crate::registry) async fn fetch(
        &self,
        repository: &Repository,
        request: &Request,
        max: u64,
        what: &str,
    ) -> Result<Option<Fetched>> {
        self.fetch_unless(repository, request, max, what, &[StatusCode::NOT_FOUND]).await
    }

    /// As [`Client::fetch`], where each of these statuses says that there is no such thing.
    pub(in crate::registry) async fn fetch_unless(
        &self,
        repository: &Repository,
        request: &Request,
        max: u64,
        what: &str,
        absent: &[StatusCode],
    ) -> Result<Option<Fetched>> {
        let mut tries = self.tries(repository);
        loop {
            match self.fetch_once(repository, request, max, what, absent).await {
                Ok(fetched) => return Ok(fetched),
                Err(failed) => tries.after(failed, |text| self.report(text)).await?,
            }
        }
    }

    async fn fetch_once(
        &self,
        repository: &Repository,
        request: &Request,
        max: u64,
        what: &str,
        absent: &[StatusCode],
    ) -> Result<Option<Fetched>, Failed> {
        let response = self.send_once(repository, Operation::Pull, request).await?;
        if absent.contains(&response.status()) {
            return Ok(None);
        }
        let response = expect(repository, response, &[StatusCode::OK]).await?;
        let headers = response.headers().clone();
        let bytes = bounded(repository, response, max, what).await?;
        Ok(Some(Fetched { headers, bytes }))
    }

    /// The retries of one request there.
    pub(super) fn tries(&self, repository: &Repository) -> Tries {
        let mut mirrors = self.registries.mirrored.values().flat_map(|mirrored| &mirrored.mirrors);
        Tries::new(match mirrors.any(|mirror| mirror.host() == repository.registry()) {
            true => Server::Mirror,
            false => Server::Registry,
        })
    }

    /// Sends a request, and retries where that can help.
    pub(in crate::registry) async fn send(
        &self,
        repository: &Repository,
        operation: Operation,
        request: &Request,
    ) -> Result<Response> {
        let mut tries = self.tries(repository);
        loop {
            match self.send_once(repository, operation, request).await {
                Ok(response) => return Ok(response),
                Err(failed) => tries.after(failed, |text| self.report(text)).await?,
            }
        }
    }

    /// Sends a request, authenticates if the registry requires it, and sends it again. A response that a retry may
    /// change is a failure.
    pub(super) async fn send_once(
        &self,
        repository: &Repository,
        operation: Operation,
        request: &Request,
    ) -> Result<Response, Failed> {
        let granted = self.granted(repository, operation);
        let mut response = self.send_as(repository, request, granted.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let auth = self.authorize(repository, operation, response.headers()).await?;
            response = self.send_as(repository, request, Some(&auth)).await?;
        }
        passing(repository, response).await
    }

    /// Gets a token, or returns the credentials themselves if the registry requires them.
    async fn authorize(
        &self,
        repository: &Repository,
        operation: Operation,
        headers: &HeaderMap,
    ) -> Result<Auth, Failed> {
        let auth = match auth::answer(repository, headers, &self.registries.plain).await? {
            auth::Answer::Credentials(auth) => auth,
            auth::Answer::Token(request) => {
                let http = self.http(repository, Channel::of_tokens(request.is_plain())).await?;
                request.send(http, repository, operation).await?
            }
        };
        self.remember(repository, operation, auth.clone());
        Ok(auth)
    }

    async fn send_as(
        &self,
        repository: &Repository,
        request: &Request,
        auth: Option<&Auth>,
    ) -> Result<Response, Failed> {
        let own = self.url(repository, "")?;
        let url = match &request.to {
            To::Path(path) => self.url(repository, path)?,
            To::Upload(url) => url.clone(),
        };
        // An upload URL may be on another server.
        let auth = auth.filter(|_| url.origin() == own.origin());
        let http = self.http(repository, Channel::of_content(url.scheme() == "http")).await?;
        let mut building = http.request(request.method.clone(), url);
        if let Some(accept) = &request.accept {
            building = building.header(ACCEPT, accept);
        }
        if let Some((first, last)) = request.range {
            building = building.header(RANGE, format!("bytes={first}-{last}"));
        }
        building = match &request.body {
            Body::None => building,
            Body::Bytes(media_type, bytes) => building.header(CONTENT_TYPE, media_type).body(bytes.clone()),
            Body::Blob(store, blob) => building
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, blob.size)
                .body(stream_of(store, blob, self.observer.clone())?),
        };
        with_auth(building, auth).send().await.map_err(|cause| Failed::of(repository, cause))
    }

    pub(in crate::registry) fn url(&self, repository: &Repository, path: &str) -> Result<Url> {
        let scheme = if is_plain(&self.registries.plain, repository.registry()) { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{path}", served_by(repository), repository.path());
        Url::parse(&text).map_err(|cause| Error::refused(text, cause.to_string()))
    }

    /// The HTTP client for a channel, created when it is first needed.
    async fn http(&self, repository: &Repository, channel: Channel) -> Result<&reqwest::Client> {
        let made = self.http[channel as usize].get_or_try_init(|| async { self.make_http(channel) }).await;
        made.map_err(|cause| registry_error(repository, cause))
    }

    fn make_http(&self, channel: Channel) -> reqwest::Result<reqwest::Client> {
        let patience = self.registries.patience;
        let redirects = match channel {
            Channel::Plain | Channel::Secure => redirects(self.registries.plain.clone()),
            Channel::PlainTokens | Channel::SecureTokens => reqwest::redirect::Policy::none(),
        };
        let builder = reqwest::Client::builder()
            .connect_timeout(patience)
            .read_timeout(patience)
            .http1_only()
            .redirect(redirects);
        match channel {
            // No roots: this channel may not use TLS, and loading the system's roots takes longer than a whole
            // decision.
            Channel::Plain | Channel::PlainTokens => builder.tls_certs_only([]).no_proxy().build(),
            Channel::Secure | Channel::SecureTokens => {
                let roots = self.registries.roots.iter().map(|der| reqwest::Certificate::from_der(der));
                let roots = roots.collect::<Result<Vec<_>, _>>()?;
                let builder = builder.https_only(true);
                // Without additional roots, the platform's own verification is left unchanged.
                match roots.is_empty() {
                    true => builder.build(),
                    false => builder.tls_certs_merge(roots).build(),
                }
            }
        }
    }
}

/// The channels for requests. Token requests contain passwords and must not follow redirects, which is a setting of
/// the whole HTTP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Plain,
    Secure,
    PlainTokens,
    SecureTokens,
}

impl Channel {
    /// The number of channels.
    pub(super) const COUNT: usize = 4;

    fn of_content(is_plain: bool) -> Self {
        if is_plain { Self::Plain } else { Self::Secure }
    }

    fn of_tokens(is_plain: bool) -> Self {
        if is_plain { Self::PlainTokens } else { Self::SecureTokens }
    }
}

/// The servers that could not answer so far, and why.
pub(super) struct Passed<'a> {
    client: &'a Client,
    left: usize,
    notes: Vec<String>,
}

impl<'a> Passed<'a> {
    pub(super) fn new(client: &'a Client, places: &[RegistryPlace]) -> Self {
        Self { client, left: places.len(), notes: Vec::new() }
    }

    /// Continues with the next server.
    ///
    /// # Errors
    /// When there is none, or when the error is not the server's fault.
    pub(super) fn over(&mut self, place: &RegistryPlace, error: Error) -> Result<()> {
        self.left = self.left.saturating_sub(1);
        if matches!(error, Error::Io { .. }) {
            return Err(error);
        }
        if matches!(error, Error::Registry { .. }) && place.is_mirror {
            self.client.shun(&place.repository);
        }
        if self.left == 0 {
            let notes = self.notes.join("; ");
            return Err(if notes.is_empty() {
                error
            } else {
                noting(error, &format!("before that: {notes}"))
            });
        }
        self.client.report(&format!("the mirror {} is passed over: {error}", place.repository.registry()));
        self.notes.push(error.to_string());
        Ok(())
    }

    /// There was no server at all.
    pub(super) fn none(&self) -> Error {
        Error::refused("registry", "there is no place to ask".to_owned())
    }
}

/// A request to a registry.
pub(in crate::registry) struct Request {
    pub(in crate::registry) method: Method,
    pub(in crate::registry) to: To,
    pub(in crate::registry) accept: Option<String>,
    /// The first and the last byte to request, if not all. The last one is named, since not every registry knows ranges
    /// without an end.
    pub(in crate::registry) range: Option<(u64, u64)>,
    pub(in crate::registry) body: Body,
}

/// The target of a request.
pub(in crate::registry) enum To {
    /// A path in the repository.
    Path(String),
    /// The upload URL that the registry gave.
    Upload(Url),
}

impl Request {
    pub(super) fn new(method: Method, to: To) -> Self {
        Self { method, to, accept: None, range: None, body: Body::None }
    }

    pub(in crate::registry) fn get(path: String) -> Self {
        Self::new(Method::GET, To::Path(path))
    }
}

/// Redirects are followed (blobs are often on other servers), at most five, never from TLS to plain HTTP, and by
/// plain HTTP only to hosts configured for it; `reqwest` keeps credentials from other hosts.
fn redirects(plain: Vec<String>) -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(move |attempt| {
        let url = attempt.url();
        let to_plain = url.scheme() != "https";
        let downgraded = to_plain && attempt.previous().last().is_some_and(|from| from.scheme() == "https");
        let host = url.host_str().unwrap_or_default();
        let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        match () {
            () if downgraded => attempt.error("the registry redirects from TLS to plain HTTP"),
            () if to_plain && !is_plain(&plain, &named) => {
                attempt.error("the registry redirects to plain HTTP on a host that was not named for it")
            }
            () if attempt.previous().len() > 5 => {
                attempt.error("the registry redirects more than five times")
            }
            () => attempt.follow(),
        }
    })
}
