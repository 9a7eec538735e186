//! Upstream servers: a well-behaved one, one with TLS, and one that sends exactly the bytes it is given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// Heads and bodies that a server received, as text.
pub(super) type Seen = Arc<Mutex<Vec<String>>>;

/// The behaviour of a scripted server on each connection.
#[derive(Clone)]
pub(super) enum Script {
    /// Reads a request, sends this, and closes.
    Say(Vec<u8>),
    /// Reads a request, sends this, and then nothing more.
    Stall(Vec<u8>),
    /// Answers the first request of a connection, and closes at the next one.
    Once(Vec<u8>),
    /// Answers every request of the connection with its body, or its path if there is none.
    Echo,
    /// Answers with the content at the path, or that there is none.
    Site(Arc<HashMap<String, (&'static str, Vec<u8>)>>),
}

pub(super) async fn plain(script: Script) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(play(stream, script.clone(), log.clone()));
        }
    });
    (address, seen)
}

/// A TLS server for `name`, with a root of its own.
pub(super) async fn tls(name: &str, script: Script) -> (SocketAddr, Seen, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let root = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, script, log) = (acceptor.clone(), script.clone(), log.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    play(stream, script, log).await;
                }
            });
        }
    });
    (address, seen, root)
}

async fn play<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, script: Script, seen: Seen) {
    let mut pending = Vec::new();
    let mut asked = 0;
    while let Some((head, body)) = read_request(&mut stream, &mut pending).await {
        asked += 1;
        seen.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
        match &script {
            Script::Say(bytes) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Script::Once(_) if asked > 1 => return,
            Script::Once(bytes) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
            }
            Script::Stall(bytes) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
                tokio::time::sleep(Duration::from_secs(60)).await;
                return;
            }
            Script::Site(site) => {
                let found = site.get(head.split(' ').nth(1).unwrap_or_default());
                let (status, kind, body) = match found {
                    Some((kind, body)) => ("200 OK", *kind, body.as_slice()),
                    None => ("404 Not Found", "text/plain", &b"nothing here"[..]),
                };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
                let _ = stream.flush().await;
            }
            Script::Echo => {
                let path = head.split(' ').nth(1).unwrap_or_default().as_bytes().to_vec();
                let body = if body.is_empty() { path } else { body };
                let head =
                    format!("HTTP/1.1 200 OK\r\nX-Kept: a, b\r\nContent-Length: {}\r\n\r\n", body.len());
                let skip_body = seen.lock().unwrap().last().is_some_and(|r| r.starts_with("HEAD "));
                let _ = stream.write_all(head.as_bytes()).await;
                if !skip_body {
                    let _ = stream.write_all(&body).await;
                }
                let _ = stream.flush().await;
            }
        }
    }
}

/// Reads one request with its body, which is expected plain or in chunks.
async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    pending: &mut Vec<u8>,
) -> Option<(String, Vec<u8>)> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end + 4]).to_lowercase();
            let rest = &pending[end + 4..];
            let length =
                head.split("content-length: ").nth(1).and_then(|l| l.split("\r\n").next()?.parse().ok());
            let chunked = head.contains("transfer-encoding: chunked");
            let whole = match length {
                Some(length) => (rest.len() >= length).then_some(length),
                None if chunked => rest.windows(5).position(|w| w == b"0\r\n\r\n").map(|at| at + 5),
                None => Some(0),
            };
            if let Some(whole) = whole {
                let head = String::from_utf8_lossy(&pending[..end + 4]).into_owned();
                let body = pending[end + 4..end + 4 + whole].to_vec();
                pending.drain(..end + 4 + whole);
                return Some((head, body));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => pending.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}
