//! The record of what ran: what is written down, what is not, and that nothing happens without it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod site;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use attestations::run::{Ending, Event, Run};
use attestations::{Bundle, Caller};
use runner::config::EngineKind;
use runner::node::Outcome;
use runner::record::{self, Book};
use runner::service::queue::{Ending as TaskEnding, Error, Queue, TaskRequest};
use sandbox::Canceller;
use serde_json::{Value, json};
use site::{Site, cannot_run, report};

/// What the site's log says, each entry signed by its key.
fn entries(site: &Site) -> Vec<(attestations::Subject, Run)> {
    let book = Book::open(&site.config).unwrap();
    let reader = book.reader().unwrap();
    let read = |index| {
        let bundle = Bundle::parse(&reader.entry(index).unwrap()).unwrap();
        let statement = bundle.verify(book.key().key()).unwrap().statement().unwrap().into_value();
        (statement.subject[0].clone(), statement.predicate.run().unwrap().clone())
    };
    (0..reader.checkpoint().size).map(read).collect()
}

fn denied(site: &mut Site) {
    fs::remove_file(site.evidence().join("review.json")).unwrap();
    let outcome = site.run_with(EngineKind::Oci, BTreeMap::new(), Canceller::new()).unwrap();
    assert!(matches!(outcome, Outcome::Denied(_)));
}

#[test]
fn a_denial_is_written_down_with_its_codes() {
    let mut site = Site::new();
    denied(&mut site);
    let entries = entries(&site);
    let [(subject, run)] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(subject.sha256().unwrap(), site.image.digest());
    let Event::Denied(denied) = &run.event else { panic!("{run:?}") };
    assert_eq!(denied.unmet, ["reviews"]);
}

#[test]
fn what_cannot_be_written_down_does_not_run() {
    let site = Site::new();
    fs::write(site.config.state_dir.join("log"), "not a folder").unwrap();
    let error = site.run_with(EngineKind::Oci, BTreeMap::new(), Canceller::new()).unwrap_err();
    assert!(error.to_string().contains("the record of what runs"), "{error}");
    assert!(!site.config.state_dir.join("runs").exists(), "nothing was laid out");
}

#[test]
fn a_log_that_was_changed_stops_the_node() {
    let mut site = Site::new();
    denied(&mut site);
    let tile = site.config.state_dir.join("log/tile/0/000");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[0] ^= 1;
    fs::write(&tile, bytes).unwrap();
    let error = site.run_with(EngineKind::Oci, BTreeMap::new(), Canceller::new()).unwrap_err();
    assert_eq!(error.kind().exit_code(), 1, "{error}");
}

#[test]
fn a_run_is_written_down_from_its_start_to_its_end() {
    if cannot_run() {
        return;
    }
    let site = Site::new();
    let report = site.run(EngineKind::Oci, "echo '{\"a\":1}' > /mnt/countersign/output").unwrap();
    assert_eq!((report.entries.start, report.entries.end), (0, 1));
    site.run(EngineKind::Oci, "exit 3").unwrap();
    let entries = entries(&site);
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().all(|(subject, _)| subject.sha256().unwrap() == site.image.digest()));
    let Event::Started(started) = &entries[0].1.event else { panic!("{entries:?}") };
    assert_eq!(
        (started.function.as_str(), started.databases.as_slice()),
        ("average", &["script".to_owned()][..])
    );
    assert!(started.engine.version.starts_with("runc version "), "{:?}", started.engine);
    assert_eq!(started.limits.memory, site.config.limits.memory_mib << 20);
    let Event::Ended(ended) = &entries[1].1.event else { panic!("{entries:?}") };
    assert_eq!((ended.start, ended.ending, ended.output.is_some()), (0, Ending::Exited(0), true));
    let Event::Ended(failed) = &entries[3].1.event else { panic!("{entries:?}") };
    assert_eq!((failed.start, failed.ending, failed.output), (2, Ending::Exited(3), None));
    // Neither input nor result can be found in the log, not even by trying: the salt is not in it.
    let text = serde_json::to_string(&entries.iter().map(|(_, run)| run).collect::<Vec<_>>()).unwrap();
    for known in [&b"{\"a\":1}\n"[..], br#"{"method":"average"}"#] {
        assert!(!text.contains(&attestations::Digest::of(known).hex()));
    }
}

