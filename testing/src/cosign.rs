//! The real cosign, built by `scripts/clients`: another program that reads and writes what is signed here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::programs::Outcome;

/// The version whose answers the tests expect.
const VERSION: &str = "3.1.3";

/// What makes `cosign attest` and `attest-blob` sign with a key alone, without asking any server.
const OFFLINE: [&str; 2] = ["--use-signing-config=false", "--tlog-upload=false"];

/// cosign with a home of its own, and nobody on the network but the test's registry.
pub struct Cosign {
    program: PathBuf,
    home: PathBuf,
}

impl Cosign {
    /// cosign, keeping what it keeps in `home`. None, recorded as a skip, where it was not built.
    #[track_caller]
    pub fn find(home: &Path) -> Option<Self> {
        let found = Self::installed(home);
        if found.is_none() {
            crate::skip(&format!("needs cosign {VERSION}; `make test` builds it where Go is"));
        }
        found
    }

    /// The same for a benchmark, which has its own words where it is not here.
    pub fn installed(home: &Path) -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
        let program = tools.join(format!("cosign-{VERSION}/bin/cosign"));
        program.exists().then(|| Self { program, home: home.to_owned() })
    }

    /// Runs it to its end.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Outcome {
        self.command().args(arguments).output().unwrap().into()
    }

    /// It, ready to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", &self.home).env("COSIGN_PASSWORD", "").stdin(Stdio::null());
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            // Whatever it wants to ask beyond the loopback fails at once.
            command.env(proxy, "http://127.0.0.1:9");
        }
        command.env("no_proxy", "127.0.0.1").env("NO_PROXY", "127.0.0.1");
        command
    }

    /// A private key of ours in cosign's own form, as `PREFIX.key`; its path.
    pub fn import(&self, key: &str, prefix: &str) -> String {
        self.run(["import-key-pair", "--key", key, "--output-key-prefix", prefix]).expect(0);
        format!("{prefix}.key")
    }

    /// Attests a predicate about an image, and attaches it.
    pub fn attest(&self, key: &str, kind: &str, predicate: &str, image: &str, more: &[&str]) -> Outcome {
        let attest = ["attest", "--key", key, "--type", kind, "--predicate", predicate];
        self.run(attest.into_iter().chain(OFFLINE).chain(more.iter().copied()).chain([image]))
    }

    /// Verifies what is attached to an image, offline and without a trusted root.
    pub fn verify_attestation(&self, key: &str, kind: &str, image: &str) -> Outcome {
        self.run(["verify-attestation", "--key", key, "--type", kind, "--insecure-ignore-tlog=true", image])
    }

    /// Verifies a bundle in a file. `about` says what it is about, as cosign wants to be told.
    pub fn verify_blob(&self, key: &str, bundle: &str, about: &[&str]) -> Outcome {
        let verify =
            ["verify-blob-attestation", "--key", key, "--bundle", bundle, "--insecure-ignore-tlog=true"];
        self.run(verify.into_iter().chain(about.iter().copied()))
    }
}
