//! The speed of what a node does for every task, beside a real peer in the same run: medians of pairs, never a verdict.
//!
//! `make bench` builds the programs and runs this. Needs root, a Docker engine (started here) and a registry (started
//! here). Where `scripts/clients` has built cosign, its verification of one attestation is measured as well.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Stdio};

use testing::timing::{Table, seconds};
use testing::{Cosign, Engine, Scene, cannot_run, program, run};

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
            table.pairs(what, "–", verify, peer);
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

/// The command by which cosign verifies the builder's provenance, if it is here. That it does not accept it ends the benchmark:
/// a figure beside a refusal would hide a fault.
fn cosign(scene: &Scene) -> Option<impl Fn() -> f64> {
    let cosign = Cosign::installed(&scene.path("home"))?;
    let (key, image) = (scene.text("ci.pem.pub"), format!("{}@{}", scene.image(), scene.digest("1.0")));
    cosign.verify_attestation(&key, "slsaprovenance1", &image).expect(0);
    Some(move || seconds(|| cosign.verify_attestation(&key, "slsaprovenance1", &image).expect(0)))
}

fn command(arguments: &[&str]) -> f64 {
    let mut command = Command::new(arguments[0]);
    command.args(&arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    seconds(|| assert!(command.status().unwrap().success(), "{arguments:?}"))
}
