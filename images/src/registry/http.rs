//! Requests to a registry, with bounded answers. Credentials go to nobody but the registry and its own token service.

use attestations::{Digest, Repository};
use oci_client::RegistryOperation;
use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::with_auth;
use super::{Client, TIMEOUT, is_plain, registry_error};
use crate::descriptor;
use crate::error::{Error, Result};
use crate::image::MAX_MANIFEST;

/// A manifest as it came, with the digest of what came.
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) media_type: String,
}

impl Client {
    /// Reads a manifest by tag or digest. What is asked for by digest has that digest.
    pub(super) async fn manifest(&self, repository: &Repository, version: &str) -> Result<RawManifest> {
        let found = self.manifest_if_any(repository, version).await?;
        found.ok_or_else(|| Error::NotFound { what: format!("{repository} with `{version}`") })
    }

    /// The same, where none is an answer too.
    pub(super) async fn manifest_if_any(
        &self,
        repository: &Repository,
        version: &str,
    ) -> Result<Option<RawManifest>> {
        let accept =
            [descriptor::MANIFEST, descriptor::INDEX, descriptor::DOCKER_MANIFEST, descriptor::DOCKER_INDEX]
                .join(", ");
        let request = Request {
            method: Method::GET,
            path: format!("manifests/{version}"),
            accept: Some(accept),
            body: None,
        };
        let response = self.send(repository, RegistryOperation::Pull, request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = expect(repository, response, &[StatusCode::OK]).await?;
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = bounded(repository, response, MAX_MANIFEST, &format!("manifest {version}")).await?;
        let digest = Digest::of(&bytes);
        match version.parse::<Digest>() {
            Ok(wanted) if wanted != digest => Err(Error::Digest {
                what: format!("the manifest that {} sent", repository.registry()),
                wanted,
                found: digest,
            }),
            _ => Ok(Some(RawManifest { bytes, digest, media_type })),
        }
    }

    /// Reads a small blob whole.
    pub(super) async fn small_blob(
        &self,
        repository: &Repository,
        wanted: &Digest,
        max: u64,
    ) -> Result<Vec<u8>> {
        let request =
            Request { method: Method::GET, path: format!("blobs/{wanted}"), accept: None, body: None };
        let response = expect(
            repository,
            self.send(repository, RegistryOperation::Pull, request).await?,
            &[StatusCode::OK],
        )
        .await?;
        let bytes = bounded(repository, response, max, &format!("blob {wanted}")).await?;
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

    /// Sends a request, authenticates when the registry asks for it, and sends it again.
    pub(super) async fn send(
        &self,
        repository: &Repository,
        operation: RegistryOperation,
        request: Request,
    ) -> Result<Response> {
        let granted = self.granted(repository, operation);
        let response = self.send_once(repository, &request, granted.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let auth = self.authorize(repository, operation, response.headers().get(WWW_AUTHENTICATE)).await?;
        self.send_once(repository, &request, Some(&auth)).await
    }

    pub(super) async fn send_once(
        &self,
        repository: &Repository,
        request: &Request,
        auth: Option<&RegistryAuth>,
    ) -> Result<Response> {
        let url = self.url(repository, &request.path)?;
        let mut building = self.http(repository).await?.request(request.method.clone(), url);
        if let Some(accept) = &request.accept {
            building = building.header(ACCEPT, accept);
        }
        if let Some((media_type, bytes)) = &request.body {
            building = building.header(CONTENT_TYPE, media_type).body(bytes.clone());
        }
        with_auth(building, auth).send().await.map_err(|cause| registry_error(repository, cause))
    }

    pub(super) fn url(&self, repository: &Repository, path: &str) -> Result<Url> {
        let scheme = if is_plain(&self.plain, repository.registry()) { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{path}", repository.registry(), repository.path());
        Url::parse(&text).map_err(|cause| Error::refused(text, cause.to_string()))
    }

    async fn http(&self, repository: &Repository) -> Result<&reqwest::Client> {
        self.token_http(repository, is_plain(&self.plain, repository.registry())).await
    }

    /// The client for plain hosts, or the one for all others.
    pub(super) async fn token_http(&self, repository: &Repository, plain: bool) -> Result<&reqwest::Client> {
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(TIMEOUT)
                .read_timeout(TIMEOUT)
                .redirect(redirects(self.plain.clone()))
        };
        let made = if plain {
            // No roots: nothing here may speak TLS, and loading the system's takes longer than a whole decision.
            self.http_plain
                .get_or_try_init(|| async { builder().tls_certs_only([]).no_proxy().build() })
                .await
        } else {
            self.http_secure.get_or_try_init(|| async { builder().https_only(true).build() }).await
        };
        made.map_err(|cause| registry_error(repository, cause))
    }
}

/// What is asked of a registry.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) accept: Option<String>,
    pub(super) body: Option<(String, Vec<u8>)>,
}

/// Fails with the registry's own words, shortened, unless the status is one of `wanted`.
pub(super) async fn expect(
    repository: &Repository,
    response: Response,
    wanted: &[StatusCode],
) -> Result<Response> {
    let status = response.status();
    if wanted.contains(&status) {
        return Ok(response);
    }
    let path = response.url().path().to_owned();
    let said = bounded(repository, response, 1 << 16, "error").await.unwrap_or_default();
    let said: String = String::from_utf8_lossy(&said).chars().filter(|c| !c.is_control()).take(300).collect();
    Err(Error::Registry {
        registry: repository.registry().to_owned(),
        reason: format!("{path} answered {status} {said}"),
    })
}

/// Reads a body of at most `max` bytes.
pub(super) async fn bounded(
    repository: &Repository,
    mut response: Response,
    max: u64,
    what: &str,
) -> Result<Vec<u8>> {
    let too_large = || Error::TooLarge { what: format!("{what} of {}", repository.registry()), limit: max };
    if response.content_length().is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|cause| registry_error(repository, cause))? {
        if (bytes.len() + chunk.len()) as u64 > max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Redirects are followed (blobs often live elsewhere), five at most, never from TLS to plain, and by plain HTTP to no host
/// that was not named for it; `reqwest` keeps credentials from other hosts.
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