#[test]
fn an_erased_task_is_in_no_file_and_no_other_task_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&folder.path().join("queue.db")).unwrap();
    let secret = "patient-4711-".repeat(2000);
    let submit = |text: &str| {
        let input = json!({ "method": "average", "about": text });
        let request = TaskRequest {
            image: "registry.example/algorithm:1".into(),
            input: input.as_object().unwrap().clone(),
            databases: Vec::new(),
            idempotency_key: Some(format!("key-{}", &text[..5])),
            caller: Caller::default(),
            token: None,
        };
        queue.submit(&request).unwrap();
        let id = queue.claim().unwrap().unwrap().0;
        let (result, printed) = (format!("\"{text} result\""), format!("{text} printed"));
        let ran = report(record::Ending::Exited(0), Some(result.as_bytes()), printed.as_bytes());
        (id, queue.place(id).unwrap().salt, TaskEnding::Completed(ran))
    };
    let (id, salt, ending) = submit(&secret);
    assert!(matches!(queue.erase(id), Err(Error::WrongState { .. })), "a task in work is not erased");
    queue.finish(id, &ending).unwrap();
    let (other, _, ending) = submit("other");
    queue.finish(other, &ending).unwrap();
    assert_eq!(queue.place(id).unwrap().salt, salt, "a salt stays the same");
    assert!(found_in(folder.path(), b"patient-4711") && found_in(folder.path(), salt.as_bytes()));
    queue.erase(id).unwrap();
    assert!(matches!(queue.get(id), Err(Error::NotFound(_))));
    assert!(!found_in(folder.path(), b"patient-4711"), "some of it is left");
    assert!(!found_in(folder.path(), salt.as_bytes()), "the salt is left");
    assert!(queue.result(other).unwrap().starts_with(b"\"other"));
}

