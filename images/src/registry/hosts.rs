//! Host names: which of them plain HTTP is allowed for, and which host serves a registry.

use attestations::Repository;

/// Whether plain HTTP is allowed for `authority` (`host` or `host:port`).
pub(super) fn is_plain(named: &[String], authority: &str) -> bool {
    let host = host_of(authority);
    is_loopback(host) || named.iter().any(|named| named == authority || named == host)
}

pub(super) fn host_of(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { authority }
    })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host that serves a registry: its name, except for Docker Hub, whose host `oci-spec` knows.
pub(super) fn served_by(repository: &Repository) -> String {
    let (registry, path) = (repository.registry().to_owned(), repository.path().to_owned());
    oci_spec::distribution::Reference::with_tag(registry, path, String::new()).resolve_registry().to_owned()
}
