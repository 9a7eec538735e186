//! HTTP/2 (RFC 9113), for clients that support nothing else, mostly gRPC. Clients that offer HTTP/1.1 too get that.
//!
//! Each stream is an exchange like any other. The differences are handled here: the request has its host in a
//! pseudo-header, a response may end in trailers, and streams are concurrent, with limits on their number, headers
//! and early resets.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use errors::chain;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::ClientHello;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::gateway::{Gateway, MAX_HEAD};
use super::request::Endpoint;
use crate::host_name::HostName;
use crate::step::IncidentKind;

/// The most streams of a connection that are served at once; more have to wait.
const MAX_STREAMS: u32 = 128;
/// The most streams that may be reset before they were served; one more ends the connection (CVE-2023-44487).
const MAX_EARLY_RESETS: usize = 32;
/// The flow-control windows for request bodies, of a stream and of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A client that does not answer a ping within this time is considered gone.
const PING: Duration = Duration::from_secs(60);

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    /// HTTP/1.1, unless the client rules it out.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Wire {
    /// The protocol for a client with this ClientHello.
    pub(crate) fn of(hello: &ClientHello<'_>) -> Wire {
        let offered = |name: &[u8]| hello.alpn().is_some_and(|mut all| all.any(|one| one == name));
        match offered(Wire::Http2.alpn()) && !offered(Wire::Http1.alpn()) {
            true => Wire::Http2,
            false => Wire::Http1,
        }
    }

    /// Its ALPN id (RFC 7301).
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Wire::Http1 => b"http/1.1",
            Wire::Http2 => b"h2",
        }
    }
}

/// Serves one connection; running streams end when this is dropped.
pub(crate) async fn serve<S>(gateway: Arc<Gateway>, stream: S, name: HostName, endpoint: Endpoint)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = Streams::default();
    let _ends_with_this = Ends(streams.clone());
    let (this, asked) = (gateway.clone(), name.clone());
    let service = service_fn(move |request| {
        let (this, name) = (this.clone(), asked.clone());
        async move { Ok::<_, Infallible>(this.exchange(request, &name, endpoint).await) }
    });
    let served = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // The response has upstream's date or none.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served
        && is_clients_fault(&error)
    {
        gateway.recorder.incident(IncidentKind::BadRequest, name.as_str(), &chain::line(&error), 0);
    }
}

/// Whether the client violated the protocol, and did not merely disconnect.
fn is_clients_fault(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(h2::Error::is_library)
}

/// Runs the streams of one connection.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(stream);
    }
}

/// Ends the streams of a connection when dropped.
struct Ends(Streams);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
