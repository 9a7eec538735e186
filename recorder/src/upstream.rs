//! The connections from the recorder to the real servers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, ClientConfig, RootCertStore};

use super::Error;
use super::addresses::{can_be_permitted, is_global};
use crate::host_name::HostName;

/// How upstream servers are reached, and which certificates are trusted.
///
/// The system's store is always trusted and can only be added to; no option skips verification. Names with addresses
/// outside the public Internet are refused unless they were permitted: [`Upstream::with_private`].
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    roots: Vec<CertificateDer<'static>>,
    proxies: Proxies,
    addresses: HashMap<String, SocketAddr>,
    private: PrivateHosts,
}

/// The hosts that may have addresses of private networks.
#[derive(Clone, Debug)]
enum PrivateHosts {
    /// These, and no others.
    Named(BTreeSet<HostName>),
    /// Every host: for machines whose resolver leads to an organisation's own mirrors.
    All,
}

impl Default for PrivateHosts {
    fn default() -> Self {
        Self::Named(BTreeSet::new())
    }
}

impl PrivateHosts {
    fn contain(&self, name: &HostName) -> bool {
        match self {
            Self::Named(names) => names.contains(name),
            Self::All => true,
        }
    }
}

/// The HTTP proxies to use. The operator of the builder chose them, so they may have any address. The proxy also
/// decides which servers are reachable through it, since it resolves their names itself.
#[derive(Clone, Debug, Default)]
pub(crate) enum Proxies {
    /// `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` of the builder's own environment.
    #[default]
    Environment,
    /// No proxy, whatever the environment says.
    #[cfg(test)]
    Direct,
    /// This one for everything.
    #[cfg(test)]
    Through(url::Url),
}

impl Upstream {
    /// The system's certificates and the environment's proxies.
    pub fn system() -> Upstream {
        Upstream::default()
    }

    /// Trusts one more root, such as that of an organisation's package mirror.
    pub fn with_root(mut self, root: CertificateDer<'static>) -> Upstream {
        self.roots.push(root);
        self
    }

    /// Sets the proxies.
    #[cfg(test)]
    pub(crate) fn with_proxies(mut self, proxies: Proxies) -> Upstream {
        self.proxies = proxies;
        self
    }

    /// Permits a name, or with `*` every name, to have addresses of private networks.
    ///
    /// # Errors
    /// When it is not a host name that a step could request.
    pub fn with_private(mut self, name: &str) -> Result<Upstream, NotAHost> {
        if name == "*" {
            self.private = PrivateHosts::All;
            return Ok(self);
        }
        let name = HostName::parse(name).map_err(|why| NotAHost(format!("{name:?} {why}")))?;
        if let PrivateHosts::Named(names) = &mut self.private {
            names.insert(name);
        }
        Ok(self)
    }

    /// Sets the address of a name instead of a DNS lookup; a port other than 0 replaces the scheme's default.
    #[cfg(test)]
    pub(crate) fn with_address(mut self, name: &str, address: SocketAddr) -> Upstream {
        self.addresses.insert(name.to_ascii_lowercase(), address);
        self
    }

