//! The policy proxy against hostile clients: raw TCP on one side, a real local server on the other.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use attestations::AllowedRequests;
use attestations::policy::Budget;
use runner::egress::{EgressLimits, Outcome, Proxy, Rules, ServeHandle, Spent, Token, Upstream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

fn central() -> Rules {
    AllowedRequests::vantage6_central().into()
}

/// A server that records every byte it receives and gives canned answers by path.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Server {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&record)));
            }
        });
        Server { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn proxy(&self) -> Proxy {
        let url = format!("http://{}/api", self.address).parse().unwrap();
        Proxy::new(central(), Upstream::Url(url), Some(Token::new("the-run").unwrap())).unwrap()
    }
}

async fn answer(mut stream: TcpStream, record: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let at = record.lock().unwrap().len();
    record.lock().unwrap().push(head.clone());
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let complete = |bytes: &[u8]| match length {
        Some(length) => bytes.len() >= end + length.parse::<usize>().unwrap(),
        None => !lower.contains("transfer-encoding: chunked") || bytes.ends_with(b"0\r\n\r\n"),
    };
    while !complete(&bytes) {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    record.lock().unwrap()[at] = String::from_utf8_lossy(&bytes).into_owned();
    let target = head.split(' ').nth(1).unwrap();
    let text = match target {
        "/api/task/301" => {
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
        "/api/task/64" => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1u64 << 40),
        "/api/task/65" => {
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(65536));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            return;
        }
        _ => {
            "HTTP/1.1 201 Created\r\nset-cookie: a=b\r\nx-inner: host7\r\ncontent-type: application/json\r\n\
              content-length: 8\r\n\r\n{\"id\":9}"
                .to_owned()
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

fn serve(proxy: Proxy) -> (ServeHandle, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (proxy.serve(listener).unwrap(), address)
}

async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ =
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the proxy must end the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn get(address: SocketAddr, target: &str) -> String {
    raw(address, format!("GET {target} HTTP/1.1\r\nHost: proxy\r\n\r\n").as_bytes()).await
}

#[track_caller]
fn assert_refused(answer: &str, reason: &str) {
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let msg = serde_json::from_str::<serde_json::Value>(body).unwrap()["msg"].as_str().unwrap().to_owned();
    assert!(msg.contains(reason), "{msg:?} does not say {reason:?}");
}

#[tokio::test]
async fn a_listed_request_passes_as_the_run_and_as_nobody_else() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy());
    let body = r#"{"name":"x"}"#;
    let request = format!(
        "POST /task HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer stolen\r\nCookie: s=1\r\nX-Smuggled: data\r\n\
         Proxy-Authorization: Basic eA==\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    assert!(answer.ends_with("{\"id\":9}"), "{answer}");
    assert!(!answer.contains("set-cookie") && !answer.contains("x-inner"), "{answer}");
    let seen = server.seen().remove(0).to_ascii_lowercase();
    assert!(seen.starts_with("post /api/task http/1.1\r\n"), "{seen}");
    assert!(seen.contains("authorization: bearer the-run\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: {}\r\n", server.address)), "{seen}");
    assert!(seen.ends_with(body), "{seen}");
    for absent in ["stolen", "cookie", "smuggled", "proxy-", "evil"] {
        assert!(!seen.contains(absent), "{absent} reached the server: {seen}");
    }
    let log = handle.log();
    assert_eq!((log.passed, log.refused, log.bytes_sent, log.bytes_received), (1, 0, body.len() as u64, 8));
    assert_eq!(log.entries[0].outcome, Outcome::Passed { status: 201 });
    assert_eq!(log.entries[0].path, "/task");
}

