//! What a rule grants a run, and nothing else: its data, its requests, and for whom it runs. With real containers and a
//! real server, as `run` and as `serve`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod site;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attestations::Caller;
use runner::config::EngineKind;
use runner::node::{Outcome, RunRequest};
use runner::record::{Ending, RunReport};
use runner::vantage6::Input;
use sandbox::Canceller;
use serde_json::Value;
use site::{Site, cannot_run};

/// A token as vantage6 makes them: two parts that may be read, and one that proves it.
const TOKEN: &str = "e30.eyJzdWIiOnt9fQ.c2hhcmVk";

/// The server of the hospital, which answers everything, and what it was asked: each request's first line and token.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(&stream).lines().map(Result::unwrap);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let token = head.iter().find_map(|line| line.strip_prefix("authorization: Bearer "));
                let words: Vec<&str> = head[0].split(' ').collect();
                record.lock().unwrap().push(format!("{} {} {}", words[0], words[1], token.unwrap_or("-")));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue");
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Asks for a few things and says what became of each; then says what it sees of the token.
const ASK: &str = r#"
ask() { wget -q -O /dev/null "$@" 2>/dev/null && echo "$1 passed" || echo "$1 refused"; }
ask http://127.0.0.1:8080/organization/1
ask http://127.0.0.1:8080/user/1
ask http://127.0.0.1:8080/task --post-data={}
echo "token=$(cat /mnt/countersign/token)"
echo 1 > /mnt/countersign/output
"#;

fn passed(text: &str) -> Vec<&str> {
    let passed = text.lines().filter_map(|line| line.strip_suffix(" passed"));
    passed.map(|line| line.trim_start_matches("http://127.0.0.1:8080")).collect()
}

/// The token of one task alone.
const OWN: &str = "e30.eyJzdWIiOnsidGFzayI6N319.b3du";

/// A site whose rule has these lines, and whose configuration names this server.
fn site(lines: &str, server: &Server) -> Site {
    let mut site = Site::new();
    let text = std::fs::read_to_string(site.policy()).unwrap();
    std::fs::write(site.policy(), text.replacen("databases = \"any\"\n", lines, 1)).unwrap();
    site.config.upstream.url = Some(server.url.parse().unwrap());
    let token = site.path("token");
    std::fs::write(&token, TOKEN).unwrap();
    site.config.upstream.token_file = Some(token);
    site
}

const SCRIPT: &str = "databases = [\"script\"]\n";

fn ask(site: &Site) -> Box<RunReport> {
    let report = site.run(EngineKind::Oci, ASK).unwrap();
    assert_eq!(report.ending, Ending::Exited(0), "{}", report.log.text());
    report
}

