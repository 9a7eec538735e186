//! Faults of servers, proxies and clients. Each ends in a clear incident, or in an exchange that is exactly what the
//! step received.

use attestations::Digest;
use rcgen::CertificateParams;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::servers::{Script, plain, tls};
use super::upstream::Proxies;
use super::*;

/// Framing that two parsers could read differently never reaches upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_readings_is_refused() {
    let head = "POST /first HTTP/1.1\r\nHost: a.example\r\n";
    for rest in [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: 5, 6\r\n\r\nhello!",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: -1\r\n\r\nhello",
        "Content-Length: 0x5\r\n\r\nhello",
        "Transfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "X-Folded: one\r\n two\r\nContent-Length: 0\r\n\r\n",
        "X-Space : one\r\nContent-Length: 0\r\n\r\n",
        "X-\0Nul: one\r\nContent-Length: 0\r\n\r\n",
        "Content-Length\r\n\r\n",
    ] {
        let (http, seen) = plain(Script::Echo).await;
        let stage = Stage::new(Upstream::system().with_address("a.example", http));
        let answer = text(&stage.raw("a.example", format!("{head}{rest}").as_bytes()).await);
        assert!(answer.starts_with("HTTP/1.1 400"), "{rest:?}: {answer}");
        let record = stage.finish().await;
        assert_eq!(
            (kinds(&record), record.step.exchanges.len()),
            (vec![IncidentKind::BadRequest], 0),
            "{rest:?}"
        );
        assert!(seen.lock().unwrap().is_empty(), "{rest:?} reached upstream");
    }
}

