//! The program as people call it: what it prints, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../site/mod.rs"]
mod site;
mod verify;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use site::{NAME, Site, cannot_run, input_file};
use testing::Engine;

fn runner(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
    output_of(command.args(arguments))
}

/// Runs it to its end, with a state directory of its own.
fn output_of(command: &mut Command) -> Output {
    let _state = testing::own_state(command);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// `verify` with a policy, offline, and what else is asked.
fn verify(site: &Site, policy: &Path, more: &[&str]) -> Output {
    let (policy, evidence) = (policy.to_str().unwrap(), site.evidence());
    let reference = site.reference();
    let arguments =
        ["--policy", policy, "verify", &reference, "--offline", "--evidence", evidence.to_str().unwrap()];
    runner(&[&arguments[..], more].concat())
}

/// A listener of this machine's that nobody should have asked; the number of connections it got.
struct Counting(std::net::TcpListener);

impl Counting {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn connections(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

#[test]
fn no_host_is_asked_before_a_rule_may_be_about_the_name() {
    let site = Site::new();
    let listener = Counting::new();
    let host = listener.0.local_addr().unwrap();
    let policy = site.path("policy.toml");
    let verify = |image: &str| runner(&["--policy", policy.to_str().unwrap(), "verify", image]);
    let digest = site.image.digest();
    for image in [format!("{host}/average:1"), format!("{host}/average@{digest}")] {
        let denied = verify(&image);
        assert_eq!(denied.status.code(), Some(1), "{}", text(&denied));
        assert!(text(&denied).contains("denied") && text(&denied).contains("remedy"), "{}", text(&denied));
    }
    assert_eq!(listener.connections(), 0);
    // Where a rule names it, it is asked.
    let named = std::fs::read_to_string(&policy).unwrap().replace(NAME, &format!("{host}/average"));
    std::fs::write(&policy, named).unwrap();
    let asked = std::thread::spawn({
        let (policy, image) = (policy.clone(), format!("{host}/average:1"));
        move || runner(&["--policy", policy.to_str().unwrap(), "verify", &image])
    });
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while listener.connections() == 0 {
        assert!(std::time::Instant::now() < end, "nobody asked");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(listener);
    assert_eq!(asked.join().unwrap().status.code(), Some(6));
}

#[test]
fn a_rule_by_digest_is_for_whoever_names_the_digest() {
    let site = Site::new();
    let policy = site.path("policy.toml");
    let by_digest = format!("digest = \"{}\"", site.image.digest());
    let text_of =
        std::fs::read_to_string(&policy).unwrap().replace(&format!("name = \"{NAME}\""), &by_digest);
    std::fs::write(&policy, text_of).unwrap();
    let admitted = verify(&site, &policy, &[]);
    assert_eq!(admitted.status.code(), Some(0), "{}", text(&admitted));
    let listener = Counting::new();
    let tag = format!("{}/average:1", listener.0.local_addr().unwrap());
    let denied = runner(&["--policy", policy.to_str().unwrap(), "verify", &tag]);
    assert_eq!((denied.status.code(), listener.connections()), (Some(1), 0), "{}", text(&denied));
}

#[test]
fn evidence_beyond_the_budget_denies_and_says_how_much_it_is() {
    let site = Site::new();
    for number in 0..5 {
        std::fs::write(site.evidence().join(format!("{number}.json")), vec![b' '; 13 << 20]).unwrap();
    }
    let denied = verify(&site, &site.path("policy.toml"), &[]);
    let text = text(&denied);
    assert_eq!(denied.status.code(), Some(1), "{text}");
    assert!(text.contains("wanted: at most 64 MiB of evidence in all"), "{text}");
    assert!(text.contains(&format!("found:  at least {} bytes", 5 * (13 << 20))), "{text}");
}

#[test]
fn a_strangers_words_are_one_short_printable_line() {
    let site = Site::new();
    let kind = format!("\u{1b}[2J\u{1b}[1;32madmitted\u{9b}{}", "x".repeat(1 << 20));
    let envelope = serde_json::json!({ "payload": "e30=", "payloadType": kind, "signatures": [] });
    let media_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let bundle = serde_json::json!({ "mediaType": media_type, "dsseEnvelope": envelope });
    std::fs::write(site.evidence().join("stranger.json"), bundle.to_string()).unwrap();
    let policy = site.path("policy.toml");
    for form in [&["--function", "median"][..], &["--function", "median", "--json"]] {
        let denied = verify(&site, &policy, form);
        let text = text(&denied);
        assert_eq!(denied.status.code(), Some(1), "{text}");
        assert!(text.contains("stranger.json") && text.len() < 8192, "{} bytes", text.len());
        assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    }
}

#[test]
fn how_registries_are_reached_is_read_strictly() {
    let site = Site::new();
    for (more, words) in [
        ("extra_ca = [\"none.pem\"]", "none.pem"),
        ("extra_ca = [\"policy.toml\"]", "certificate"),
        ("[[registries.registry]]\nname = \"r.example\"\nmirror = []", "no mirror"),
        (
            "[[registries.registry]]\nname = \"r.example\"\nmirror = [{ at = \"http://m.example\" }]",
            "m.example",
        ),
        ("[registries]\ninsecur = []", "insecur"),
    ] {
        let config = site.path("runner.toml");
        std::fs::write(&config, format!("version = 1\npolicy = \"policy.toml\"\n{more}\n")).unwrap();
        let refused =
            runner(&["--config", config.to_str().unwrap(), "verify", &site.reference(), "--offline"]);
        let text = text(&refused);
        assert!(matches!(refused.status.code(), Some(3 | 4)) && text.contains(words), "{more}: {text}");
    }
}

#[test]
fn init_writes_what_it_then_reads_and_never_writes_over_anything() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("countersign");
    let place = place.to_str().unwrap();
    assert_eq!(runner(&["init", place]).status.code(), Some(0));
    let config = format!("{place}/runner.toml");
    let image = format!("{NAME}@sha256:{}", "0".repeat(64));
    let denied = runner(&["--config", &config, "verify", &image, "--offline"]);
    assert_eq!(denied.status.code(), Some(1), "{}", text(&denied));
    std::fs::write(&config, "mine").unwrap();
    let again = runner(&["init", place]);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "mine");
}

#[test]
fn attack_11_a_policy_that_is_not_whole_admits_nothing() {
    let site = Site::new();
    let whole = std::fs::read_to_string(site.policy()).unwrap();
    let policy = site.path("other.toml");
    let missing = verify(&site, &policy, &[]);
    assert_eq!(missing.status.code(), Some(4), "{}", text(&missing));
    let is_refused = |bytes: &[u8]| {
        std::fs::write(&policy, bytes).unwrap();
        let refused = verify(&site, &policy, &[]);
        let code = refused.status.code();
        assert_eq!(code, Some(3), "{}\n{}", String::from_utf8_lossy(bytes), text(&refused));
        assert!(text(&refused).contains("nothing is admitted"), "{}", text(&refused));
    };
    is_refused(b"");
    is_refused(b"version = 1\n[[algorithm]]\nname = \"x\"");
    is_refused(b"\xff\xfe");
    is_refused(&vec![b'#'; (16 << 20) + 1]);
    is_refused(format!("{whole}\nunknown = 1\n").as_bytes());
    // Half-written, at the end of every line: no policy, or one that denies, but never one that admits.
    let ends = whole.match_indices('\n').map(|(at, _)| at).filter(|at| *at + 1 < whole.len());
    for end in ends {
        std::fs::write(&policy, &whole[..end]).unwrap();
        let code = verify(&site, &policy, &[]).status.code();
        assert!(matches!(code, Some(1 | 3)), "{code:?} for\n{}", &whole[..end]);
    }
    let folder = site.path("folder");
    std::fs::create_dir(&folder).unwrap();
    assert_ne!(verify(&site, &folder, &[]).status.code(), Some(0));
}

#[test]
fn what_cannot_be_asked_is_said_with_its_own_code() {
    let site = Site::new();
    let policy = site.policy().to_str().unwrap();
    let code = |arguments: &[&str]| runner(&[&["--policy", policy], arguments].concat()).status.code();
    assert_eq!(code(&["verify", "registry.example/average:1", "--offline"]), Some(2), "a tag, offline");
    assert_eq!(code(&["verify", "registry.example/average", "--offline"]), Some(2), "neither tag nor digest");
    assert_eq!(code(&["verify", &site.reference(), "--offline", "--evidence", "/no/such"]), Some(4));
    assert_eq!(code(&["verify"]), Some(2));
    let named = site.path("named.toml");
    let of_nobody = std::fs::read_to_string(site.policy()).unwrap().replace(NAME, "127.0.0.1:1/average");
    std::fs::write(&named, of_nobody).unwrap();
    let refused = runner(&["--policy", named.to_str().unwrap(), "verify", "127.0.0.1:1/average:1"]);
    assert_eq!(refused.status.code(), Some(6), "no registry listens there: {}", text(&refused));
    let config = site.path("runner.toml");
    std::fs::write(&config, "version = 1\npolicy = \"policy.toml\"\n[limits]\nmemory = 5\n").unwrap();
    let misspelt = runner(&["--config", config.to_str().unwrap(), "verify", &site.reference(), "--offline"]);
    assert_eq!(misspelt.status.code(), Some(3));
    assert!(text(&misspelt).contains("memory"), "{}", text(&misspelt));
    let json = runner(&["--json", "--policy", "/no/such", "verify", &site.reference(), "--offline"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json.to_string().contains("nothing is admitted"), "{json}");
}

#[test]
fn run_writes_the_result_whole_or_not_at_all() {
    if cannot_run() {
        return;
    }
    let site = Site::new();
    let result = site.path("result.json");
    let run = |script: &str| {
        let script = site.script(script)["script"].path.clone();
        runner(&[
            "--policy",
            site.policy().to_str().unwrap(),
            "--state-dir",
            site.config.state_dir.to_str().unwrap(),
            "run",
            &site.reference(),
            "--offline",
            "--evidence",
            site.evidence().to_str().unwrap(),
            "--input",
            input_file(&site, "average").to_str().unwrap(),
            "--database",
            &format!("script={}", script.display()),
            "--output",
            result.to_str().unwrap(),
        ])
    };
    let failed = run("echo 1 > /mnt/countersign/output; echo broken; exit 7");
    assert_eq!(failed.status.code(), Some(5), "{}", text(&failed));
    assert!(text(&failed).contains("exit code 7") && text(&failed).contains("broken"), "{}", text(&failed));
    assert!(!result.exists());
    let ran = run("echo '{\"average\":4.5}' > /mnt/countersign/output");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran));
    assert_eq!(std::fs::read_to_string(&result).unwrap(), "{\"average\":4.5}\n");
    input_file(&site, "median");
    let input = site.path("input.json");
    let denied = runner(&[
        "--policy",
        site.policy().to_str().unwrap(),
        "run",
        &site.reference(),
        "--offline",
        "--evidence",
        site.evidence().to_str().unwrap(),
        "--input",
        input.to_str().unwrap(),
    ]);
    assert_eq!(denied.status.code(), Some(1), "{}", text(&denied));
}

/// Engines mount what they are named by itself, wherever this program was started.
#[test]
fn relative_paths_are_those_of_the_caller_on_every_engine() {
    if cannot_run() {
        return;
    }
    let site = Site::new();
    let docker = Engine::here();
    let folder = site.policy().parent().unwrap();
    let name = |path: &Path| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
    let script = site.script("echo '{}' > /mnt/countersign/output")["script"].path.clone();
    let (state, script) = (name(&site.config.state_dir), format!("script={}", name(&script)));
    let (evidence, input) = (name(&site.evidence()), name(&input_file(&site, "average")));
    let socket = docker.as_ref().map_or("/none".into(), Engine::socket);
    std::fs::write(
        folder.join("relative.toml"),
        format!("version = 1\nstate_dir = {state:?}\npolicy = \"policy.toml\"\ndocker_socket = {socket:?}\n"),
    )
    .unwrap();
    for engine in ["oci", "docker"] {
        if engine == "docker" && docker.is_none() {
            continue;
        }
        let words = ["run", &site.reference(), "--offline", "--engine", engine, "--evidence", &evidence];
        let more = ["--input", &input, "--database", &script];
        let configured = ["--config", "relative.toml"];
        for state in [&[][..], &["--state-dir", &state]] {
            let ran = Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
                .args([&configured, state, &words, &more].concat())
                .env_remove("COUNTERSIGN_STATE")
                .current_dir(folder)
                .output()
                .unwrap();
            assert_eq!(ran.status.code(), Some(0), "{engine} {state:?}: {}", text(&ran));
        }
    }
}

#[test]
fn a_policy_that_others_may_change_admits_nothing() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let site = Site::new();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let rules = std::fs::read(site.policy()).unwrap();
    let folder = site.path("etc");
    std::fs::create_dir(&folder).unwrap();
    let policy = folder.join("policy.toml");
    std::fs::write(&policy, rules).unwrap();
    mode(&policy, 0o644);
    mode(&folder, 0o755);
    assert_eq!(verify(&site, &policy, &[]).status.code(), Some(0));
    let refused = |policy: &Path, words: &[&str]| {
        let no = verify(&site, policy, &["--json"]);
        assert_eq!(no.status.code(), Some(1), "{}", text(&no));
        let json: Value = serde_json::from_slice(&no.stdout).unwrap();
        assert_eq!((&json["event"], &json["kind"]), (&"error".into(), &"refused".into()), "{json}");
        for word in [&["nothing is admitted"], words].concat() {
            assert!(json.to_string().contains(word), "{word}: {json}");
        }
    };
    mode(&policy, 0o666);
    refused(&policy, &["everybody may write to", "mode 0666", "chmod go-w"]);
    mode(&policy, 0o644);
    mode(&folder, 0o777);
    refused(&policy, &["everybody may write to", "mode 0777", "chmod go-w"]);
    mode(&folder, 0o755);
    let link = site.path("link.toml");
    symlink(&policy, &link).unwrap();
    refused(&link, &["is a symbolic link", "name the file itself"]);
    if chown(&policy, Some(4242), None).is_ok() {
        refused(&policy, &["belongs to the user 4242", "mode 0644", "chown"]);
        chown(&policy, Some(0), None).unwrap();
    }
    assert_eq!(verify(&site, &policy, &[]).status.code(), Some(0));
    // The configuration that names it decides as much.
    let config = folder.join("runner.toml");
    std::fs::write(&config, "version = 1\npolicy = \"policy.toml\"\n").unwrap();
    mode(&config, 0o662);
    let (config, reference) = (config.to_str().unwrap(), site.reference());
    let no = runner(&["--config", config, "verify", &reference, "--offline"]);
    assert_eq!(no.status.code(), Some(1), "{}", text(&no));
    assert!(text(&no).contains("mode 0662") && !text(&no).contains("admitted:"), "{}", text(&no));
}