#[test]
fn without_egress_every_request_is_refused_and_there_is_no_token() {
    if cannot_run() {
        return;
    }
    let server = Server::start();
    for lines in ["", "egress = \"none\"\n", "egress = []\n"] {
        let report = ask(&site(&format!("{SCRIPT}{lines}"), &server));
        let text = report.log.text();
        assert_eq!(passed(&text), Vec::<&str>::new(), "{text}");
        assert!(text.lines().any(|line| line == "token="), "{text}");
        assert_eq!((report.egress.passed, report.egress.refused), (0, 3));
        let egress = report.to_json()["egress"].to_string();
        assert!(egress.contains("this run may make no requests"), "{egress}");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
}

#[test]
fn only_the_requests_of_the_profile_pass_and_the_nodes_own_list_is_a_ceiling() {
    if cannot_run() {
        return;
    }
    let server = Server::start();
    let egress = |egress: &str| site(&format!("{SCRIPT}egress = {egress}\n"), &server);
    let report = ask(&egress("\"vantage6-read\""));
    assert_eq!(passed(&report.log.text()), ["/organization/1"]);
    // The algorithm reads whom it runs for, and not what proves it: the proxy adds that.
    assert!(report.log.text().contains("token=e30.eyJzdWIiOnt9fQ.\n"), "{}", report.log.text());
    assert_eq!(server.seen(), [format!("GET /organization/1 {TOKEN}")]);
    let report = ask(&egress("\"vantage6-central\""));
    assert_eq!(passed(&report.log.text()), ["/organization/1", "/task"]);
    let report = ask(&egress("[{ methods = [\"GET\"], path = \"/user/{id}\" }]"));
    assert_eq!(passed(&report.log.text()), ["/user/1"]);
    let mut site = egress("\"vantage6-central\"");
    let ceiling = "[[rule]]\nmethods = [\"POST\"]\npath = \"/task\"\n[[rule]]\nmethods = [\"GET\"]\npath = \"/user/{id}\"\n";
    site.config.upstream.allow = Some(toml::from_str(ceiling).unwrap());
    let report = ask(&site);
    assert_eq!(passed(&report.log.text()), ["/task"], "neither list alone is enough");
    assert!(report.to_json()["egress"].to_string().contains("the node's own list does not have it"));
}

#[test]
fn what_the_budget_has_no_more_of_is_refused_and_told_in_the_report() {
    if cannot_run() {
        return;
    }
    let server = Server::start();
    let budget = |budget: &str| {
        site(&format!("{SCRIPT}egress = \"vantage6-central\"\nbudget = {{ {budget} }}\n"), &server)
    };
    let report = ask(&budget("requests = 1"));
    assert_eq!(passed(&report.log.text()), ["/organization/1"]);
    let told = report.to_json();
    assert_eq!(told["egress"]["spent"], serde_json::json!(["requests"]), "{told}");
    assert!(told["egress"].to_string().contains("the run's budget of 1 requests is spent"), "{told}");
    assert_eq!(told["admitted"]["privileges"]["budget"]["requests"], 1, "{told}");
    // Of result and time the smaller of the rule's and the node's own holds.
    let big = "head -c 2048 /dev/zero > /mnt/countersign/output";
    let refused = |site: &Site| {
        let report = site.run(EngineKind::Oci, big).unwrap();
        assert_eq!(report.result, None);
        report.unusable.unwrap().reason
    };
    let reason = refused(&budget("result_kib = 1"));
    assert!(reason.contains("2048 bytes: 1024 are allowed"), "{reason}");
    let mut strict = budget("result_kib = 100");
    strict.config.limits.result_kib = 1;
    let reason = refused(&strict);
    assert!(reason.contains("1024 are allowed"), "{reason}");
    let late = budget("wall_seconds = 1").run(EngineKind::Oci, "sleep 100").unwrap();
    assert_eq!(late.ending, Ending::TimedOut);
}

fn codes(outcome: Outcome) -> Vec<&'static str> {
    match outcome {
        Outcome::Denied(denial) => denial.unmet.iter().map(attestations::Unmet::code).collect(),
        Outcome::Ran(_) => Vec::new(),
    }
}

