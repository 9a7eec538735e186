//! What recording costs: beside the same commands with a plain network, in one run. Medians of pairs, never a verdict.
//!
//! `cargo bench -p tests --bench network` as root, with the programs built in release mode. `ROUNDS` says how many pairs
//! (default 3), `ONLY` which rows. The peer is the base's own tree,
//! entered with `chroot`, on the machine's own network. Memory is the peak of the whole builder (`VmHWM`).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use testing::timing::Table;
use testing::{Outcome, Repository, cannot_run, program, python_base, run};

/// Bytes of the one large file.
const LARGE: usize = 2 << 30;
/// Exchanges of many.
const MANY: usize = 10_000;
const BLOCK: usize = 1 << 20;
/// The machine's list of certificates, which the peer has to be given.
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Takes a large file and leaves it.
const TAKE: &str = r#"
import sys, time, http.client
host, port = sys.argv[1].split(":")
begun = time.monotonic()
connection = http.client.HTTPConnection(host, int(port))
connection.request("GET", "/large")
answer = connection.getresponse()
buffer, total = bytearray(1 << 20), 0
while count := answer.readinto(buffer):
    total += count
print("took", time.monotonic() - begun, total)
"#;

/// Asks for many small ones on one connection.
const ASK: &str = r#"
import sys, time, http.client
host, port = sys.argv[1].split(":")
begun = time.monotonic()
connection = http.client.HTTPConnection(host, int(port))
for number in range(10000):
    connection.request("GET", f"/small/{number}")
    assert len(connection.getresponse().read()) == 100
print("took", time.monotonic() - begun)
"#;

/// An ordinary install.
const INSTALL: &str = r#"
import subprocess, time
begun = time.monotonic()
subprocess.run(["pip", "install", "--quiet", "--no-cache-dir", "--target", "/installed", "vantage6-algorithm-tools==4.15.2"], check=True)
print("took", time.monotonic() - begun)
"#;

fn main() {
    if let Some(reason) = cannot_run(&["runc", "mmdebstrap", "git", "chroot", "umoci"]) {
        println!("*** SKIP: {reason} ***");
        return;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let server = Server::start();
    let plain = Plain::new(place.path());
    let table = Table::seconds(std::env::var("ROUNDS").map_or(3, |text| text.parse().unwrap()));
    let only = std::env::var("ONLY").unwrap_or_default();
    let memory = Mutex::new(0_u64);
    let row = |what: &str, aim: &str, program: &str| {
        if !what.contains(&only) {
            return;
        }
        let ours = Ours::new(place.path(), program, &server);
        let recorded = || {
            let (seconds, peak) = ours.build();
            let mut most = memory.lock().unwrap();
            *most = peak.max(*most);
            seconds
        };
        table.pairs(what, aim, recorded, || plain.run(program, &server));
        println!("| its peak memory | {} MiB | – | – | ≤ 64 MiB |", memory.lock().unwrap().div_ceil(1024));
        *memory.lock().unwrap() = 0;
    };
    row("`pip install` of 33 packages, recorded / plain", "≤ 1.05", INSTALL);
    row(&format!("one file of {} GiB on loopback, recorded / plain", LARGE >> 30), "≥ 500 MB/s", TAKE);
    row(&format!("{MANY} small exchanges on loopback, recorded / plain"), "–", ASK);
}

/// How long the program itself said that it took.
fn took(said: &Outcome) -> f64 {
    let text = said.text();
    let found = text.split("took ").nth(1).unwrap_or_else(|| panic!("{text}"));
    let figure: String = found.chars().take_while(|it| it.is_ascii_digit() || *it == '.').collect();
    figure.parse().unwrap()
}

/// The builder, which records.
struct Ours {
    state: PathBuf,
    source: Repository,
    commit: String,
    proxy: String,
}

impl Ours {
    fn new(place: &Path, program: &str, server: &Server) -> Self {
        let source = Repository::new();
        let run = "RUN --mount=type=bind,source=program.py,target=/program.py python3 /program.py server.example:80\n";
        source.write("Dockerfile", &format!("FROM python\n{run}"));
        source.write("program.py", program);
        let commit = source.commit("a program");
        Self { state: place.join("state"), source, commit, proxy: format!("http://{}", server.address) }
    }

    /// The seconds of the command, and the most memory of the builder in KiB.
    fn build(&self) -> (f64, u64) {
        let base = format!("python={}", python_base().display());
        let mut command = Command::new(program("countersign-builder"));
        command
            .args(["--json", "--state-dir"])
            .arg(&self.state)
            .arg("build")
            .arg("--repo")
            .arg(self.source.path());
        command.args(["--commit", &self.commit, "--base", &base]);
        // The name is no real one: it leads to the server here as to a proxy. The real ones are asked directly.
        command
            .env("http_proxy", &self.proxy)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let watching = thread::spawn(move || {
            let mut peak = 0;
            while let Ok(text) = std::fs::read_to_string(&status) {
                let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
                peak = line.split_whitespace().next().unwrap().parse().unwrap();
                thread::sleep(std::time::Duration::from_millis(20));
            }
            peak
        });
        let said = Outcome::from(child.wait_with_output().unwrap()).expect(0);
        (took(&said), watching.join().unwrap())
    }
}

/// The base's tree on the machine's own network.
struct Plain {
    root: PathBuf,
}

impl Plain {
    fn new(place: &Path) -> Self {
        let (layout, bundle) = (place.join("layout"), place.join("plain"));
        let to = format!("oci:{}:base", layout.display());
        run("skopeo", ["copy", "--quiet", &format!("oci:{}", python_base().display()), &to]).expect(0);
        let image = format!("{}:base", layout.display());
        run("umoci", ["unpack", "--image", &image, bundle.to_str().unwrap()]).expect(0);
        let root = bundle.join("rootfs");
        for file in [CERTIFICATES, "etc/resolv.conf", "etc/hosts"] {
            let _ = std::fs::remove_file(root.join(file));
            std::fs::copy(Path::new("/").join(file), root.join(file)).unwrap();
        }
        // A tree has no device nodes, and pip wants one.
        let null = root.join("dev/null");
        std::fs::create_dir_all(root.join("dev")).unwrap();
        let _ = std::fs::remove_file(&null);
        run("mknod", ["-m", "666", null.to_str().unwrap(), "c", "1", "3"]).expect(0);
        Self { root }
    }

    fn run(&self, program: &str, server: &Server) -> f64 {
        let _ = std::fs::remove_dir_all(self.root.join("installed"));
        std::fs::write(self.root.join("program.py"), program).unwrap();
        let root = self.root.to_str().unwrap();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let address = server.address.to_string();
        let words =
            ["--ignore-environment", path, "HOME=/root", "chroot", root, "python3", "/program.py", &address];
        took(&run("env", words).expect(0))
    }
}

/// A server that does as little as one can: a head, and blocks that lie ready.
struct Server {
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || serve(&stream.unwrap()));
            }
        });
        Self { address }
    }
}

/// Whoever goes away in between is not waited for.
fn serve(stream: &TcpStream) -> Option<()> {
    // As servers do: the body of a small answer must not wait until its head is acknowledged.
    stream.set_nodelay(true).ok()?;
    let block = vec![7_u8; BLOCK];
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let size = if first.contains("/large") { LARGE } else { 100 };
        out.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).ok()?;
        let mut left = size;
        while left > 0 {
            let count = left.min(BLOCK);
            out.write_all(&block[..count]).ok()?;
            left -= count;
        }
    }
}
