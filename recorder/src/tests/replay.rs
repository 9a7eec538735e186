//! Recorded responses are replayed byte for byte when the servers are gone.

use std::path::Path;

use images::Store;

use super::servers::{Script, plain};
use super::*;
use crate::store::Record;

fn writer(folder: &Path) -> StoreWriter {
    StoreWriter::new(Store::open(folder).unwrap())
}

/// The same requests, recorded and then replayed. Returns both sides' bytes and both records.
pub(super) async fn twice(
    upstream: Upstream,
    talk: impl AsyncFn(&Stage) -> Vec<String>,
) -> ((Vec<String>, StepRecord), (Vec<String>, StepRecord)) {
    let folder = tempfile::tempdir().unwrap();
    let writer = writer(folder.path());
    let stage = Stage::on(Mode::Record(Some(writer.clone())), options(upstream));
    let said = talk(&stage).await;
    let first = stage.finish().await;
    let record = Record::new(vec![first.step.clone()]);
    let digest = writer.finish(&record).unwrap();
    let replay = Replay::load(Store::open(folder.path()).unwrap(), &digest).unwrap();
    // There is no upstream now: the names lead to a port that nothing listens on.
    let stage = Stage::on(Mode::Replay(Arc::new(replay)), options(Upstream::system()));
    let again = talk(&stage).await;
    let second = stage.finish().await;
    ((said, first), (again, second))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_again_byte_for_byte_without_any_server() {
    let (echo, _) = plain(Script::Echo).await;
    let chunked = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nX-B: caf\xe9\r\nTransfer-Encoding: chunked\r\nX-A: 2\r\nX-B: again\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (chunks, _) = plain(Script::Say(chunked.to_vec())).await;
    let partial =
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/5\r\nContent-Length: 2\r\n\r\nbc";
    let (ranges, _) = plain(Script::Say(partial.to_vec())).await;
    let same = b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 77\r\n\r\n".to_vec();
    let (same, _) = plain(Script::Say(same)).await;
    let upstream = Upstream::system()
        .with_address("a.example", echo)
        .with_address("c.example", chunks)
        .with_address("r.example", ranges)
        .with_address("s.example", same);
    let (first, second) = twice(upstream, async |stage| {
        let post =
            b"POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let head = b"HEAD /22 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        let range = b"GET /x HTTP/1.1\r\nHost: r.example\r\nRange: bytes=1-2\r\nConnection: close\r\n\r\n";
        let mut said = Vec::new();
        for (host, request) in [
            ("a.example", &get("a.example", "/q?x=1")[..]),
            ("a.example", &post[..]),
            ("a.example", &head[..]),
            ("c.example", &get("c.example", "/")[..]),
            ("r.example", &range[..]),
            ("s.example", &get("s.example", "/")[..]),
        ] {
            said.push(stage.raw(host, request).await.iter().map(|byte| char::from(*byte)).collect());
        }
        said
    })
    .await;
    assert_eq!(first.0, second.0);
    assert!(first.0[3].contains("x-b: caf\u{e9}\r\n") && first.0[3].contains("chunked"), "{:?}", first.0[3]);
    assert!(first.0[4].starts_with("HTTP/1.1 206"), "{:?}", first.0[4]);
    assert_eq!((first.1.incidents.len(), first.1.step.exchanges.len()), (0, 6));
    assert_eq!(first.1, second.1, "a replay tells the same in its own provenance");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_fails_again_and_what_was_not_asked_is_an_incident() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let upstream = Upstream::system().with_address("a.example", nobody);
    let (first, second) =
        twice(upstream, async |stage| vec![text(&stage.raw("a.example", &get("a.example", "/x")).await)])
            .await;
    assert_eq!(first.0, second.0);
    assert!(first.0[0].starts_with("HTTP/1.1 502"), "{}", first.0[0]);
    assert_eq!(kinds(&first.1), [IncidentKind::UpstreamFailed]);
    assert_eq!(kinds(&second.1), [IncidentKind::FailedBefore]);
    assert!(!second.1.incidents[0].kind.is_fatal());

    let folder = tempfile::tempdir().unwrap();
    let digest = writer(folder.path()).finish(&Record::new(vec![])).unwrap();
    let replay = Replay::load(Store::open(folder.path()).unwrap(), &digest).unwrap();
    let stage = Stage::on(Mode::Replay(Arc::new(replay)), options(Upstream::system()));
    let answer = text(&stage.raw("a.example", &get("a.example", "/new")).await);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("nothing was recorded"), "{answer}");
    let record = stage.finish().await;
    assert_eq!(kinds(&record), [IncidentKind::NotRecorded]);
    assert_eq!(record.incidents[0].target, "GET http://a.example/new");
    assert!(record.incidents[0].kind.is_fatal());
}

/// A store that cannot be written to: nothing is recorded, and the step gets an incomplete response.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_no_exchange() {
    let (echo, _) = plain(Script::Echo).await;
    let folder = tempfile::tempdir().unwrap();
    let writer = writer(folder.path());
    std::fs::remove_dir_all(folder.path().join("blobs")).unwrap();
    let upstream = Upstream::system().with_address("a.example", echo);
    let stage = Stage::on(Mode::Record(Some(writer)), options(upstream));
    stage.raw("a.example", &get("a.example", "/x")).await;
    let record = stage.finish().await;
    assert_eq!(record.step.exchanges, []);
    assert_eq!(kinds(&record), [IncidentKind::NotKept]);
    assert!(record.incidents[0].kind.is_fatal());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_kept_in_one_store() {
    let (echo, _) = plain(Script::Echo).await;
    let upstream = Upstream::system().with_address("a.example", echo);
    let (first, second) = twice(upstream, async |stage| {
        let requests: Vec<Vec<u8>> = (0..100).map(|n| get("a.example", &format!("/{}", n % 40))).collect();
        let asked = requests.iter().map(|request| stage.raw("a.example", request));
        futures_util::future::join_all(asked).await.iter().map(|bytes| text(bytes)).collect()
    })
    .await;
    assert_eq!(first.0, second.0);
    assert_eq!((first.1.step.exchanges.len(), first.1.incidents.len()), (100, 0));
    // All were asked at once: only what was asked and answered is the same, not who came first.
    assert_eq!(first.1.step.sorted(), second.1.step.sorted());
    assert_eq!(second.1.incidents, []);
}
