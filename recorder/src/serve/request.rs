//! Decides which requests are forwarded, and in what form.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use url::Url;

use crate::host_name::{BadName, HostName};
use crate::step::IncidentKind;

/// The most bytes of a path and query. Servers in use refuse longer ones.
const MAX_TARGET: usize = 8192;

/// The schemes that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    fn text(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The scheme's default port.
    fn own_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A port that every name has, and its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The scheme.
    pub scheme: Scheme,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// HTTP on its default port.
    pub const HTTP: Endpoint = Endpoint { scheme: Scheme::Http, port: 80 };
    /// HTTPS on its default port.
    pub const HTTPS: Endpoint = Endpoint { scheme: Scheme::Https, port: 443 };

    /// HTTP on another port.
    pub fn http(port: u16) -> Endpoint {
        Endpoint { scheme: Scheme::Http, port }
    }

    /// HTTPS on another port.
    pub fn https(port: u16) -> Endpoint {
        Endpoint { scheme: Scheme::Https, port }
    }

    /// The origin of a name at this endpoint, in the form of URLs.
    fn origin(self, name: &HostName) -> String {
        let scheme = self.scheme.text();
        match self.port == self.scheme.own_port() {
            true => format!("{scheme}://{name}"),
            false => format!("{scheme}://{name}:{}", self.port),
        }
    }
}

/// Why a request is not forwarded, and the response to the step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub kind: IncidentKind,
    pub detail: String,
    pub status: StatusCode,
}

impl Refusal {
    pub(crate) fn new(kind: IncidentKind, status: StatusCode, detail: impl Into<String>) -> Refusal {
        Refusal { kind, detail: detail.into(), status }
    }
}

/// The URL to request from upstream, if the request can be forwarded unambiguously.
///
/// `name` is the name whose DNS address the step connected to (and that SNI has, with TLS).
pub(crate) fn check<B>(request: &Request<B>, name: &HostName, endpoint: Endpoint) -> Result<Url, Refusal> {
    if request.method() == Method::CONNECT {
        let detail = "tunnels are not passed on";
        return Err(Refusal::new(IncidentKind::ConnectRefused, StatusCode::FORBIDDEN, detail));
    }
    let uri = request.uri();
    let authority = match request.version() {
        Version::HTTP_2 => pseudo_headers(uri, endpoint)?,
        _ if uri.scheme().is_some() || uri.authority().is_some() => {
            return Err(bad("the request line must name a path alone"));
        }
        _ => None,
    };
    if !uri.path().starts_with('/') {
        return Err(bad("the request line must name a path alone"));
    }
    check_upgrade(request.headers())?;
    check_host(request.headers(), authority, name, endpoint)?;
    let target = uri.path_and_query().map_or("/", |t| t.as_str());
    if target.len() > MAX_TARGET {
        let detail = format!("target longer than {MAX_TARGET} bytes");
        return Err(Refusal::new(IncidentKind::BadRequest, StatusCode::URI_TOO_LONG, detail));
    }
    let url = Url::parse(&format!("{}{target}", endpoint.origin(name))).map_err(|_| bad("not a URL"))?;
    // The URL parser must have read the same name.
    let own_port = url.port_or_known_default() == Some(endpoint.port);
    if url.host_str() != Some(name.as_str()) || !own_port || !url.username().is_empty() {
        return Err(bad("not a plain URL"));
    }
    Ok(url)
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(IncidentKind::BadRequest, StatusCode::BAD_REQUEST, detail)
}

/// An offer of HTTP/2 without TLS can be ignored (RFC 7540, section 3.2); any other upgrade is refused.
fn check_upgrade(headers: &HeaderMap) -> Result<(), Refusal> {
    for value in headers.get_all(UPGRADE) {
        let wanted = value.to_str().unwrap_or("?").trim();
        if !wanted.eq_ignore_ascii_case("h2c") {
            let detail = format!("asked for {wanted}");
            return Err(Refusal::new(IncidentKind::UpgradeRefused, StatusCode::NOT_IMPLEMENTED, detail));
        }
    }
    Ok(())
}

