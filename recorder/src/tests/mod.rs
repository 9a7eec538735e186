//! The recorder against real servers and clients on loopback. The block is one of loopback's own, so that no network
//! namespace is needed here.

mod faults;
mod hostile;
mod http2;
mod real;
mod replay;
mod servers;
mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::upstream::Proxies;
use super::*;

const LOOPBACK: Block = Block::new(Ipv4Addr::new(127, 18, 0, 0), 16);

/// A step's network and the addresses of its listeners.
struct Stage {
    capture: Recorder,
    planted: Planted,
    dns: SocketAddr,
    http: u16,
    https: u16,
}

fn options(upstream: Upstream) -> Options {
    Options {
        upstream: upstream.with_proxies(Proxies::Direct),
        stall: Duration::from_millis(700),
        grace: Duration::from_secs(3),
        ..Options::default()
    }
}

impl Stage {
    fn new(upstream: Upstream) -> Stage {
        Stage::with(options(upstream))
    }

    fn with(options: Options) -> Stage {
        Stage::on(Mode::Record(None), options)
    }

    fn on(mode: Mode, options: Options) -> Stage {
        let capture = Recorder::in_block(Handle::current(), mode, options, LOOPBACK).unwrap();
        let tcp = || TcpListener::bind("0.0.0.0:0").unwrap();
        let sockets = Sockets {
            dns_udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            dns_tcp: tcp(),
            endpoints: vec![(Endpoint::HTTP, tcp()), (Endpoint::HTTPS, tcp())],
            watch: None,
        };
        let dns = sockets.dns_udp.local_addr().unwrap();
        let port = |l: &TcpListener| l.local_addr().unwrap().port();
        let (http, https) = (port(&sockets.endpoints[0].1), port(&sockets.endpoints[1].1));
        let planted = capture.serve(sockets, &StepId::new("stage", 1), &Arc::default()).unwrap();
        Stage { capture, planted, dns, http, https }
    }

    /// The address that a program connects to for a name, from DNS.
    fn at(&self, name: &str, port: u16) -> SocketAddr {
        let name = crate::host_name::HostName::parse(name).unwrap();
        SocketAddr::from((self.capture.names.address_of(&name).unwrap(), port))
    }

    /// Sends bytes over plain HTTP to a name and reads until the end.
    async fn raw(&self, name: &str, request: &[u8]) -> Vec<u8> {
        talk(TcpStream::connect(self.at(name, self.http)).await.unwrap(), request).await
    }

    /// The same over TLS, with a choice of SNI.
    async fn tls(&self, name: &str, sni: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
        Ok(talk(self.secure(name, sni, &[]).await?, request).await)
    }

    /// A TLS connection that offers these protocols.
    async fn secure(
        &self,
        name: &str,
        sni: &str,
        offered: &[&str],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.at(name, self.https)).await?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.capture.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let sni = ServerName::try_from(sni.to_owned()).unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(sni, stream).await
    }

    async fn finish(self) -> StepRecord {
        let planted = self.planted;
        tokio::task::spawn_blocking(move || planted.finish()).await.unwrap()
    }
}

/// The bytes received until the connection ended, in whatever form.
async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: S,
    request: &[u8],
) -> Vec<u8> {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let patience = Duration::from_secs(10);
    while let Ok(Ok(n)) = tokio::time::timeout(patience, stream.read(&mut buffer)).await {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..n]);
    }
    answer
}

fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kinds(record: &StepRecord) -> Vec<IncidentKind> {
    record.incidents.iter().map(|i| i.kind).collect()
}