#[tokio::test]
async fn without_a_token_the_containers_own_authorization_is_still_removed() {
    let server = Server::start().await;
    let url = format!("http://{}/", server.address).parse().unwrap();
    let (_handle, address) = serve(Proxy::new(central(), Upstream::Url(url), None).unwrap());
    let answer =
        raw(address, b"GET /run?task_id=4&page=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let seen = server.seen().remove(0).to_ascii_lowercase();
    assert!(
        seen.starts_with("get /run?task_id=4&page=1 http/1.1\r\n") && !seen.contains("authorization"),
        "{seen}"
    );
}

#[tokio::test]
async fn what_is_not_listed_is_refused_before_the_server_hears_of_it() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy());
    let cases: &[(&str, &str)] = &[
        ("GET /user", "not on the list"),
        ("POST /token/user", "not on the list"),
        ("GET /task/abc", "not on the list"),
        ("GET /task/1/kill", "not on the list"),
        ("DELETE /task/1", "method is not allowed"),
        ("PUT /task", "method is not allowed"),
        ("TRACE /task", "method is not allowed"),
        ("GET /task/1?include=results", "\"include\" is not allowed"),
        ("GET /run?page=1&page=2", "appears twice"),
        ("GET /task/../user", "dot segment"),
        ("GET /task/%2e%2e/user", "dot segment"),
        ("GET /task%2f1", "encoded slash"),
        ("GET /task%5C1", "encoded slash"),
        ("GET /t%61sk/1", "percent-encoded"),
        ("GET //task/1", "empty segment"),
        ("GET /task/1/", "empty segment"),
        ("GET http://169.254.169.254/latest/meta-data", "no absolute addresses"),
        ("GET https://proxy/task/1", "no absolute addresses"),
        ("CONNECT evil.example:443", "CONNECT"),
        ("OPTIONS *", "no `*`"),
    ];
    for (line, reason) in cases {
        let answer = raw(address, format!("{line} HTTP/1.1\r\nHost: proxy\r\n\r\n").as_bytes()).await;
        assert_refused(&answer, reason);
    }
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    let log = handle.log();
    assert_eq!((log.passed, log.refused), (0, cases.len() as u64));
    assert_eq!(log.entries[3].path, "/task/1/kill");
}

#[tokio::test]
async fn smuggling_and_upgrades_are_refused() {
    let server = Server::start().await;
    let (_handle, address) = serve(server.proxy());
    for (lines, reason) in [
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /user HTTP/1.1\r\n\r\n",
            "both a length",
        ),
        ("Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "twice"),
        ("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "only the transfer coding"),
        ("Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", "not visible ASCII"),
        ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "header name"),
        ("X: y\n\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "without both"),
        ("Host: other\r\n\r\n", "more than one"),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "upgrades"),
    ] {
        let answer = raw(address, format!("POST /task HTTP/1.1\r\nHost: a\r\n{lines}").as_bytes()).await;
        assert_refused(&answer, reason);
    }
    assert_refused(&raw(address, b"GET /task/1 HTTP/1.1\r\n\r\n").await, "no Host");
    let body = raw(address, b"GET /task/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    assert_refused(&body, "may not have a body");
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    // A second request behind the first on the same connection is never answered nor passed on.
    let two =
        raw(address, b"GET /task/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /user HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(two.matches("HTTP/1.1").count(), 1, "{two}");
    assert_eq!(server.seen().len(), 1, "{:?}", server.seen());
}

#[tokio::test]
async fn redirects_are_neither_followed_nor_passed_on() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy());
    let answer = get(address, "/task/301").await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("redirects are not followed"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("location"), "{answer}");
    assert_eq!(server.seen().len(), 1);
    assert_eq!(handle.log().failed, 1);
}