/// The host in the pseudo-headers of HTTP/2 (RFC 9113, section 8.3.1).
fn pseudo_headers(uri: &Uri, endpoint: Endpoint) -> Result<Option<&Authority>, Refusal> {
    match uri.scheme_str() {
        Some(scheme) if scheme != endpoint.scheme.text() => Err(bad("`:scheme` is not what is spoken here")),
        _ => Ok(uri.authority()),
    }
}

/// All statements about the host must agree: `Host`, and HTTP/2's authority in its place or in addition.
fn check_host(
    headers: &HeaderMap,
    authority: Option<&Authority>,
    name: &HostName,
    endpoint: Endpoint,
) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let header = hosts.next().map(|host| host.to_str().map_err(|_| bad("Host is not text"))).transpose()?;
    if hosts.next().is_some() {
        return Err(bad("more than one Host header"));
    }
    let host = match (authority.map(Authority::as_str), header) {
        (Some(authority), Some(header)) if authority != header => {
            return Err(bad("Host and `:authority` differ"));
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(bad("no Host header")),
    };
    let (said, port) = match host.rsplit_once(':') {
        Some((said, port)) if !said.contains(':') => (said, port.parse().ok()),
        _ => (host, Some(endpoint.scheme.own_port())),
    };
    let said = HostName::parse(said).map_err(|error| {
        let kind = match error {
            BadName::Address => IncidentKind::NameIsAddress,
            BadName::Local | BadName::Malformed => IncidentKind::BadName,
        };
        Refusal::new(kind, StatusCode::FORBIDDEN, format!("Host {host:?} {error}"))
    })?;
    if said != *name || port != Some(endpoint.port) {
        let detail = format!("the connection is to {name}:{}, but Host says {host}", endpoint.port);
        return Err(Refusal::new(IncidentKind::NamesDisagree, StatusCode::MISDIRECTED_REQUEST, detail));
    }
    Ok(())
}

/// Headers for one connection only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-authenticate"),
];

/// Removes the headers for one connection. The message is framed anew, so that it can be read in only one form.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&listed) {
        headers.remove(name);
    }
}

/// The headers to send upstream: the step's own, without those for its connection.
pub(crate) fn upstream_headers(mut headers: HeaderMap, version: Version) -> HeaderMap {
    let wants_trailers = version == Version::HTTP_2 && headers.get(TE).is_some_and(|te| te == "trailers");
    strip_hop_by_hop(&mut headers);
    if version == Version::HTTP_2 {
        join_cookies(&mut headers);
    }
    // The only value that HTTP/2 allows, and that gRPC servers require.
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    headers
}

