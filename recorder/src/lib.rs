//! Records the network traffic of build steps, or replays recorded responses to them. Every exchange goes through
//! this crate and is identified by digests.
//!
//! The recorder is transparent. Inside the step's network namespace a block of addresses is local. The recorder's DNS
//! responder there gives each name an address of its own from the block, and its listeners on the ports of HTTP and
//! HTTPS learn from the address which name was meant. SNI and Host must agree with it. TLS is terminated with a
//! certificate of a CA that exists for this build alone; towards upstream there is a new TLS connection, whose
//! certificate is checked against the system's store. Nothing else leaves the namespace: DNS queries are not
//! forwarded, and no other port is served.
//!
//! Ports other than 80 and 443 can be added. Connections to any other port are refused, noticed and reported.
//!
//! Responses are stored by `store`; a replay reads them from there and has no network access at all.
//!
//! Deliberately absent: HTTP/2 without TLS, HTTP/3, websockets, tunnels, ports that were not added.

mod addresses;
mod block;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod host_name;
mod patterns;
mod serve;
mod step;
mod step_id;
mod store;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use block::Block;
use serve::authority::Authority;
use serve::blocked::BlockedConnections;
use serve::dns::Responder;
use serve::gateway::{Gateway, Source};
use serve::names::NameTable;
use step::StepRecorder;

pub use patterns::{PatternSearch, Redactor, SecretPatterns};
pub use serve::fetch::{FetchError, Fetcher};
pub use serve::request::{Endpoint, Scheme};
pub use step::{Incident, IncidentKind, StepRecord};
pub use step_id::StepId;
pub use store::{Exchange, Failure, RecordedRequest, Remote, Response, StepExchanges};
pub use store::{
    KeptResponses, PrivateResponses, Record, Replay, ResponseStore, StoreWriter, archive, bytes_of,
    is_signed, is_withheld,
};
pub use upstream::{Clients, NotAHost, Upstream, can_be_asked};

/// How long cancelled connections may take to release their exchanges.
const LET_GO: Duration = Duration::from_secs(2);

/// The limits and endpoints of a recorder.
#[derive(Clone, Debug)]
pub struct Options {
    /// How upstream is reached.
    pub upstream: Upstream,
    /// The ports that every name has, with their schemes.
    pub endpoints: Vec<Endpoint>,
    /// The most bytes of a body in either direction.
    pub max_body: u64,
    /// The most exchanges of one step.
    pub max_exchanges: usize,
    /// The longest time to connect to upstream.
    pub connect: Duration,
    /// The longest silence of upstream in the middle of an exchange.
    pub stall: Duration,
    /// How long the end of a step waits for running exchanges.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            upstream: Upstream::system(),
            endpoints: vec![Endpoint::HTTP, Endpoint::HTTPS],
            max_body: 8 << 30,
            max_exchanges: 20_000,
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(120),
            grace: Duration::from_secs(30),
        }
    }
}

