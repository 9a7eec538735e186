//! Docker and BuildKit, each with the base at hand and with this machine's list of certificates in it: what they run must
//! trust whatever stands between here and the registries, as ours does without an edit.

use std::path::Path;

use testing::timing::seconds;
use testing::{BuildKit, Engine, python_base, run};

use crate::BASE;

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Docker's engine, with the base loaded.
pub(crate) struct Docker {
    engine: Engine,
}

impl Docker {
    pub(crate) fn start(place: &Path) -> Self {
        let engine = Engine::start();
        engine.load(&python_base(), "plain:1");
        let context = place.join("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::copy(CERTIFICATES, context.join("list")).unwrap();
        std::fs::write(context.join("Dockerfile"), format!("FROM plain:1\nCOPY list {CERTIFICATES}\n"))
            .unwrap();
        engine.build(&["--tag", BASE, context.to_str().unwrap()]).expect(0);
        Self { engine }
    }

    /// Pushes the base, so that nobody's pushing of what stands on it begins with that.
    pub(crate) fn push_base(&self, name: &str) {
        self.engine.docker(["tag", BASE, name]).expect(0);
        self.engine.docker(["push", "--quiet", name]).expect(0);
    }

    /// Builds a tree without its cache; the seconds.
    pub(crate) fn build(&self, tree: &Path) -> f64 {
        let taken = seconds(|| self.call(tree, "built"));
        self.forget("built");
        taken
    }

    /// Builds a tree without its cache and pushes the image; the seconds.
    pub(crate) fn publish(&self, tree: &Path, name: &str) -> f64 {
        let taken = seconds(|| {
            self.call(tree, name);
            self.engine.docker(["push", "--quiet", name]).expect(0)
        });
        self.forget(name);
        taken
    }

    fn call(&self, tree: &Path, name: &str) {
        self.engine.build(&["--network", "host", "--tag", name, tree.to_str().unwrap()]).expect(0);
    }

    fn forget(&self, name: &str) {
        self.engine.docker(["image", "rm", "--force", name]).expect(0);
        self.engine.docker(["builder", "prune", "--force"]).expect(0);
    }
}

/// BuildKit with the same base, if it is installed.
pub(crate) fn buildkit(place: &Path, docker: &Docker) -> Option<BuildKit> {
    let (archive, layout) = (place.join("base.tar").display().to_string(), place.join("base"));
    docker.engine.docker(["save", "--output", &archive, BASE]).expect(0);
    let to = format!("oci:{}:base", layout.display());
    run("skopeo", ["copy", "--quiet", &format!("docker-archive:{archive}"), &to]).expect(0);
    BuildKit::start(&layout, BASE)
}

/// Builds a tree without its cache, with the settings that its documentation gives for repeatable images; the seconds.
pub(crate) fn reproducible(buildkit: &BuildKit, tree: &Path, archive: &Path) -> f64 {
    let epoch = ["--opt=build-arg:SOURCE_DATE_EPOCH=1700000000".to_owned()];
    let output = format!("type=oci,dest={},rewrite-timestamp=true", archive.display());
    seconds(|| buildkit.build(tree, "host", &output, &epoch).expect(0))
}
