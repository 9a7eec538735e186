//! HTTP/2 with clients and servers that support nothing else.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::replay::twice;
use super::servers::{Script, tls};
use super::*;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// A server that supports only HTTP/2. It answers with the request's path and details, and ends with trailers.
async fn insisting(name: &str) -> (SocketAddr, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let root = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(echo_with_trailers);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, root)
}

async fn echo_with_trailers(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let (parts, body) = request.into_parts();
    let sent = body.collect().await.unwrap().to_bytes();
    let asks = parts.headers.get("te").is_some_and(|te| te == "trailers");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-asked", asks.to_string().parse().unwrap());
    let text = format!("{} {} {}", parts.method, parts.uri.path(), sent.len());
    let said = [text.as_bytes(), &sent].concat();
    let frames = [Frame::data(Bytes::from(said)), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
    Ok(Response::builder().header("content-type", "application/grpc").body(BodyExt::boxed(body)).unwrap())
}

async fn connect(stage: &Stage, name: &str) -> Sender {
    let stream = stage.secure(name, name, &["h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, url: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(url).header("te", "trailers");
    builder.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

/// Everything of a response that a client sees.
async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<String, hyper::Error> {
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned();
    let bytes = body.to_bytes();
    Ok(format!("{:?} {:?} {} {trailers:?}", parts.status, parts.headers, text(&bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_insists_is_served_and_the_replay_is_the_same() {
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let (only, other) = insisting("g.example").await;
    let upstream = Upstream::system()
        .with_root(root)
        .with_root(other)
        .with_address("b.example", https)
        .with_address("g.example", only);
    let (first, second) = twice(upstream, async |stage| {
        let mut said = Vec::new();
        let mut sender = connect(stage, "b.example").await;
        said.push(ask(&mut sender, request("GET", "https://b.example/1?x", b"")).await.unwrap());
        let big = vec![7; 300_000];
        said.push(ask(&mut sender, request("POST", "https://b.example/2", &big)).await.unwrap());
        said.push(ask(&mut sender, request("HEAD", "https://b.example/3", b"")).await.unwrap());
        let mut sender = connect(stage, "g.example").await;
        said.push(ask(&mut sender, request("POST", "https://g.example/rpc", b"message")).await.unwrap());
        said.push(ask(&mut sender, request("POST", "https://g.example/rpc", &big)).await.unwrap());
        said
    })
    .await;
    assert_eq!(first.0, second.0);
    assert!(first.0[0].contains("200") && first.0[0].contains(" /1?x None"), "{}", first.0[0]);
    assert!(
        first.0[3].contains("POST /rpc 7message Some({\"grpc-status\": \"0\", \"x-asked\": \"true\"})"),
        "{}",
        first.0[3]
    );
    assert_eq!((first.1.incidents.len(), first.1.step.exchanges.len()), (0, 5), "{:?}", first.1.incidents);
    assert_eq!(first.1, second.1);
}

/// A client that offers both gets HTTP/1.1; a server that requires HTTP/2 gets it, and its trailers are dropped.
#[tokio::test(flavor = "multi_thread")]
async fn http1_stays_what_it_was_even_before_a_server_that_insists() {
    let (only, root) = insisting("g.example").await;
    let upstream = Upstream::system().with_root(root).with_address("g.example", only);
    let (first, second) = twice(upstream, async |stage| {
        let stream = stage.secure("g.example", "g.example", &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let get = text(&talk(stream, &get("g.example", "/x")).await);
        let post =
            b"POST /y HTTP/1.1\r\nHost: g.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        vec![get, text(&stage.tls("g.example", "g.example", post).await.unwrap())]
    })
    .await;
    assert_eq!(first.0, second.0);
    assert!(first.0[0].contains("GET /x 0") && !first.0[0].contains("grpc-status"), "{}", first.0[0]);
    assert!(first.0[1].contains("POST /y 5") && first.0[1].contains("hello"), "{}", first.0[1]);
    assert_eq!((&first.1.incidents[..], first.1.step.exchanges.len()), (&[][..], 2));
    assert_eq!(first.1, second.1);
}

/// Real curl, which offers both.
#[tokio::test(flavor = "multi_thread")]
async fn curl_that_could_do_with_less_gets_http1() {
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_root(root).with_address("b.example", https));
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), stage.capture.ca_pem()).unwrap();
    let at = stage.at("b.example", stage.https);
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--fail", "--noproxy", "*", "--cacert"]).arg(ca.path());
    curl.args(["--connect-to", &format!("b.example:443:{at}"), "--http2", "-w", " %{http_version}"]);
    let output = curl.args(["-d", "name=value", "https://b.example/form"]).output().await.unwrap();
    assert_eq!(text(&output.stdout), "name=value 1.1", "{output:?}");
    let record = stage.finish().await;
    assert_eq!((record.incidents.len(), record.step.exchanges.len()), (0, 1), "{record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_wait_for_their_turn() {
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_root(root).with_address("b.example", https));
    let sender = connect(&stage, "b.example").await;
    let asked = (0..300).map(|n| {
        let mut sender = sender.clone();
        async move { ask(&mut sender, request("GET", &format!("https://b.example/{n}"), b"")).await }
    });
    for (n, said) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
        assert!(said.unwrap().contains(&format!(" /{n} None")), "{n}");
    }
    let record = stage.finish().await;
    assert_eq!((record.incidents.len(), record.step.exchanges.len()), (0, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_mean_another_host_are_refused() {
    let (https, seen, root) = tls("b.example", Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_root(root).with_address("b.example", https));
    let mut sender = connect(&stage, "b.example").await;
    for (url, status) in [
        ("https://c.example/", "421"),
        ("https://b.example:22/", "421"),
        ("https://127.0.0.1/", "403"),
        ("http://b.example/", "400"),
    ] {
        let said = ask(&mut sender, request("GET", url, b"")).await.unwrap();
        assert!(said.starts_with(status), "{url}: {said}");
    }
    let long = "x".repeat(70_000);
    let mut large = request("GET", "https://b.example/", b"");
    large.headers_mut().insert("x-large", long.parse().unwrap());
    let refused = ask(&mut sender, large).await;
    assert!(refused.as_ref().map_or(true, |said| said.starts_with("431")), "{refused:?}");
    let record = stage.finish().await;
    use IncidentKind::*;
    assert_eq!(kinds(&record)[..4], [NamesDisagree, NamesDisagree, NameIsAddress, BadRequest]);
    assert!(record.step.exchanges.is_empty() && seen.lock().unwrap().is_empty(), "{record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_http2_without_tls_are_named() {
    let (https, seen, root) = tls("b.example", Script::Echo).await;
    let upstream = Upstream::system().with_root(root).with_address("b.example", https);
    let stage = Stage::new(upstream.with_address("a.example", https));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert!(stage.raw("a.example", preface).await.is_empty());
    let stream = stage.secure("b.example", "b.example", &["h2"]).await.unwrap();
    talk(stream, b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
    let stream = stage.secure("b.example", "b.example", &["h2"]).await.unwrap();
    let frame = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 64]].concat();
    talk(stream, &frame).await;
    assert!(stage.secure("b.example", "b.example", &["spdy/3"]).await.is_err(), "no protocol in common");
    let record = stage.finish().await;
    use IncidentKind::*;
    assert_eq!(kinds(&record), [UpgradeRefused, BadRequest, BadRequest, ClientTls], "{record:?}");
    assert!(record.incidents[0].detail.contains("HTTP/2 without TLS"), "{}", record.incidents[0]);
    assert!(record.step.exchanges.is_empty() && seen.lock().unwrap().is_empty());
}

/// Thousands of streams that are opened and reset at once: the connection ends or they are refused, and the next
/// client is served as usual.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_are_bounded() {
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_root(root).with_address("b.example", https));
    let stream = stage.secure("b.example", "b.example", &["h2"]).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let running = tokio::spawn(connection);
    for _ in 0..2000 {
        let Ok(ready) = sender.clone().ready().await else { break };
        sender = ready;
        let request = Request::builder().uri("https://b.example/reset").body(()).unwrap();
        let Ok((_, mut stream)) = sender.send_request(request, false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    drop(sender);
    running.abort();
    let mut sender = connect(&stage, "b.example").await;
    let said = ask(&mut sender, request("GET", "https://b.example/after", b"")).await.unwrap();
    assert!(said.contains("/after"), "{said}");
    let record = stage.finish().await;
    assert!(record.incidents.len() <= 256);
    assert!(record.step.exchanges.iter().any(|found| found.request.url.ends_with("/after")));
    assert!(
        record.step.exchanges.iter().all(|found| !found.request.url.ends_with("/reset")),
        "a reset request is none"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_breaks_off_here_too() {
    let lying = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello".to_vec();
    for (script, kind) in
        [(Script::Say(lying.clone()), IncidentKind::Truncated), (Script::Stall(lying), IncidentKind::Stalled)]
    {
        let (https, _, root) = tls("b.example", script).await;
        let stage = Stage::new(Upstream::system().with_root(root).with_address("b.example", https));
        let mut sender = connect(&stage, "b.example").await;
        assert!(ask(&mut sender, request("GET", "https://b.example/x", b"")).await.is_err());
        let record = stage.finish().await;
        assert_eq!((kinds(&record), record.step.exchanges.len()), (vec![kind], 0));
        assert_eq!(record.incidents[0].unrecorded_bytes, 5);
        assert_eq!(record.incidents[0].target, "GET https://b.example/x");
    }
}

/// The end of a step ends its streams, and reports them.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_over_at_the_end_is_an_incident() {
    let stalls = Script::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_vec());
    let (https, _, root) = tls("b.example", stalls).await;
    let upstream = Upstream::system().with_root(root).with_address("b.example", https);
    let grace = Duration::from_millis(200);
    let stage = Stage::with(Options { grace, stall: Duration::from_secs(30), ..options(upstream) });
    let mut sender = connect(&stage, "b.example").await;
    let (_, mut body) =
        sender.send_request(request("GET", "https://b.example/", b"")).await.unwrap().into_parts();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    let record = stage.finish().await;
    assert_eq!(kinds(&record), [IncidentKind::Unfinished]);
    assert_eq!((record.incidents[0].unrecorded_bytes, record.step.exchanges.len()), (5, 0));
}
