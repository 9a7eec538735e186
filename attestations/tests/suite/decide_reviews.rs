//! Reviews of a commit: roles, organisations, ends, authors by address and key, changes, and what a review names of a build.

use std::collections::BTreeMap;

use crate::common::*;
use attestations::review::{Parameters, Person, Review, Scope, Verdict};
use attestations::{Decision, Digest, Evidence, Policy, Signer, Subject, decide};

const SINCE_TREE: &str = "5555555555555555555555555555555555555555";

fn unmet(policy: &str, evidence: &[Evidence]) -> Vec<&'static str> {
    codes(&decide(&Policy::parse(policy).unwrap(), &question(), evidence, now()))
}

/// Everything that was not counted, in words.
fn ignored(decision: &Decision) -> String {
    let Decision::Denied(denial) = decision else { panic!("admitted") };
    denial.ignored.iter().map(|it| format!("{it}\n")).collect()
}

fn with_reviews(world: &World, more: &str) -> String {
    let text = world.policy_text();
    let own = "author_may_review = false\n";
    assert!(text.contains(own));
    text.replace(own, &format!("{own}{more}"))
}

fn before(it: &mut Signed<Review>) {
    it.subject = vec![Subject::commit(SOURCE, &OTHER_COMMIT.parse().unwrap())];
    it.value.tree = SINCE_TREE.parse().unwrap();
}

fn changes(tree: &str) -> Scope {
    Scope::Changes { since: OTHER_COMMIT.parse().unwrap(), since_tree: tree.parse().unwrap() }
}

#[test]
fn each_role_needs_its_own_reviews() {
    let world = World::new();
    let policy = with_reviews(
        &world,
        "roles = { privacy = { threshold = 1, from = ['mallory'] }, statistics = { threshold = 1, from = ['bob'] } }\n",
    );
    let of = |key, who, role: &str| world.review(key, who, |it| it.value.role = role.parse().unwrap());
    let mut evidence = world.enough();
    assert_eq!(unmet(&policy, &evidence), ["reviews", "reviews"], "code alone");
    evidence.push(of(&world.mallory, "mallory", "privacy"));
    assert_eq!(unmet(&policy, &evidence), ["reviews"]);
    // Whoever reads for one role does not count for another one.
    evidence.push(of(&world.alice, "alice", "statistics"));
    evidence.push(of(&world.mallory, "mallory", "statistics"));
    let decision = decide(&Policy::parse(&policy).unwrap(), &question(), &evidence, now());
    assert_eq!(codes(&decision), ["reviews"]);
    assert!(ignored(&decision).contains("alice is no reviewer of this rule for statistics"), "{decision:?}");
    evidence.push(of(&world.bob, "bob", "statistics"));
    assert_eq!(unmet(&policy, &evidence), [""; 0]);
    // A review in a role that nobody asks for is none of the code; a no in any role denies.
    let mut evidence = world.enough();
    evidence[0] = of(&world.alice, "alice", "privacy");
    assert_eq!(world.unmet(&evidence), ["reviews"]);
    let mut evidence = world.enough();
    evidence.push(world.review(&world.mallory, "mallory", |it| {
        it.value.role = "ethics".parse().unwrap();
        it.value.verdict = Verdict::Rejected;
    }));
    assert_eq!(world.unmet(&evidence), ["rejected"]);
}

#[test]
fn an_unmet_role_is_named() {
    let world = World::new();
    let policy = with_reviews(&world, "roles = { privacy = { threshold = 1, from = ['mallory'] } }\n");
    let decision = decide(&Policy::parse(&policy).unwrap(), &question(), &world.enough(), now());
    let Decision::Denied(denial) = &decision else { panic!("admitted") };
    assert_eq!(denial.unmet[0].condition(), "1 approving reviewer(s) of mallory for privacy");
    assert_eq!(serde_json::to_value(&denial.unmet[0]).unwrap()["role"], "privacy");
}