    /// Checks that a server may be asked by a program other than this one, as its own [`clients`](Upstream::clients) may:
    /// its name leads to the public Internet, or was permitted. Where a proxy is set, that decides for http and https.
    ///
    /// # Errors
    /// Why it may not, or is not known.
    pub fn check_server(&self, host: &str, port: u16, is_http: bool) -> Result<(), String> {
        let resolver = self.resolver();
        if is_http && !resolver.permitted.proxies.is_empty() {
            return Ok(());
        }
        HostName::parse(host).map_err(|why| format!("{host:?} {why}"))?;
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, port))
            .map_err(|cause| format!("{host} is not known: {cause}"))?;
        resolver.permitted.of(host, found.collect()).map(drop).map_err(|why| why.to_string())
    }

    /// The clients for requests to upstream. `connect` limits connecting, `stall` the silence in the middle of a
    /// response.
    ///
    /// # Errors
    /// When there are no roots to trust, or TLS cannot be set up.
    pub fn clients(&self, connect: Duration, stall: Duration) -> Result<Clients, Error> {
        let tls = self.tls()?;
        let mut either = tls.clone();
        either.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Clients {
            http1: self.client(tls, connect, stall, true)?,
            either: self.client(either, connect, stall, false)?,
            insisting: Arc::default(),
        })
    }

    fn client(
        &self,
        tls: ClientConfig,
        connect: Duration,
        stall: Duration,
        http1: bool,
    ) -> Result<reqwest::Client, Error> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(self.resolver())
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect)
            .read_timeout(stall);
        let builder = if http1 { builder.http1_only() } else { builder };
        let builder = match &self.proxies {
            Proxies::Environment => builder,
            #[cfg(test)]
            Proxies::Direct => builder.no_proxy(),
            #[cfg(test)]
            Proxies::Through(url) => builder.no_proxy().proxy(reqwest::Proxy::all(url.clone())?),
        };
        Ok(builder.build()?)
    }

    fn resolver(&self) -> Resolver {
        let proxies = match &self.proxies {
            #[cfg(test)]
            Proxies::Direct => HashSet::new(),
            #[cfg(test)]
            Proxies::Through(url) => url.host_str().map(str::to_owned).into_iter().collect(),
            Proxies::Environment => {
                PROXY_VARIABLES.iter().filter_map(|name| host_of(&std::env::var(name).ok()?)).collect()
            }
        };
        Resolver {
            fixed: Arc::new(self.addresses.clone()),
            permitted: Arc::new(Permitted { names: self.private.clone(), proxies }),
        }
    }

    fn tls(&self) -> Result<ClientConfig, Error> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for root in &self.roots {
            store.add(root.clone())?;
        }
        if store.is_empty() {
            return Err(Error::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The clients for upstream. A step's HTTP/1.1 request is forwarded as HTTP/1.1, so that recorded headers do not
/// change. If the step's client or the server supports only HTTP/2, the version is negotiated with upstream.
#[derive(Clone)]
pub struct Clients {
    http1: reqwest::Client,
    either: reqwest::Client,
    /// Servers that support only HTTP/2. Bounded, because their names come from a bounded table.
    insisting: Arc<Mutex<HashSet<String>>>,
}

impl Clients {
    /// Sends a request to the server of its URL. Sends it once more if the server supports only HTTP/2, or if the
    /// connection was cut before the response and the method is safe (RFC 9110, sections 9.2.1 and 9.2.2): a server
    /// may close a reused connection at any moment, but the step's own connection is new, so its client would not
    /// retry.
    pub async fn execute(
        &self,
        request: reqwest::Request,
        is_http2: bool,
    ) -> reqwest::Result<reqwest::Response> {
        let server = request.url().authority().to_owned();
        let may_be_http2 = is_http2 || self.insisting().contains(&server);
        let client = if may_be_http2 { &self.either } else { &self.http1 };
        // A body cannot be sent twice: this request fails, and the next one to the server uses HTTP/2.
        let again = request.body().is_none().then(|| request.try_clone()).flatten();
        let failed = match client.execute(request).await {
            Err(error) => error,
            answered => return answered,
        };
        let insists = !may_be_http2 && wants_http2(&failed);
        if insists {
            self.insisting().insert(server);
        }
        match again {
            Some(again) if insists => self.either.execute(again).await,
            Some(again) if again.method().is_safe() && was_cut_off(&failed) => client.execute(again).await,
            _ => Err(failed),
        }
    }

    fn insisting(&self) -> MutexGuard<'_, HashSet<String>> {
        self.insisting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an established connection ended before the head of a response.
fn was_cut_off(error: &reqwest::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let cut = |kind| [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&kind);
    !error.is_connect()
        && causes(error).any(|cause| {
            let hyper = cause.downcast_ref::<hyper::Error>();
            let io = cause.downcast_ref::<std::io::Error>();
            hyper.is_some_and(hyper::Error::is_incomplete_message) || io.is_some_and(|io| cut(io.kind()))
        })
}

/// Whether a handshake failed because the server does not support HTTP/1.1.
fn wants_http2(error: &reqwest::Error) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    causes(error).any(|cause| cause.downcast_ref() == Some(&alert))
}

/// The causes of an error, the innermost last. For an error wrapped in an I/O error, `source` skips the wrapped one.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| {
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        }
    })
}

/// Whether a step could request this URL: its host is a name, not an address, and not this machine.
pub fn can_be_asked(url: &url::Url) -> bool {
    url.host_str().is_some_and(|host| HostName::parse(host).is_ok())
}

/// A text that is not a host name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAHost(String);

/// The environment variables for proxies.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The host of a proxy in a variable's value, with or without a scheme.
fn host_of(proxy: &str) -> Option<String> {
    let parsed = match proxy.contains("://") {
        true => url::Url::parse(proxy),
        false => url::Url::parse(&format!("http://{proxy}")),
    };
    parsed.ok()?.host_str().map(str::to_owned)
}

/// Resolves names to addresses of the public Internet only: a step must not reach the builder's machine or network,
/// or a cloud's metadata service, through a name that points there.
struct Resolver {
    fixed: Arc<HashMap<String, SocketAddr>>,
    permitted: Arc<Permitted>,
}

