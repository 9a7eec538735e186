//! Both engines, with a real runtime, a real Docker engine and real containers: what an algorithm finds, what it cannot
//! do, and how a run ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod site;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use runner::Kind;
use runner::config::{Database, EngineKind};
use runner::node::Outcome;
use runner::record::Ending;
use sandbox::Canceller;
use site::{Site, cannot_run};
use testing::Engine;

/// The same on every engine of this machine.
fn on_every_engine(site: &mut Site, check: impl Fn(&Site, EngineKind)) {
    if cannot_run() {
        return;
    }
    check(site, EngineKind::Oci);
    let Some(docker) = Engine::here() else { return };
    site.config.docker_socket = docker.socket();
    check(site, EngineKind::Docker);
    assert_eq!(docker.says(["ps", "--all", "--quiet"]), "", "containers are removed");
    assert_eq!(docker.says(["volume", "ls", "--quiet"]), "", "and so are their volumes");
}

/// Prints what the container is, one fact a line.
const LOOK_AROUND: &str = r#"
# Nothing came before this: the proxy is asked first of all.
wget -q -O- http://127.0.0.1:8080/organization 2>&1 | grep -o 'HTTP/1.1 403' | sed 's/^/proxy=/'
grep -E 'CapEff|CapBnd|CapPrm|NoNewPrivs|Seccomp:' /proc/self/status | tr -d ' \t' | tr ':' '='
sed -n '3,$p' /proc/net/dev | sed 's/^ *\([^:]*\):.*/interface=\1/'
sed -n '2,$p' /proc/net/route | sed 's/^/route=/'
# Loopback alone in IPv6 too, and no abstract socket of this machine.
grep -v ' lo$' /proc/net/if_inet6 /proc/net/ipv6_route | sed 's/^/ipv6=/'
grep @ /proc/net/unix | sed 's/^/abstract=/'
nc -w 2 192.0.2.1 80 2>&1 </dev/null | grep -o 'unreachable' | sed 's/^/outside=/'
touch /written 2>/dev/null || echo root=read-only
touch /data/written 2>/dev/null || echo volume=read-only
cat /data/kept | sed 's/^/volume=/'
touch /mnt/countersign/data/script/script.sh 2>/dev/null || echo database=read-only
for folder in /tmp /mnt/countersign/temporary; do
  { cat /bin/busybox > $folder/busybox; busybox chmod +x $folder/busybox; $folder/busybox echo "temporary=executable"; }
done
busybox test -e /var/run/docker.sock || echo engine=out-of-reach
busybox chown 1:1 /tmp/busybox 2>/dev/null || echo chown=refused
busybox mount -t tmpfs x /tmp 2>/dev/null || echo mount=refused
busybox unshare -U busybox true 2>/dev/null || echo namespaces=refused
echo "method=$(cat /mnt/countersign/input)"
echo "label=$DB_LABELS uri=$SCRIPT_DATABASE_URI"
echo '{"average": 4.5}' > /mnt/countersign/output
"#;

#[test]
fn an_algorithm_is_confined_and_has_no_way_out_but_the_proxy() {
    let mut site =
        Site::with(|config| drop(config.config.volumes.insert("/data".into(), serde_json::json!({}))));
    use std::os::linux::net::SocketAddrExt as _;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(b"countersign-test").unwrap();
    let _of_this_machine = std::os::unix::net::UnixListener::bind_addr(&name).unwrap();
    on_every_engine(&mut site, |site, engine| {
        let report = site.run(engine, LOOK_AROUND).unwrap();
        let text = report.log.text();
        assert_eq!(report.ending, Ending::Exited(0), "{engine:?}: {text}");
        assert_eq!(report.result.as_deref().unwrap(), b"{\"average\": 4.5}\n");
        let egress = &report.to_json()["egress"];
        assert_eq!((&egress["refused"], &egress["entries"][0]["path"]), (&1.into(), &"/organization".into()));
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let mut wanted = vec![
            "CapBnd=0000000000000000",
            "CapEff=0000000000000000",
            "CapPrm=0000000000000000",
            "NoNewPrivs=1",
            "Seccomp=2",
            "chown=refused",
            "database=read-only",
            "engine=out-of-reach",
            "interface=lo",
            "label=ONRXE2LQOQ!!!!!! uri=F5WW45BPMNXXK3TUMVZHG2LHNYXWIYLUMEXXGY3SNFYHIL3TMNZGS4DUFZZWQ!!!",
            "method={\"method\":\"average\"}",
            "mount=refused",
            "namespaces=refused",
            "outside=unreachable",
            "proxy=HTTP/1.1 403",
            "root=read-only",
            "temporary=executable",
            "temporary=executable",
            "volume=of the image",
            "volume=read-only",
        ];
        wanted.sort_unstable();
        assert_eq!(lines, wanted, "{engine:?}: {text}");
    });
}