fn found_in(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|item| {
        let bytes = fs::read(item.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[test]
fn tasks_that_were_kept_long_enough_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&folder.path().join("queue.db")).unwrap();
    let input = json!({ "method": "average" }).as_object().unwrap().clone();
    let image = "registry.example/algorithm:1".to_owned();
    let (databases, caller) = (Vec::new(), Caller::default());
    let request = TaskRequest { image, input, databases, idempotency_key: None, caller, token: None };
    for _ in 0..2 {
        queue.submit(&request).unwrap();
    }
    let id = queue.claim().unwrap().unwrap().0;
    queue.finish(id, &TaskEnding::Cancelled(None)).unwrap();
    let now = jiff::Timestamp::now();
    let hour = jiff::SignedDuration::from_hours(1);
    assert_eq!(queue.over_before(now + hour, 10).unwrap(), [id], "what waits is not over");
    assert!(queue.over_before(now - hour, 10).unwrap().is_empty());
}

struct Program {
    config: PathBuf,
}

impl Program {
    fn of(site: &Site) -> Self {
        let config = site.path("runner.toml");
        let text =
            format!("version = 1\nstate_dir = {:?}\npolicy = {:?}\n", site.config.state_dir, site.policy());
        fs::write(&config, text).unwrap();
        Self { config }
    }

    fn log(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
        command.arg("--config").arg(&self.config).arg("log").args(arguments);
        command.env_remove("COUNTERSIGN_STATE").output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.log(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn code(&self, arguments: &[&str]) -> Option<i32> {
        self.log(arguments).status.code()
    }
}

#[test]
fn an_auditor_with_an_old_checkpoint_sees_that_the_log_went_on_and_that_it_was_cut() {
    let mut site = Site::new();
    let program = Program::of(&site);
    let key = program.text(&["key"]);
    assert!(key.starts_with("countersign-node/") && key.contains("BEGIN PUBLIC KEY"), "{key}");
    let (old, key_file) = (site.path("old.checkpoint"), site.path("node.key"));
    fs::write(&key_file, &key).unwrap();
    denied(&mut site);
    fs::write(&old, program.text(&["checkpoint"])).unwrap();
    let (old, key_file) = (old.to_str().unwrap(), key_file.to_str().unwrap());
    let copy = site.path("copy");
    Command::new("cp").arg("-r").arg(site.config.state_dir.join("log")).arg(&copy).status().unwrap();
    site.run_with(EngineKind::Oci, BTreeMap::new(), Canceller::new()).unwrap();
    fs::write(site.path("new.checkpoint"), program.text(&["checkpoint"])).unwrap();
    let new = site.path("new.checkpoint");
    let new = new.to_str().unwrap();

    assert!(program.text(&["verify", "--against", old, "--against", new]).starts_with("verified: 2 entries"));
    let shown = program.text(&["show"]);
    assert_eq!(shown.lines().filter(|line| line.contains("denied") && line.ends_with("reviews")).count(), 2);
    let shown: Value = serde_json::from_str(&program.text(&["show", "--json"])).unwrap();
    assert_eq!(shown["entries"][1]["run"]["event"]["denied"]["unmet"], json!(["reviews"]));

    // On another machine: a copy, the key, and a checkpoint.
    let export = site.path("export");
    let export = export.to_str().unwrap();
    program.text(&["export", export]);
    program.text(&["verify", "--dir", export, "--key", key_file, "--against", old]);
    let copy = copy.to_str().unwrap();
    program.text(&["verify", "--dir", copy, "--key", key_file, "--against", old]);
    assert_eq!(
        program.code(&["verify", "--dir", copy, "--key", key_file, "--against", new]),
        Some(1),
        "it was cut"
    );

    let proof = site.path("proof");
    fs::write(&proof, program.text(&["prove", "1"])).unwrap();
    let proof = proof.to_str().unwrap();
    assert!(
        program
            .text(&["check", proof, "--key", key_file])
            .starts_with("proven: entry 1 of countersign-node/")
    );
    assert_eq!(program.code(&["prove", "2"]), Some(4));
    assert_eq!(program.code(&["prove", "task:1"]), Some(4));
    assert_eq!(program.code(&["prove", "one"]), Some(2));

    let bundle = site.config.state_dir.join("log/tile/entries/000");
    let mut bytes = fs::read(&bundle).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    assert_eq!(program.code(&["verify"]), Some(1));
    assert_eq!(program.code(&["show"]), Some(1));
    fs::remove_file(site.config.state_dir.join("log/checkpoint")).unwrap();
    assert_eq!(program.code(&["verify"]), Some(1));
}

#[test]
fn a_result_has_its_proof_beside_it() {
    if cannot_run() {
        return;
    }
    let site = Site::new();
    let program = Program::of(&site);
    let (input, result) = (site.path("input.json"), site.path("result.json"));
    fs::write(&input, r#"{"method":"average"}"#).unwrap();
    let script = site.script("echo '{\"a\":1}' > /mnt/countersign/output")["script"].path.clone();
    let ran = Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
        .arg("--config")
        .arg(&program.config)
        .args(["run", &site.reference(), "--offline", "--evidence"])
        .arg(site.evidence())
        .arg("--input")
        .arg(&input)
        .arg("--output")
        .arg(&result)
        .arg("--database")
        .arg(format!("script={}", script.display()))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let (result, proof) = (result.to_str().unwrap(), format!("{}.tlog-proof", result.display()));
    assert!(program.text(&["check", &proof, "--result", result]).contains("and is about this result"));
    assert_eq!(program.text(&["show"]).lines().count(), 3, "started, ended, released");
    fs::write(result, "{\"a\":2}\n").unwrap();
    assert_eq!(program.code(&["check", &proof, "--result", result]), Some(1), "another result");
}
