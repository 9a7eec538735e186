//! Malicious steps and servers. Each case ends in an incident that names it, and never in a complete exchange.

use super::servers::{Script, plain, tls};
use super::*;

async fn answered_by(bytes: &[u8]) -> (Stage, servers::Seen) {
    let (http, seen) = plain(Script::Say(bytes.to_vec())).await;
    (Stage::new(Upstream::system().with_address("a.example", http)), seen)
}

async fn only(stage: Stage) -> Incident {
    let record = stage.finish().await;
    assert_eq!(record.step.exchanges, [], "nothing may count as complete");
    assert_eq!(record.incidents.len(), 1, "{:?}", record.incidents);
    assert_eq!(record.step.step.as_str(), "stage#1");
    record.incidents[0].clone()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Attacks 18 and 22: requests that two parsers could read differently, or that are for another host.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_never_reach_upstream() {
    use IncidentKind::*;
    let cases: [(&[u8], IncidentKind); 13] = [
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", BadRequest),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", BadRequest),
        (b"GET / HTTP/1.1\r\n\r\n", BadRequest),
        (b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", BadRequest),
        (b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", BadRequest),
        (b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", NamesDisagree),
        (b"GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", NamesDisagree),
        (b"GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", NameIsAddress),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", NameIsAddress),
        (b"GET / HTTP/1.1\r\nHost: 0x7f000001\r\n\r\n", NameIsAddress),
        (b"CONNECT b.example:22 HTTP/1.1\r\nHost: b.example:22\r\n\r\n", ConnectRefused),
        (
            b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            UpgradeRefused,
        ),
        (b"\x16\x03\x01 this is no HTTP\r\n\r\n", BadRequest),
    ];
    for (request, kind) in cases {
        let (stage, seen) = answered_by(OK).await;
        let answer = text(&stage.raw("a.example", request).await);
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
            "{}: {answer}",
            text(request)
        );
        let incident = only(stage).await;
        assert_eq!(incident.kind, kind, "{}: {incident}", text(request));
        assert_eq!(incident.unrecorded_bytes, 0);
        assert!(seen.lock().unwrap().is_empty(), "{} reached upstream", text(request));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smuggled_second_request_is_only_body_to_upstream() {
    let (http, seen) = plain(Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let request = format!(
        "POST /first HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stage.raw("a.example", request.as_bytes()).await;
    stage.finish().await;
    let seen = seen.lock().unwrap();
    for request in seen.iter() {
        let head = request.to_lowercase();
        let both = head.contains("content-length:") && head.contains("transfer-encoding:");
        assert!(!both, "upstream must see one framing: {request}");
        assert!(!head.starts_with("get /smuggled"), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_chunks_of_a_request_are_an_incident() {
    for body in ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcdef\r\n0\r\n\r\n", "fffffffffffffffff\r\nabc"] {
        let (stage, _) = answered_by(OK).await;
        let head = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        stage.raw("a.example", format!("{head}{body}").as_bytes()).await;
        let record = stage.finish().await;
        assert_eq!(record.step.exchanges, [], "{body:?}");
        assert!(kinds(&record).contains(&IncidentKind::RequestTruncated), "{body:?}: {record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sni_and_host_must_be_the_name_that_dns_gave() {
    let (https, seen, root) = tls("a.example", Script::Echo).await;
    let upstream =
        Upstream::system().with_root(root).with_address("a.example", https).with_address("b.example", https);
    let stage = Stage::new(upstream);
    assert!(
        stage.tls("a.example", "b.example", &get("b.example", "/")).await.is_err(),
        "SNI is not what DNS gave"
    );
    assert!(
        stage.tls("a.example", "127.0.0.1", &get("a.example", "/")).await.is_err(),
        "no SNI for an address"
    );
    let answer = stage.tls("a.example", "a.example", &get("b.example", "/")).await.unwrap();
    assert!(text(&answer).starts_with("HTTP/1.1 421"), "{}", text(&answer));
    let record = stage.finish().await;
    assert_eq!(kinds(&record), [IncidentKind::NamesDisagree; 3]);
    assert!(record.incidents[0].detail.contains("SNI says b.example"), "{}", record.incidents[0]);
    assert!(record.step.exchanges.is_empty() && seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_stand_for_no_name_are_refused() {
    let stage = Stage::new(Upstream::system());
    for address in ["127.0.0.1", "127.18.200.200"] {
        let stream = TcpStream::connect((address, stage.http)).await.unwrap();
        assert_eq!(talk(stream, &get("a.example", "/")).await, b"");
    }
    assert_eq!(kinds(&stage.finish().await), [IncidentKind::UnknownAddress; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_broken_for_the_step_too() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let lying = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    let bad_chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n";
    for bytes in [&chunked[..], lying, bad_chunk] {
        let (stage, _) = answered_by(bytes).await;
        let answer = text(&stage.raw("a.example", &get("a.example", "/x")).await);
        assert!(!answer.ends_with("0\r\n\r\n"), "looks whole: {answer:?}");
        let incident = only(stage).await;
        assert_eq!((incident.kind, incident.unrecorded_bytes), (IncidentKind::Truncated, 5));
        assert_eq!(incident.target, "GET http://a.example/x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_that_stalls_is_given_up() {
    for (bytes, seen_by_step) in [(&b""[..], 0), (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", 5)]
    {
        let (http, _) = plain(Script::Stall(bytes.to_vec())).await;
        let stage = Stage::new(Upstream::system().with_address("a.example", http));
        let start = Instant::now();
        stage.raw("a.example", &get("a.example", "/")).await;
        assert!(start.elapsed() < Duration::from_secs(5));
        let incident = only(stage).await;
        assert_eq!((incident.kind, incident.unrecorded_bytes), (IncidentKind::Stalled, seen_by_step));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_limit_are_cut_off() {
    let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec();
    let mut unannounced = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    unannounced.extend([b'x'; 300_000]);
    for bytes in [announced, unannounced] {
        let (http, _) = plain(Script::Say(bytes)).await;
        let upstream = Upstream::system().with_address("a.example", http);
        let stage = Stage::with(Options { max_body: 100_000, ..options(upstream) });
        let answer = stage.raw("a.example", &get("a.example", "/")).await;
        assert!(answer.len() < 110_000);
        assert_eq!(only(stage).await.kind, IncidentKind::TooLarge);
    }
    let (http, _) = plain(Script::Echo).await;
    let upstream = Upstream::system().with_address("a.example", http);
    let stage = Stage::with(Options { max_body: 1000, ..options(upstream) });
    let request =
        format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(2000));
    stage.raw("a.example", request.as_bytes()).await;
    assert_eq!(only(stage).await.kind, IncidentKind::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_with_an_untrusted_certificate_is_refused() {
    let (https, seen, _) = tls("a.example", Script::Echo).await;
    let (wrong, _, root) = tls("other.example", Script::Echo).await;
    let upstream =
        Upstream::system().with_root(root).with_address("a.example", https).with_address("b.example", wrong);
    let stage = Stage::new(upstream);
    for name in ["a.example", "b.example"] {
        let answer = stage.tls(name, name, &get(name, "/")).await.unwrap();
        assert!(text(&answer).starts_with("HTTP/1.1 502"), "{}", text(&answer));
    }
    let record = stage.finish().await;
    assert_eq!(kinds(&record), [IncidentKind::UpstreamFailed; 2]);
    assert!(record.incidents[0].detail.contains("certificate"), "{}", record.incidents[0]);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_over_at_the_end_is_an_incident() {
    let (http, _) = plain(Script::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_vec())).await;
    let upstream = Upstream::system().with_address("a.example", http);
    let grace = Duration::from_millis(200);
    let stage = Stage::with(Options { grace, stall: Duration::from_secs(30), ..options(upstream) });
    let mut stream = TcpStream::connect(stage.at("a.example", stage.http)).await.unwrap();
    stream.write_all(&get("a.example", "/")).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"hello") {
        head.push(stream.read_u8().await.unwrap());
    }
    let start = Instant::now();
    let incident = only(stage).await;
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!((incident.kind, incident.unrecorded_bytes), (IncidentKind::Unfinished, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_this_machine_is_not_followed() {
    // `ip6-localhost` and the like are names of loopback in /etc/hosts; the machine's own name may be another.
    let resolver = tokio::net::lookup_host(("ip6-localhost", 0)).await;
    if resolver.is_err() {
        return;
    }
    let stage = Stage::new(Upstream::system());
    let answer = text(&stage.raw("ip6-localhost", &get("ip6-localhost", "/")).await);
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("this machine"), "{answer}");
    assert_eq!(only(stage).await.kind, IncidentKind::UpstreamFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_list_refuses_instead_of_forgetting() {
    let (http, _) = plain(Script::Echo).await;
    let upstream = Upstream::system().with_address("a.example", http);
    let stage = Stage::with(Options { max_exchanges: 2, ..options(upstream) });
    for path in ["/1", "/2", "/3"] {
        stage.raw("a.example", &get("a.example", path)).await;
    }
    let record = stage.finish().await;
    assert_eq!(record.step.exchanges.len(), 2);
    assert_eq!(kinds(&record), [IncidentKind::TooManyExchanges; 1], "{record:?}");
}