#[test]
fn a_run_sees_the_databases_of_its_rule_and_is_for_its_callers() {
    if cannot_run() {
        return;
    }
    let server = Server::start();
    let lines = "databases = [\"script\"]\nusers = [\"alice\"]\n";
    let mut site = site(lines, &server);
    let patients = site.path("patients.csv");
    std::fs::write(&patients, "age\n40\n").unwrap();
    let database = runner::config::Database { path: patients, kind: "csv".into() };
    site.config.databases.insert("patients".into(), database);
    let run = |databases: &[&str], user: &str| {
        site.node()
            .run(RunRequest {
                question: site.question(),
                input: Input::parse(br#"{"method":"average"}"#).unwrap(),
                databases: databases.iter().map(|label| (*label).to_owned()).collect(),
                extra: site.script("echo 1 > /mnt/countersign/output"),
                caller: Caller { user: Some(user.into()), uid: Some(1000) },
                token: None,
                engine: EngineKind::Oci,
                canceller: Canceller::new(),
                place: runner::record::RecordedTask::new().unwrap(),
            })
            .unwrap()
    };
    assert_eq!(codes(run(&[], "alice")), Vec::<&str>::new());
    assert_eq!(codes(run(&["patients"], "alice")), ["database"]);
    assert_eq!(codes(run(&[], "mallory")), ["caller"]);
    // Whether a database exists is nobody's business whom the rule does not let see it.
    assert_eq!(codes(run(&["genomes"], "mallory")), ["database", "caller"]);
}

/// `serve` as a process.
struct Service(Child);

impl Service {
    fn start(site: &Site, server: &Server) -> Self {
        let script = site.path("script.sh");
        std::fs::write(&script, ASK).unwrap();
        // Where other users find it, too.
        std::fs::copy(env!("CARGO_BIN_EXE_countersign-runner"), site.path("runner")).unwrap();
        let config = format!(
            "version = 1\nstate_dir = {:?}\npolicy = \"policy.toml\"\n[upstream]\nurl = {:?}\ntoken_file = \"token\"\n\
             [databases.script]\npath = {script:?}\n[databases.patients]\npath = {script:?}\n",
            site.config.state_dir, server.url
        );
        std::fs::write(site.path("runner.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
        command.arg("--config").arg(site.path("runner.toml"));
        command.args(["serve", "--offline", "--evidence"]).arg(site.evidence());
        command.arg("--socket").arg(site.path("runner.sock"));
        command.env_remove("NOTIFY_SOCKET").stdout(Stdio::null());
        let service = Self(command.spawn().unwrap());
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(site.path("runner.sock")).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the service does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What `task` prints, as this user.
fn task(site: &Site, uid: u32, words: &[&str]) -> String {
    let mut command = Command::new(site.path("runner"));
    command.args(["task", "--socket"]).arg(site.path("runner.sock")).args(words).uid(uid).gid(uid);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"method":"average"}"#).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Submits a task as this user, and waits for its end.
fn ended(site: &Site, uid: u32, database: &str) -> Value {
    ended_with(site, uid, database, &[])
}

fn ended_with(site: &Site, uid: u32, database: &str, more: &[&str]) -> Value {
    let submit = ["submit", &site.reference(), "--input", "-", "--database", database, "--wait", "--json"];
    let said = task(site, uid, &[&submit, more].concat());
    let listed: Value = serde_json::from_str(&task(site, 0, &["list", "--json"])).unwrap_or_else(|error| {
        panic!("{error}: {said}");
    });
    let id = listed["tasks"][0]["id"].to_string();
    serde_json::from_str(&task(site, 0, &["show", &id])).unwrap()
}

#[test]
fn a_task_with_a_token_of_its_own_uses_that_and_it_is_forgotten_with_its_end() {
    if cannot_run() {
        return;
    }
    let server = Server::start();
    let site = site(&format!("{SCRIPT}egress = \"vantage6-read\"\n"), &server);
    let own = site.path("own");
    std::fs::write(&own, format!("{OWN}\n")).unwrap();
    let own = own.to_str().unwrap();
    let service = Service::start(&site, &server);
    let shared = ended(&site, 0, "script");
    let task = ended_with(&site, 0, "script", &["--token-file", own]);
    assert_eq!((&shared["state"], &task["state"]), (&"completed".into(), &"completed".into()), "{task}");
    assert_eq!(server.seen(), [TOKEN, OWN].map(|token| format!("GET /organization/1 {token}")));
    assert!(!task.to_string().contains("b3du"), "{task}");
    let log = self::task(&site, 0, &["log", &task["id"].to_string()]);
    assert!(log.contains("token=e30.eyJzdWIiOnsidGFzayI6N319.\n") && !log.contains("b3du"), "{log}");
    drop(service);
    assert_eq!(tokens_kept(&site), 0);
    // `run` takes one, too.
    let output = Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
        .arg("--config")
        .arg(site.path("runner.toml"))
        .args(["run", &site.reference(), "--offline", "--evidence"])
        .arg(site.evidence())
        .args(["--database", "script", "--token-file", own, "--input"])
        .arg(site::input_file(&site, "average"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(server.seen().last().unwrap(), &format!("GET /organization/1 {OWN}"), "{said}");
}

/// How many tasks of the queue still have a token.
fn tokens_kept(site: &Site) -> i64 {
    let queue = rusqlite::Connection::open(site.config.state_dir.join("queue.db")).unwrap();
    queue.query_row("SELECT count(*) FROM task WHERE token IS NOT NULL", [], |row| row.get(0)).unwrap()
}

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_service_grants_the_same_and_knows_who_asks_by_the_kernels_word() {
    if cannot_run() {
        return;
    }
    let server = Server::start();
    let lines = "databases = [\"script\"]\negress = \"vantage6-read\"\norganisations = [\"cardiology\"]\n";
    let site = site(lines, &server);
    let text = std::fs::read_to_string(site.policy()).unwrap();
    let own = "[organisations.cardiology]\nusers = [\"root\", \"uid:4242\"]\n[[algorithm]]";
    std::fs::write(site.policy(), text.replacen("[[algorithm]]", own, 1)).unwrap();
    let _service = Service::start(&site, &server);
    open_to_all(site.folder.path(), 0o755);
    open_to_all(&site.path("runner.sock"), 0o666);
    let task = ended(&site, 0, "script");
    assert_eq!(task["state"], "completed", "{task}");
    assert_eq!(task["caller"], serde_json::json!({ "user": "root", "uid": 0 }));
    assert_eq!((&task["egress"]["passed"], &task["egress"]["refused"]), (&1.into(), &2.into()), "{task}");
    assert_eq!(server.seen(), [format!("GET /organization/1 {TOKEN}")]);
    let task = ended(&site, 4242, "script");
    assert_eq!((&task["state"], &task["caller"]["uid"]), (&"completed".into(), &4242.into()), "{task}");
    let task = ended(&site, 4243, "script");
    assert_eq!((&task["state"], &task["denial"]["unmet"][0]["code"]), (&"denied".into(), &"caller".into()));
    let task = ended(&site, 0, "patients");
    assert_eq!((&task["state"], &task["denial"]["unmet"][0]["code"]), (&"denied".into(), &"database".into()));
    assert_eq!(server.seen().len(), 2, "nothing of what was denied ran");
}