#[test]
fn people_of_one_organisation_count_once_where_organisations_are_counted() {
    let world = World::new();
    let named = |of_bob: &str| {
        let text = with_reviews(&world, "count_once = 'organisation'\n");
        let text = text.replace("name = \"alice\"", "name = \"alice\"\norganisation = 'north'");
        let text = text.replace("from = [\"alice\", \"bob\"]", "from = [\"alice\", \"bob\", \"mallory\"]");
        let text = text.replace("name = \"mallory\"", "name = \"mallory\"\norganisation = 'south'");
        text.replace("name = \"bob\"", &format!("name = \"bob\"\norganisation = '{of_bob}'"))
    };
    assert_eq!(unmet(&named("south"), &world.enough()), [""; 0]);
    let decision = decide(&Policy::parse(&named("north")).unwrap(), &question(), &world.enough(), now());
    assert_eq!(codes(&decision), ["reviews"]);
    let Decision::Denied(denial) = &decision else { panic!("admitted") };
    let condition = denial.unmet[0].condition();
    assert_eq!(condition, "2 organisation(s) with an approving reviewer of alice, bob, mallory");
    let mut more = world.enough();
    more.push(world.review(&world.mallory, "mallory", |_| {}));
    assert_eq!(unmet(&named("north"), &more), [""; 0]);
}

#[test]
fn what_can_never_be_met_is_an_error_with_its_line() {
    let world = World::new();
    let line_of = |text: &str, part: &str| text.lines().position(|line| line.contains(part)).unwrap() + 1;
    let error = |text: &str| Policy::parse(text).unwrap_err();
    let once = with_reviews(&world, "count_once = 'organisation'\n");
    let found = error(&once);
    assert_eq!(found.line, line_of(&once, "from = [\"alice\", \"bob\"]"));
    assert!(found.message.contains("this person has none"), "{found}");
    let same = once.replace("name = \"", "organisation = 'one'\nname = \"");
    let same = same.replace("organisation = 'one'\nname = \"registry", "name = \"registry");
    assert!(error(&same).message.contains("can never be met"), "two people of one organisation");
    let roles = |text: &str| error(&with_reviews(&world, &format!("roles = {text}\n"))).message;
    assert!(roles("{ Privacy = { threshold = 1, from = ['bob'] } }").contains("is no role"));
    assert!(roles("{ code = { threshold = 1, from = ['bob'] } }").contains("stands outside of roles"));
    assert!(roles("{ privacy = { threshold = 2, from = ['bob'] } }").contains("can never be met"));
    assert!(roles("{ privacy = { threshold = 1, from = ['nobody'] } }").contains("nobody in this policy"));
    let silent = world.policy_text().replace("emails = [\"bob@x.example\"]", "emails = []");
    let found = error(&silent);
    assert_eq!(found.line, line_of(&silent, "from = [\"alice\", \"bob\"]"));
    assert!(found.message.contains("no e-mail address"), "{found}");
    Policy::parse(&silent.replace("author_may_review = false", "author_may_review = true")).unwrap();
    // Who only says no needs none.
    Policy::parse(&world.policy_text().replace("emails = [\"mallory@x.example\"]", "emails = []")).unwrap();
}

#[test]
fn an_approval_ends_and_a_rejection_does_not() {
    let world = World::new();
    let ends = |end: &str| {
        let mut evidence = world.enough();
        evidence[0] =
            world.review(&world.alice, "alice", |it| it.value.expires_on = Some(end.parse().unwrap()));
        world.decide(&evidence)
    };
    assert_eq!(codes(&ends("2026-06-01T12:00:01Z")), [""; 0]);
    for over in ["2026-06-01T12:00:00Z", "2026-05-31T00:00:00Z", "2020-01-01T00:00:00Z"] {
        let decision = ends(over);
        assert_eq!(codes(&decision), ["reviews"]);
        assert!(ignored(&decision).contains(&format!("the review expired at {over}")), "{decision:?}");
    }
    let mut evidence = world.enough();
    evidence.push(world.review(&world.mallory, "mallory", |it| {
        it.value.verdict = Verdict::Rejected;
        it.value.expires_on = Some("2020-01-01T00:00:00Z".parse().unwrap());
    }));
    assert_eq!(world.unmet(&evidence), ["rejected"]);
}

