//! The view of a well-behaved step, and its record.

use attestations::Digest;

use super::servers::{Script, plain, tls};
use super::upstream::Proxies;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_tls_exchanges_are_recorded_in_order() {
    let (http, seen) = plain(Script::Echo).await;
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let upstream =
        Upstream::system().with_root(root).with_address("a.example", http).with_address("b.example", https);
    let stage = Stage::new(upstream);
    let answer = stage.tls("b.example", "b.example", &get("b.example", "/secure?q=1")).await.unwrap();
    assert!(text(&answer).ends_with("\r\n\r\n/secure?q=1"), "{}", text(&answer));
    let post = b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let answer = text(&stage.raw("a.example", post).await);
    assert!(answer.to_lowercase().contains("x-kept: a, b") && answer.ends_with("hello"), "{answer}");
    assert!(!answer.to_lowercase().contains("date:"), "headers are upstream's own");
    let record = stage.finish().await;
    assert_eq!(record.incidents, []);
    let [up, secure] = record.step.sorted()[..] else { panic!("{record:?}") };
    assert_eq!((up.request.method.as_str(), up.request.url.as_str()), ("POST", "http://a.example/up"));
    assert_eq!((up.response.status, up.response.size, up.response.body), (200, 5, Digest::of(b"hello")));
    assert_eq!(up.request.body, Some(Digest::of(b"hello")));
    assert_eq!(secure.request.url, "https://b.example/secure?q=1");
    assert_eq!((secure.response.body, secure.request.body), (Digest::of(b"/secure?q=1"), None));
    assert_eq!(record.step.step, StepId::new("stage", 1));
    let seen = seen.lock().unwrap();
    assert!(seen[0].to_lowercase().contains("host: a.example\r\n"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_head_and_redirects_pass_unchanged() {
    let (http, _) = plain(Script::Echo).await;
    let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://b.example/\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (to, _) = plain(Script::Say(redirect)).await;
    let not_modified = b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n".to_vec();
    let (same, _) = plain(Script::Say(not_modified)).await;
    let upstream = Upstream::system().with_address("a.example", http).with_address("r.example", to);
    let stage = Stage::new(upstream.with_address("s.example", same));
    let mut both = b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec();
    both.extend(b"HEAD /22 HTTP/1.1\r\nHost: a.example\r\n\r\n");
    both.extend(get("a.example", "/333"));
    let answers = text(&stage.raw("a.example", &both).await);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    assert!(
        answers.to_lowercase().contains("content-length: 3\r\n\r\nhttp/1.1"),
        "HEAD has a length but no body"
    );
    let answer = text(&stage.raw("r.example", &get("r.example", "/")).await);
    assert!(
        answer.contains("302") && answer.to_lowercase().contains("location: http://b.example/"),
        "{answer}"
    );
    let answer = text(&stage.raw("s.example", &get("s.example", "/")).await);
    assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
    let record = stage.finish().await;
    assert_eq!(record.incidents, []);
    let list: Vec<_> = record
        .step
        .exchanges
        .iter()
        .map(|e| (e.request.method.as_str(), e.response.status, e.response.size))
        .collect();
    assert_eq!(list, [("GET", 200, 2), ("HEAD", 200, 0), ("GET", 200, 4), ("GET", 302, 0), ("GET", 304, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_chunked_bodies_stream_both_ways() {
    let (http, _) = plain(Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let mut request =
        b"POST / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n"
            .to_vec();
    request.extend(&big);
    let answer = stage.raw("a.example", &request).await;
    assert!(answer.ends_with(&big), "{} bytes came back", answer.len());
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: x\r\n\r\n";
    let (http, _) = plain(Script::Say(chunked.to_vec())).await;
    let other = Stage::new(Upstream::system().with_address("a.example", http));
    let answer = text(&other.raw("a.example", &get("a.example", "/")).await);
    assert!(answer.to_lowercase().contains("transfer-encoding: chunked"), "{answer}");
    assert_eq!(other.finish().await.step.exchanges[0].response.body, Digest::of(b"abcdefg"));
    let record = stage.finish().await;
    assert_eq!(record.step.exchanges[0].response.body, Digest::of(&big));
    assert_eq!(record.step.exchanges[0].request.body, Some(Digest::of(&big)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_did_not_read_to_its_end_is_still_named_whole() {
    let body = vec![7u8; 40 << 20];
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(&body);
    let (http, _) = plain(Script::Say(answer)).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    let mut stream = TcpStream::connect(stage.at("a.example", stage.http)).await.unwrap();
    stream.write_all(&get("a.example", "/big")).await.unwrap();
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    drop(stream);
    let record = stage.finish().await;
    assert_eq!(record.incidents, []);
    assert_eq!(record.step.exchanges[0].response.body, Digest::of(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_honoured() {
    // The proxy is the well-behaved server itself: requests to a plain proxy are in absolute form.
    let (proxy, seen) = plain(Script::Echo).await;
    let through = Proxies::Through(format!("http://{proxy}").parse().unwrap());
    let mut options = options(Upstream::system());
    options.upstream = options.upstream.with_proxies(through);
    let stage = Stage::with(options);
    stage.raw("a.example", &get("a.example", "/x")).await;
    let record = stage.finish().await;
    assert_eq!(record.step.exchanges[0].request.url, "http://a.example/x");
    assert!(seen.lock().unwrap()[0].starts_with("GET http://a.example/x HTTP/1.1"));
}

/// Real curl, with its own TLS and its own HTTP implementation.
#[tokio::test(flavor = "multi_thread")]
async fn curl_works_without_knowing() {
    let (https, _, root) = tls("b.example", Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_root(root).with_address("b.example", https));
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), stage.capture.ca_pem()).unwrap();
    let at = stage.at("b.example", stage.https);
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--fail", "--noproxy", "*", "--cacert"]).arg(ca.path());
    curl.args(["--connect-to", &format!("b.example:443:{at}")]);
    curl.args(["-d", "name=value", "https://b.example/form", "https://b.example/again"]);
    let output = curl.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"name=valuename=value");
    let record = stage.finish().await;
    assert_eq!(record.incidents, []);
    assert_eq!(record.step.exchanges.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_and_listeners_agree() {
    let (http, _) = plain(Script::Echo).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut query = hickory_proto::op::Message::query();
    let name = "a.example.".parse().unwrap();
    query.add_query(hickory_proto::op::Query::query(name, hickory_proto::rr::RecordType::A));
    client.send_to(&query.to_vec().unwrap(), stage.dns).await.unwrap();
    let mut buffer = [0; 512];
    let n = client.recv(&mut buffer).await.unwrap();
    let answer = hickory_proto::op::Message::from_vec(&buffer[..n]).unwrap();
    let address = match &answer.answers[0].data {
        hickory_proto::rr::RData::A(a) => a.0,
        other => panic!("{other:?}"),
    };
    let stream = TcpStream::connect((address, stage.http)).await.unwrap();
    assert!(text(&talk(stream, &get("a.example", "/x")).await).ends_with("/x"));
    assert_eq!(stage.finish().await.step.exchanges.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_credentials_are_private_and_their_cookies_withheld() {
    let said =
        b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=abc; Path=/\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (http, _) = plain(Script::Say(said.to_vec())).await;
    let stage = Stage::new(Upstream::system().with_address("a.example", http));
    let with =
        "GET /with HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic eDp5\r\nConnection: close\r\n\r\n";
    let answer = text(&stage.raw("a.example", with.as_bytes()).await);
    assert!(answer.contains("sid=abc"), "the step itself gets it: {answer}");
    stage.raw("a.example", &get("a.example", "/without")).await;
    let record = stage.finish().await;
    let cookie = |exchange: &Exchange| {
        let found = exchange.response.headers.iter().find(|(name, _)| name == "set-cookie");
        found.map(|(_, value)| value.clone()).unwrap()
    };
    let [with, without] = &record.step.exchanges[..] else { panic!("{record:?}") };
    assert_eq!((with.private, cookie(with).as_str()), (true, "sid=withheld; Path=/"));
    assert_eq!((without.private, cookie(without).as_str()), (false, "sid=abc; Path=/"));
}
