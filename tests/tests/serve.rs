//! A server with a real node behind it: a submitted task becomes a verified container, and its result comes back.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testing::{Outcome, Scene, need, program, runner};

/// A server's process, ended with the test.
struct Server(Child);

impl Server {
    fn start(scene: &Scene) -> Self {
        let config = format!(
            "version = 1\nstate_dir = \"{}\"\npolicy = \"policy.toml\"\n[databases.default]\npath = \"{}\"\ntype = \"csv\"\n",
            scene.text("state-node"),
            scene.text("rows.csv")
        );
        scene.write("runner.toml", &config);
        let arguments =
            ["--config", &scene.text("runner.toml"), "serve", "--socket", &scene.text("runner.sock")];
        let mut command = Command::new(program("countersign-runner"));
        let child =
            command.args(arguments).env_remove("NOTIFY_SOCKET").stdout(Stdio::null()).spawn().unwrap();
        let server = Self(child);
        let begun = Instant::now();
        // A killed server leaves its socket behind: only one that answers is up.
        while UnixStream::connect(scene.path("runner.sock")).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn task(scene: &Scene, words: &[&str]) -> Outcome {
    let socket = scene.text("runner.sock");
    runner(["task", "--socket", &socket].iter().chain(words))
}

#[test]
fn a_submitted_task_runs_when_it_is_admitted_and_survives_a_killed_server() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    let server = Server::start(&scene);
    let (image, input) = (format!("{}:1.0", scene.image()), scene.text("input.json"));
    let submit = ["submit", &image, "--input", &input, "--database", "default", "--wait"];
    let denied = task(&scene, &submit).expect(1);
    assert!(denied.text().contains("task 1 is denied"), "{}", denied.text());
    assert!(task(&scene, &["show", "1"]).expect(0).text().contains("2 distinct builder"));

    scene.rebuild("1.0").expect(0);
    assert_eq!(task(&scene, &submit).expect(0).json()["rows"], 3);

    drop(server);
    let _server = Server::start(&scene);
    assert_eq!(task(&scene, &["result", "2"]).expect(0).json()["rows"], 3);
    assert_eq!(task(&scene, &submit).expect(0).json()["rows"], 3);
}