#[test]
fn nobody_reviews_what_they_committed_or_signed() {
    let world = World::new();
    let bob = || Person { name: "Bob".to_owned(), email: "bob@x.example".to_owned() };
    let mut evidence = world.enough();
    evidence[2] = world.build(&world.ci, "ci", |it| {
        it.value.build_definition.internal_parameters.committers = vec![bob()];
    });
    assert_eq!(world.unmet(&evidence), ["reviews"], "bob committed it");
    let key = world.bob.public_key().id();
    let mut evidence = world.enough();
    evidence[2] = world.build(&world.ci, "ci", |it| {
        it.value.build_definition.internal_parameters.author_keys = [key.clone()].into();
    });
    let decision = world.decide(&evidence);
    assert_eq!(codes(&decision), ["reviews"], "bob's key signed the commit, under whatever name");
    assert!(ignored(&decision).contains("bob is an author or committer of the commit"), "{decision:?}");
    let mut evidence = world.enough();
    evidence[0] = world.review(&world.alice, "alice", |it| it.value.author_keys = [key.clone()].into());
    assert_eq!(world.unmet(&evidence), ["reviews"], "another reviewer saw that");
    let policy = world.policy_text().replace("author_may_review = false", "author_may_review = true");
    assert_eq!(unmet(&policy, &evidence), [""; 0]);
}

#[test]
fn a_review_of_changes_counts_from_one_tree_to_the_next() {
    let world = World::new();
    let both = |change: &dyn Fn(&mut Signed<Review>)| {
        [
            world.review(&world.alice, "alice", |it| change(it)),
            world.review(&world.bob, "bob", |it| change(it)),
        ]
    };
    let builds = world.enough().split_off(2);
    let case = |since: &dyn Fn(&mut Signed<Review>), old: &dyn Fn(&mut Signed<Review>)| {
        [&both(since)[..], &both(old), &builds].concat()
    };
    let reviewed = case(&|it| it.value.scope = changes(SINCE_TREE), &before);
    assert_eq!(world.unmet(&reviewed), [""; 0]);
    // The commit before was reviewed with another tree than the changes were held against.
    let other = case(&|it| it.value.scope = changes(TREE), &before);
    let decision = world.decide(&other);
    assert_eq!(codes(&decision), ["reviews"]);
    let told = format!("since {OTHER_COMMIT} with the tree {TREE}, which lacks reviews");
    assert!(ignored(&decision).contains(&told), "{decision:?}");
    // A rejection of the tree before, under no well-formed commit and under another one's id.
    let odd =
        |id: &str| Subject { name: String::new(), digest: BTreeMap::from([("gitCommit".into(), id.into())]) };
    for subject in [odd("odd"), odd(&"A".repeat(40)), odd(&"7".repeat(40))] {
        let no = world.review(&world.mallory, "mallory", |it| {
            before(it);
            it.value.verdict = Verdict::Rejected;
            it.subject = vec![subject.clone()];
        });
        assert_eq!(world.unmet(&[&reviewed[..], &[no]].concat()), ["reviews"], "{subject:?}");
        let no = world.review(&world.mallory, "mallory", |it| {
            it.value.verdict = Verdict::Rejected;
            it.subject = vec![subject.clone()];
        });
        assert_eq!(world.unmet(&[&reviewed[..], &[no]].concat()), ["rejected"], "{subject:?}");
    }
    // Reviews of the commit before in another role make no chain.
    let roles = case(&|it| it.value.scope = changes(SINCE_TREE), &|it| {
        before(it);
        it.value.role = "privacy".parse().unwrap();
    });
    assert_eq!(world.unmet(&roles), ["reviews"]);
    // And one of them that has expired breaks it.
    let expired = case(&|it| it.value.scope = changes(SINCE_TREE), &|it| {
        before(it);
        it.value.expires_on = Some(now());
    });
    assert_eq!(world.unmet(&expired), ["reviews"]);
}