/// A server that sends more than it announced: the step receives the announced length, the record says so, and the
/// rest is never taken for the next response.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_announced_is_cut_and_never_the_next_answer() {
    let evil =
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let (http, seen) = plain(Script::Stall(evil.to_vec())).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    for path in ["/1", "/2"] {
        let answer = text(&stage.raw("a.example", &get("a.example", path)).await);
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    let record = stage.finish().await;
    assert_eq!((record.incidents.len(), record.step.exchanges.len()), (0, 2), "{record:?}");
    assert!(
        record
            .step
            .exchanges
            .iter()
            .all(|found| found.response.body == Digest::of(b"ok") && found.response.size == 2)
    );
    assert_eq!(seen.lock().unwrap().len(), 2, "each request reached the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_two_readings_is_no_exchange() {
    for head in [
        "Content-Length: 2\r\nContent-Length: 5",
        "Content-Length: 2, 5",
        "Content-Length: two",
        "X: 1\r\n folded: 2\r\nContent-Length: x",
    ] {
        let (http, _) =
            plain(Script::Say(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhello").into_bytes())).await;
        let stage = Stage::new(Upstream::system().with_address("a.example", http));
        let answer = text(&stage.raw("a.example", &get("a.example", "/x")).await);
        assert!(answer.starts_with("HTTP/1.1 502"), "{head}: {answer}");
        let record = stage.finish().await;
        assert_eq!(
            (kinds(&record), record.step.exchanges.len()),
            (vec![IncidentKind::UpstreamFailed], 0),
            "{head}"
        );
        assert_eq!(record.incidents[0].target, "GET http://a.example/x");
    }
    // If both framings are present the chunks count (RFC 9112, section 6.3), and the step receives one framing.
    let both =
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (http, _) = plain(Script::Say(both.to_vec())).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    let answer = text(&stage.raw("a.example", &get("a.example", "/")).await).to_lowercase();
    assert!(!(answer.contains("content-length") && answer.contains("transfer-encoding")), "{answer}");
    let record = stage.finish().await;
    assert_eq!(
        record.step.exchanges.iter().map(|found| found.response.body).collect::<Vec<_>>(),
        [Digest::of(b"abc")]
    );
}

/// A TLS server with a certificate that is valid for these days before and after now.
async fn valid_for(name: &str, days: (i64, i64)) -> (SocketAddr, CertificateDer<'static>) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let at = |days: i64| {
        let (now, span) = (std::time::SystemTime::now(), Duration::from_secs(days.unsigned_abs() * 86_400));
        if days < 0 { now - span } else { now + span }
    };
    // A name of its own, so that no other test's root is taken for its issuer.
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = at(days.0).into();
    params.not_after = at(days.1).into();
    let key = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![root.clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (address, root)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_is_told_with_what_is_bad() {
    let (expired, one) = valid_for("expired.example", (-20, -10)).await;
    let (early, two) = valid_for("early.example", (10, 20)).await;
    let (strange, _) = valid_for("strange.example", (-10, 10)).await;
    let (other, three) = valid_for("other.example", (-10, 10)).await;
    let upstream = [one, two, three].into_iter().fold(Upstream::system(), Upstream::with_root);
    let upstream = upstream
        .with_address("expired.example", expired)
        .with_address("early.example", early)
        .with_address("strange.example", strange)
        .with_address("wrong.example", other);
    let stage = Stage::new(upstream);
    let cases = [
        ("expired.example", "expired"),
        ("early.example", "not valid yet"),
        ("strange.example", "UnknownIssuer"),
        ("wrong.example", "not valid for name"),
    ];
    for (name, _) in cases {
        let answer = text(&stage.tls(name, name, &get(name, "/x")).await.unwrap());
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("certificate"), "{answer}");
    }
    let record = stage.finish().await;
    assert_eq!((kinds(&record), record.step.exchanges.len()), (vec![IncidentKind::UpstreamFailed; 4], 0));
    for (incident, (name, words)) in record.incidents.iter().zip(cases) {
        let text = incident.to_string();
        assert!(text.starts_with(&format!("GET https://{name}/x")) && text.contains(words), "{text}");
    }
}

/// A client that follows redirects without end reaches the step's limit, and gets a message.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_itself_ends_by_the_bound() {
    // It announces that it closes each connection; otherwise the next request might use one that is just being
    // closed.
    let again = b"HTTP/1.1 302 Found\r\nLocation: http://a.example/again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let again = again.to_vec();
    let (http, _) = plain(Script::Say(again)).await;
    let upstream = Upstream::system().with_address("a.example", http);
    let stage = Stage::with(Options { max_exchanges: 25, ..options(upstream) });
    let mut followed = 0;
    let last = loop {
        let answer = text(&stage.raw("a.example", &get("a.example", "/again")).await);
        if !answer.starts_with("HTTP/1.1 302") {
            break answer;
        }
        followed += 1;
    };
    assert_eq!(followed, 25);
    assert!(last.starts_with("HTTP/1.1 503") && last.contains("too many exchanges"), "{last}");
    let record = stage.finish().await;
    assert_eq!((kinds(&record), record.step.exchanges.len()), (vec![IncidentKind::TooManyExchanges], 25));
    assert_eq!(record.incidents[0].target, "GET http://a.example/again");
}

/// A server may close a connection while the next request is on its way. The step's own connection is new, so its
/// client would not retry: the recorder does, except for requests that may change something.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_kept_too_long_is_not_the_steps_problem() {
    let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let (http, seen) = plain(Script::Once(fine)).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    for path in ["/1", "/2", "/3"] {
        let answer = text(&stage.raw("a.example", &get("a.example", path)).await);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        // The recorder gets the connection back a moment after the response.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let post = b"POST /4 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let answer = text(&stage.raw("a.example", post).await);
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let record = stage.finish().await;
    assert_eq!((kinds(&record), record.step.exchanges.len()), (vec![IncidentKind::UpstreamFailed], 3));
    let asked: Vec<String> =
        seen.lock().unwrap().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(asked, ["/1", "/2", "/2", "/3", "/3", "/4"]);
}

/// A response that the step received in part and ignored stays reported: the recorded responses are incomplete.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_nobody_minded_is_not_forgotten() {
    let (cut, _) = plain(Script::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello".to_vec())).await;
    let (down, _) = plain(Script::Say(Vec::new())).await;
    let (fine, _) = plain(Script::Echo).await;
    let upstream = Upstream::system().with_address("cut.example", cut).with_address("down.example", down);
    let stage = Stage::new(upstream.with_address("fine.example", fine));
    for name in ["cut.example", "down.example", "fine.example"] {
        stage.raw(name, &get(name, "/")).await;
    }
    let record = stage.finish().await;
    assert!(record.incidents.iter().any(|incident| incident.unrecorded_bytes > 0));
    assert_eq!(record.step.exchanges.len(), 1, "{record:?}");
    let material = record.step;
    let failed: Vec<_> = material.failures.iter().map(|failure| failure.url.as_str()).collect();
    assert_eq!(
        failed,
        ["http://down.example/"],
        "what gave no byte is repeated as a failure, what gave some is not"
    );
    assert_eq!(kinds_of(&record.incidents), [IncidentKind::Truncated, IncidentKind::UpstreamFailed]);
}

fn kinds_of(incidents: &[Incident]) -> Vec<IncidentKind> {
    incidents.iter().map(|incident| incident.kind).collect()
}

/// A proxy that tunnels to `to` for clients with a password, and the requests that it received.
async fn tunnels(to: SocketAddr) -> (SocketAddr, servers::Seen) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), servers::Seen::default());
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = log.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = text(&head);
                log.lock().unwrap().push(head.clone());
                // "user:hunter2"
                if !head.to_lowercase().contains("proxy-authorization: basic dxnlcjpodw50zxiy") {
                    let no = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                    return stream.write_all(no).await.unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn https_goes_through_a_proxy_by_a_tunnel_and_its_password_is_not_told() {
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let (proxy, seen) = tunnels(https).await;
    for (user, fine) in [("user:hunter2", true), ("user:wr0ng", false)] {
        let through = Proxies::Through(format!("http://{user}@{proxy}").parse().unwrap());
        let mut options = options(Upstream::system().with_root(root.clone()));
        options.upstream = options.upstream.with_proxies(through);
        let stage = Stage::with(options);
        let answer = text(&stage.tls("b.example", "b.example", &get("b.example", "/x")).await.unwrap());
        let record = stage.finish().await;
        if fine {
            assert_eq!(record.step.exchanges[0].request.url, "https://b.example/x", "{answer}");
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert_eq!((kinds(&record), record.step.exchanges.len()), (vec![IncidentKind::UpstreamFailed], 0));
        let told = format!("{answer}{record:?}");
        assert!(told.contains("proxy") && !told.contains("wr0ng"), "{told}");
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|head| head.starts_with("CONNECT b.example:443 HTTP/1.1\r\n")), "{seen:?}");
}
