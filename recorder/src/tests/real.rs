//! Real clients in a network namespace of their own: resolver, sockets, TLS and HTTP are all theirs, and the ports
//! are the real ones.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Output;

use attestations::Digest;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::servers::{Script, tls};
use super::*;

/// A named network namespace with the block on its loopback, deleted when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Option<Namespace> {
        let name = format!("cs-capture-{}", std::process::id());
        let made = sh(&format!(
            "ip netns add {name} && ip -n {name} link set lo up && ip -n {name} addr add 198.18.0.1/15 dev lo &&
             mkdir -p /etc/netns/{name} && echo nameserver 127.0.0.1 > /etc/netns/{name}/resolv.conf"
        ));
        let this = Namespace(name);
        if made.status.success() && sh("python3 -m pip --version && curl --version").status.success() {
            return Some(this);
        }
        testing::skip("needs root, ip, curl and pip");
        None
    }

    /// Creates the sockets from inside, as the sandbox does.
    fn sockets(&self) -> Sockets {
        let path = format!("/var/run/netns/{}", self.0);
        let make = move || {
            let namespace = std::fs::File::open(path).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let tcp = |address: &str| TcpListener::bind(address).unwrap();
            Sockets {
                dns_udp: UdpSocket::bind("127.0.0.1:53").unwrap(),
                dns_tcp: tcp("127.0.0.1:53"),
                endpoints: vec![(Endpoint::HTTP, tcp("0.0.0.0:80")), (Endpoint::HTTPS, tcp("0.0.0.0:443"))],
                watch: None,
            }
        };
        // The thread that entered the namespace ends here; no other thread was moved.
        std::thread::spawn(make).join().unwrap()
    }

    async fn run(&self, command: &str) -> Output {
        let command = format!("exec ip netns exec {} {command}", self.0);
        tokio::task::spawn_blocking(move || sh(&command)).await.unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        sh(&format!("ip netns del {0}; rm -rf /etc/netns/{0}", self.0));
    }
}

fn sh(command: &str) -> Output {
    let mut shell = std::process::Command::new("sh");
    for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        shell.env_remove(variable);
    }
    shell.args(["-c", command]).output().unwrap()
}

/// The smallest wheel that pip installs.
fn wheel(dir: &Path) -> Vec<u8> {
    let script = "import zipfile\n\
        z = zipfile.ZipFile('tiny-1.0-py3-none-any.whl', 'w')\n\
        i = 'tiny-1.0.dist-info/'\n\
        z.writestr('tiny.py', 'x = 1\\n')\n\
        z.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')\n\
        z.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        z.writestr(i + 'RECORD', 'tiny.py,,\\n' + i + 'METADATA,,\\n' + i + 'WHEEL,,\\n' + i + 'RECORD,,\\n')\n\
        z.close()\n";
    let made = std::process::Command::new("python3").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::read(dir.join("tiny-1.0-py3-none-any.whl")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_and_curl_know_nothing_of_the_recorder() {
    let Some(namespace) = Namespace::new() else { return };
    let dir = tempfile::TempDir::new().unwrap();
    let wheel = wheel(dir.path());
    let file = "/files/tiny-1.0-py3-none-any.whl";
    let page =
        format!("<!DOCTYPE html><html><body><a href=\"{file}\">tiny-1.0-py3-none-any.whl</a></body></html>");
    let site = HashMap::from([
        ("/simple/tiny/".to_owned(), ("text/html", page.clone().into_bytes())),
        (file.to_owned(), ("application/octet-stream", wheel.clone())),
    ]);
    let (index, _, root) = tls("index.example", Script::Site(Arc::new(site))).await;
    let upstream = Upstream::system().with_root(root).with_address("index.example", index);
    let capture = Recorder::with_options(Handle::current(), Mode::Record(None), options(upstream)).unwrap();
    let planted = capture.serve(namespace.sockets(), &StepId::new("stage", 1), &Arc::default()).unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, capture.ca_pem()).unwrap();
    let (ca, target) = (ca.display(), dir.path().join("target"));

    // Tools trust the CA through the variables that a build sets.
    let trust =
        format!("env SSL_CERT_FILE={ca} REQUESTS_CA_BUNDLE={ca} PIP_CERT={ca} PIP_CONFIG_FILE=/dev/null");
    let pip = "python3 -m pip --disable-pip-version-check install -q --no-cache-dir --no-compile";
    let pip =
        format!("{trust} {pip} --index-url https://index.example/simple --target {} tiny", target.display());
    let installed = namespace.run(&pip).await;
    assert!(installed.status.success(), "{installed:?}");
    assert_eq!(std::fs::read_to_string(target.join("tiny.py")).unwrap(), "x = 1\n");

    // Only names and the two ports can be reached.
    for url in ["https://192.0.2.1/", "http://198.18.0.1:8080/", "http://[2001:db8::1]/"] {
        let refused = namespace.run(&format!("curl -sS -g -m 5 --cacert {ca} {url}")).await;
        assert_eq!(refused.status.code(), Some(7), "{url}: {refused:?}");
    }
    let unnamed = namespace.run("curl -sS -m 5 http://198.18.99.99/").await;
    assert!(!unnamed.status.success(), "{unnamed:?}");
    let untrusting = namespace.run("curl -sS -m 5 --cacert /dev/null https://index.example/").await;
    assert!(!untrusting.status.success(), "{untrusting:?}");

    let record = tokio::task::spawn_blocking(move || planted.finish()).await.unwrap();
    assert_eq!(kinds(&record), [IncidentKind::UnknownAddress, IncidentKind::ClientTls]);
    let list: Vec<_> = record
        .step
        .sorted()
        .into_iter()
        .map(|e| (e.request.url.as_str(), e.response.status, e.response.body))
        .collect();
    let url = |path: &str| format!("https://index.example{path}");
    let (first, second) = (url(file), url("/simple/tiny/"));
    assert_eq!(
        list,
        [(first.as_str(), 200, Digest::of(&wheel)), (second.as_str(), 200, Digest::of(page.as_bytes()))]
    );
}
