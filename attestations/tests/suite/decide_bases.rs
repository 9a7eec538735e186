//! Bases that no list names: allowed by their own reviews and builds, and each attack on that.

use std::collections::BTreeMap;

use crate::common::*;
use attestations::decision::MAX_BASES;
use attestations::provenance::{Provenance, RebuildOf, RebuildVerdict, ResourceDescriptor as Resource};
use attestations::review::{Review, Verdict};
use attestations::{Case, Decision, Denial, Digest, Evidence, Gathered, Policy, Remembered, Subject};

const BASE_TREE: &str = "4444444444444444444444444444444444444444";
const BASE_SOURCE: &str = "git+https://git.example/bases";

const RULE: &str = "[algorithm.built_bases]
repositories = [\"registry.example/bases/*\"]
source = [\"https://git.example/bases\"]
bases = []
reviews = { threshold = 1, from = [\"bob\", \"mallory\"] }
builds = { threshold = 2, from = [\"ci\", \"auditor\", \"twin\"], failed_rebuild = \"veto\" }
";

/// The policy of [`World`], whose rule lists no base and takes built ones.
fn policy_text(world: &World) -> String {
    let listed = format!("bases = [\"{}\"]", base());
    let text = world.policy_text();
    assert!(text.contains(&listed));
    format!("{}{RULE}", text.replace(&listed, "bases = []"))
}

/// Provenance of the base: another commit of another repository, from scratch.
fn of_base(it: &mut Signed<Provenance>) {
    it.subject = vec![Subject::image("python", &base())];
    let definition = &mut it.value.build_definition;
    definition.external_parameters.source = BASE_SOURCE.to_owned();
    definition.external_parameters.commit = OTHER_COMMIT.parse().unwrap();
    definition.internal_parameters.config_digest = Digest::of(b"base config");
    definition.internal_parameters.layers[0].from_base = false;
    definition.resolved_dependencies = vec![
        Resource::source(BASE_SOURCE, &OTHER_COMMIT.parse().unwrap()),
        Resource::tree(BASE_SOURCE, &BASE_TREE.parse().unwrap()),
    ];
}

fn of_base_commit(it: &mut Signed<Review>) {
    it.subject = vec![Subject::commit(BASE_SOURCE, &OTHER_COMMIT.parse().unwrap())];
    it.value.tree = BASE_TREE.parse().unwrap();
}

/// A base of the algorithm, from the registry of the rule.
fn from_registry(digest: &Digest) -> Resource {
    Resource::base(format!("oci://registry.example/bases/python@{digest}"), digest)
}

fn bases_are(bases: Vec<Resource>) -> impl Fn(&mut Signed<Provenance>) {
    move |it| {
        let all = &mut it.value.build_definition.resolved_dependencies;
        all.retain(|one| !one.is(Resource::BASE));
        all.extend(bases.clone());
    }
}

/// What is attached to the algorithm's image: its builds say that the base is from the registry.
fn of_image(world: &World) -> Vec<Evidence> {
    let mut all = world.enough();
    all[2] = world.build(&world.ci, "ci", bases_are(vec![from_registry(&base())]));
    all[3] = world.build(&world.auditor, "auditor", bases_are(vec![from_registry(&base())]));
    all
}

/// What is attached to the base: enough.
fn of_the_base(world: &World) -> Vec<Evidence> {
    vec![
        world.review(&world.bob, "bob", of_base_commit),
        world.build(&world.ci, "ci", of_base),
        world.build(&world.auditor, "auditor", of_base),
    ]
}

/// Decides with what was found at the base; `None` when nobody could ask.
fn answer(policy: &str, image: &[Evidence], found: Option<&[Evidence]>) -> Decision {
    let policy = Policy::parse(policy).unwrap();
    let question = question();
    let case = Case::open(&policy, &question, image, now());
    let gathered = found.map_or_else(
        || Gathered::Nothing { why: "the registry did not answer".to_owned() },
        |found| Gathered::Bundles(found.to_vec()),
    );
    let gathered: BTreeMap<_, _> = case.bases().iter().map(|it| (it.digest, gathered.clone())).collect();
    case.decide(&gathered, &Remembered::default())
}

fn denial(policy: &str, image: &[Evidence], found: Option<&[Evidence]>) -> Denial {
    match answer(policy, image, found) {
        Decision::Denied(denial) => denial,
        Decision::Admitted(admitted) => panic!("admitted: {admitted:?}"),
    }
}

/// The unmet conditions of the base, by their own codes; every one is told as one of this base.
fn lacking(world: &World, found: &[Evidence]) -> Vec<String> {
    let denial = denial(&policy_text(world), &of_image(world), Some(found));
    let json = serde_json::to_value(&denial.unmet).unwrap();
    let (last, of_base) = json.as_array().unwrap().split_last().unwrap();
    assert_eq!(last["code"], "builds", "no build that stands on it counts: {denial}");
    let code = |it: &serde_json::Value| {
        assert_eq!((&it["code"], &it["base"]), (&"built-base".into(), &base().to_string().into()), "{it}");
        it["baseCode"].as_str().unwrap().to_owned()
    };
    let mut codes: Vec<String> = of_base.iter().map(code).collect();
    codes.sort();
    codes
}

#[test]
fn a_base_counts_by_its_own_reviews_and_builds() {
    let world = World::new();
    let policy = policy_text(&world);
    let Decision::Admitted(admitted) = answer(&policy, &of_image(&world), Some(&of_the_base(&world))) else {
        panic!("{:?}", lacking(&world, &of_the_base(&world)))
    };
    let [counted] = admitted.bases() else { panic!("{:?}", admitted.bases()) };
    assert_eq!((counted.digest, counted.commit.as_str()), (base(), OTHER_COMMIT));
    assert_eq!(
        (&counted.reviews[..], &counted.builds[..]),
        (&["bob".into()][..], &["auditor".into(), "ci".into()][..])
    );
    assert_eq!(serde_json::to_value(&admitted).unwrap()["bases"][0]["digest"], base().to_string());
    // The order of what was found changes nothing, and each piece is needed.
    let mut found = of_the_base(&world);
    for (at, wanted) in [(0, "reviews"), (1, "builds"), (2, "builds")] {
        found.rotate_left(1);
        assert!(matches!(answer(&policy, &of_image(&world), Some(&found)), Decision::Admitted(_)));
        let mut less = of_the_base(&world);
        less.remove(at);
        assert_eq!(lacking(&world, &less), [wanted]);
    }
    assert_eq!(lacking(&world, &[]), ["builds", "reviews"]);
    // Where a signed statement hangs says nothing: the image's own attachments may hold it.
    let all = [of_image(&world), of_the_base(&world)].concat();
    assert!(matches!(answer(&policy, &all, Some(&[])), Decision::Admitted(_)));
}

#[test]
fn a_listed_base_is_not_asked_about() {
    let world = World::new();
    let listed = policy_text(&world).replacen("bases = []", &format!("bases = [\"{}\"]", base()), 1);
    let (policy, question, image) = (Policy::parse(&listed).unwrap(), question(), of_image(&world));
    let case = Case::open(&policy, &question, &image, now());
    assert!(case.bases().is_empty());
    let Decision::Admitted(admitted) = case.decide(&BTreeMap::new(), &Remembered::default()) else {
        panic!("denied")
    };
    assert!(admitted.bases().is_empty());
    // And without the table, a base that is not listed is no more than that.
    let plain = policy_text(&world).replace(RULE, "");
    assert_eq!(codes(&answer(&plain, &image, Some(&of_the_base(&world)))), ["base", "builds"]);
}

#[test]
fn what_could_not_be_asked_for_denies_and_says_why() {
    let world = World::new();
    let denied = denial(&policy_text(&world), &of_image(&world), None);
    let told = denied.unmet[0].to_string();
    assert_eq!(denied.unmet[0].code(), "built-base");
    for part in
        [&*format!("of base {}", base()), "the registry did not answer", "push the base with its evidence"]
    {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(serde_json::to_value(&denied).unwrap()["unmet"][0]["baseCode"], "base-evidence");
    // Even where the image's own attachments would do: a veto may hang at the base.
    let all = [of_image(&world), of_the_base(&world)].concat();
    denial(&policy_text(&world), &all, None);
    // And whoever does not ask at all is told so.
    let policy = Policy::parse(&policy_text(&world)).unwrap();
    let unasked = attestations::decide(&policy, &question(), &all, now());
    assert_eq!(codes(&unasked), ["built-base", "builds"]);
}

#[test]
fn places_are_those_of_signed_provenance_that_the_rule_lets_a_node_ask() {
    let world = World::new();
    let (policy, question) = (Policy::parse(&policy_text(&world)).unwrap(), question());
    let wanted = |change: &dyn Fn(&mut Signed<Provenance>), key: &Key, who: &str| {
        let mut image = of_image(&world).split_off(3);
        image.push(world.build(key, who, change));
        let case = Case::open(&policy, &question, &image, now());
        let told = |it: &attestations::decision::WantedBase| {
            let places: Vec<String> = it.places.iter().map(ToString::to_string).collect();
            (it.digest, places, it.not_asked.to_string())
        };
        case.bases().iter().map(told).collect::<Vec<_>>()
    };
    let home = format!("registry.example/bases/python@{}", base());
    let at = |uri: String| bases_are(vec![Resource::base(uri, &base())]);
    let ci = |uri: String| wanted(&at(uri), &world.ci, "ci");
    assert_eq!(ci(format!("oci://{home}")), [(base(), vec![home.clone()], String::new())]);
    // Another digest at the end of the name leads nowhere, and neither do a folder, a file or another scheme.
    let other = Digest::of(b"other");
    for uri in [
        format!("oci://registry.example/bases/python@{other}"),
        "oci-layout:python".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("oci://registry.example/bases/python:1@{other}"),
        "oci://".to_owned(),
    ] {
        let found = ci(uri.clone());
        assert_eq!(found[0].1, std::slice::from_ref(&home), "{uri}");
        assert!(found[0].2.contains("is in no registry"), "{found:?}");
    }
    // The author of a Dockerfile sends no node to a host that its policy does not name.
    for place in
        ["127.0.0.1:9000/bases/python", "registry.example/bases/deep/python", "registry.example.evil/bases/x"]
    {
        let found = ci(format!("oci://{place}@{}", base()));
        assert_eq!(found[0].1, std::slice::from_ref(&home), "{place}");
        assert!(found[0].2.contains(place) && found[0].2.contains("repositories"), "{found:?}");
    }
    // Strangers and reviewers lead nowhere at all, nor does provenance of another image.
    let elsewhere = bases_are(vec![from_registry(&other)]);
    let stranger = Key::new();
    for (key, who) in [(&stranger, "ci"), (&world.alice, "ci"), (&world.ci, "someone")] {
        assert_eq!(wanted(&elsewhere, key, who).len(), 1);
    }
    let of_another = |it: &mut Signed<Provenance>| {
        elsewhere(it);
        it.subject = vec![Subject::image("average", &other)];
    };
    assert_eq!(wanted(&of_another, &world.ci, "ci").len(), 1);
    assert_eq!(wanted(&elsewhere, &world.ci, "ci").len(), 2);
}

#[test]
fn evidence_about_another_digest_is_none() {
    let world = World::new();
    let other = Digest::of(b"another base");
    let moved = |it: &mut Signed<Provenance>| {
        of_base(it);
        it.subject = vec![Subject::image("python", &other)];
    };
    let mut found = of_the_base(&world);
    found[1] = world.build(&world.ci, "ci", moved);
    assert_eq!(lacking(&world, &found), ["builds"]);
    // The digest among others, before and behind.
    for at in [0, 1] {
        found[1] = world.build(&world.ci, "ci", |it| {
            of_base(it);
            it.subject.insert(at, Subject::image("python", &other));
        });
        assert_eq!(lacking(&world, &found), ["builds"], "the digest is at {at} of two");
    }
    // A rebuild of something else.
    found[1] = world.build(&world.ci, "ci", |it| {
        of_base(it);
        it.value.build_definition.internal_parameters.rebuild_of = rebuild(other, RebuildVerdict::Identical);
    });
    assert_eq!(lacking(&world, &found), ["builds"]);
}

#[test]
fn who_does_not_count_for_a_base_does_not_make_it_one() {
    let world = World::new();
    let mut found = of_the_base(&world);
    // A stranger; a reviewer as a builder; a builder under another's id; one operator twice; one key twice.
    let (stranger, again) = (Key::new(), found[1].clone());
    for second in [
        world.build(&stranger, "auditor", of_base),
        world.build(&world.bob, "auditor", of_base),
        world.build(&world.auditor, "ci", of_base),
        world.build(&world.twin, "twin", of_base),
        again,
    ] {
        found[2] = second;
        assert_eq!(lacking(&world, &found), ["builds"]);
    }
    // Alice reviews the algorithm, and no bases.
    let mut found = of_the_base(&world);
    found[0] = world.review(&world.alice, "alice", of_base_commit);
    assert_eq!(lacking(&world, &found), ["reviews"]);
    // A review of the algorithm's commit is none of the base's.
    found[0] = world.review(&world.bob, "bob", |_| {});
    assert_eq!(lacking(&world, &found), ["reviews"]);
    // Its author does not review it.
    found[0] = world.review(&world.bob, "bob", |it| {
        of_base_commit(it);
        it.value.authors[0].email = "bob@x.example".to_owned();
    });
    assert_eq!(lacking(&world, &found), ["reviews"]);
}

#[test]
fn a_base_is_from_an_allowed_source_and_stands_on_what_is_listed() {
    let world = World::new();
    let with = |change: &dyn Fn(&mut Signed<Provenance>)| {
        let built = |key, who| {
            world.build(key, who, |it| {
                of_base(it);
                change(it);
            })
        };
        vec![of_the_base(&world)[0].clone(), built(&world.ci, "ci"), built(&world.auditor, "auditor")]
    };
    let elsewhere = with(&|it| it.value.build_definition.external_parameters.source = SOURCE.to_owned());
    assert_eq!(lacking(&world, &elsewhere), ["builds", "source"]);
    // There is one level: a base of the base is listed, or it is not allowed, however well it was built.
    let ground = Digest::of(b"ground");
    let stands = with(&|it| it.value.build_definition.resolved_dependencies.push(from_registry(&ground)));
    assert_eq!(lacking(&world, &stands), ["base", "builds"]);
    let listed = RULE.replace("bases = []", &format!("bases = [\"{ground}\"]"));
    let policy = policy_text(&world).replace(RULE, &listed);
    assert!(matches!(answer(&policy, &of_image(&world), Some(&stands)), Decision::Admitted(_)));
    // An image that says to be its own base proves nothing by itself.
    let own = bases_are(vec![from_registry(&image())]);
    let mut circle = world.enough();
    circle[2] = world.build(&world.ci, "ci", &own);
    circle[3] = world.build(&world.auditor, "auditor", &own);
    let everyone = policy.replace("https://git.example/bases", "https://git.example/average");
    let denied = denial(&everyone, &circle, Some(&[]));
    assert!(denied.unmet.iter().all(|it| ["built-base", "builds"].contains(&it.code())), "{denied}");
    // What is asked of materials is asked of the base's.
    let materials = format!("{}materials = {{ complete = true, hosts = [] }}\n", policy_text(&world));
    assert!(matches!(
        answer(&materials, &of_image(&world), Some(&of_the_base(&world))),
        Decision::Admitted(_)
    ));
    let reached = with(&|it| {
        it.value.build_definition.resolved_dependencies.push(Resource::exchange("http://a.example/", &ground))
    });
    let denied = serde_json::to_value(denial(&materials, &of_image(&world), Some(&reached))).unwrap();
    assert!(denied["unmet"].as_array().unwrap().iter().any(|it| it["baseCode"] == "hosts"), "{denied}");
}

fn rebuild(subject: Digest, verdict: RebuildVerdict) -> Option<RebuildOf> {
    let provenance = Digest::of(b"p");
    Some(RebuildOf { subject, provenance, verdict })
}

#[test]
fn a_no_about_the_base_counts_wherever_it_hangs() {
    let world = World::new();
    let failed = world.build(&world.twin, "twin", |it| {
        of_base(it);
        it.subject = vec![Subject::image("python", &Digest::of(b"came out"))];
        it.value.build_definition.internal_parameters.rebuild_of = rebuild(base(), RebuildVerdict::Differs);
    });
    // Alice is no reviewer of bases: her no counts, her yes does not.
    let rejected = world.review(&world.alice, "alice", |it| {
        of_base_commit(it);
        it.value.verdict = Verdict::Rejected;
    });
    let policy = policy_text(&world);
    for (no, code) in [(failed, "failed-rebuild"), (rejected, "rejected")] {
        let mut found = of_the_base(&world);
        found.push(no.clone());
        assert_eq!(lacking(&world, &found), [code]);
        let mut image = of_image(&world);
        image.push(no);
        let denied = serde_json::to_value(denial(&policy, &image, Some(&of_the_base(&world)))).unwrap();
        assert_eq!(denied["unmet"][0]["baseCode"], code, "at the image: {denied}");
    }
    let disagreeing = world.build(&world.twin, "twin", |it| {
        of_base(it);
        it.value.build_definition.internal_parameters.config_digest = Digest::of(b"other config");
    });
    let mut found = of_the_base(&world);
    found.push(disagreeing);
    assert_eq!(lacking(&world, &found), ["disagreement"]);
}

#[test]
fn a_revoked_base_is_denied_however_well_it_was_built() {
    let world = World::new();
    for (revoked, code) in [(base(), "revoked"), (Digest::of(b"base config"), "built-base")] {
        let policy = policy_text(&world).replace("revoked = []", &format!("revoked = [\"{revoked}\"]"));
        let denied = denial(&policy, &of_image(&world), Some(&of_the_base(&world)));
        let told = denied.unmet.iter().find(|it| it.found().contains(&revoked.to_string()));
        assert_eq!(told.unwrap().code(), code, "{denied}");
    }
}

#[test]
fn builders_that_name_different_bases_are_not_believed() {
    let world = World::new();
    let mut image = of_image(&world);
    let both = vec![from_registry(&base()), from_registry(&Digest::of(b"another"))];
    image[3] = world.build(&world.auditor, "auditor", bases_are(both));
    let denied = denial(&policy_text(&world), &image, Some(&of_the_base(&world)));
    assert_eq!(denied.unmet[0].code(), "disagreement", "{denied}");
}

#[test]
fn too_much_denies_rather_than_leaving_some_out() {
    let world = World::new();
    let mut found = of_the_base(&world);
    let one = found[0].clone();
    found.resize(600, one);
    assert_eq!(lacking(&world, &found), ["too-much-evidence"]);
    let many = |count: usize| {
        let bases: Vec<_> =
            (0..count).map(|number| from_registry(&Digest::of(&number.to_le_bytes()))).collect();
        let mut image = of_image(&world);
        image[2] = world.build(&world.ci, "ci", bases_are(bases.clone()));
        image[3] = world.build(&world.auditor, "auditor", bases_are(bases));
        image
    };
    let (policy, question) = (Policy::parse(&policy_text(&world)).unwrap(), question());
    let image = many(MAX_BASES);
    assert_eq!(Case::open(&policy, &question, &image, now()).bases().len(), MAX_BASES);
    let image = many(MAX_BASES + 1);
    let case = Case::open(&policy, &question, &image, now());
    assert!(case.bases().is_empty(), "nobody is asked");
    assert_eq!(codes(&case.decide(&BTreeMap::new(), &Remembered::default())), ["too-many-bases"]);
}

#[test]
fn a_rule_on_bases_that_would_ask_nothing_is_refused() {
    let world = World::new();
    let whole = policy_text(&world);
    Policy::parse(&whole).unwrap();
    let (head, _) = whole.split_once("[algorithm.built_bases]").unwrap();
    let cases = [
        (format!("{}{RULE}", head.replace("bases = []", "bases = \"any\"")), "would ask nothing"),
        (whole.replace(RULE, &RULE.replace("bases = []", "bases = \"any\"")), "ends in anything"),
        (whole.replace("threshold = 1, from = [\"bob\"", "threshold = 0, from = [\"bob\""), "threshold"),
        (whole.replace("\"mallory\"]", "\"nobody\"]"), "nobody"),
        (whole.replace("registry.example/bases/*", "registry.example"), "can match no repository"),
        (whole.replace("repositories = [\"registry.example/bases/*\"]\n", ""), "repositories"),
        (format!("{whole}[algorithm.built_bases.built_bases]\n"), "built_bases"),
    ];
    for (text, told) in cases {
        assert_ne!(text, whole);
        let error = Policy::parse(&text).unwrap_err();
        assert!(error.to_string().contains(told), "{told}: {error}");
        assert!(error.line > 40, "{error}");
    }
}
