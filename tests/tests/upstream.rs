//! Servers that fail, lie or are far away, seen from the whole program: what a step got in part stays told, a full disk is no
//! build, and proxies, authorities and mirrors of one's own are used where they were named.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testing::{Outcome, Registry, Repository, need, program, python_base, run};

/// A repository with one Dockerfile, and a builder of it.
struct Bench {
    source: Repository,
    folder: tempfile::TempDir,
    base: PathBuf,
    commit: String,
}

impl Bench {
    fn new(dockerfile: &str) -> Self {
        let source = Repository::new();
        source.write("Dockerfile", dockerfile);
        let commit = source.commit("an algorithm");
        let bench = Self { source, folder: tempfile::tempdir().unwrap(), base: python_base(), commit };
        run(program("countersign-builder"), ["keygen", "--no-password", "--out", &bench.text("key.pem")])
            .expect(0);
        bench
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn call(&self, verb: &str, environment: &[String], more: &[&str]) -> Outcome {
        run("env", environment.iter().cloned().chain(self.words(verb, more)))
    }

    /// The builder with its arguments.
    fn words(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let (base, source) =
            (format!("python={}", self.base.display()), self.source.path().display().to_string());
        let (builder, state) = (program("countersign-builder").display().to_string(), self.text("state"));
        let own = [&builder, "--state-dir", &state, "--json", verb, "--repo", &source, "--base", &base];
        own.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// A build that signs what it did.
    fn build(&self, environment: &[String], more: &[&str]) -> Outcome {
        let (key, out) = (self.text("key.pem"), self.text("bundle.json"));
        let signing = [
            "--commit",
            &self.commit,
            "--key",
            &key,
            "--builder-id",
            "https://ci.example/",
            "--bundle-out",
            &out,
        ];
        self.call("build", environment, &[&signing, more].concat())
    }

    /// What was signed.
    fn statement(&self) -> String {
        let bytes = std::fs::read(self.text("bundle.json")).unwrap();
        format!("{:?}", attestations::Bundle::parse(&bytes).unwrap().statement_unverified().unwrap())
    }

    fn materials(&self, arguments: &[&str]) -> Outcome {
        let state = self.text("state");
        run(
            program("countersign-builder"),
            [&["--state-dir", &state, "--json", "materials"], arguments].concat(),
        )
    }
}

/// A plain proxy that says these bytes to whatever it is asked.
fn saying(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, bytes) = (stream.unwrap(), bytes.clone());
            std::thread::spawn(move || {
                let _ = (stream.read(&mut [0; 4096]), stream.write_all(&bytes));
            });
        }
    });
    format!("http_proxy=http://{address}")
}

const IGNORES: &str = r#"FROM python
RUN python3 - <<EOF
import urllib.request
try:
    urllib.request.urlopen("http://site.example/cut").read()
except Exception as error:
    open("/failed", "w").write(type(error).__name__)
EOF
"#;

/// The step did not mind that an answer broke off: the image is built, and nobody may say that its materials are complete.
#[test]
fn a_failure_that_the_step_ignored_is_told_and_cannot_be_replayed() {
    need!("runc", "mmdebstrap");
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello".to_vec();
    let bench = Bench::new(IGNORES);
    let built = bench.build(&[saying(cut)], &[]).expect(0).json();
    let told = built["unrecorded"].to_string();
    assert!(told.contains("line 2") && told.contains("GET http://site.example/cut"), "{built}");
    assert!(told.contains("broke off") && told.contains("5 bytes had reached the step"), "{told}");
    assert_eq!(built["exchanges"], 0, "{built}");
    let told = bench.statement();
    assert!(told.contains("Incomplete"), "{told}");
    let trusted = bench.text("key.pem.pub");
    let bundle = bench.text("bundle.json");
    let again = bench.call("rebuild", &[], &["--provenance", &bundle, "--builder-keys", &trusted]);
    assert!(again.code != 0 && again.text().contains("http://site.example/cut"), "{}", again.text());
}

/// A file system of a few megabytes, gone when dropped.
struct Tiny(String);

impl Tiny {
    fn at(path: String) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        run("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", &path]).expect(0);
        Self(path)
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        run("umount", ["--lazy", &self.0]);
    }
}

