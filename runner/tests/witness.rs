//! Two hospitals: one runs, the other is its witness, over a real connection.
#![allow(clippy::unwrap_used, clippy::panic)]

mod site;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use runner::config::{EngineKind, Quorum};
use runner::record::Book;
use sandbox::Canceller;
use site::{Site, cannot_run};
use tlog::{Policy, Reader, VerifierKey, cosignature};

/// The other hospital.
struct Witness {
    process: Child,
    url: String,
    key: VerifierKey,
}

impl Witness {
    fn start(site: &Site, log: &VerifierKey) -> Self {
        let folder = site.path("witness");
        fs::create_dir_all(&folder).unwrap();
        let logs = folder.join("logs");
        fs::write(&logs, format!("log {log}\nquorum none\n")).unwrap();
        let mut process = program()
            .args(["--policy", site.policy().to_str().unwrap()])
            .args(["--state-dir", folder.join("state").to_str().unwrap()])
            .args(["log", "witness", "--name", "witness.example", "--listen", "127.0.0.1:0", "--logs"])
            .arg(&logs)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, key) = line.trim().strip_prefix("listening on ").unwrap().split_once(", key ").unwrap();
        Self { process, url: format!("http://{address}"), key: VerifierKey::parse(key).unwrap() }
    }

    fn policy(&self) -> String {
        format!("witness other {} {}\nquorum other\n", self.key, self.url)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
    command.env_remove("COUNTERSIGN_STATE").env("NO_PROXY", "127.0.0.1");
    command
}

fn cosign(site: &Site) -> Output {
    let config = site.path("runner.toml");
    let record = "[record]\nwitnesses = \"witnesses.policy\"\n";
    let text = format!(
        "version = 1\nstate_dir = {:?}\npolicy = {:?}\n{record}",
        site.config.state_dir,
        site.policy()
    );
    fs::write(&config, text).unwrap();
    program().arg("--config").arg(config).args(["log", "cosign"]).output().unwrap()
}

fn denied(site: &Site) {
    let _ = fs::remove_file(site.evidence().join("review.json"));
    site.run_with(EngineKind::Oci, BTreeMap::new(), Canceller::new()).unwrap();
}

fn copy(from: &Path, to: &PathBuf) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_log_that_goes_on_is_cosigned_and_a_fork_is_refused_and_named() {
    let site = Site::new();
    let log = Book::open(&site.config).unwrap().key().clone();
    let witness = Witness::start(&site, &log);
    fs::write(site.path("witnesses.policy"), witness.policy()).unwrap();
    let policy = Policy::parse(witness.policy().as_bytes()).unwrap();
    let (folder, old) = (site.config.state_dir.join("log"), site.path("old"));
    for entries in 1..4 {
        denied(&site);
        if entries == 1 {
            copy(&folder, &old);
        }
        // The program that asks knows nothing of the last time: the witness tells it.
        let output = cosign(&site);
        assert!(output.status.success(), "{output:?}");
        let reader = Reader::open(&folder, &log).unwrap();
        assert_eq!(reader.checkpoint().size, entries);
        assert_eq!(policy.cosigned(reader.signed()).unwrap().by[0].0, "other");
        cosignature::verify(reader.signed(), &witness.key).unwrap();
    }
    // The log is put back and goes on otherwise, to the same length and beyond.
    copy(&old, &folder);
    let put_back = cosign(&site);
    assert_eq!(put_back.status.code(), Some(1), "{put_back:?}");
    assert!(String::from_utf8_lossy(&put_back.stderr).contains("the log was put back"), "{put_back:?}");
    for _ in 0..3 {
        denied(&site);
    }
    let forked = cosign(&site);
    assert_eq!(forked.status.code(), Some(1), "{forked:?}");
    assert!(
        String::from_utf8_lossy(&forked.stderr).contains("does not go on from what was cosigned"),
        "{forked:?}"
    );
}

#[test]
fn what_a_witness_cosigned_survives_its_end() {
    let site = Site::new();
    let log = Book::open(&site.config).unwrap().key().clone();
    for _ in 0..2 {
        denied(&site);
        let witness = Witness::start(&site, &log);
        fs::write(site.path("witnesses.policy"), witness.policy()).unwrap();
        let output = cosign(&site);
        assert!(output.status.success(), "{output:?}");
    }
    let kept = fs::read_dir(site.path("witness/state/witness")).unwrap().count();
    assert_eq!(kept, 1, "one file for one log");
}

#[test]
fn a_quorum_that_is_required_and_missing_starts_nothing_and_a_wanted_one_stops_nothing() {
    if cannot_run() {
        return;
    }
    let mut site = Site::new();
    let log = Book::open(&site.config).unwrap().key().clone();
    let witness = Witness::start(&site, &log);
    let path = site.path("witnesses.policy");
    fs::write(&path, witness.policy()).unwrap();
    site.config.record.witnesses = Some(path);
    site.config.record.quorum = Quorum::Required;
    let script = "echo '{\"a\":1}' > /mnt/countersign/output";
    let report = site.run(EngineKind::Oci, script).unwrap();
    assert!(report.result.is_some());
    drop(witness);
    let error = site.run_with(EngineKind::Oci, site.script(script), Canceller::new()).unwrap_err();
    assert!(error.to_string().contains("too few witnesses"), "{error}");
    site.config.record.quorum = Quorum::Wanted;
    assert!(site.run(EngineKind::Oci, script).unwrap().result.is_some());
}
