//! The network of a build step: everything goes through here and is named by digest.
//!
//! Recorder is transparent. Inside the step's network namespace a whole block of addresses is local; the planted DNS
//! responder gives each name an address of its own in it, and planted listeners on the ports of HTTP and HTTPS learn
//! from the address which name is meant. SNI and Host must say the same name. TLS ends here with a certificate of an
//! authority that exists for this build alone, and begins anew towards upstream, whose certificate is checked against
//! the system's store. Nothing else leads out: no name is looked up on behalf of DNS, no other port answers.
//!
//! Ports other than 80 and 443 can be named. Whatever is tried elsewhere is refused, seen, and told of.
//!
//! What passes is kept by [`crate::store`], and a replay is answered from there with no way out at all.
//!
//! Deliberately absent: HTTP/2 without TLS, HTTP/3, websockets, tunnels, ports that nobody named.

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
use std::sync::Arc;
use std::sync::mpsc;
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
pub use store::{Exchange, Failure, Remote, Request, Response, StepExchanges};
pub use store::{
    KeptResponses, PrivateResponses, Record, Replay, ResponseStore, StoreWriter, archive, bytes_of,
    is_signed, is_withheld,
};
pub use upstream::{Clients, NotAHost, Upstream, can_be_asked};

/// Time for cancelled connections to let go of their exchanges.
const LET_GO: Duration = Duration::from_secs(2);

/// Bounds of a capture.
#[derive(Clone, Debug)]
pub struct Options {
    /// How upstream is reached.
    pub upstream: Upstream,
    /// Where names can be reached, and what is spoken there.
    pub endpoints: Vec<Endpoint>,
    /// Largest body in either direction, in bytes.
    pub max_body: u64,
    /// Most exchanges of one step.
    pub max_exchanges: usize,
    /// Longest time for a connection to upstream.
    pub connect: Duration,
    /// Longest silence of upstream in the middle of an exchange.
    pub stall: Duration,
    /// How long the end of a step waits for exchanges that are going on.
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
    /// No certificate to check upstream against.
    #[error("no trusted root certificates found: install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
    /// A certificate could not be minted.
    #[error("minting a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up, such as with a root that is no certificate.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// The upstream client could not be set up.
    #[error("setting up the upstream client")]
    Client(#[from] reqwest::Error),
    /// A planted socket could not be taken over.
    #[error("serving {address} in the step's network")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The step's network could not be prepared.
    #[error("planting what is served in the step's network")]
    Plant(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where a build's steps get their answers from.
#[derive(Clone, Debug)]
pub enum Mode {
    /// The real servers, while everything is hashed, and kept where there is a keeper.
    Record(Option<StoreWriter>),
    /// A record, and nothing else.
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
    /// A recorder with the default bounds and a new authority; its tasks run on `runtime`.
    pub fn new(runtime: Handle, way: Mode) -> Result<Recorder, Error> {
        Recorder::with_options(runtime, way, Options::default())
    }

    /// A recorder with other bounds.
    pub fn with_options(runtime: Handle, way: Mode, options: Options) -> Result<Recorder, Error> {
        Recorder::in_block(runtime, way, options, Block::CAPTURE)
    }

    fn in_block(runtime: Handle, way: Mode, options: Options, block: Block) -> Result<Recorder, Error> {
        let source = match way {
            Mode::Record(keeper) => {
                Source::Upstream(options.upstream.clients(options.connect, options.stall)?, keeper)
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

    /// The certificate that the build's steps must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The same, as DER.
    pub fn ca_der(&self) -> &[u8] {
        self.authority.der()
    }

    /// Whether answers come from a record.
    pub fn is_replay(&self) -> bool {
        matches!(self.source, Source::Record(_))
    }

    /// Forgets what a step asked so far: when it is done again, a replay answers it from the beginning.
    pub fn again(&self, step: &StepId) {
        if let Source::Record(replay) = &self.source {
            replay.again(step);
        }
    }

    /// What fetches for the step called `step` (for records and messages) without a program of its own. What it is answered
    /// is recorded as if the step had asked.
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

    /// Serves DNS and listeners for the step called `step` (for records and messages) on sockets that are ready. Nothing that
    /// holds one of `secrets` is recorded: it is an incident.
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

/// The sockets of one step. The doors must listen on all addresses of the step's network: which of them was connected to
/// says which name is meant.
#[derive(Debug)]
pub struct Sockets {
    /// DNS datagrams.
    pub dns_udp: UdpSocket,
    /// DNS connections.
    pub dns_tcp: TcpListener,
    /// HTTP and HTTPS connections.
    pub endpoints: Vec<(Endpoint, TcpListener)>,
    /// What sees the rest.
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

/// A step's network being served. Dropped without `finish`, everything in it is cut off and nothing recorded.
pub struct Planted {
    runtime: Handle,
    grace: Duration,
    recorder: Arc<StepRecorder>,
    blocked: Option<Arc<BlockedConnections>>,
    tasks: JoinSet<()>,
}

impl Planted {
    /// Ends the step's network and returns what went through it.
    ///
    /// Waits (blocking, so not from async code) for exchanges that are going on, for the options' grace at most; those
    /// that last longer become incidents. Call it when the step's processes are gone.
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
        // An error means that the runtime is shutting down: what was recorded until now still holds.
        let _ = receiver.recv();
        recorder.close();
        if let Some(blocked) = blocked {
            blocked.take_all(&recorder);
            // The kernel lets whoever closes such a socket wait, for longer than all else here takes.
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