/// Names that may have other addresses.
struct Permitted {
    names: PrivateHosts,
    /// Hosts of proxies, which all other names are requested through. If a step requests one of them directly, it
    /// reaches nothing that it could not reach through the proxy.
    proxies: HashSet<String>,
}

impl Permitted {
    /// The addresses of a name that may be connected to.
    fn of(&self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, PrivateAddress> {
        if self.proxies.contains(name) {
            return Ok(found);
        }
        let is_named = HostName::parse(name).is_ok_and(|name| self.names.contain(&name));
        let refused = found.first().map(SocketAddr::ip);
        let may =
            |address: &SocketAddr| is_global(address.ip()) || is_named && can_be_permitted(address.ip());
        let allowed: Vec<SocketAddr> = found.into_iter().filter(may).collect();
        match refused {
            Some(address) if allowed.is_empty() => Err(match can_be_permitted(address) {
                true => PrivateAddress::Unnamed { name: name.to_owned(), address },
                false => PrivateAddress::Never { name: name.to_owned(), address },
            }),
            _ => Ok(allowed),
        }
    }
}

/// A name resolved only to addresses that a build must not reach.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum PrivateAddress {
    /// The name could be permitted.
    #[error(
        "{name} leads to {address}, which is not of the public Internet: if builds may fetch from there, give \
         --allow-private {name}"
    )]
    Unnamed {
        /// The name.
        name: String,
        /// Its first address.
        address: IpAddr,
    },
    /// No option permits this address.
    #[error("{name} leads to {address}, which no build may fetch from")]
    Never {
        /// The name.
        name: String,
        /// Its first address.
        address: IpAddr,
    },
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let fixed = self.fixed.get(name.as_str()).copied();
        let permitted = self.permitted.clone();
        Box::pin(async move {
            if let Some(address) = fixed {
                return Ok(Box::new(std::iter::once(address)) as Addrs);
            }
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            Ok(Box::new(permitted.of(name, found)?.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_address_is_reached_by_a_name_that_is_permitted() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let [public, private, link] = ["1.1.1.1", "10.1.2.3", "169.254.169.254"].map(address);
        let upstream = Upstream::system().with_private("Mirror.Example").unwrap();
        let proxies = Proxies::Through("http://proxy.example:3128".parse().unwrap());
        let permitted = upstream.with_proxies(proxies).resolver().permitted;
        let of = |name: &str, found: &[SocketAddr]| permitted.of(name, found.to_vec());
        let refused = of("a.example", &[private]).unwrap_err().to_string();
        for words in ["a.example", "10.1.2.3", "--allow-private a.example"] {
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(of("a.example", &[private, public]), Ok(vec![public]));
        assert_eq!(of("mirror.example", &[private]), Ok(vec![private]));
        assert_eq!(of("proxy.example", &[private]), Ok(vec![private]));
        let all = Upstream::system().with_private("*").unwrap().resolver().permitted;
        assert_eq!(all.of("any.example", vec![private]), Ok(vec![private]));
        assert!(all.of("any.example", vec![link]).is_err(), "no option permits the link");
        let never = of("mirror.example", &[link]).unwrap_err().to_string();
        assert!(!never.contains("--allow-private") && never.contains("169.254.169.254"), "{never}");
        assert!(of("localhost", &[address("127.0.0.1")]).is_err());
        for bad in ["10.0.0.1", "localhost", "a/b", ""] {
            assert!(Upstream::system().with_private(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_for_another_program_is_held_to_the_same() {
        let upstream = Upstream::system().with_proxies(Proxies::Direct);
        for host in ["127.0.0.1", "localhost", "169.254.169.254", "", "a b"] {
            assert!(upstream.check_server(host, 443, true).is_err(), "{host}");
        }
        let through = Proxies::Through(url::Url::parse("http://proxy.example:3128").unwrap());
        let behind = Upstream::system().with_proxies(through);
        assert!(behind.check_server("nowhere.invalid", 443, true).is_ok(), "the proxy decides");
        assert!(behind.check_server("nowhere.invalid", 22, false).is_err());
    }

    #[test]
    fn proxies_are_named_with_and_without_a_scheme() {
        for text in ["http://u:p@proxy.example:3128/", "proxy.example:3128", "proxy.example"] {
            assert_eq!(host_of(text).as_deref(), Some("proxy.example"), "{text}");
        }
    }

    #[test]
    fn a_root_that_is_no_certificate_is_refused() {
        let upstream = Upstream::system().with_root(CertificateDer::from(vec![1, 2, 3]));
        assert!(upstream.clients(Duration::from_secs(1), Duration::from_secs(1)).is_err());
    }
}
