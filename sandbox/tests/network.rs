//! What a process can reach: the planted listeners, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;

use common::{ALGORITHM, ground, shell};
use sandbox::{Attempt, Canceller, Error, Inside, Network, Profile};

/// Answers one connection with the address it was for.
fn answer_once(listener: std::net::TcpListener) -> thread::JoinHandle<SocketAddr> {
    thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let local = peer.local_addr().unwrap();
        peer.write_all(b"HTTP/1.0 200 OK\r\n\r\nplanted").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        peer.read_to_end(&mut Vec::new()).unwrap();
        local
    })
}

#[test]
fn the_first_process_finds_the_listener_there() {
    let Some(ground) = ground() else { return };
    let listener = ground.network.listen((Ipv4Addr::LOCALHOST, 8080).into()).unwrap();
    let server = answer_once(listener);
    let ran = ground.run(&shell(ALGORITHM, "wget -q -O - http://127.0.0.1:8080/"));
    assert_eq!(ran.out, "planted", "{ran:?}");
    server.join().unwrap();
}

#[test]
fn there_is_only_loopback_and_every_other_address_is_unreachable() {
    let Some(ground) = ground() else { return };
    let ran = ground.run(&shell(Profile::Build, "ls /sys/class/net; cat /proc/net/route"));
    assert!(ran.out.starts_with("lo\nIface"), "{ran:?}");
    assert_eq!(ran.out.lines().count(), 2, "no route: {ran:?}");
    for address in ["1.1.1.1", "10.0.0.1", "192.168.0.1", "169.254.169.254", "198.18.0.1"] {
        let ran = ground.run(&shell(Profile::Build, &format!("nc -w 2 {address} 80")));
        assert!(!ran.exit.is_success() && ran.err.contains("unreachable"), "{address}: {ran:?}");
    }
}

#[test]
fn every_address_can_be_made_ours_and_what_is_tried_is_seen() {
    let Some(ground) = ground() else { return };
    ground.network.enter(Inside::claim_every_address).unwrap();
    let server = answer_once(ground.network.listen((Ipv4Addr::UNSPECIFIED, 80).into()).unwrap());
    let ran = ground.run(&shell(Profile::Build, "wget -q -O - http://198.19.255.7/"));
    assert_eq!(ran.out, "planted", "{ran:?}");
    assert_eq!(server.join().unwrap(), (Ipv4Addr::new(198, 19, 255, 7), 80).into());
    let watch = ground.network.enter(Inside::watch).unwrap();
    let script = "nc -w 2 192.0.2.9 8443; nc -w 2 2001:db8::7 22; nc -w 2 127.0.0.1 9";
    let beyond = ground.run(&shell(Profile::Build, script));
    assert!(beyond.err.contains("refused"), "{beyond:?}");
    let sender = ground.network.enter(|inside| inside.udp((Ipv4Addr::UNSPECIFIED, 0).into())).unwrap();
    sender.send_to(b"who", (Ipv4Addr::new(192, 0, 2, 53), 53)).unwrap();
    let seen: std::collections::BTreeSet<Attempt> = std::iter::from_fn(|| watch.next().unwrap()).collect();
    for (is_tcp, to) in [(true, "192.0.2.9:8443"), (false, "192.0.2.53:53"), (true, "127.0.0.1:9")] {
        assert!(seen.contains(&Attempt { is_tcp, to: to.parse().unwrap() }), "{to}: {seen:?}");
    }
    assert!(!seen.iter().any(|attempt| attempt.to.port() == 80), "what was before is not told");
}

#[test]
fn datagrams_are_planted_too() {
    let Some(ground) = ground() else { return };
    let socket = ground.network.enter(|inside| inside.udp((Ipv4Addr::LOCALHOST, 53).into())).unwrap();
    let server = thread::spawn(move || {
        let mut buffer = [0; 16];
        let (length, _) = socket.recv_from(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    let sender = ground.network.enter(|inside| inside.udp((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
    sender.send_to(b"who", (Ipv4Addr::LOCALHOST, 53)).unwrap();
    assert_eq!(server.join().unwrap(), b"who");
}

#[test]
fn networks_are_apart_from_each_other_and_from_the_machine() {
    let Some(ground) = ground() else { return };
    let address = (Ipv4Addr::LOCALHOST, 4711).into();
    let first = ground.network.listen(address).unwrap();
    let other = ground.host.network().unwrap();
    let second = other.listen(address).unwrap();
    assert!(matches!(ground.network.listen(address), Err(Error::Bind { .. })));
    drop((first, second));
}

#[test]
fn a_running_process_s_network_is_entered_and_the_machine_s_own_is_refused() {
    let Some(_) = ground() else { return };
    assert!(matches!(Network::of_process(std::process::id()), Err(Error::NotIsolated { .. })));
    let mut child = Command::new("unshare").args(["-n", "sleep", "20"]).spawn().unwrap();
    let network = (0..100).find_map(|_| {
        thread::sleep(std::time::Duration::from_millis(10));
        Network::of_process(child.id()).ok()
    });
    let bound = network.unwrap().listen((Ipv4Addr::UNSPECIFIED, 80).into());
    child.kill().unwrap();
    child.wait().unwrap();
    bound.unwrap();
}

#[test]
fn a_program_of_this_machine_sees_the_sandbox_s_network_alone() {
    let Some(ground) = ground() else { return };
    let server = answer_once(ground.network.listen((Ipv4Addr::LOCALHOST, 8080).into()).unwrap());
    let ours = ground.directory.path().join("hosts");
    std::fs::write(&ours, "127.0.0.1 planted\n").unwrap();
    let over = [(ours, "/etc/hosts".into()), ("/dev/null".into(), "/no/such/file".into())];
    let run = |text: &str, canceller: &Canceller| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        ground.network.run_program(command, &over, canceller).unwrap()
    };
    let ran = run("cat /etc/hosts; tail -n +3 /proc/net/dev; exit 7", &Canceller::new());
    let out = String::from_utf8(ran.stdout).unwrap();
    assert_eq!((ran.status.code(), out.lines().count(), ran.cancelled), (Some(7), 2, false), "{out}");
    assert!(out.starts_with("127.0.0.1 planted\n") && out.contains("lo:"), "{out}");
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("planted"));
    let connect = "exec 3<>/dev/tcp/127.0.0.1/8080 && cat <&3";
    let mut command = Command::new("bash");
    command.args(["-c", connect]);
    let answer = ground.network.run_program(command, &over, &Canceller::new()).unwrap();
    assert!(String::from_utf8_lossy(&answer.stdout).ends_with("planted"), "{answer:?}");
    server.join().unwrap();

    let (canceller, start) = (Canceller::new(), std::time::Instant::now());
    canceller.cancel();
    let ended = run("sleep 60 & sleep 60", &canceller);
    assert!(ended.cancelled && !ended.status.success() && start.elapsed().as_secs() < 10);
    let missing = ground.network.run_program(Command::new("no-such-program"), &over, &Canceller::new());
    assert!(matches!(missing, Err(Error::Path { action: "start", .. })), "{missing:?}");
}
