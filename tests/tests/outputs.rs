//! The image as files: what is written is the image, to whoever reads it.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::path::Path;

use attestations::Digest;
use images::layer::{LayerLimits, open_archive};
use images::{Image, Store};
use testing::files::{Root, Tree};
use testing::{Engine, Outcome, Place, need, run};

const DOCKERFILE: &str = r#"FROM base:1
RUN mkdir -p /d/e && echo 1 >/d/a && ln /d/a /d/hard && ln -s a /d/link && mkfifo /d/pipe && echo 2 >/gone
RUN rm /gone && chown -h -R 5:6 /d && chmod 4750 /d/a && chmod 1777 /d/e
LABEL own=yes kept=yes
CMD ["cat", "/d/a"]
"#;

fn build(place: &Place, outputs: &[String]) -> Outcome {
    let mut words = vec!["--label", "own=no", "--label", "more=1"];
    words.extend(outputs.iter().flat_map(|output| ["--output", output.as_str()]));
    place.build(&words)
}

/// The root file system that the layers make.
fn of_layers(store: &Store, image: &Image) -> Tree {
    let mut root = Root::default();
    for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()) {
        root.apply(open_archive(store, layer, Some(diff_id), LayerLimits::default()).unwrap().reader());
    }
    root.finish()
}

fn of_archive(path: &str) -> Tree {
    let mut root = Root::default();
    root.apply(File::open(path).unwrap());
    root.finish()
}

#[test]
fn every_output_is_the_image() {
    need!("runc", "skopeo", "dockerd", "docker", "git", "tar");
    let place = Place::new(DOCKERFILE);
    let outputs = [
        format!("type=oci,tar=false,dest={}", place.path("layout")),
        format!("type=oci,dest={}", place.path("oci.tar")),
        format!("type=docker-archive,name=org/out:1,dest={}", place.path("docker.tar")),
        format!("type=tar,dest={}", place.path("root.tar")),
        format!("type=local,dest={}", place.path("root")),
    ];
    let built = build(&place, &outputs).expect(0).json();
    let digest: Digest = built["digest"].as_str().unwrap().parse().unwrap();
    let store = Store::open_existing(place.path("layout")).unwrap();
    let image = Image::load(&store, &digest).unwrap();
    let labels = &image.config().config.labels;
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("kept", "yes"), ("more", "1"), ("own", "no")]);

    // The digest stays what it is in an archive.
    let seen =
        run("skopeo", ["inspect", "--raw", &format!("oci-archive:{}", place.path("oci.tar"))]).expect(0);
    assert_eq!(Digest::of(seen.stdout.as_bytes()), digest);
    let seen = run(
        "skopeo",
        ["inspect", "--config", "--raw", &format!("docker-archive:{}", place.path("docker.tar"))],
    );
    assert_eq!(Digest::of(seen.expect(0).stdout.as_bytes()), image.config_descriptor().digest);

    let tree = of_layers(&store, &image);
    assert!(tree.contains_key("d/hard") && !tree.contains_key("gone") && !tree.contains_key("etc/hosts"));
    assert_eq!(of_archive(&place.path("root.tar")), tree);
    let local = place.path("local.tar");
    run("tar", ["--numeric-owner", "-C", &place.path("root"), "-cf", &local, "."]).expect(0);
    assert_eq!(of_archive(&local), tree);

    let engine = Engine::start();
    let loaded = engine.docker(["load", "--input", &place.path("docker.tar")]).expect(0);
    assert!(loaded.stdout.contains("org/out:1"), "{}", loaded.text());
    let id = engine.docker(["image", "inspect", "--format", "{{.Id}}", "org/out:1"]).expect(0);
    let known = [image.config_descriptor().digest.to_string(), digest.to_string()];
    assert!(known.contains(&id.stdout.trim().to_owned()), "{} is none of {known:?}", id.stdout);
    let ran = engine.docker(["run", "--rm", "--network=none", "org/out:1"]).expect(0);
    assert_eq!(ran.stdout, "1\n");
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    need!("runc", "skopeo", "git");
    let place = Place::new(DOCKERFILE);
    let written = |round: &str| {
        let names =
            ["oci", "docker-archive", "tar"].map(|kind| (kind, place.path(&format!("{round}-{kind}"))));
        let outputs = names.clone().map(|(kind, path)| format!("type={kind},dest={path}"));
        build(&place, &outputs).expect(0);
        names.map(|(_, path)| Digest::of(&std::fs::read(path).unwrap()))
    };
    assert_eq!(written("one"), written("two"));
}

#[test]
fn what_is_in_the_way_is_never_overwritten() {
    need!("runc", "skopeo", "git");
    let place = Place::new(DOCKERFILE);
    std::fs::create_dir(place.path("full")).unwrap();
    std::fs::write(place.path("full/file"), "kept").unwrap();
    for output in [
        format!("type=local,dest={}", place.path("full")),
        format!("type=tar,dest={}", place.path("full")),
        format!("type=docker-archive,dest={}", place.path("nowhere/x.tar")),
    ] {
        let refused = build(&place, std::slice::from_ref(&output)).expect(2);
        assert!(refused.text().contains("--output"), "{output}: {}", refused.text());
    }
    assert!(!Path::new(&place.path("state/images/index.json")).exists(), "nothing was built");
    assert_eq!(std::fs::read_to_string(place.path("full/file")).unwrap(), "kept");
}