#[test]
fn a_full_disk_while_recording_is_no_build_and_nothing_counts() {
    need!("runc", "mmdebstrap");
    // The step would not even mind.
    let bench = Bench::new(
        "FROM python\nRUN python3 -c \"import urllib.request as u; u.urlopen('http://site.example/big').read()\" || true\n",
    );
    let tiny = Tiny::at(bench.text("state/materials"));
    let mut big = b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n".to_vec();
    big.resize(big.len() + 8_000_000, b'x');
    let full = bench.build(&[saying(big)], &[]).expect(8);
    let told = full.json().to_string();
    assert!(told.contains("line 2") && told.contains("GET http://site.example/big"), "{told}");
    assert!(told.contains("could not be kept") && told.contains("No space left"), "{told}");
    assert!(!PathBuf::from(bench.text("bundle.json")).exists());
    let listed = bench.materials(&["list"]).expect(0).json();
    assert!(listed["materials"].as_array().unwrap().is_empty(), "{listed}");
    let blobs = std::fs::read_dir(format!("{}/blobs/sha256", tiny.0)).unwrap().count();
    assert_eq!(blobs, 0, "nothing half-written is left");
    // With room for it, the same store is fine.
    let small = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    bench.build(&[saying(small)], &[]).expect(0);
    bench.materials(&["verify"]).expect(0);
}

/// A site under TLS with an authority of its own, by `openssl`.
struct Secure {
    child: Child,
    address: SocketAddr,
    authority: String,
}

impl Secure {
    fn start(bench: &Bench) -> Self {
        let (key, authority) = (bench.text("site.key"), bench.text("site.pem"));
        let subject = [
            "-subj",
            "/CN=site.example",
            "-addext",
            "subjectAltName=DNS:site.example",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        let made = [
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", &key, "-out",
            &authority,
        ];
        run("openssl", [&made[..], &subject[..]].concat()).expect(0);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = [
            "s_server",
            "-quiet",
            "-www",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-key",
            &key,
            "-cert",
            &authority,
        ];
        let child =
            Command::new("openssl").args(listen).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "openssl does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address, authority }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// A proxy that tunnels to one server whoever shows `user:hunter2`, and what it was asked.
fn tunnelling(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, log) = (stream.unwrap(), log.clone());
            std::thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let knows = head.to_lowercase().contains("basic dxnlcjpodw50zxiy");
                log.lock().unwrap().push(head);
                if !knows {
                    let no = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                    return stream.write_all(no).unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let server = TcpStream::connect(to).unwrap();
                let (mut from, mut up) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut up));
                let _ = std::io::copy(&mut &server, &mut stream);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, seen)
}

const ASKS: &str = "FROM python\nRUN python3 -c \"import urllib.request as u; u.urlopen('https://site.example/x').read()\"\n";

#[test]
fn proxies_and_authorities_are_used_where_they_were_named() {
    need!("runc", "mmdebstrap", "openssl");
    let bench = Bench::new(ASKS);
    let site = Secure::start(&bench);
    let (proxy, seen) = tunnelling(site.address);
    let through = |user: &str, except: &str| {
        vec![format!("https_proxy=http://{user}@{proxy}"), format!("no_proxy={except}")]
    };
    let known = through("user:hunter2", "127.0.0.1");
    let built = bench.build(&known, &["--extra-ca", &site.authority]).expect(0).json();
    assert_eq!((&built["exchanges"], &built["unrecorded"]), (&1.into(), &serde_json::json!([])), "{built}");
    assert!(seen.lock().unwrap().iter().all(|head| head.starts_with("CONNECT site.example:443 ")));
    let variable = [format!("COUNTERSIGN_EXTRA_CA={}", site.authority)];
    bench.build(&[&known[..], &variable[..]].concat(), &[]).expect(0);

    let untrusted = bench.build(&known, &[]).expect(5).text();
    assert!(
        untrusted.contains("GET https://site.example/x") && untrusted.contains("certificate"),
        "{untrusted}"
    );
    let stranger = bench.build(&[&through("user:wr0ng", "127.0.0.1")[..], &variable[..]].concat(), &[]);
    let stranger = stranger.expect(5).text();
    assert!(stranger.contains("GET https://site.example/x") && !stranger.contains("wr0ng"), "{stranger}");
    // Where no proxy is to be used, none is asked: the name leads nowhere.
    let before = seen.lock().unwrap().len();
    bench.build(&[&through("user:hunter2", ".example")[..], &variable[..]].concat(), &[]).expect(5);
    assert_eq!(seen.lock().unwrap().len(), before);
    std::fs::write(bench.text("none.pem"), "no certificate\n").unwrap();
    let none = bench.build(&[], &["--extra-ca", &bench.text("none.pem")]).expect(3).text();
    assert!(none.contains("none.pem") && none.contains("no certificate"), "{none}");
}

