//! The way from the recorder to the real servers.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, ClientConfig, RootCertStore};

use super::Error;
use crate::block::Block;

/// How upstream servers are found and which certificates they may show.
///
/// The roots are always the system's store and can only be added to; there is no switch that skips verification.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    roots: Vec<CertificateDer<'static>>,
    proxies: Proxies,
    addresses: HashMap<String, SocketAddr>,
}

/// Where plain HTTP proxies are taken from.
#[derive(Clone, Debug, Default)]
pub enum Proxies {
    /// `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` of the builder's own environment.
    #[default]
    Environment,
    /// No proxy, whatever the environment says.
    Direct,
    /// This one for everything.
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

    /// Chooses the proxies.
    pub fn with_proxies(mut self, proxies: Proxies) -> Upstream {
        self.proxies = proxies;
        self
    }

    /// Fixes the address of a name instead of asking DNS; a port other than 0 replaces the scheme's own.
    pub fn with_address(mut self, name: &str, address: SocketAddr) -> Upstream {
        self.addresses.insert(name.to_ascii_lowercase(), address);
        self
    }

    /// What asks real servers. `connect` bounds connecting, `stall` the silence in the midst of an answer.
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
            .dns_resolver(Resolver(Arc::new(self.addresses.clone())))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect)
            .read_timeout(stall);
        let builder = if http1 { builder.http1_only() } else { builder };
        let builder = match &self.proxies {
            Proxies::Environment => builder,
            Proxies::Direct => builder.no_proxy(),
            Proxies::Through(url) => builder.no_proxy().proxy(reqwest::Proxy::all(url.clone())?),
        };
        Ok(builder.build()?)
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

/// The clients for upstream. A step's HTTP/1.1 is passed on as that, so that headers come as they always did; where the
/// step's client insists on HTTP/2, or the server does, upstream may choose.
#[derive(Clone)]
pub struct Clients {
    http1: reqwest::Client,
    either: reqwest::Client,
    /// Servers that were found to speak nothing but HTTP/2. Names come from a bounded table, so this is bounded too.
    insisting: Arc<Mutex<HashSet<String>>>,
}

impl Clients {
    /// Sends a request to the server of its URL, and once more where the server speaks nothing but HTTP/2, or cut off what
    /// changes nothing there (RFC 9110, section 9.2.2): it may close a connection that it was asked on before at any
    /// moment, and a step, whose own connection is new, does not reckon with that.
    pub async fn execute(
        &self,
        request: reqwest::Request,
        is_http2: bool,
    ) -> reqwest::Result<reqwest::Response> {
        let server = request.url().authority().to_owned();
        let may_be_http2 = is_http2 || self.insisting().contains(&server);
        let client = if may_be_http2 { &self.either } else { &self.http1 };
        // What has a body cannot be sent twice: it fails now, and the next request knows.
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

/// Whether an established connection ended before the head of an answer.
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

/// Whether a handshake failed because the server speaks no HTTP/1.1.
fn wants_http2(error: &reqwest::Error) -> bool {
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    causes(error).any(|cause| cause.downcast_ref() == Some(&alert))
}

/// What an error came of, the last cause last. An error that was wrapped for I/O is no source of the wrapping.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| {
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        }
    })
}

/// Resolves names, but never to the builder's own machine: a step must not reach what listens there, nor a cloud's
/// metadata service, by a name somebody pointed at it.
struct Resolver(Arc<HashMap<String, SocketAddr>>);

/// A name led only to addresses that a build must not reach.
#[derive(Debug, thiserror::Error)]
#[error("{0} has only addresses of this machine or link")]
struct OwnMachine(String);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let fixed = self.0.get(name.as_str()).copied();
        Box::pin(async move {
            if let Some(address) = fixed {
                return Ok(Box::new(std::iter::once(address)) as Addrs);
            }
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            // A step cannot say `localhost`, so that only a proxy of the environment can be meant.
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|a| name == "localhost" || is_elsewhere(a.ip())).collect();
            if allowed.is_empty() {
                return Err(OwnMachine(name.to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn is_elsewhere(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let barred = v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                || Block::CAPTURE.contains(v4);
            !barred
        }
        IpAddr::V6(v6) => {
            let barred =
                v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local();
            !barred
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_machine_is_not_elsewhere() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_elsewhere(text.parse().unwrap()), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2001:db8::1"] {
            assert!(is_elsewhere(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_root_that_is_no_certificate_is_refused() {
        let upstream = Upstream::system().with_root(CertificateDer::from(vec![1, 2, 3]));
        assert!(upstream.clients(Duration::from_secs(1), Duration::from_secs(1)).is_err());
    }
}