/// Why the network of a step could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no root certificate to check upstream against.
    #[error("no trusted root certificates found: install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
    /// A certificate could not be issued.
    #[error("minting a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up, for example because a root is not a certificate.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// The client for upstream could not be set up.
    #[error("setting up the upstream client")]
    Client(#[from] reqwest::Error),
    /// A socket of the step's network could not be served.
    #[error("serving {address} in the step's network")]
    Listen {
        /// The socket's address.
        address: SocketAddr,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The step's network could not be prepared.
    #[error("serving the step's network")]
    Plant(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Whether a build's network is recorded or replayed.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Requests go to the real servers. Responses are hashed, and stored if there is a writer.
    Record(Option<StoreWriter>),
    /// Requests are answered from a record, and from nothing else.
    Replay(Arc<Replay>),
}

/// The recorder of one build.
pub struct Recorder {
    runtime: Handle,
    names: Arc<NameTable>,
    authority: Arc<Authority>,
    source: Source,
    options: Options,
}

impl Recorder {
    /// A recorder with the default options and a new CA; its tasks run on `runtime`.
    pub fn new(runtime: Handle, mode: Mode) -> Result<Recorder, Error> {
        Recorder::with_options(runtime, mode, Options::default())
    }

    /// A recorder with other options.
    pub fn with_options(runtime: Handle, mode: Mode, options: Options) -> Result<Recorder, Error> {
        Recorder::in_block(runtime, mode, options, Block::CAPTURE)
    }

    fn in_block(runtime: Handle, mode: Mode, options: Options, block: Block) -> Result<Recorder, Error> {
        let source = match mode {
            Mode::Record(writer) => {
                Source::Upstream(options.upstream.clients(options.connect, options.stall)?, writer)
            }
            Mode::Replay(replay) => Source::Record(replay),
        };
        Ok(Recorder {
            runtime,
            names: Arc::new(NameTable::new(block)),
            authority: Arc::new(Authority::mint()?),
            source,
            options,
        })
    }

    /// The CA certificate that the build's steps must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The CA certificate as DER.
    pub fn ca_der(&self) -> &[u8] {
        self.authority.der()
    }

    /// Whether requests are answered from a record.
    pub fn is_replay(&self) -> bool {
        matches!(self.source, Source::Record(_))
    }

    /// Forgets the requests of a step: when it is run again, a replay starts from its first responses.
    pub fn again(&self, step: &StepId) {
        if let Source::Record(replay) = &self.source {
            replay.again(step);
        }
    }

    /// A client for the builder's own requests on behalf of the step with the id `step`. They are recorded as the
    /// step's.
    pub fn fetcher(&self, step: &StepId) -> Fetcher {
        let recorder = Arc::new(StepRecorder::new(step, self.options.max_exchanges, &Arc::default()));
        let gateway = self.gateway(&recorder);
        let (runtime, grace) = (self.runtime.clone(), self.options.grace);
        let planted = Planted { runtime, grace, recorder, blocked: None, tasks: JoinSet::new() };
        Fetcher::new(planted, gateway, self.options.endpoints.clone())
    }

    fn gateway(&self, recorder: &Arc<StepRecorder>) -> Arc<Gateway> {
        Arc::new(Gateway {
            names: self.names.clone(),
            authority: self.authority.clone(),
            recorder: recorder.clone(),
            source: self.source.clone(),
            max_body: self.options.max_body,
        })
    }

    /// Serves DNS and HTTP for the step with the id `step` on sockets that are ready. An exchange that contains one
    /// of `secrets` is not recorded but becomes an incident.
    ///
    /// # Errors
    /// When the runtime cannot take one of the sockets.
    pub fn serve(
        &self,
        sockets: Sockets,
        step: &StepId,
        secrets: &Arc<SecretPatterns>,
    ) -> Result<Planted, Error> {
        let _runtime = self.runtime.enter();
        let recorder = Arc::new(StepRecorder::new(step, self.options.max_exchanges, secrets));
        let responder = Responder { names: self.names.clone(), recorder: recorder.clone() };
        let gateway = self.gateway(&recorder);
        let udp = udp(sockets.dns_udp)?;
        let dns_tcp = tcp(sockets.dns_tcp)?;
        let endpoints =
            sockets.endpoints.into_iter().map(|(endpoint, listener)| Ok((endpoint, tcp(listener)?)));
        let endpoints = endpoints.collect::<Result<Vec<_>, Error>>()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(responder.clone().serve_udp(udp));
        tasks.spawn(responder.serve_tcp(dns_tcp));
        let ports = endpoints.iter().map(|(endpoint, _)| endpoint.port).collect();
        for (endpoint, listener) in endpoints {
            tasks.spawn(gateway.clone().serve(listener, endpoint));
        }
        let blocked =
            sockets.watch.map(|watch| Arc::new(BlockedConnections::new(watch, ports, self.names.clone())));
        if let Some(blocked) = &blocked {
            tasks.spawn(blocked.clone().follow(recorder.clone()));
        }
        let grace = self.options.grace;
        Ok(Planted { runtime: self.runtime.clone(), grace, recorder, blocked, tasks })
    }
}

/// The sockets of one step. The listeners must accept on all addresses of the step's network: the name that is meant
/// follows from the address that was connected to.
#[derive(Debug)]
pub struct Sockets {
    /// DNS over UDP.
    pub dns_udp: UdpSocket,
    /// DNS over TCP.
    pub dns_tcp: TcpListener,
    /// The listeners of HTTP and HTTPS.
    pub endpoints: Vec<(Endpoint, TcpListener)>,
    /// Notices attempts to reach anything else.
    pub watch: Option<sandbox::Watch>,
}

fn tcp(listener: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    let address = listener.local_addr().unwrap_or(NOWHERE);
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|e| Error::Listen { address, source: e.into() })
}

fn udp(socket: UdpSocket) -> Result<tokio::net::UdpSocket, Error> {
    let address = socket.local_addr().unwrap_or(NOWHERE);
    socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UdpSocket::from_std(socket))
        .map_err(|e| Error::Listen { address, source: e.into() })
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The network of a running step. Dropping it without `finish` cuts all connections and records nothing.
pub struct Planted {
    runtime: Handle,
    grace: Duration,
    recorder: Arc<StepRecorder>,
    blocked: Option<Arc<BlockedConnections>>,
    tasks: JoinSet<()>,
}

impl Planted {
    /// Shuts the step's network down and returns its record.
    ///
    /// Blocks, so it must not be called from async code. Waits for running exchanges, at most for the options' grace
    /// period; those that last longer become incidents. Call it when the step's processes are gone.
    pub fn finish(mut self) -> StepRecord {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (runtime, closing) = (self.runtime.clone(), self.runtime.clone());
        let recorder = self.recorder.clone();
        let blocked = self.blocked.take();
        runtime.spawn(async move {
            self.recorder.settled(self.grace).await;
            self.recorder.close();
            self.tasks.shutdown().await;
            self.recorder.disconnected(LET_GO).await;
            self.recorder.settled(LET_GO).await;
            // The receiver waits below for as long as this task lives.
            let _ = sender.send(());
        });
        // An error means that the runtime is shutting down; the record up to now is still valid.
        let _ = receiver.recv();
        recorder.close();
        if let Some(blocked) = blocked {
            blocked.take_all(&recorder);
            // Closing such a socket blocks in the kernel for longer than everything else here takes.
            closing.spawn_blocking(move || drop(blocked));
        }
        recorder.take()
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        self.recorder.close();
    }
}
