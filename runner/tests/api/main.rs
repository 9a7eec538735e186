//! The interface over a real Unix socket and a real loopback address, with a stand-in for what runs containers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod node;
#[path = "../site/mod.rs"]
mod site;

use std::{
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use node::{NOT_A_NUMBER, Node};
use runner::service::{
    self, Listen,
    client::{Client, Error as ClientError},
    queue::{self, Queue},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
};

/// Another test's child may hold a lock between its fork and its exec: then it is asked for again.
fn when_free<T, E: std::fmt::Debug>(
    open: impl Fn() -> std::result::Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> T {
    let begun = Instant::now();
    loop {
        match open() {
            Err(error) if is_in_use(&error) && begun.elapsed() < Duration::from_secs(5) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
}

struct Server {
    folder: tempfile::TempDir,
    node: Arc<Node>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<std::result::Result<(), service::Error>>>,
}

impl Server {
    async fn start(workers: usize) -> Server {
        let mut server =
            Server { folder: tempfile::tempdir().unwrap(), node: Arc::default(), stop: None, task: None };
        server.start_again(workers).await;
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("runner.sock")
    }

    fn queue(&self) -> Queue {
        let path = self.folder.path().join("queue.db");
        when_free(|| Queue::open(&path), |error| matches!(error, queue::Error::InUse(_)))
    }

    async fn start_again(&mut self, workers: usize) {
        let (stop, stopped) = oneshot::channel();
        let bound = when_free(
            || Listen::Unix(self.socket()).bind(),
            |error| matches!(error, service::Error::InUse(_)),
        );
        let node = Arc::clone(&self.node);
        let stopped = async move { drop(stopped.await) };
        self.task = Some(tokio::spawn(service::serve_until(bound, self.queue(), node, workers, stopped)));
        self.stop = Some(stop);
    }

    async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.take().unwrap().await.unwrap().unwrap();
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    async fn submit(&self, method: &str) -> i64 {
        let task = self.post("/v1/tasks", &request(method)).await;
        task["id"].as_i64().unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        serde_json::from_slice(&self.client().post(path, Some(body)).await.unwrap()).unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        serde_json::from_slice(&self.client().get(path).await.unwrap()).unwrap()
    }

    /// Waits until the task is in a state.
    async fn reaches(&self, id: i64, state: &str) -> Value {
        let begun = Instant::now();
        loop {
            let task = self.get(&format!("/v1/tasks/{id}")).await;
            if task["state"] == state {
                return task;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "task {id} stays {task}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn request(method: &str) -> Value {
    json!({ "image": "registry.example/algorithm:1", "input": { "method": method }, "databases": ["default"] })
}

#[track_caller]
fn refused<T: std::fmt::Debug>(
    answer: std::result::Result<T, ClientError>,
    status: u16,
    code: &str,
) -> String {
    match answer.unwrap_err() {
        ClientError::Refused { status: found, code: told, message, remedy } => {
            assert_eq!((found, told.as_str()), (status, code), "{message}");
            assert!(!remedy.is_empty());
            message
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_task_is_submitted_followed_and_fetched() {
    let server = Server::start(1).await;
    let id = server.submit("average").await;
    refused(server.client().get(&format!("/v1/tasks/{id}/result")).await, 409, "wrong_state");
    server.reaches(id, "running").await;
    let task = server.reaches(id, "completed").await;
    assert_eq!((&task["attempts"], &task["databases"]), (&json!(1), &json!(["default"])));
    assert_eq!((&task["admission"]["rule"], &task["egress"]["refused"]), (&site::NAME.into(), &1.into()));
    let result = server.client().get(&format!("/v1/tasks/{id}/result")).await.unwrap();
    assert_eq!(&result[..], br#"{"average": 4.5}"#, "the result is passed on byte for byte");
    assert_eq!(&server.client().get(&format!("/v1/tasks/{id}/log")).await.unwrap()[..], b"printed");
    assert_eq!(server.get("/v1/health").await["queued"], 0);
    assert_eq!(server.get("/v1/tasks?limit=1").await["tasks"][0]["id"], id);
}

#[tokio::test]
async fn every_ending_says_why() {
    let server = Server::start(2).await;
    for (method, state, reason) in [
        ("crash", "crashed", "exit code 1"),
        ("denied", "denied", "the policy does not admit"),
        ("failed", "failed", "no runc"),
        ("panic", "failed", "the runner itself failed"),
        ("not-json", "crashed", "the algorithm failed: its result is not JSON"),
    ] {
        let id = server.submit(method).await;
        let task = server.reaches(id, state).await;
        assert!(task["reason"].as_str().unwrap().contains(reason), "{task}");
        refused(server.client().get(&format!("/v1/tasks/{id}/result")).await, 409, "wrong_state");
        match method {
            "denied" => assert_eq!(task["denial"]["question"]["asked"], task["image"]),
            "failed" => assert_eq!(task["remedy"], "install runc"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn numbers_that_only_python_writes_are_passed_on_as_they_are() {
    let server = Server::start(1).await;
    let id = server.submit("not-a-number").await;
    server.reaches(id, "completed").await;
    let result = server.client().get(&format!("/v1/tasks/{id}/result")).await.unwrap();
    assert_eq!(&result[..], NOT_A_NUMBER);
}

#[tokio::test]
async fn an_ending_that_can_never_be_stored_is_a_failure_and_the_next_task_runs() {
    let server = Server::start(1).await;
    for method in ["denied at length", "failed at length"] {
        let (large, next) = (server.submit(method).await, server.submit("average").await);
        let task = server.reaches(large, "failed").await;
        let reason = task["reason"].as_str().unwrap();
        assert!(reason.contains("over the limit of 8388608") && reason.len() < 200, "{reason}");
        assert!(!task["remedy"].as_str().unwrap().is_empty());
        server.reaches(next, "completed").await;
    }
}

#[tokio::test]
async fn workers_work_at_the_same_time_but_no_more_than_asked_for() {
    let server = Server::start(3).await;
    let mut ids = Vec::new();
    for _ in 0..9 {
        ids.push(server.submit("average").await);
    }
    for id in ids {
        assert_eq!(server.reaches(id, "completed").await["attempts"], 1);
    }
    assert_eq!(server.node.most_at_once.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn cancelling_stops_a_running_task_and_keeps_a_waiting_one_from_starting() {
    let server = Server::start(1).await;
    let (running, waiting) = (server.submit("stubborn").await, server.submit("average").await);
    server.reaches(running, "running").await;
    for id in [waiting, running] {
        server.client().post(&format!("/v1/tasks/{id}/cancel"), None).await.unwrap();
        server.reaches(id, "cancelled").await;
    }
    assert_eq!(server.get(&format!("/v1/tasks/{waiting}")).await["attempts"], 0);
    refused(server.client().post(&format!("/v1/tasks/{running}/cancel"), None).await, 409, "wrong_state");
}

#[tokio::test]
async fn a_restart_keeps_every_task_and_a_stop_is_no_attempt() {
    let mut server = Server::start(1).await;
    let done = server.submit("average").await;
    server.reaches(done, "completed").await;
    let (running, waiting) = (server.submit("stubborn").await, server.submit("average").await);
    server.reaches(running, "running").await;
    server.stop().await;
    assert!(!server.socket().exists(), "the socket goes with the server");
    let queue = server.queue();
    let states =
        [done, running, waiting].map(|id| queue.get(id).unwrap()).map(|task| (task.state, task.attempts));
    drop(queue);
    assert_eq!(states.map(|(state, _)| state.as_str()), ["completed", "queued", "queued"]);
    assert_eq!(states.map(|(_, attempts)| attempts), [1, 0, 0]);
    server.start_again(1).await;
    server.reaches(running, "running").await;
    server.client().post(&format!("/v1/tasks/{running}/cancel"), None).await.unwrap();
    server.reaches(waiting, "completed").await;
    assert_eq!(server.get(&format!("/v1/tasks/{done}/result")).await["average"], 4.5);
}

#[tokio::test]
async fn what_is_not_a_task_is_refused_with_a_reason() {
    let server = Server::start(1).await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = request("average");
        change(&mut body);
        body
    };
    for (body, code) in [
        (with(&|body| body["input"] = json!([1])), "bad_json"),
        (with(&|body| body["extra"] = json!(1)), "bad_json"),
        (with(&|body| drop(body.as_object_mut().unwrap().remove("image"))), "bad_json"),
        (with(&|body| body["image"] = json!("registry.example/algorithm")), "bad_image"),
        (with(&|body| body["image"] = json!("a b")), "bad_image"),
        (with(&|body| body["databases"] = json!(["../etc"])), "bad_database"),
        (with(&|body| body["idempotency_key"] = json!("")), "bad_key"),
    ] {
        refused(server.client().post("/v1/tasks", Some(&body)).await, 400, code);
    }
    let large = with(&|body| body["input"]["x"] = json!("y".repeat(9 << 20)));
    refused(server.client().post("/v1/tasks", Some(&large)).await, 413, "too_large");
    refused(server.client().get("/v1/tasks/77").await, 404, "not_found");
    refused(server.client().get("/v1/tasks/1e3").await, 400, "bad_id");
    refused(server.client().get("/v1/tasks?page=1").await, 400, "bad_query");
    refused(server.client().get("/v2").await, 404, "no_such_path");
    refused(server.client().get("/v1/verify").await, 405, "method_not_allowed");
    assert_eq!(server.get("/v1/tasks").await["tasks"], json!([]));
}

#[tokio::test]
async fn repeating_a_submission_with_its_key_is_harmless() {
    let server = Server::start(1).await;
    let mut body = request("average");
    body["idempotency_key"] = json!("5f0c");
    let first = server.post("/v1/tasks", &body).await;
    assert_eq!(server.post("/v1/tasks", &body).await["id"], first["id"]);
    body["input"]["method"] = json!("crash");
    refused(server.client().post("/v1/tasks", Some(&body)).await, 409, "key_reused");
}

#[tokio::test]
async fn an_image_can_be_judged_without_a_task() {
    let server = Server::start(1).await;
    let body = json!({ "image": "registry.example/algorithm:1", "function": "average" });
    let answer = server.post("/v1/verify", &body).await;
    assert_eq!(
        (&answer["verdict"], &answer["denial"]["question"]["function"]),
        (&"denied".into(), &"average".into())
    );
    let body = json!({ "image": "registry.example/algorithm:1", "function": "broken" });
    let message = refused(server.client().post("/v1/verify", Some(&body)).await, 502, "no_verdict");
    assert_eq!(message, "the registry does not answer");
}

#[tokio::test]
async fn the_socket_is_for_its_group_and_only_a_stale_one_is_replaced() {
    let mut server = Server::start(1).await;
    let mode = std::fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(matches!(Listen::Unix(server.socket()).bind(), Err(service::Error::InUse(_))));
    assert_eq!(server.get("/v1/health").await["status"], "ok", "the first server still has its socket");
    server.stop().await;
    drop(std::os::unix::net::UnixListener::bind(server.socket()).unwrap());
    assert!(std::fs::symlink_metadata(server.socket()).unwrap().file_type().is_socket());
    server.start_again(1).await;
    assert_eq!(server.get("/v1/health").await["status"], "ok");
    let file = server.folder.path().join("notes");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(Listen::Unix(file.clone()).bind(), Err(service::Error::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "x");
}

async fn raw(address: &str, head: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /v1/health HTTP/1.1\r\nConnection: close\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn on_loopback_the_token_and_the_host_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let listen = Listen::Loopback { address: "127.0.0.1:0".parse().unwrap(), token_file: token_file.clone() };
    let bound = listen.bind().unwrap();
    let address = bound.address().strip_prefix("http://").unwrap().to_owned();
    assert_eq!(std::fs::metadata(&token_file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&token_file).unwrap();
    let queue = Queue::open(&folder.path().join("queue.db")).unwrap();
    let _serving =
        tokio::spawn(service::serve_until(bound, queue, Arc::<Node>::default(), 1, std::future::pending()));
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let port = address.split(':').nth(1).unwrap();
    assert_eq!(raw(&address, &format!("Host: {address}\r\n{bearer}")).await, "HTTP/1.1 200 OK");
    assert_eq!(raw(&address, &format!("Host: localhost:{port}\r\n{bearer}")).await, "HTTP/1.1 200 OK");
    assert!(raw(&address, &format!("Host: {address}\r\n")).await.contains("401"));
    assert!(
        raw(&address, &format!("Host: {address}\r\nAuthorization: Bearer {token}x\r\n"))
            .await
            .contains("401")
    );
    assert!(raw(&address, &format!("Host: rebound.example:{port}\r\n{bearer}")).await.contains("421"));
    assert!(raw(&address, &format!("Host: localhost\r\n{bearer}")).await.contains("421"));
}

#[tokio::test]
async fn an_open_token_file_and_an_open_address_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bind = |address: &str, file: &Path| {
        Listen::Loopback { address: address.parse().unwrap(), token_file: file.to_owned() }
            .bind()
            .unwrap_err()
    };
    let file = folder.path().join("token");
    std::fs::write(&file, "x".repeat(40)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(bind("127.0.0.1:0", &file).to_string().contains("0600"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, "short").unwrap();
    assert!(matches!(bind("127.0.0.1:0", &file), service::Error::Token { .. }));
    assert!(matches!(bind("0.0.0.0:0", &file), service::Error::NotLoopback(_)));
}

/// Runs the client as a shell would: `Ok` what it prints, `Err` the message and the exit code.
fn shell(socket: &Path, words: &[&str]) -> std::result::Result<String, (String, i32)> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
    let output = command.args(["task", "--socket", socket.to_str().unwrap()]).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.code().unwrap() {
        0 => Ok(text(output.stdout)),
        code => Err((text(output.stderr), code)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let server = Server::start(1).await;
    let socket = server.socket();
    let input = server.folder.path().join("input.json");
    std::fs::write(&input, r#"{"method": "average"}"#).unwrap();
    let input = input.to_str().unwrap();
    let submit = ["submit", "registry.example/algorithm:1", "--input", input, "--database", "default"];
    assert_eq!(shell(&socket, &submit).unwrap(), "1\n");
    assert_eq!(shell(&socket, &["result", "1", "--wait"]).unwrap(), "{\"average\": 4.5}\n");
    assert_eq!(shell(&socket, &["log", "1"]).unwrap(), "printed");
    assert!(shell(&socket, &["show", "1"]).unwrap().contains("\"state\": \"completed\""));
    assert!(shell(&socket, &["list"]).unwrap().contains("completed"));
    let (message, code) = shell(&socket, &["cancel", "1"]).unwrap_err();
    assert!(message.starts_with("error: task 1 is completed\n") && code == 1, "{code} {message}");
    let (message, code) = shell(&socket, &["show", "9"]).unwrap_err();
    assert!(message.starts_with("error: there is no task 9\n") && code == 4, "{code} {message}");
    std::fs::write(input, r#"{"method": "denied"}"#).unwrap();
    let (message, code) = shell(&socket, &[&submit[..], &["--wait"]].concat()).unwrap_err();
    let wanted = "error: task 2 is denied: the policy does not admit this image\n";
    assert!(message.starts_with(wanted) && code == 1, "{code} {message}");
    std::fs::write(input, "[]").unwrap();
    assert_eq!(shell(&socket, &submit).unwrap_err().1, 3);
    let nobody = server.folder.path().join("nobody.sock");
    assert_eq!(shell(&nobody, &["list"]).unwrap_err().1, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_written_down_before_it_leaves_and_a_removed_task_is_gone() {
    let server = Server::start(1).await;
    let client = server.client();
    let id = server.submit("average").await;
    server.reaches(id, "completed").await;
    client.get(&format!("/v1/tasks/{id}/result")).await.unwrap();
    assert_eq!(*server.node.written.lock().unwrap(), [format!("released Some({id})")]);
    client.delete(&format!("/v1/tasks/{id}")).await.unwrap();
    let gone = client.get(&format!("/v1/tasks/{id}")).await.unwrap_err();
    assert!(matches!(gone, ClientError::Refused { status: 404, .. }), "{gone}");
    assert_eq!(server.node.written.lock().unwrap()[1..], [format!("erased {id} Asked")]);
}