#[test]
fn a_closed_pipe_ends_it_without_a_word_and_is_no_yes() {
    let site = Site::new();
    let (policy, evidence) = (site.policy().to_str().unwrap(), site.evidence());
    let reference = site.reference();
    let verify =
        ["--policy", policy, "verify", &reference, "--offline", "--evidence", evidence.to_str().unwrap()];
    let json = [&["--json"], &verify[..]].concat();
    for arguments in [&verify[..], &json, &["completions", "bash"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
        let output = output_of(command.args(arguments).stdout(writer));
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {}", text(&output));
        assert_eq!(text(&output), "", "{arguments:?}");
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-runner"));
    let output = output_of(command.args(verify).stdout(full));
    assert_eq!(output.status.code(), Some(8), "a full disk is an error: {}", text(&output));
}

#[test]
fn the_server_logs_as_it_is_told_to() {
    let site = Site::new();
    let socket = site.path("socket");
    let policy = site.policy().to_str().unwrap();
    let log = site.path("log");
    let logged = |format: &str| {
        let mut server = Command::new(env!("CARGO_BIN_EXE_countersign-runner"))
            .args(["--policy", policy, "--state-dir", site.path("served").to_str().unwrap()])
            .args(["--log-level", "debug", "--log-format", format])
            .args(["serve", "--offline", "--socket", socket.to_str().unwrap()])
            // Nobody listens there, which the server notes at its lowest level.
            .env("NOTIFY_SOCKET", site.path("no-systemd"))
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut text = String::new();
        while !text.contains("systemd could not be") && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(20));
            text = std::fs::read_to_string(&log).unwrap();
        }
        server.kill().unwrap();
        server.wait().unwrap();
        text.lines().find(|line| line.contains("systemd could not be")).unwrap_or_default().to_owned()
    };
    assert!(logged("journald").starts_with("<7>runner::"), "{}", std::fs::read_to_string(&log).unwrap());
    let json: Value = serde_json::from_str(&logged("json")).unwrap();
    assert_eq!((&json["event"], &json["level"]), (&"log".into(), &"debug".into()), "{json}");
    assert!(logged("text").contains("Z DEBUG runner::"), "{}", std::fs::read_to_string(&log).unwrap());
    assert_eq!(runner(&["--log-level", "loud", "completions", "bash"]).status.code(), Some(2));
}