#[test]
fn another_user_of_the_image_finds_its_files_and_a_database_that_it_may_not_read_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut site = Site::with(|config| config.config.user = "65534:65534".into());
    on_every_engine(&mut site, |site, engine| {
        let script = "id; cat /mnt/countersign/input; echo 1 > /mnt/countersign/output; touch /mnt/countersign/temporary/x";
        let report = site.run(engine, script).unwrap();
        let text = report.log.text();
        assert_eq!(report.ending, Ending::Exited(0), "{engine:?}: {text}");
        assert!(text.contains("uid=65534") && text.contains("method"), "{text}");
        let mut databases = site.script("cat /mnt/countersign/data/patients/patients.csv");
        let path = site.path("patients.csv");
        std::fs::write(&path, "age\n40\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        databases.insert("patients".into(), Database { path: path.clone(), kind: "csv".into() });
        let Err(refused) = site.run_with(engine, databases, Canceller::new()) else { panic!("it ran") };
        assert_eq!(refused.kind(), Kind::Input);
        assert!(refused.to_string().contains("patients.csv (mode 600"), "{refused}");
    });
}

#[test]
fn what_is_mounted_beneath_a_database_does_not_come_along() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let mut site = Site::new();
    on_every_engine(&mut site, |site, engine| {
        let folder = site.path(&format!("tables-{engine:?}"));
        let beneath = folder.join("beneath");
        std::fs::create_dir_all(&beneath).unwrap();
        mount(Some("tmpfs"), &beneath, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(beneath.join("secret"), "of another project").unwrap();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let mut databases = site.script(&format!(
            "cat /mnt/countersign/data/tables/{name}/beneath/secret; touch /mnt/countersign/data/tables/{name}/beneath/x"
        ));
        databases.insert("tables".into(), Database { path: folder.clone(), kind: "folder".into() });
        let outcome = site.run_with(engine, databases, Canceller::new());
        let written = beneath.join("x").exists();
        umount2(&beneath, MntFlags::MNT_DETACH).unwrap();
        let Outcome::Ran(report) = outcome.unwrap() else { panic!("denied") };
        assert!(!report.log.text().contains("another project"), "{}", report.log.text());
        assert!(!written && !beneath.join("x").exists());
    });
}

#[test]
fn a_result_is_what_python_reads_and_passes_as_it_was_written() {
    on_every_engine(&mut Site::new(), |site, engine| {
        let written =
            |text: &str| site.run(engine, &format!("echo '{text}' > /mnt/countersign/output")).unwrap();
        let numbers = r#"{"mean": 1.0, "std": NaN, "range": [-Infinity, Infinity]}"#;
        assert_eq!(written(numbers).result.unwrap(), format!("{numbers}\n").into_bytes());
        let text = written("the average is 4.5");
        assert_eq!((text.ending, text.result), (Ending::Exited(0), None));
        assert!(text.unusable.unwrap().reason.contains("not JSON: expected"));
        assert_eq!(written("").unusable.unwrap().reason, "it wrote no result");
    });
}

