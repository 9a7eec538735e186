//! Attacks on a start, by number of the list of attacks: each is set up for real and comes to nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod site;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use admission::Question;
use attestations::Decision;
use images::Image;
use runner::Kind;
use runner::config::EngineKind;
use runner::node::Outcome;
use runner::record::Ending;
use runner::vantage6::Input;
use sandbox::Canceller;
use serde_json::json;
use site::{NAME, Site, cannot_run};
use testing::Engine as Dockerd;

/// An image with the same layers that runs something else.
fn with_another_entrypoint(site: &Site) -> Image {
    let mut config = site.image.config().clone();
    config.config.entrypoint = Some(vec!["sh".into(), "-c".into(), "echo evil".into()]);
    Image::assemble(&site.store, &config, site.image.layers().to_vec()).unwrap()
}

fn engines(site: &mut Site) -> (Vec<EngineKind>, Option<Dockerd>) {
    if cannot_run() {
        return (Vec::new(), None);
    }
    let docker = Dockerd::here();
    let mut engines = vec![EngineKind::Oci];
    if let Some(docker) = &docker {
        site.config.docker_socket = docker.socket();
        engines.push(EngineKind::Docker);
    }
    (engines, docker)
}

#[test]
fn attack_15_an_image_whose_config_is_not_the_admitted_one_is_not_started() {
    let mut site = Site::new();
    let (own, other) = (site.image.config_descriptor().digest, with_another_entrypoint(&site));
    let (engines, docker) = engines(&mut site);
    for engine in engines {
        // The counted builder said of this very manifest that its config is another.
        site.sign_build(other.config_descriptor().digest);
        let Err(refused) = site.run(engine, "echo good") else { panic!("{engine:?} started it") };
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        assert!(refused.to_string().contains(&own.to_string()), "{refused}");
        site.sign_build(own);
        assert_eq!(site.run(engine, "echo good").unwrap().log.text(), "good\n");
    }
    if let Some(docker) = docker {
        assert_eq!(docker.says(["ps", "--all", "--quiet"]), "");
    }
}

#[test]
fn attack_15_names_of_the_local_engine_lead_nowhere() {
    let mut site = Site::new();
    let (_, Some(docker)) = engines(&mut site) else { return };
    let run = |site: &Site| site.run(EngineKind::Docker, "echo good").unwrap().log.text();
    assert_eq!(run(&site), "good\n");
    let good = site.image.config_descriptor().digest.to_string();
    let evil = site.path("evil.tar");
    let status = Command::new("tar").args(["-cf"]).arg(&evil).args(["-C", "/bin", "busybox"]).status();
    assert!(status.unwrap().success());
    // Somebody gives the image's names to something else, by import, by commit and by tag.
    let tag = format!("{NAME}:1");
    let imported = docker.says(["import", evil.to_str().unwrap(), &tag]);
    let container = docker.says(["create", "--entrypoint", "/busybox", &imported, "echo", "evil"]);
    docker.says(["commit", &container, NAME]);
    docker.says(["tag", &imported, good.strip_prefix("sha256:").unwrap().get(..12).unwrap()]);
    docker.says(["rm", &container]);
    assert_eq!(run(&site), "good\n");
    // And removes the image: it is loaded anew, from our own store.
    docker.says(["rmi", "--force", &good]);
    assert_eq!(run(&site), "good\n");
}

#[test]
fn attack_16_another_entrypoint_over_the_same_layers_is_another_image() {
    let site = Site::new();
    let other = with_another_entrypoint(&site);
    assert_eq!(other.layers(), site.image.layers());
    let reference = format!("{NAME}@{}", other.digest()).parse().unwrap();
    let question = Question { reference, ..site.question() };
    let decision = site.runtime().block_on(site.node().verify(&question)).unwrap();
    let Decision::Denied(denial) = decision else { panic!("admitted") };
    assert!(denial.unmet.iter().any(|unmet| matches!(unmet, attestations::Unmet::Builds { .. })), "{denial}");
}

#[test]
fn attack_3_a_layer_with_one_byte_changed_in_the_store_starts_nothing() {
    let mut site = Site::new();
    let layer = site.store.path_of(&site.image.layers()[0].digest);
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = std::fs::metadata(&layer).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&layer, permissions).unwrap();
    std::fs::write(&layer, bytes).unwrap();
    let (engines, docker) = engines(&mut site);
    for engine in engines {
        let Err(refused) = site.run(engine, "echo good") else { panic!("{engine:?} started it") };
        let told = format!("{refused} {:?}", refused.causes());
        assert!(matches!(refused.kind(), Kind::Input | Kind::Machine), "{engine:?}: {told}");
    }
    if let Some(docker) = docker {
        assert_eq!(docker.says(["images", "--all", "--quiet"]), "", "the engine kept nothing of it");
    }
}