#[tokio::test]
async fn bodies_over_the_cap_are_cut_in_both_directions() {
    let server = Server::start().await;
    let limits = EgressLimits { request_body: 100_000, response_body: 200_000, ..EgressLimits::default() };
    let (handle, address) = serve(server.proxy().with_limits(limits));
    let declared = raw(address, b"POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n").await;
    assert_refused(&declared, "over 100000 bytes");
    let mut chunked = b"POST /task HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..4 {
        chunked.extend_from_slice(format!("8000\r\n{}\r\n", "x".repeat(0x8000)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_refused(&raw(address, &chunked).await, "over 100000 bytes");
    assert_refused(&get(address, "/task/64").await, "response's body is over 200000 bytes");
    let endless = get(address, "/task/65").await;
    assert!(endless.len() < 300_000 && !endless.ends_with("0\r\n\r\n"), "{} bytes", endless.len());
    assert!(handle.log().bytes_received <= 200_000 + 65_536, "{:?}", handle.log());
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_ended() {
    let server = Server::start().await;
    let short = Duration::from_millis(300);
    let (_handle, address) = serve(server.proxy().with_limits(EgressLimits {
        head: short,
        idle: short,
        ..EgressLimits::default()
    }));
    let begun = Instant::now();
    assert_refused(&raw(address, b"GET /task/1 HTTP/1.1\r\nHost: a\r\nX: ").await, "head took too long");
    let slow = raw(address, b"POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_refused(&slow, "came too slowly");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away_and_later_ones_served_again() {
    let server = Server::start().await;
    let (_handle, address) = serve(server.proxy());
    let mut held = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /").await.unwrap();
        held.push(stream);
    }
    // Connections are accepted in the order in which they were made: this one comes when all of those are held.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_refused(&answer, "more than 32 connections");
    drop(held);
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = get(address, "/task/1").await;
        if answer.starts_with("HTTP/1.1 201") {
            return;
        }
        assert_refused(&answer, "more than 32 connections");
        assert!(Instant::now() < limit, "connections that were closed are still held");
    }
}

#[tokio::test]
async fn no_server_means_no_request_and_an_empty_list_allows_nothing() {
    let (_handle, address) = serve(Proxy::new(central(), Upstream::None, None).unwrap());
    assert_refused(&get(address, "/task/1").await, "no server");
    let server = Server::start().await;
    let url = Upstream::Url(format!("http://{}", server.address).parse().unwrap());
    let (_handle, address) = serve(Proxy::new(toml::from_str("").unwrap(), url, None).unwrap());
    assert_refused(&get(address, "/task/1").await, "may make no requests");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_request_passes_only_where_both_lists_have_it() {
    let server = Server::start().await;
    let ceiling: Rules =
        toml::from_str("[[rule]]\nmethods = [\"GET\"]\npath = \"/task/{id}\"\n[[rule]]\nmethods = [\"GET\"]\npath = \"/user\"\n")
            .unwrap();
    let (handle, address) = serve(server.proxy().within(Some(ceiling)));
    assert!(get(address, "/task/1").await.starts_with("HTTP/1.1 201"));
    assert_refused(&get(address, "/organization/1").await, "the node's own list does not have it: this path");
    assert_refused(&get(address, "/user").await, "not on the list of allowed requests");
    assert_eq!((server.seen().len(), handle.log().refused), (1, 2));
    // An empty ceiling is a list, too.
    let (_handle, address) = serve(server.proxy().within(Some(Rules::default())));
    assert_refused(&get(address, "/task/1").await, "may make no requests");
}

fn budget(change: impl FnOnce(&mut Budget)) -> Budget {
    let mut budget = Budget::default();
    change(&mut budget);
    budget
}

fn post(body: &str) -> Vec<u8> {
    format!("POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_budget_of_requests_is_spent_by_those_that_pass() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy().with_budget(budget(|it| it.requests = Some(2))));
    assert_refused(&get(address, "/user").await, "not on the list");
    for _ in 0..2 {
        assert!(get(address, "/task/1").await.starts_with("HTTP/1.1 201"));
    }
    assert!(handle.log().spent.is_empty());
    for _ in 0..2 {
        assert_refused(&get(address, "/task/1").await, "the run's budget of 2 requests is spent");
    }
    let log = handle.log();
    assert_eq!((server.seen().len(), log.passed, log.refused), (2, 2, 3));
    assert_eq!(serde_json::to_value(&log).unwrap()["spent"], serde_json::json!(["requests"]));
}

#[tokio::test]
async fn a_budget_of_bytes_out_is_of_the_whole_run_and_counts_targets_too() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy().with_budget(budget(|it| it.bytes_out = Some(100))));
    // 5 of the target, 60 of the body; and there are 35 left.
    assert!(raw(address, &post(&"x".repeat(60))).await.starts_with("HTTP/1.1 201"));
    assert_refused(
        &raw(address, &post(&"x".repeat(36))).await,
        "budget of 100 bytes towards the server is spent",
    );
    assert_eq!(server.seen().len(), 1, "what is declared too long does not begin");
    let chunked = format!(
        "POST /task HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n24\r\n{}\r\n0\r\n\r\n",
        "x".repeat(36)
    );
    assert_refused(
        &raw(address, chunked.as_bytes()).await,
        "budget of 100 bytes towards the server is spent",
    );
    let log = handle.log();
    assert_eq!((log.bytes_sent, log.passed), (60, 1));
    assert_eq!(log.spent.into_iter().collect::<Vec<_>>(), [Spent::BytesOut]);
    // A query is a way out as well.
    let (_handle, address) = serve(server.proxy().with_budget(budget(|it| it.bytes_out = Some(20))));
    let told = get(address, "/result?task_id=12345678901").await;
    assert_refused(&told, "budget of 20 bytes towards the server is spent");
}

#[tokio::test]
async fn a_budget_of_bytes_in_ends_answers_wherever_it_is_spent() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy().with_budget(budget(|it| it.bytes_in = Some(20))));
    for _ in 0..2 {
        assert!(get(address, "/task/1").await.ends_with("{\"id\":9}"));
    }
    assert_refused(&get(address, "/task/1").await, "budget of 20 bytes from the server is spent");
    assert_eq!(handle.log().bytes_received, 16);
    // An answer of unknown length is broken off.
    let (handle, address) = serve(server.proxy().with_budget(budget(|it| it.bytes_in = Some(1 << 20))));
    let answer = get(address, "/task/65").await;
    assert!(answer.len() <= (1 << 20) + 8192, "{} bytes", answer.len());
    let log = handle.log();
    assert!(log.bytes_received <= 1 << 20 && log.spent.contains(&Spent::BytesIn), "{log:?}");
}

