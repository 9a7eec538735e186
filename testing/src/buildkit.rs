//! BuildKit's own daemon, of its newest kind, where it is installed. No package of Debian's has it, so no test may need it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::programs::{Outcome, end, run};

/// A running daemon that has one base at hand; ended when dropped.
pub struct BuildKit {
    daemon: Child,
    folder: TempDir,
    base: String,
    layout: PathBuf,
    digest: String,
}

impl BuildKit {
    /// Starts one whose base is the one image of an OCI layout, called `base` in Dockerfiles. `None` where `buildkitd` and
    /// `buildctl` are not on the PATH.
    pub fn start(layout: &Path, base: &str) -> Option<Self> {
        Command::new("buildctl").arg("--version").output().ok()?;
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let from = format!("oci:{}", layout.display());
        let inspected = run("skopeo", ["inspect", "--format", "{{.Digest}}", &from]).expect(0);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let daemon = Command::new("buildkitd")
            .args(["--addr", &address(&folder), "--root", folder.path().join("root").to_str().unwrap()])
            .args(["--oci-worker-net", "host", "--allow-insecure-entitlement", "network.host"])
            .args(["--oci-worker-gc=false", "--containerd-worker=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .ok()?;
        let (base, layout) = (base.to_owned(), layout.to_owned());
        let buildkit = Self { daemon, folder, base, layout, digest: inspected.stdout.trim().to_owned() };
        let limit = Instant::now() + Duration::from_secs(30);
        while run("buildctl", ["--addr", &address(&buildkit.folder), "debug", "workers"]).code != 0 {
            let log = std::fs::read_to_string(buildkit.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < limit, "buildkitd did not start:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(buildkit)
    }

    /// Builds a tree without its cache, on a network (`host`, `none`), to an output as `buildctl` writes it.
    pub fn build(&self, tree: &Path, network: &str, output: &str, more: &[String]) -> Outcome {
        let tree = tree.display();
        let arguments = [
            "--addr".to_owned(),
            address(&self.folder),
            "build".to_owned(),
            "--no-cache".to_owned(),
            "--progress=plain".to_owned(),
            "--frontend=dockerfile.v0".to_owned(),
            format!("--local=context={tree}"),
            format!("--local=dockerfile={tree}"),
            format!("--opt=context:{}=oci-layout://base@{}", self.base, self.digest),
            format!("--oci-layout=base={}", self.layout.display()),
            format!("--opt=force-network-mode={network}"),
            "--allow=network.host".to_owned(),
            format!("--output={output}"),
        ];
        run("buildctl", arguments.iter().chain(more))
    }
}

fn address(folder: &TempDir) -> String {
    format!("unix://{}", folder.path().join("socket").display())
}

impl Drop for BuildKit {
    fn drop(&mut self) {
        end(&mut self.daemon);
    }
}