#[test]
fn a_health_check_of_the_image_is_a_second_program_and_does_not_run() {
    let mut site = Site::with(|config| {
        let check =
            json!({ "Test": ["CMD-SHELL", "touch /tmp/checked"], "Interval": 1_000_000, "Retries": 1 });
        config.config.other.insert("Healthcheck".into(), check);
    });
    let (engines, _docker) = engines(&mut site);
    for engine in engines {
        let report = site.run(engine, "sleep 2; ls /tmp").unwrap();
        assert_eq!((report.ending, report.log.text().as_str()), (Ending::Exited(0), ""), "{engine:?}");
    }
}

#[test]
fn a_function_that_is_not_allowed_starts_nothing() {
    let site = Site::new();
    let input = Input::parse(br#"{"method":"median","kwargs":{"method":"average"}}"#).unwrap();
    let run = runner::node::RunRequest {
        question: site.question(),
        input,
        databases: Vec::new(),
        extra: BTreeMap::new(),
        caller: attestations::Caller::default(),
        token: None,
        engine: EngineKind::Oci,
        canceller: Canceller::new(),
        place: runner::record::RecordedTask::new().unwrap(),
    };
    let Outcome::Denied(denial) = site.node().run(run).unwrap() else { panic!("it ran") };
    let function = attestations::Unmet::Function { function: "median".into() };
    assert_eq!(denial.unmet, [function]);
    assert!(!site.config.state_dir.join("runs").exists(), "nothing was laid out");
}

/// The program, with a run in it that goes on for as long as nobody ends it.
fn running(site: &Site, engine: &str, marker: &str) -> Child {
    let config = site.path("runner.toml");
    let text = format!(
        "version = 1\nstate_dir = {:?}\npolicy = {:?}\ndocker_socket = {:?}\n",
        site.config.state_dir,
        site.policy(),
        site.config.docker_socket
    );
    std::fs::write(&config, text).unwrap();
    let script = site.script(&format!("echo started; sleep {marker}"))["script"].path.clone();
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
        .arg("--config")
        .arg(&config)
        .args(["run", &site.reference(), "--offline", "--engine", engine, "--evidence"])
        .arg(site.evidence())
        .arg("--input")
        .arg(site::input_file(site, "average"))
        .arg("--database")
        .arg(format!("script={}", script.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while alive(marker) == 0 {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "it does not run");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

fn alive(argument: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        (words.next()? == b"sleep" && words.next()? == argument.as_bytes()).then_some(())
    });
    processes.count()
}

#[test]
fn what_a_killed_runner_left_is_cleared_by_the_next_start() {
    let mut site = Site::with(|config| drop(config.config.volumes.insert("/data".into(), json!({}))));
    let (engines, docker) = engines(&mut site);
    for engine in engines {
        let (name, marker) = match engine {
            EngineKind::Oci => ("oci", "98761"),
            EngineKind::Docker => ("docker", "98762"),
        };
        let mut killed = running(&site, name, marker);
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert_eq!(alive(marker), 1, "{name}: the container outlives the killed program");
        assert_eq!(site.run(engine, "echo good").unwrap().log.text(), "good\n");
        assert_eq!(alive(marker), 0, "{name}: and ends with the next start");
        let folders = |name: &str| {
            let folder = site.config.state_dir.join(name);
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_dir()).count()
        };
        assert_eq!((folders("runs"), folders("sandbox")), (0, 0), "{name}");
    }
    if let Some(docker) = docker {
        assert_eq!(docker.says(["ps", "--all", "--quiet"]), "");
        assert_eq!(docker.says(["volume", "ls", "--quiet"]), "");
    }
}

#[test]
fn ctrl_c_ends_the_container_too() {
    let mut site = Site::new();
    let (engines, _docker) = engines(&mut site);
    for engine in engines {
        let (name, marker) = match engine {
            EngineKind::Oci => ("oci", "98763"),
            EngineKind::Docker => ("docker", "98764"),
        };
        let mut child = running(&site, name, marker);
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(5), "{name}");
        assert_eq!(alive(marker), 0, "{name}");
    }
}

#[test]
fn a_state_directory_that_others_may_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    if cannot_run() {
        return;
    }
    for mode in [0o777, 0o775] {
        std::fs::set_permissions(&site.config.state_dir, std::fs::Permissions::from_mode(mode)).unwrap();
        let Err(refused) = site.run(EngineKind::Oci, "echo good") else { panic!("it ran") };
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        assert!(refused.to_string().contains(&format!("mode {mode:04o}")), "{refused}");
    }
    std::fs::set_permissions(&site.config.state_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(site.run(EngineKind::Oci, "echo good").unwrap().log.text(), "good\n");
}
