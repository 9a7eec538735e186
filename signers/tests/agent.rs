//! Keys in OpenSSH's own agent.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use signers::PasswordSource;

/// A running `ssh-agent`; ended when dropped.
struct Agent {
    child: Child,
    folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", socket.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self { child, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Makes a key, adds it, and leaves nothing but its public half.
    fn add(&self, kind: &str, comment: &str) -> PathBuf {
        let path = self.folder.path().join(comment);
        let text = path.to_str().unwrap();
        run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", comment, "-f", text]);
        let added = Command::new("ssh-add").arg(text).env("SSH_AUTH_SOCK", self.socket()).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        std::fs::remove_file(&path).unwrap();
        path.with_extension("pub")
    }

    fn open(&self, name: &str) -> Result<Box<dyn attestations::Signer>, String> {
        let (name, socket) = (Path::new(name), Some(self.socket().into_os_string()));
        let opened = signers::open_at(name, &PasswordSource::of(None), &mut |_| {}, socket);
        opened.map_err(|error| error.to_string())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

#[test]
fn an_agents_keys_sign_as_a_file_would() {
    let agent = Agent::start();
    for (kind, comment) in [("ed25519", "one"), ("ecdsa", "two")] {
        let public = agent.add(kind, comment);
        let known = attestations::PublicKey::parse(&std::fs::read_to_string(&public).unwrap()).unwrap();
        for name in [format!("ssh-agent:{comment}"), format!("ssh-agent:{}", public.display())] {
            let signer = agent.open(&name).unwrap();
            assert_eq!(signer.public_key().id(), known.id());
            // More than once: of P-256's numbers, some are shorter, and some begin with a zero.
            for number in 0..40 {
                let message = format!("message {number}");
                let signature = signer.sign(message.as_bytes()).unwrap();
                known.verify(message.as_bytes(), &signature).unwrap();
            }
        }
    }
    let told = agent.open("ssh-agent:").err().unwrap();
    assert!(told.contains("several such keys"), "{told}");
    let told = agent.open("ssh-agent:three").err().unwrap();
    assert!(told.contains("no such key") && told.contains("`one` (Ed25519)"), "{told}");
}

#[test]
fn what_an_agent_has_and_cannot_be_used_is_said() {
    let agent = Agent::start();
    assert!(agent.open("ssh-agent").err().unwrap().contains("it has none"));
    agent.add("rsa", "old");
    let told = agent.open("ssh-agent").err().unwrap();
    assert!(told.contains("ssh-rsa: only Ed25519 and P-256 can be used"), "{told}");
    assert!(agent.open("ssh-agent:old").err().unwrap().contains("only Ed25519 and P-256"));
    let nobody = signers::open_at(Path::new("ssh-agent"), &PasswordSource::of(None), &mut |_| {}, None);
    assert!(nobody.err().unwrap().to_string().contains("SSH_AUTH_SOCK"));
}

/// An agent of a few lines that answers with these bytes, whatever it is asked, and with a security key in its list.
#[test]
fn a_strange_agent_is_refused() {
    let field = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let key = [field(b"sk-ssh-ed25519@openssh.com"), field(&[1; 32]), field(b"ssh:")].concat();
    let list = [&[12, 0, 0, 0, 1][..], &field(&key), &field(b"yubikey")].concat();
    let cases: [(Vec<u8>, &str); 5] = [
        (field(&list), "a security key signs a counter"),
        (field(&[5]), "does not list its keys"),
        (field(&[12, 0xff, 0xff, 0xff, 0xff]), "too many keys"),
        (field(&[12, 0, 0, 0, 1, 0, 0, 1, 0]), "cut off"),
        (vec![0xff, 0xff, 0xff, 0xff], "too long"),
    ];
    for (answer, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
        });
        let name = Path::new("ssh-agent:yubikey");
        let opened = signers::open_at(name, &PasswordSource::of(None), &mut |_| {}, Some(socket.into()));
        let told = opened.err().unwrap().to_string();
        assert!(told.contains(reason), "{reason}: {told}");
    }
}
