//! Images for other processors than this machine's.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use attestations::{Bundle, Digest, Predicate};
use images::layer::{LayerLimits, open_archive};
use images::{Image, Store};
use testing::files::Root;
use testing::{FOREIGN, Outcome, Repository, builder, foreign_base, has_emulator, need, program, run};

/// What the processor says is in the image, and so is what the Dockerfile is told.
const DOCKERFILE: &str = "FROM base:1
ARG TARGETPLATFORM TARGETARCH BUILDPLATFORM
RUN busybox uname -m >/machine && echo $TARGETPLATFORM $TARGETARCH $BUILDPLATFORM >/told
RUN echo \"$(cat /machine) again\" >>/machine && ls / >/listing
";

struct Place {
    folder: tempfile::TempDir,
    base: PathBuf,
    repository: Repository,
}

impl Place {
    fn new(dockerfile: &str) -> (Self, String) {
        let folder = tempfile::TempDir::new().unwrap();
        let base = foreign_base(folder.path(), FOREIGN);
        let repository = Repository::new();
        repository.write("Dockerfile", dockerfile);
        repository.write("a.txt", "a\n");
        let commit = repository.commit("one");
        builder(["keygen", "--no-password", "--out", &folder.path().join("key").display().to_string()])
            .expect(0);
        (Self { folder, base, repository }, commit)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn arguments(&self, state: &str, commit: &str, more: &[&str]) -> Vec<String> {
        let (state, repository) = (self.path(state), self.repository.path().display().to_string());
        let base = format!("base:1={}", self.base.display());
        let platform = format!("linux/{FOREIGN}");
        let fixed = ["--state-dir", &state, "--json", "build", "--repo", &repository, "--commit", commit];
        let fixed = fixed.into_iter().chain(["--base", &base]);
        let all = fixed.chain(more.iter().copied()).chain(["--platform", &platform]);
        all.map(str::to_owned).collect()
    }
}

/// Our builder where the kernel's list of emulators cannot be seen; nothing of the machine is changed.
fn without_emulators(arguments: Vec<String>) -> Outcome {
    let list = "/proc/sys/fs/binfmt_misc";
    let script = format!("[ ! -d {list} ] || mount -t tmpfs none {list} || exit 99; exec \"$@\"");
    let mut all = ["--mount", "--", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    all.push(program("countersign-builder").display().to_string());
    all.extend(arguments);
    run("unshare", all)
}

#[test]
fn without_an_emulator_only_commands_are_refused() {
    need!("runc", "git", "unshare", "mmdebstrap", "skopeo");
    let (place, runs) = Place::new(DOCKERFILE);
    let refused = without_emulators(place.arguments("state", &runs, &[])).expect(8);
    for words in [&format!("RUN) for linux/{FOREIGN}"), "apt-get install qemu-user-static binfmt-support"] {
        assert!(refused.text().contains(words), "{words} in {}", refused.text());
    }
    assert!(!place.folder.path().join("state/images").exists(), "nothing was begun");
    assert!(!refused.text().contains("\"event\":\"step\""), "{}", refused.text());
    // Nothing is run for a COPY.
    place.repository.write("Dockerfile", "FROM scratch\nCOPY a.txt /a\nENV A=1\nWORKDIR /w\n");
    let copies = place.repository.commit("two");
    let layout = place.path("layout");
    let built = without_emulators(place.arguments("state", &copies, &["--oci", &layout])).expect(0);
    let config = run("skopeo", ["inspect", "--config", "--raw", &format!("oci:{layout}")]).expect(0).json();
    assert_eq!((&config["architecture"], &config["os"]), (&FOREIGN.into(), &"linux".into()));
    let again = builder(place.arguments("again", &copies, &[])).expect(0);
    assert_eq!(again.json()["digest"], built.json()["digest"]);
}

#[test]
fn what_is_no_platform_is_refused() {
    need!("runc", "git", "mmdebstrap");
    let (place, commit) = Place::new(DOCKERFILE);
    for text in ["linux/amd46", "windows/amd64", "arm64"] {
        let mut arguments = place.arguments("state", &commit, &[]);
        *arguments.last_mut().unwrap() = text.to_owned();
        assert!(builder(arguments).expect(2).text().contains(text));
    }
    // The base is for one processor, and another is asked for.
    let mut arguments = place.arguments("state", &commit, &[]);
    *arguments.last_mut().unwrap() = images::Platform::here().to_string();
    let refused = builder(arguments).expect(3);
    assert!(
        refused.text().contains(&format!("the base base:1 is for linux/{FOREIGN}")),
        "{}",
        refused.text()
    );
}

#[test]
fn an_emulated_build_gives_the_same_bits_and_says_what_ran_it() {
    need!("runc", "git", "mmdebstrap");
    if !has_emulator() {
        return;
    }
    let (place, commit) = Place::new(DOCKERFILE);
    let (layout, bundle, key) = (place.path("layout"), place.path("bundle"), place.path("key"));
    let identity = ["--key", &key, "--builder-id", "https://ci.example/builder"];
    let more = ["--oci", &layout, "--bundle-out", &bundle];
    let built = builder(place.arguments("state", &commit, &[more, identity].concat())).expect(0).json();
    let again = builder(place.arguments("again", &commit, &[])).expect(0).json();
    assert_eq!(built["digest"], again["digest"]);

    let store = Store::open_existing(&layout).unwrap();
    let image = Image::load(&store, &built["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    assert_eq!(image.config().architecture, FOREIGN);
    let mut root = Root::default();
    for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()).skip(1) {
        root.apply(open_archive(&store, layer, Some(diff_id), LayerLimits::default()).unwrap().reader());
    }
    let machine = if FOREIGN == "arm64" { "aarch64" } else { "x86_64" };
    let read = |text: &str| format!("{} bytes, {}", text.len(), Digest::of(text.as_bytes()));
    let tree = root.finish();
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["listing", "machine", "told"], "nothing was planted");
    assert_eq!(tree["machine"].content, read(&format!("{machine}\n{machine} again\n")));
    assert_eq!(tree["told"].content, read(&format!("linux/{FOREIGN} {FOREIGN} linux/{FOREIGN}\n")));

    let signed = Bundle::parse(&std::fs::read(&bundle).unwrap()).unwrap();
    let Predicate::Provenance(provenance) = signed.statement_unverified().unwrap().into_value().predicate
    else {
        panic!("no provenance");
    };
    assert_eq!(provenance.build_definition.external_parameters.platform, format!("linux/{FOREIGN}"));
    let parts = &provenance.run_details.builder.version;
    let emulator = parts.iter().find(|(name, _)| name.starts_with("qemu-"));
    assert!(emulator.is_some_and(|(_, version)| version.starts_with("sha256:")), "{parts:?}");

    let base = format!("base:1={}", place.base.display());
    let (state, trusted) = (place.path("other"), place.path("key.pub"));
    let arguments = ["--state-dir", &state, "rebuild", "--provenance", &bundle, "--base", &base];
    let rebuilt = builder(arguments.iter().chain(&["--against", &layout, "--builder-keys", &trusted]));
    assert!(rebuilt.expect(0).stdout.contains("identical"));
}
