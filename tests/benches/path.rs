//! The speed of what a node does for every task, beside a real peer in the same run: medians of pairs, never a verdict.
//!
//! `make bench` builds the programs and runs this. Needs root, a Docker engine (started here) and a registry (started
//! here). Where `cosign` is on the PATH its verification of one attestation is measured as well.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Stdio};

use testing::timing::{Table, seconds};
use testing::{Engine, Scene, cannot_run, program, run};

const ROUNDS: usize = 15;

fn main() {
    if let Some(reason) = cannot_run(&["runc", "docker-registry", "skopeo", "dockerd", "docker"]) {
        println!("*** SKIP: {reason} ***");
        return;
    }
    let (scene, commit) = Scene::new();
    scene.build(&commit, "1.0", &scene.reviews(&commit)).expect(0);
    scene.rebuild("1.0").expect(0);
    let engine = Engine::start();
    let archive = scene.text("peer.tar");
    let image = format!("{}:1.0", scene.image());
    run(
        "skopeo",
        [
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            &format!("docker://{image}"),
            &format!("docker-archive:{archive}:peer:1"),
        ],
    )
    .expect(0);
    engine.docker(["load", "--quiet", "--input", &archive]).expect(0);

    let table = Table::milliseconds(ROUNDS);
    let docker_config = format!(
        "version = 1\npolicy = \"policy.toml\"\nengine = \"docker\"\ndocker_socket = \"{}\"\n",
        engine.socket().display()
    );
    scene.write("runner.toml", &docker_config);
    let docker_run = || peer(&scene, &engine);
    table.pairs(
        "verified run on Docker / `docker run`",
        "≤ 1.0",
        || ours(&scene, &["--config", &scene.text("runner.toml")]),
        docker_run,
    );
    table.pairs("verified run on the OCI runtime / `docker run`", "≤ 0.3", || ours(&scene, &[]), docker_run);
    let policy = scene.text("policy.toml");
    let verify =
        || command(&[program("countersign-runner").to_str().unwrap(), "--policy", &policy, "verify", &image]);
    match cosign(&scene) {
        Some(peer) => {
            let what = "`verify` / `cosign verify-attestation` of one attestation";
            table.pairs(what, "–", verify, || peer.time());
        }
        None => {
            let what = "`verify` as a process (2 reviews, 2 builds; no cosign to compare with)";
            table.alone(what, "≤ 32 ms", verify);
        }
    }
}

fn ours(scene: &Scene, options: &[&str]) -> f64 {
    seconds(|| scene.run("1.0", options).expect(0))
}

/// The same image with the same data, limits and closed network, by Docker's own client.
fn peer(scene: &Scene, engine: &Engine) -> f64 {
    let output = scene.path("peer-output");
    std::fs::write(&output, "").unwrap();
    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&output, mode).unwrap();
    let rows = format!("{}:/mnt/countersign/data/default/rows.csv:ro", scene.text("rows.csv"));
    let output = format!("{}:/mnt/countersign/output", output.display());
    let arguments = [
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--memory",
        "4g",
        "--pids-limit",
        "256",
        "--cpus",
        "2",
        "--ulimit",
        "fsize=268435456",
        "--tmpfs",
        "/tmp:rw,exec,nosuid,nodev,size=268435456,mode=1777",
        "--tmpfs",
        "/mnt/countersign/temporary:rw,exec,nosuid,nodev,size=268435456,mode=1777",
        "--volume",
        &rows,
        "--volume",
        &output,
        "peer:1",
    ];
    seconds(|| engine.docker(arguments).expect(0))
}

struct Cosign {
    arguments: Vec<String>,
}

impl Cosign {
    fn time(&self) -> f64 {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        command(&arguments)
    }
}

/// The command by which cosign verifies the builder's provenance, if it is here and accepts it.
fn cosign(scene: &Scene) -> Option<Cosign> {
    let path = std::env::var_os("PATH")?;
    let program: PathBuf =
        std::env::split_paths(&path).map(|folder| folder.join("cosign")).find(|file| file.is_file())?;
    let (key, image) = (scene.text("ci.pem.pub"), format!("{}@{}", scene.image(), scene.digest("1.0")));
    let arguments = [
        program.to_str()?,
        "verify-attestation",
        "--key",
        &key,
        "--type",
        "slsaprovenance1",
        "--insecure-ignore-tlog",
        "--allow-insecure-registry",
        "--allow-http-registry",
        &image,
    ];
    let tried = Command::new(arguments[0]).args(&arguments[1..]).output().ok()?;
    if !tried.status.success() {
        println!("cosign does not accept it: {}", String::from_utf8_lossy(&tried.stderr).trim());
        return None;
    }
    Some(Cosign { arguments: arguments.map(str::to_owned).into() })
}

fn command(arguments: &[&str]) -> f64 {
    let mut command = Command::new(arguments[0]);
    command.args(&arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    seconds(|| assert!(command.status().unwrap().success(), "{arguments:?}"))
}
