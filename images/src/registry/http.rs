//! Requests to a registry, with bounded answers. Credentials go to nobody but the registry and its own token service.

use attestations::{Digest, Repository};
use oci_client::RegistryOperation;
use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};

use super::{Client, TIMEOUT, oci, registry_error};
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
        let response = self.send_once(repository, &request, None).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let authorization =
            self.authorize(repository, operation, response.headers().get(WWW_AUTHENTICATE)).await?;
        self.send_once(repository, &request, Some(authorization)).await
    }

    async fn send_once(
        &self,
        repository: &Repository,
        request: &Request,
        authorization: Option<HeaderValue>,
    ) -> Result<Response> {
        let url = self.url(repository, &request.path)?;
        let mut building = self.http(repository).await?.request(request.method.clone(), url);
        if let Some(accept) = &request.accept {
            building = building.header(ACCEPT, accept);
        }
        if let Some((media_type, bytes)) = &request.body {
            building = building.header(CONTENT_TYPE, media_type).body(bytes.clone());
        }
        if let Some(value) = authorization {
            building = building.header(AUTHORIZATION, value);
        }
        building.send().await.map_err(|cause| registry_error(repository, cause))
    }

    /// Gets a token, or gives the credentials themselves where the registry asks for them.
    async fn authorize(
        &self,
        repository: &Repository,
        operation: RegistryOperation,
        challenge: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let failed = |reason: String| Error::Registry { registry: repository.registry().to_owned(), reason };
        let challenge = challenge
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| failed("it refuses without saying how to authenticate".to_owned()))?;
        let credentials = credentials(repository)?;
        if let Some(realm) = realm(challenge) {
            check_realm(repository, &realm, self.is_plain(repository))?;
            let image = oci(repository, &Digest::of(b""));
            let token = self
                .blobs(repository)
                .await?
                .auth(&image, &credentials, operation)
                .await
                .map_err(|cause| registry_error(repository, cause))?;
            let token = token.ok_or_else(|| failed("it gave no token".to_owned()))?;
            return secret(&format!("Bearer {token}")).map_err(failed);
        }
        match &credentials {
            RegistryAuth::Basic(user, password) => {
                self.blobs(repository).await?.store_auth_if_needed(repository.registry(), &credentials).await;
                secret(&format!("Basic {}", base64(&format!("{user}:{password}")))).map_err(failed)
            }
            _ => Err(failed(format!("it wants a login: run `docker login {}`", repository.registry()))),
        }
    }

    /// Prepares `oci-client` for moving blobs of a registry that wants a login.
    pub(super) async fn log_in(&self, repository: &Repository, operation: RegistryOperation) -> Result<()> {
        let request =
            Request { method: Method::GET, path: "tags/list?n=1".to_owned(), accept: None, body: None };
        let probe = self.send_once(repository, &request, None).await?;
        if probe.status() == StatusCode::UNAUTHORIZED {
            self.authorize(repository, operation, probe.headers().get(WWW_AUTHENTICATE)).await?;
        }
        Ok(())
    }

    pub(super) fn url(&self, repository: &Repository, path: &str) -> Result<Url> {
        let scheme = if self.is_plain(repository) { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{path}", repository.registry(), repository.path());
        Url::parse(&text).map_err(|cause| Error::refused(text, cause.to_string()))
    }

    async fn http(&self, repository: &Repository) -> Result<&reqwest::Client> {
        let builder = || {
            reqwest::Client::builder().connect_timeout(TIMEOUT).read_timeout(TIMEOUT).redirect(same_host())
        };
        let made = if self.is_plain(repository) {
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

/// Redirects are followed (blobs often live elsewhere), five at most, never from TLS to plain; `reqwest` keeps credentials from other hosts.
fn same_host() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let downgraded = attempt.previous().last().is_some_and(|from| from.scheme() == "https")
            && attempt.url().scheme() != "https";
        match () {
            () if downgraded => attempt.error("the registry redirects from TLS to plain HTTP"),
            () if attempt.previous().len() > 5 => {
                attempt.error("the registry redirects more than five times")
            }
            () => attempt.follow(),
        }
    })
}

fn credentials(repository: &Repository) -> Result<RegistryAuth> {
    use docker_credential::{CredentialRetrievalError as Failed, DockerCredential as Found, get_credential};
    match get_credential(repository.registry()) {
        Ok(Found::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(Found::IdentityToken(token)) => Ok(RegistryAuth::Bearer(token)),
        Err(Failed::NoCredentialConfigured | Failed::ConfigNotFound) => Ok(RegistryAuth::Anonymous),
        Err(cause) => Err(Error::Registry {
            registry: repository.registry().to_owned(),
            reason: format!("its credentials cannot be read: {cause}"),
        }),
    }
}

/// The token service that a Bearer challenge names.
fn realm(challenge: &str) -> Option<String> {
    let parameters = challenge.strip_prefix("Bearer ").or_else(|| challenge.strip_prefix("bearer "))?;
    let (_, rest) = parameters.split_once("realm=\"")?;
    Some(rest.split('"').next()?.to_owned())
}

/// A token service gets the registry's password, so it has to be the registry's own: its host, or one of the same domain.
fn check_realm(repository: &Repository, realm: &str, plain: bool) -> Result<()> {
    let refused = |reason: &str| Error::Registry {
        registry: repository.registry().to_owned(),
        reason: format!("its token service `{realm}` {reason}"),
    };
    let url = Url::parse(realm).map_err(|_| refused("is no URL"))?;
    let host = url.host_str().ok_or_else(|| refused("has no host"))?;
    if url.scheme() != "https" && !plain {
        return Err(refused("is not reached by TLS: no credentials are sent there"));
    }
    let registry = repository.registry().split(':').next().unwrap_or_default();
    if host == registry || domain(host).is_some_and(|ours| domain(registry) == Some(ours)) {
        return Ok(());
    }
    Err(refused("is on a host of another domain: no credentials are sent there"))
}

/// The last two labels of a name; none of an address.
fn domain(host: &str) -> Option<&str> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let (rest, top) = host.rsplit_once('.')?;
    let start = rest.rfind('.').map_or(0, |dot| dot + 1);
    Some(&host[start..]).filter(|name| !top.is_empty() && name.len() > top.len() + 1)
}

fn secret(text: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| "its token cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