/// A base of a registry that only a mirror knows: the provenance names the base as the Dockerfile does, by its digest.
#[test]
fn a_base_comes_from_a_mirror_and_keeps_its_name() {
    need!("runc", "mmdebstrap", "docker-registry", "skopeo");
    let registry = Registry::start();
    let bench = Bench::new("FROM python AS unused\nFROM registry.example/team/python:1\nCOPY Dockerfile /\n");
    let to = format!("docker://{}/team/python:1", registry.name("hub"));
    let from = format!("oci:{}", bench.base.display());
    run("skopeo", ["copy", "--dest-tls-verify=false", &from, &to]).expect(0);
    let file = bench.text("registries.toml");
    let mirror = registry.name("hub");
    let text = |more: &str| {
        format!(
            "[[registry]]\nname = \"registry.example\"\nonly = true\n[[registry.mirror]]\nat = \"{mirror}\"\n{more}"
        )
    };
    std::fs::write(&file, text("")).unwrap();
    let no_tags = bench.build(&[], &["--registries", &file]).expect(3).text();
    assert!(no_tags.contains("tags = true"), "{no_tags}");
    std::fs::write(&file, text("tags = true\n")).unwrap();
    bench.build(&[format!("COUNTERSIGN_REGISTRIES={file}")], &[]).expect(0);
    let statement = bench.statement();
    assert!(statement.contains("oci://registry.example/team/python@sha256:"), "{statement}");
    assert!(!statement.contains(&registry.host()), "{statement}");
}

/// Runs a builder in a network of its own, where `10.1.2.3` is the only server there is, and two names lead to it.
const PRIVATE_NETWORK: &str = r#"
mount --bind "$1/hosts" /etc/hosts && ip link set lo up && ip addr add 10.1.2.3/32 dev lo || exit 99
/bin/busybox httpd -f -p 10.1.2.3:80 -h "$1/www" &
server=$!
shift
"$@"
code=$?
kill $server
exit $code
"#;

/// A step asks by a name that somebody pointed at the builder's own network; only by a name that was permitted does it get
/// there.
#[test]
fn private_addresses_are_reached_only_by_permitted_names() {
    need!("runc", "mmdebstrap", "unshare", "ip");
    let bench = Bench::new(
        "FROM python\nRUN python3 -c \"import urllib.request as u; u.urlopen('http://intranet.example/x').read()\"\n",
    );
    std::fs::create_dir(bench.text("www")).unwrap();
    std::fs::write(bench.text("www/x"), "patients").unwrap();
    let hosts = "127.0.0.1 localhost\n10.1.2.3 intranet.example other.example\n";
    std::fs::write(bench.text("hosts"), hosts).unwrap();
    let inside = |verb: &str, more: &[&str]| {
        let folder = bench.text("");
        let unset = ["-u", "COUNTERSIGN_ALLOW_PRIVATE"];
        let around = ["unshare", "--net", "--mount", "sh", "-c", PRIVATE_NETWORK, "sh", &folder];
        let around = unset.into_iter().chain(around).map(str::to_owned);
        run("env", around.chain(bench.words(verb, more)))
    };
    let build = |more: &[&str]| inside("build", &[&["--commit", &bench.commit], more].concat());
    let refused = build(&[]).expect(5).text();
    for words in ["GET http://intranet.example/x", "10.1.2.3", "--allow-private intranet.example"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    build(&["--allow-private", "other.example"]).expect(5);
    let built = build(&["--allow-private", "intranet.example"]).expect(0).json();
    assert_eq!(built["exchanges"], 1, "{built}");
    let no_name = build(&["--allow-private", "10.1.2.3"]).expect(2).text();
    assert!(no_name.contains("--allow-private") && no_name.contains("IP address"), "{no_name}");
}