#[test]
fn a_review_that_says_how_to_build_counts_for_no_other_build() {
    let world = World::new();
    let parameters = Parameters {
        dockerfile: "Dockerfile".to_owned(),
        context: ".".to_owned(),
        target: None,
        build_args: BTreeMap::new(),
        bases: Some(BTreeMap::from([("base:1".to_owned(), base())])),
    };
    let named = |change: &dyn Fn(&mut Parameters)| {
        let mut evidence = world.enough();
        let mut parameters = parameters.clone();
        change(&mut parameters);
        evidence[0] =
            world.review(&world.alice, "alice", |it| it.value.parameters = Some(parameters.clone()));
        world.decide(&evidence)
    };
    assert_eq!(codes(&named(&|_| {})), [""; 0]);
    assert_eq!(codes(&named(&|it| it.bases = None)), [""; 0]);
    type Change<'a> = &'a dyn Fn(&mut Parameters);
    let others: [(&str, Change<'_>); 5] = [
        ("Dockerfile", &|it| it.dockerfile = "other/Dockerfile".to_owned()),
        ("context", &|it| it.context = "other".to_owned()),
        ("target", &|it| it.target = Some("test".to_owned())),
        ("build arguments", &|it| it.build_args = BTreeMap::from([("DEBUG".to_owned(), "1".to_owned())])),
        ("bases", &|it| it.bases = Some(BTreeMap::from([("base:1".to_owned(), image())]))),
    ];
    for (what, change) in others {
        let decision = named(change);
        assert_eq!(codes(&decision), ["reviews"], "{what}");
        assert!(ignored(&decision).contains(&format!("a build with another {what}")), "{decision:?}");
    }
}

#[test]
fn a_review_of_a_lock_counts_for_builds_that_used_exactly_that() {
    use attestations::provenance::{ResourceDescriptor as Resource, lock_digest};
    let world = World::new();
    let build = |key, who, packages: &[&str]| {
        world.build(key, who, |it| {
            let all = &mut it.value.build_definition.resolved_dependencies;
            all.retain(|one| !one.is(Resource::BASE));
            all.push(Resource::base("oci://base:1", &base()).annotated(Resource::BASE_NAME, "base:1"));
            all.extend(packages.iter().map(|purl| Resource::package(*purl, &Digest::of(purl.as_bytes()))));
            // The base's digest stands for what came with it.
            let of_base = Resource::installed(format!("pkg:deb/debian/libc6@2?{who}"));
            all.push(of_base.annotated(Resource::FROM, Resource::FROM_BASE));
        })
    };
    let packages = ["pkg:pypi/a@1", "pkg:pypi/b@2"];
    let read = packages.iter().map(|purl| (*purl, Some(Digest::of(purl.as_bytes()))));
    let lock = lock_digest([("base:1", base())].into_iter(), read, std::iter::empty());
    let reviews = [
        world.review(&world.alice, "alice", |it| it.value.lock = Some(lock)),
        world.review(&world.bob, "bob", |_| {}),
    ];
    let with = |first: &[&str], second: &[&str]| {
        let builds = [build(&world.ci, "ci", first), build(&world.auditor, "auditor", second)];
        world.decide(&[&reviews[..], &builds].concat())
    };
    assert_eq!(codes(&with(&packages, &["pkg:pypi/b@2", "pkg:pypi/a@1"])), [""; 0]);
    for (first, second) in
        [(&packages[..1], &packages[..1]), (&packages[..], &["pkg:pypi/a@1", "pkg:pypi/b@3"])]
    {
        let decision = with(first, second);
        assert_eq!(codes(&decision), ["reviews"]);
        assert!(ignored(&decision).contains("another lock of bases and packages"), "{decision:?}");
    }
    // A build that does not name its bases proves no lock.
    let unnamed = world.decide(&[&reviews[..], &world.enough()[2..]].concat());
    assert_eq!(codes(&unnamed), ["reviews"]);
}

#[test]
fn roles_and_keys_of_a_review_are_read_exactly() {
    let world = World::new();
    let text = |change: &dyn Fn(&mut Review)| {
        let bytes = world.review(&world.alice, "alice", |it| change(&mut it.value)).bytes;
        let bundle = attestations::Bundle::parse(&bytes).unwrap();
        let statement = bundle.statement_unverified().unwrap();
        String::from_utf8(statement.value().to_bytes().unwrap()).unwrap()
    };
    let plain = text(&|_| {});
    for absent in ["role", "authorKeys", "expiresOn", "parameters", "lock"] {
        assert!(!plain.contains(absent), "{plain}");
    }
    let full = text(&|it| {
        it.role = "privacy".parse().unwrap();
        it.author_keys = [world.bob.public_key().id()].into();
        it.scope = changes(SINCE_TREE);
    });
    let read = |text: &str| attestations::Statement::from_bytes(text.as_bytes());
    assert!(read(&full).is_ok(), "{full}");
    let key = world.bob.public_key().id().to_string();
    for (from, to) in [
        ("\"privacy\"", "\"Privacy\""),
        ("\"privacy\"", "\"\""),
        (key.as_str(), "c2hvcnQ="),
        (&format!(",\"sinceTree\":\"{SINCE_TREE}\""), ""),
        ("\"sinceTree\"", "\"more\":1,\"sinceTree\""),
    ] {
        let other = full.replace(from, to);
        assert_ne!(other, full);
        assert!(read(&other).is_err(), "{from} as {to}");
    }
}
