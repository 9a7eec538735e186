//! Copies of an image with its evidence, by other programs and by `countersign-builder copy`: what is admitted here is
//! admitted there.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use testing::{Cosign, Outcome, Registry, Scene, builder, need, run, runner, tool, unmet};

/// An image that the scene's node admits.
fn published() -> (Scene, String) {
    let (scene, commit) = Scene::new();
    scene.publish(&commit, "1.0");
    let image = format!("{}:1.0", scene.image());
    (scene, image)
}

/// The node's word on a copy: its policy, about the copy's name.
fn verify(scene: &Scene, copy: &str) -> Outcome {
    let (repository, _) = copy.rsplit_once(':').unwrap();
    let policy = std::fs::read_to_string(scene.path("policy.toml")).unwrap();
    scene.write("policy-copy.toml", &policy.replace(&scene.image(), repository));
    runner(["--policy", &scene.text("policy-copy.toml"), "--json", "verify", copy])
}

/// Registries to copy to: one without the referrers API, one with it.
#[track_caller]
fn targets() -> Vec<Registry> {
    [Some(Registry::start()), Registry::distribution_3(), Registry::with_referrers()]
        .into_iter()
        .flatten()
        .collect()
}

fn copy(scene: &Scene, from: &str, to: &str) -> Outcome {
    builder(["--state-dir", &scene.text("state-copy"), "copy", from, to])
}

#[test]
fn our_copy_brings_everything_through_registries_a_folder_and_a_file() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, image) = published();
    let (folder, file) =
        (format!("oci:{}", scene.text("layout")), format!("oci-archive:{}", scene.text("copy.tar")));
    copy(&scene, &image, &folder).expect(0);
    copy(&scene, &folder, &file).expect(0);
    for registry in targets() {
        for (number, from) in [&image, &folder, &file].into_iter().enumerate() {
            let to = registry.name(&format!("copies/count{number}:1.0"));
            copy(&scene, from, &to).expect(0);
            verify(&scene, &to).expect(0);
        }
    }
    // A copy of a copy, from a registry with the API to one without.
    if let Some(with) = Registry::with_referrers() {
        let (first, second) = (with.name("a/count:1.0"), scene.registry.name("second/count:1.0"));
        copy(&scene, &image, &first).expect(0);
        copy(&scene, &first, &second).expect(0);
        verify(&scene, &second).expect(0);
    }
    // Half a file brings nothing.
    let whole = std::fs::read(scene.path("copy.tar")).unwrap();
    std::fs::write(scene.path("half.tar"), &whole[..whole.len() / 2]).unwrap();
    let half = format!("oci-archive:{}", scene.text("half.tar"));
    let to = scene.registry.name("half/count:1.0");
    copy(&scene, &half, &to).expect(3);
    verify(&scene, &to).expect(4);
}

#[test]
fn an_export_is_admitted_where_no_registry_is_asked_and_a_damaged_one_leaves_nothing() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, image) = published();
    let (file, state, into) = (scene.text("export.tar"), scene.text("state-air"), scene.text("imported"));
    let policy = scene.text("policy.toml");
    runner(["--policy", &policy, "export", &image, "-o", &file]).expect(0);
    let import = |file: &str, into: &str| runner(["--state-dir", &state, "import", file, "--into", into]);

    let whole = std::fs::read(&file).unwrap();
    let (damaged, elsewhere) = (scene.text("damaged.tar"), scene.text("elsewhere"));
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    import(&damaged, &elsewhere).expect(3);
    let mut flipped = whole.clone();
    let place = flipped.len() - 4096;
    flipped[place] ^= 1;
    std::fs::write(&damaged, &flipped).unwrap();
    import(&damaged, &elsewhere).expect(3);
    assert!(!Path::new(&elsewhere).exists() && !Path::new(&state).join("images").exists());
    let hidden = std::fs::read_dir(scene.path("")).unwrap();
    let hidden: Vec<_> = hidden.map(|it| it.unwrap().file_name()).collect();
    assert!(hidden.iter().all(|name| !name.to_string_lossy().starts_with(".countersign")), "{hidden:?}");

    let told = import(&file, &into).expect(0);
    let digest = scene.digest("1.0");
    let pinned = format!("{}@{digest}", scene.image());
    let evidence = format!("{into}/evidence/{}", digest.strip_prefix("sha256:").unwrap());
    let line = format!("verify --offline {pinned} --evidence {evidence}");
    assert!(told.stdout.contains(&line), "{}", told.text());
    let policy = format!("{into}/policy.toml");
    let offline = ["verify", "--offline", &pinned, "--evidence", &evidence];
    runner([&["--policy", &policy, "--state-dir", &state][..], &offline].concat()).expect(0);
    assert!(Path::new(&state).join("images/blobs/sha256").join(&evidence[evidence.len() - 64..]).exists());
    import(&file, &into).expect(2);
}

#[test]
fn copies_by_oras_and_regctl_stay_admitted_and_crane_loses_the_evidence() {
    need!("runc", "docker-registry", "skopeo");
    let tools = [tool("oras", "1.3.6"), tool("regctl", "0.11.5"), tool("crane", "0.22.1")];
    let [Some(oras), Some(regctl), Some(crane)] = tools else { return };
    let (scene, image) = published();
    let home = scene.text("home");
    std::fs::create_dir(&home).unwrap();
    let with_home = |program: &Path, arguments: &[&str]| {
        let set = format!("HOME={home}");
        run("env", [&[set.as_str(), program.to_str().unwrap()], arguments].concat())
    };
    for registry in targets() {
        let host = registry.host();
        let to = registry.name("oras/count:1.0");
        with_home(&oras, &["cp", "-r", "--from-plain-http", "--to-plain-http", &image, &to]).expect(0);
        verify(&scene, &to).expect(0);
        for host in [&host, &scene.registry.host()] {
            with_home(&regctl, &["registry", "set", "--tls", "disabled", host]).expect(0);
        }
        let to = registry.name("regctl/count:1.0");
        with_home(&regctl, &["image", "copy", "--referrers", &image, &to]).expect(0);
        verify(&scene, &to).expect(0);
        let to = registry.name("crane/count:1.0");
        with_home(&crane, &["copy", "--insecure", &image, &to]).expect(0);
        let denied = unmet(&verify(&scene, &to).expect(1));
        assert!(denied.iter().any(|it| it.contains("builder(s)")), "{denied:?}");
    }
}

/// `cosign copy` leaves the evidence behind and puts the image under the tag of the list: that is no failure, and new
/// evidence can be attached.
#[test]
fn after_cosign_copy_an_image_is_denied_and_can_be_given_its_evidence_again() {
    need!("runc", "docker-registry", "skopeo");
    let (scene, image) = published();
    let Some(cosign) = Cosign::find(&scene.path("cosign-home")) else { return };
    for registry in targets() {
        let to = registry.name("cosign/count:1.0");
        cosign.run(["copy", &image, &to]).expect(0);
        let denied = unmet(&verify(&scene, &to).expect(1));
        assert!(denied.iter().any(|it| it.contains("builder(s)")), "{denied:?}");
        copy(&scene, &image, &to).expect(0);
        verify(&scene, &to).expect(0);
    }
}