#[test]
fn results_files_and_output_are_bounded() {
    let mut site = Site::new();
    site.config.limits.result_kib = 4;
    site.config.limits.temporary_mib = 1;
    site.config.limits.log_kib = 8;
    on_every_engine(&mut site, |site, engine| {
        let output = "/mnt/countersign/output";
        let digits = |count| format!("head -c {count} /dev/zero | tr '\\0' 7 > {output}");
        let report = site.run(engine, &digits(4096)).unwrap();
        assert_eq!(report.result.unwrap().len(), 4096);
        let large = site.run(engine, &digits(4097)).unwrap();
        assert!(large.result.is_none() && large.unusable.unwrap().reason.contains("4097 bytes"));
        // The result's file lies on this machine's disk, which nobody may fill.
        let filled = format!("head -c 9000000 /dev/zero > {output}; ls -l {output}; exit 1");
        let filled = site.run(engine, &filled).unwrap();
        assert!(filled.log.text().contains(" 1048576 "), "{engine:?}: {}", filled.log.text());
        let loud = site.run(engine, "head -c 3000000 /dev/zero | tr '\\0' x").unwrap();
        let gap = format!("\n[{} bytes were left out here]\n", 3_000_000 - 8192);
        assert_eq!(loud.log.text(), format!("{0}{gap}{0}", "x".repeat(4096)));
        assert_eq!(loud.to_json()["logBytesNotKept"], 3_000_000 - 8192, "{engine:?}");
    });
}

#[test]
fn a_run_ends_as_it_ends() {
    let mut site = Site::new();
    site.config.limits.memory_mib = 64;
    site.config.limits.pids = 20;
    on_every_engine(&mut site, |site, engine| {
        let failed = site.run(engine, "echo 1 > /mnt/countersign/output; exit 3").unwrap();
        assert_eq!((failed.ending, &failed.result), (Ending::Exited(3), &None), "no result of a failed run");
        // What is in memory counts, and the container has no swap.
        let greedy =
            "head -c 90000000 /dev/zero > /tmp/x; busybox seq 1 30000000 | busybox sort -n | busybox tail -1";
        let greedy = site.run(engine, greedy).unwrap();
        assert_ne!(greedy.ending, Ending::Exited(0), "{engine:?} {}", greedy.log.text());
        let forks = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo all";
        let forks = site.run(engine, forks).unwrap();
        assert!(!forks.log.text().contains("all"), "{engine:?}: {}", forks.log.text());
        let canceller = Canceller::new();
        let cancel = canceller.clone();
        let begun = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            cancel.cancel();
        });
        let outcome = site.run_with(engine, site.script("sleep 100"), canceller).unwrap();
        let Outcome::Ran(report) = outcome else { panic!("denied") };
        assert_eq!(report.ending, Ending::Cancelled);
        assert!(begun.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn a_crash_hands_the_memory_to_nobody() {
    let mut site = Site::new();
    on_every_engine(&mut site, |site, engine| {
        let limits = site.run(engine, "grep 'Max core file size' /proc/self/limits").unwrap().log.text();
        let words: Vec<&str> = limits.split_whitespace().collect();
        assert_eq!(words, ["Max", "core", "file", "size", "1", "1", "bytes"], "{engine:?}: {limits}");
    });
}

#[test]
fn a_run_that_takes_too_long_is_ended() {
    let mut site = Site::new();
    site.config.limits.wall_seconds = 2;
    on_every_engine(&mut site, |site, engine| {
        let begun = Instant::now();
        let late = site.run(engine, "(sleep 100 &); sleep 100").unwrap();
        assert_eq!((late.ending, late.result), (Ending::TimedOut, None));
        assert!(begun.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn an_image_without_a_program_says_so() {
    let mut site = Site::with(|config| config.config.entrypoint = Some(vec!["no-such-program".into()]));
    on_every_engine(&mut site, |site, engine| {
        assert_eq!(site.run(engine, "true").unwrap().ending, Ending::Exited(127), "{engine:?}");
    });
    let mut site = Site::with(|config| (config.config.entrypoint, config.config.cmd) = (None, None));
    on_every_engine(&mut site, |site, engine| {
        let Err(refused) = site.run(engine, "true") else { panic!("it ran") };
        assert_eq!(refused.kind(), Kind::Input, "{engine:?}: {refused}");
    });
}

#[test]
fn nothing_is_left_of_a_run() {
    let mut site = Site::new();
    on_every_engine(&mut site, |site, engine| {
        site.run(engine, "true").unwrap();
        let runs: Vec<PathBuf> = std::fs::read_dir(site.config.state_dir.join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        assert_eq!(runs, Vec::<PathBuf>::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = site.config.state_dir.to_string_lossy().into_owned();
        assert!(!mounts.contains(&ours), "{engine:?} left a mount:\n{mounts}");
    });
}