#[tokio::test]
async fn requests_at_the_same_time_share_one_budget() {
    let server = Server::start().await;
    let (handle, address) = serve(server.proxy().with_budget(budget(|it| it.requests = Some(7))));
    let asked: Vec<_> = (0..20).map(|_| tokio::spawn(async move { get(address, "/task/1").await })).collect();
    for one in asked {
        one.await.unwrap();
    }
    assert_eq!((server.seen().len(), handle.log().passed, handle.log().refused), (7, 7, 13));
}

#[tokio::test]
async fn reading_makes_no_tasks() {
    let server = Server::start().await;
    let url = Upstream::Url(format!("http://{}", server.address).parse().unwrap());
    let (_handle, address) = serve(Proxy::new(AllowedRequests::vantage6_read().into(), url, None).unwrap());
    assert!(get(address, "/task/1").await.starts_with("HTTP/1.1 201"));
    let post = "POST /task HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    assert_refused(&raw(address, post.as_bytes()).await, "not on the list");
}

#[tokio::test]
async fn the_list_of_requests_is_bounded_and_escaped() {
    let (handle, address) = serve(Proxy::new(Rules::default(), Upstream::None, None).unwrap());
    for _ in 0..510 {
        get(address, "/x\x1b[31m").await;
    }
    let log = handle.log();
    assert_eq!((log.refused, log.entries.len(), log.unlisted), (510, 500, 10));
    assert!(!log.entries[0].path.contains('\x1b'), "{:?}", log.entries[0]);
}

#[tokio::test]
async fn the_port_closes_with_the_handle() {
    let (handle, address) = serve(Proxy::new(central(), Upstream::None, None).unwrap());
    assert_refused(&get(address, "/task/1").await, "no server");
    drop(handle);
    let limit = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < limit, "the port is still open");
        tokio::task::yield_now().await;
    }
}

#[test]
fn rules_are_read_strictly() {
    let rules: Rules =
        toml::from_str("[[rule]]\nmethods = [\"GET\"]\npath = \"/a/{id}\"\nquery = [\"page\"]\n").unwrap();
    assert_ne!(rules, Rules::default());
    for wrong in [
        "[[rule]]\nmethods = [\"GET\"]\npath = \"/a\"\nextra = 1\n",
        "[[rules]]\nmethods = [\"GET\"]\npath = \"/a\"\n",
        "[[rule]]\nmethods = [\"CONNECT\"]\npath = \"/a\"\n",
        "[[rule]]\nmethods = []\npath = \"/a\"\n",
        "[[rule]]\nmethods = [\"GET\"]\npath = \"a\"\n",
        "[[rule]]\nmethods = [\"GET\"]\npath = \"/a/*\"\n",
        "[[rule]]\nmethods = [\"GET\"]\npath = \"/a/../b\"\n",
        "[[rule]]\nmethods = [\"GET\"]\npath = \"/a/{name}\"\n",
        "[[rule]]\nmethods = [\"GET\"]\npath = \"/a\"\nquery = [\"*\"]\n",
    ] {
        assert!(toml::from_str::<Rules>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn secrets_and_odd_addresses() {
    assert_eq!(format!("{:?}", Token::new("secret").unwrap()), "Token(redacted)");
    assert!(Token::new("a\r\nX: y").is_err());
    assert!(Token::new("").is_err());
    let proxy = Proxy::new(central(), Upstream::None, Some(Token::new("secret").unwrap())).unwrap();
    assert!(!format!("{proxy:?}").contains("secret"));
    for url in ["ftp://a/", "http://user:pw@a/", "http://a/?q", "http://a/#f"] {
        let error = Proxy::new(central(), Upstream::Url(url.parse().unwrap()), None).unwrap_err();
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}