/// HTTP/2 may split cookies, but elsewhere they must be one header (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if all.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> HostName {
        HostName::parse("a.example").unwrap()
    }

    fn request(target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri(target);
        for (key, value) in headers {
            builder = builder.header(*key, *value);
        }
        builder.body(()).unwrap()
    }

    fn refused(target: &str, headers: &[(&str, &str)]) -> IncidentKind {
        check(&request(target, headers), &name(), Endpoint::HTTPS).unwrap_err().kind
    }

    #[test]
    fn plain_requests_become_urls() {
        for host in ["a.example", "A.Example", "a.example:443", "a.example."] {
            let url = check(&request("/x?y=%20z", &[("host", host)]), &name(), Endpoint::HTTPS).unwrap();
            assert_eq!(url.as_str(), "https://a.example/x?y=%20z");
        }
        let url =
            check(&request("//b.example/x", &[("host", "a.example")]), &name(), Endpoint::HTTP).unwrap();
        assert_eq!(url.host_str(), Some("a.example"), "two slashes do not change the host");
    }

    #[test]
    fn another_port_is_part_of_the_url_and_must_be_said() {
        let url =
            check(&request("/x", &[("host", "a.example:8443")]), &name(), Endpoint::https(8443)).unwrap();
        assert_eq!(url.as_str(), "https://a.example:8443/x");
        for host in ["a.example", "a.example:443", "a.example:", "a.example:08443x"] {
            let refusal =
                check(&request("/", &[("host", host)]), &name(), Endpoint::https(8443)).unwrap_err();
            assert_eq!(refusal.kind, IncidentKind::NamesDisagree, "{host}");
        }
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        use IncidentKind::*;
        assert_eq!(refused("/", &[]), BadRequest);
        assert_eq!(refused("/", &[("host", "a.example"), ("host", "b.example")]), BadRequest);
        assert_eq!(refused("/", &[("host", "a.example"), ("host", "a.example")]), BadRequest);
        assert_eq!(refused("/", &[("host", "b.example")]), NamesDisagree);
        assert_eq!(refused("/", &[("host", "a.example:80")]), NamesDisagree);
        assert_eq!(refused("/", &[("host", "a.example:22")]), NamesDisagree);
        assert_eq!(refused("/", &[("host", "10.0.0.1")]), NameIsAddress);
        assert_eq!(refused("/", &[("host", "[::1]:443")]), NameIsAddress);
        assert_eq!(refused("/", &[("host", "2130706433")]), NameIsAddress);
        assert_eq!(refused("/", &[("host", "localhost")]), BadName);
        assert_eq!(refused("/", &[("host", "u@a.example")]), BadName);
        assert_eq!(refused("http://a.example/", &[("host", "a.example")]), BadRequest);
        assert_eq!(refused("*", &[("host", "a.example")]), BadRequest);
        let long = format!("/{}", "a".repeat(MAX_TARGET));
        assert_eq!(refused(&long, &[("host", "a.example")]), BadRequest);
        assert_eq!(refused("/", &[("host", "a.example"), ("upgrade", "websocket")]), UpgradeRefused);
    }

    #[test]
    fn connect_is_refused() {
        let connect = Request::builder().method("CONNECT").uri("b.example:22").body(()).unwrap();
        let refusal = check(&connect, &name(), Endpoint::HTTP).unwrap_err();
        assert_eq!(refusal.kind, IncidentKind::ConnectRefused);
    }

    #[test]
    fn headers_of_the_connection_do_not_pass() {
        let request = request(
            "/",
            &[
                ("host", "a.example"),
                ("connection", "x-mine, Keep-Alive"),
                ("x-mine", "1"),
                ("keep-alive", "1"),
                ("transfer-encoding", "chunked"),
                ("expect", "100-continue"),
                ("accept-encoding", "gzip"),
            ],
        );
        let headers = upstream_headers(request.headers().clone(), Version::HTTP_11);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept-encoding"]);
    }

    fn http2(target: &str, headers: &[(&str, &str)]) -> Result<String, IncidentKind> {
        let mut request = request(target, headers);
        *request.version_mut() = Version::HTTP_2;
        check(&request, &name(), Endpoint::HTTPS).map(String::from).map_err(|refusal| refusal.kind)
    }

    #[test]
    fn http2_names_its_host_by_the_authority() {
        use IncidentKind::*;
        assert_eq!(http2("https://a.example/x?y", &[]), Ok("https://a.example/x?y".to_owned()));
        assert_eq!(
            http2("https://a.example:443/", &[("host", "a.example:443")]),
            Ok("https://a.example/".into())
        );
        assert_eq!(http2("/x", &[("host", "a.example")]), Ok("https://a.example/x".to_owned()));
        assert_eq!(http2("https://b.example/", &[]), Err(NamesDisagree));
        assert_eq!(http2("https://a.example/", &[("host", "b.example")]), Err(BadRequest));
        assert_eq!(http2("https://a.example:22/", &[]), Err(NamesDisagree));
        assert_eq!(http2("https://10.0.0.1/", &[]), Err(NameIsAddress));
        assert_eq!(http2("https://u@a.example/", &[]), Err(BadName));
        assert_eq!(http2("http://a.example/", &[]), Err(BadRequest));
        assert_eq!(http2("/x", &[]), Err(BadRequest));
    }

    #[test]
    fn cookies_of_http2_are_one_and_trailers_are_asked_for() {
        let request = request("/", &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]);
        let headers = upstream_headers(request.headers().clone(), Version::HTTP_2);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert_eq!(headers.get(TE).unwrap(), "trailers");
        assert!(!upstream_headers(request.headers().clone(), Version::HTTP_11).contains_key(TE));
    }
}
