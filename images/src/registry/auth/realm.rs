//! Checks that a token service belongs to the registry.

use attestations::Repository;
use reqwest::Url;

use super::super::hosts::{host_of, is_plain, served_by};
use super::failed;
use crate::error::Result;

/// Cloud domains and registry hosts with a subdomain per customer that the public suffix list does not have.
const SHARED: [&str; 12] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "azurecr.cn",
    "azurecr.io",
    "azurecr.us",
    "cloudsmith.io",
    "gcr.io",
    "icr.io",
    "jfrog.io",
    "ocir.io",
    "pkg.dev",
    "tencentcloudcr.com",
];

/// A token service receives the registry's password, so it must belong to the registry: it is at the registry's host,
/// at the parent domain of the host, or at a sibling in that domain. The domain must have one owner: it must be
/// neither a public suffix nor another shared name.
pub(super) fn check(repository: &Repository, realm: &str, plain: &[String]) -> Result<Url> {
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

/// The name without its first label, unless it is an address or the rest is shared between owners.
fn domain(host: &str) -> Option<&str> {
    if host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        return None;
    }
    let (_, parent) = host.split_once('.')?;
    // Names in URLs are in lower case; other names are not in the list, and have no domain then.
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if !parent.contains('.') || !parent.bytes().all(is_plain) || SHARED.contains(&parent) {
        return None;
    }
    // None for a public suffix itself.
    psl::domain_str(parent).map(|_| parent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fine(registry: &str, realm: &str) -> bool {
        let repository: Repository = format!("{registry}/a/b").parse().unwrap();
        check(&repository, realm, &[]).is_ok()
    }

    #[test]
    fn password_goes_to_the_registrys_own_domain_only() {
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

    #[test]
    fn what_strangers_share_is_nobodys_domain() {
        let shared = [
            "jfrog.io",
            "azurecr.io",
            "pkg.dev",
            "github.io",
            "gitlab.io",
            "fly.dev",
            "herokuapp.com",
            "cloudfront.net",
            "amazonaws.com",
            "co.uk",
            "com.au",
            "k12.ca.us",
            "vercel.app",
            "s3.amazonaws.com",
        ];
        for ending in shared {
            let (mine, evil) = (format!("mine.{ending}"), format!("https://evil.{ending}/t"));
            assert!(!fine(&mine, &evil), "{ending}");
            assert!(!fine(&mine, &format!("https://{ending}/t")), "{ending}");
            assert!(fine(&mine, &format!("https://{mine}/t")), "{ending}");
        }
        // An organisation's own names, also with a short or unknown suffix.
        for ours in ["ukb.de", "example.org", "klinik.internal", "mine.co.uk", "mine.jfrog.io"] {
            assert!(fine(&format!("registry.{ours}"), &format!("https://auth.{ours}/t")), "{ours}");
        }
        assert!(fine("docker.io", "https://auth.docker.io/token"));
        assert!(fine("registry.gitlab.com", "https://gitlab.com/jwt/auth"));
    }
}
