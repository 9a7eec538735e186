//! A federation's policy: whose signatures make a release, which releases are refused, and what two policies admit.

use std::collections::BTreeMap;

use crate::common::*;
use attestations::federation::{Followed, ReleaseError, Trust};
use attestations::policy_release::PolicyRelease;
use attestations::{
    Call, Case, Decision, Evidence, Policy, Predicate, Remembered, Statement, Subject, Unmet,
};
use attestations::{Issuer, Signer as _};

const NAME: &str = "oncology.example";
const LATER: &str = "2026-09-01T00:00:00Z";

/// Three key holders, two of whom make a release.
struct Federation {
    anna: Key,
    bert: Key,
    cleo: Key,
}

impl Federation {
    fn new() -> Self {
        Self { anna: Key::new(), bert: Key::new(), cleo: Key::new() }
    }

    fn trust_text(&self, threshold: usize) -> String {
        let line = |name: &str, key: &Key| format!("{name} = '''{}'''\n", key.public_key().to_pem());
        let keys = [line("anna", &self.anna), line("bert", &self.bert), line("cleo", &self.cleo)].concat();
        format!("version = 1\nname = \"{NAME}\"\nthreshold = {threshold}\n[keys]\n{keys}")
    }

    fn trust(&self) -> Trust {
        Trust::parse(&self.trust_text(2)).unwrap()
    }

    /// Anna's and Bert's signatures.
    fn both(&self, text: &str, version: u32, expires: &str) -> Vec<Evidence> {
        vec![signature(&self.anna, text, version, expires), signature(&self.bert, text, version, expires)]
    }

    /// The policy as a node gets it from the federation.
    fn issues(&self, text: &str) -> Policy {
        let trust = self.trust();
        let bundles = self.both(text, 1, LATER);
        let followed = trust.check(text, &bundles, now()).unwrap().follow(None).unwrap();
        followed.in_force(now()).unwrap().into_policy()
    }
}

fn signed_by(key: &Key, text: &str, change: impl FnOnce(&mut PolicyRelease)) -> Evidence {
    let mut release = PolicyRelease {
        federation: NAME.parse().unwrap(),
        version: 1.try_into().unwrap(),
        expires: LATER.parse().unwrap(),
        signed_on: "2026-05-01T00:00:00Z".parse().unwrap(),
    };
    change(&mut release);
    let predicate = Predicate::PolicyRelease(release);
    evidence("signature.json", key, Statement { subject: vec![Subject::policy(text)], predicate })
}

fn signature(key: &Key, text: &str, version: u32, expires: &str) -> Evidence {
    signed_by(key, text, |release| {
        release.version = version.try_into().unwrap();
        release.expires = expires.parse().unwrap();
    })
}

fn followed<'a>(trust: &Trust, text: &'a str, bundles: &[Evidence]) -> Result<Followed<'a>, ReleaseError> {
    trust.check(text, bundles, now())?.follow(None)
}

/// Why it is refused.
fn refused(trust: &Trust, text: &str, bundles: &[Evidence]) -> String {
    let error = followed(trust, text, bundles).unwrap_err();
    assert!(!error.remedy().is_empty());
    error.to_string()
}

#[test]
fn enough_keys_make_a_release_that_knows_whose_it_is() {
    let (federation, text) = (Federation::new(), World::new().policy_text());
    let mut bundles = federation.both(&text, 7, LATER);
    bundles.push(signature(&federation.cleo, &text, 6, LATER));
    let release = followed(&federation.trust(), &text, &bundles).unwrap().in_force(now()).unwrap();
    assert_eq!(release.signers().iter().collect::<Vec<_>>(), ["anna", "bert"]);
    assert_eq!(release.edition().version.get(), 7);
    let policy = release.into_policy();
    assert_eq!(policy.digest(), Policy::parse(&text).unwrap().digest());
    assert!(matches!(policy.issuer(), Issuer::Federation { name, version }
        if name.as_str() == NAME && version.get() == 7));
}

#[test]
fn one_key_counts_once_and_strangers_not_at_all() {
    let (federation, text) = (Federation::new(), World::new().policy_text());
    let trust = federation.trust();
    let anna = || signature(&federation.anna, &text, 1, LATER);
    let also_anna =
        signed_by(&federation.anna, &text, |it| it.signed_on = "2026-05-02T00:00:00Z".parse().unwrap());
    assert!(refused(&trust, &text, &[]).contains("2 of 3 keys have to sign it as one release, and none did"));
    for twice in [vec![anna(), anna()], vec![anna(), also_anna]] {
        assert!(refused(&trust, &text, &twice).contains("1 (anna, version 1) did"));
    }
    let stranger = signature(&Key::new(), &text, 1, LATER);
    assert!(refused(&trust, &text, &[anna(), stranger]).contains("no key of the federation signed it"));
    let junk = Evidence { origin: "junk.json".to_owned(), bytes: b"{".to_vec() };
    assert!(refused(&trust, &text, &[anna(), junk]).contains("not counted: junk.json: "));
}

#[test]
fn signatures_over_anything_else_do_not_count() {
    let (federation, text) = (Federation::new(), World::new().policy_text());
    let trust = federation.trust();
    let anna = signature(&federation.anna, &text, 1, LATER);
    let review = World::new().review(&federation.bert, "bert", |_| {});
    let two_subjects = evidence("two.json", &federation.bert, {
        let release = PolicyRelease {
            federation: NAME.parse().unwrap(),
            version: 1.try_into().unwrap(),
            expires: LATER.parse().unwrap(),
            signed_on: now(),
        };
        let subject = vec![Subject::policy(&text), Subject::policy("version = 1\n")];
        Statement { subject, predicate: Predicate::PolicyRelease(release) }
    });
    for (other, told) in [
        // A copy that is half done: the text of one release with a signature of another.
        (signature(&federation.bert, "version = 1\n", 1, LATER), "bert signed version 1 of another text"),
        (
            signed_by(&federation.bert, &text, |it| it.federation = "other.example".parse().unwrap()),
            "bert signed a policy of other.example",
        ),
        (
            signed_by(&federation.bert, &text, |it| it.signed_on = LATER.parse().unwrap()),
            "ahead of the clock",
        ),
        (review, "bert signed something else than a policy"),
        (two_subjects, "bert signed several things at once"),
        // Another version, or another expiry, is another release.
        (signature(&federation.bert, &text, 2, LATER), "have to sign it as one release, and 1 ("),
        (signature(&federation.bert, &text, 1, "2027-01-01T00:00:00Z"), "as one release, and 1 ("),
    ] {
        let why = refused(&trust, &text, &[anna.clone(), other]);
        assert!(why.contains(told), "{told}: {why}");
    }
    let cut = &text[..text.len() - 20];
    assert!(refused(&trust, cut, &federation.both(&text, 1, LATER)).contains("version 1 of another text"));
    let many = vec![anna; 65];
    assert!(refused(&trust, &text, &many).contains("64 are the most"));
}

#[test]
fn a_step_back_a_second_text_and_an_expired_release_are_refused() {
    let (federation, text) = (Federation::new(), World::new().policy_text());
    let trust = federation.trust();
    let other = text.replace("threshold = 2", "threshold = 1");
    let edition = |text: &str, version, expires| {
        let bundles = federation.both(text, version, expires);
        *followed(&trust, text, &bundles).unwrap().edition()
    };
    let follow = |text: &str, version, expires: &str, seen| {
        let bundles = federation.both(text, version, expires);
        trust.check(text, &bundles, now()).unwrap().follow(Some(&seen)).map(|it| *it.edition())
    };
    let seen = edition(&text, 3, LATER);
    assert_eq!(follow(&text, 3, LATER, seen), Ok(seen));
    assert!(follow(&other, 4, LATER, seen).is_ok());
    let back = follow(&text, 2, LATER, seen).unwrap_err().to_string();
    assert_eq!(back, "rollback: it is version 2, and version 3 was here before");
    for (text, expires) in [(&other, LATER), (&text, "2027-01-01T00:00:00Z")] {
        let twice = follow(text, 3, expires, seen).unwrap_err();
        assert!(matches!(twice, ReleaseError::Equivocation { .. }), "{twice}");
    }
    // Both at once, side by side.
    let bundles =
        [federation.both(&text, 3, LATER), federation.both(&text, 3, "2027-01-01T00:00:00Z")].concat();
    assert!(refused(&trust, &text, &bundles).starts_with("equivocation: version 3 is "));

    let until = |expires: &str| {
        followed(&trust, &text, &federation.both(&text, 1, expires)).unwrap().in_force(now()).map(drop)
    };
    assert_eq!(until("2026-06-01T12:00:01Z"), Ok(()));
    let expired = until(&now().to_string()).unwrap_err().to_string();
    assert!(expired.starts_with("freeze: version 1 expired at 2026-06-01T12:00:00Z"), "{expired}");
    let bundles = federation.both("version = 2\n", 1, LATER);
    let no_policy = followed(&trust, "version = 2\n", &bundles).unwrap().in_force(now()).unwrap_err();
    assert!(no_policy.to_string().contains("version 1 is signed, and no policy"), "{no_policy}");
}

#[test]
fn what_says_whom_to_trust_is_read_whole_or_not_at_all() {
    let federation = Federation::new();
    let text = federation.trust_text(2);
    Trust::parse(&text).unwrap();
    Trust::parse(Trust::EXAMPLE).unwrap();
    let anna = format!("dora = '''{}'''\n", federation.anna.public_key().to_pem());
    for (wrong, told) in [
        (federation.trust_text(0), "a threshold of 0 with 3 keys"),
        (federation.trust_text(4), "a threshold of 4 with 3 keys"),
        (format!("{text}{anna}"), "one key counts once"),
        (text.replace("version = 1", "version = 2"), "version 2 is not known"),
        (text.replace("version = 1", "version = 1\nmore = 1"), "unknown field `more`"),
        (text.replace(NAME, "a b"), "a federation's name is"),
        (text.replace("BEGIN PUBLIC KEY", "BEGIN KEY"), "the key of anna"),
        (text.split("[keys]").next().unwrap().to_owned(), "missing field `keys`"),
        (String::new(), "missing field"),
    ] {
        let error = Trust::parse(&wrong).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
}

/// Narrower than the policy of the world in one point each; the first is the policy itself.
const NARROWINGS: [(&str, &str); 6] = [
    ("version = 1", "version = 1"),
    ("functions = [\"partial\"]", "functions = []"),
    ("author_may_review = false", "author_may_review = false\nmax_age = \"30d\""),
    ("failed_rebuild", "must_hear = [\"twin\"]\nfailed_rebuild"),
    ("version = 1", "version = 1\nexpires = \"2026-06-01\""),
    ("name = \"registry.example/average\"", "name = \"registry.example/median\""),
];

fn by(policy: &Policy, evidence: &[Evidence]) -> Decision {
    Case::open(policy, &question(), evidence, now()).decide(&BTreeMap::new(), &Remembered::default())
}

fn is_yes(decision: &Decision) -> bool {
    matches!(decision, Decision::Admitted(_))
}

#[test]
fn two_policies_admit_what_each_admits_and_never_more() {
    let (world, federation) = (World::new(), Federation::new());
    let text = world.policy_text();
    let mut pool = world.enough();
    pool.push(world.build(&world.twin, "twin", |_| {}));
    let (mut yes, mut no) = (0, 0);
    for (from, to) in NARROWINGS {
        let node = Policy::parse(&text.replacen(from, to, 1)).unwrap();
        for (from, to) in NARROWINGS {
            let issued = federation.issues(&text.replacen(from, to, 1));
            for chosen in 0..1_usize << pool.len() {
                let evidence: Vec<_> =
                    (0..pool.len()).filter(|at| chosen >> at & 1 == 1).map(|at| pool[at].clone()).collect();
                let (own, theirs) = (by(&node, &evidence), by(&issued, &evidence));
                let each = is_yes(&own) && is_yes(&theirs);
                let joint = own.and(theirs, &question());
                assert_eq!(is_yes(&joint), each, "{evidence:?}");
                *(if each { &mut yes } else { &mut no }) += 1;
            }
        }
    }
    assert!(yes > 0 && no > 0);
}

#[test]
fn a_denial_says_whose_condition_is_not_met() {
    let (world, federation) = (World::new(), Federation::new());
    let text = world.policy_text();
    let strict = text.replace("functions = [\"partial\"]", "functions = []");
    let evidence = world.enough();
    let told = |node: &str, issued: &str| {
        let (node, issued) = (Policy::parse(node).unwrap(), federation.issues(issued));
        by(&node, &evidence).and(by(&issued, &evidence), &question())
    };
    assert_eq!(codes(&told(&strict, &text)), ["function"]);
    let Decision::Denied(denial) = told(&text, &strict) else { panic!("the node's own policy widened") };
    let [unmet @ Unmet::OfFederation { .. }] = &denial.unmet[..] else { panic!("{denial}") };
    assert_eq!(unmet.condition(), "by the policy of oncology.example: the function is allowed");
    assert!(unmet.remedy().contains("only a new release by the key holders of oncology.example"));
    let json = serde_json::to_value(unmet).unwrap();
    assert_eq!(
        (json["federationCode"].as_str(), json["federation"].as_str()),
        (Some("function"), Some(NAME))
    );
    assert_eq!(codes(&told(&strict, &strict)), ["function", "federation-policy"]);
    // What is the same by every policy stands once.
    let mut asked = question();
    asked.asked = format!("registry.example/average@{}", base()).parse().unwrap();
    let (node, issued) = (Policy::parse(&text).unwrap(), federation.issues(&text));
    let decide = |policy| attestations::decide(policy, &asked, &evidence, now());
    assert_eq!(codes(&decide(&node).and(decide(&issued), &asked)), ["other-digest"]);
    // The name alone: before anybody is asked.
    let by_name =
        issued.denies_by_name(&"registry.example/other:1".parse().unwrap(), &Call::default()).unwrap();
    assert_eq!(by_name.unmet[0].code(), "federation-policy");
}

#[test]
fn each_policy_revokes_its_own_yes() {
    let (world, federation) = (World::new(), Federation::new());
    let text = world.policy_text();
    let (node, issued) = (Policy::parse(&text).unwrap(), federation.issues(&text));
    let evidence = world.enough();
    let joint = by(&node, &evidence).and(by(&issued, &evidence), &question());
    let Decision::Admitted(admitted) = joint else { panic!("denied") };
    assert_eq!(admitted.each().count(), 2);
    assert_eq!((node.revokes(&admitted), issued.revokes(&admitted)), (None, None));
    let revoking = text.replace("revoked = []", &format!("revoked = [\"{}\"]", image()));
    let key = format!("[[revoked_key]]\nkey = '''{}'''\n", world.ci.public_key().to_pem());
    let compromised = text.replacen("[people", &format!("{key}[people"), 1);
    for text in [revoking, compromised] {
        for policy in [Policy::parse(&text).unwrap(), federation.issues(&text)] {
            assert!(policy.revokes(&admitted).unwrap().starts_with("the policy revokes"), "{policy:?}");
        }
    }
    let json = serde_json::to_value(&admitted).unwrap();
    assert_eq!(json["issuer"], "node");
    assert_eq!(json["also"]["issuer"]["federation"]["version"], 1);
}

#[test]
fn a_story_that_only_one_policy_believes_is_a_disagreement() {
    let (world, federation) = (World::new(), Federation::new());
    let text = world.policy_text().replace("threshold = 2", "threshold = 1");
    let only = |builder: &str| {
        text.replace("from = [\"ci\", \"auditor\", \"twin\"]", &format!("from = [\"{builder}\"]"))
    };
    let evidence = [
        world.review(&world.alice, "alice", |_| {}),
        world.build(&world.ci, "ci", |_| {}),
        world.build(&world.auditor, "auditor", |it| {
            it.value.build_definition.internal_parameters.config_digest = base();
        }),
    ];
    let (node, issued) = (Policy::parse(&only("ci")).unwrap(), federation.issues(&only("auditor")));
    let (own, theirs) = (by(&node, &evidence), by(&issued, &evidence));
    assert!(is_yes(&own) && is_yes(&theirs), "{own:?} {theirs:?}");
    assert_eq!(codes(&own.and(theirs, &question())), ["disagreement"]);
}

#[test]
fn a_release_is_read_as_it_is_written_and_unknown_fields_are_not() {
    let text = r#"{"federation":"oncology.example","version":1,"expires":"2026-09-01T00:00:00Z","signedOn":"2026-05-01T00:00:00Z"}"#;
    let release: PolicyRelease = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&release).unwrap(), text);
    for (from, to) in [
        ("\"version\":1", "\"version\":0"),
        ("\"version\":1", "\"version\":1,\"more\":1"),
        ("\"version\":1", "\"version\":1,\"version\":2"),
        ("oncology.example", "a\\nb"),
        ("\"version\":1", "\"version\":4294967296"),
    ] {
        serde_json::from_str::<PolicyRelease>(&text.replace(from, to)).unwrap_err();
    }
}

#[test]
fn what_is_granted_is_what_both_grant() {
    let (world, federation) = (World::new(), Federation::new());
    let text = world.policy_text().replace("databases = [\"default\"]\n", "");
    let with = |lines: &str| text.replace("functions = [\"partial\"]", lines);
    let narrow = "egress = [{ methods = [\"GET\", \"POST\"], path = \"/task/{id}\", query = [\"page\"] }]\n\
                  databases = [\"a\", \"b\"]\nusers = [\"alice\"]\nbudget = { requests = 5 }\n\
                  functions = { partial = { arguments = { type = \"object\", required = [\"args\"] } } }";
    let other = "egress = [{ methods = [\"GET\"], path = \"/task/7\" }, { methods = [\"PUT\"], path = \"/task/{id}\" }]\n\
                 databases = [\"b\", \"c\"]\nusers = [\"alice\", \"bob\"]\nbudget = { requests = 9, result_kib = 3 }\n\
                 functions = { partial = { arguments = { type = \"object\", required = [\"kwargs\"] } }, median = {} }";
    let (node, issued) = (Policy::parse(&with(narrow)).unwrap(), federation.issues(&with(other)));
    let evidence = world.enough();
    for (one, two) in [(&node, &issued), (&issued, &node)] {
        let joint = by(one, &evidence).and(by(two, &evidence), &question());
        let Decision::Admitted(admitted) = joint else { panic!("denied") };
        let granted = admitted.privileges();
        let passes = |method: &str, path: &[&str], query: &[(&str, &str)]| {
            granted.egress().permit(method, path, query).is_ok()
        };
        assert!(passes("GET", &["task", "7"], &[]));
        assert!(!passes("GET", &["task", "8"], &[]) && !passes("POST", &["task", "7"], &[]));
        assert!(!passes("PUT", &["task", "7"], &[]) && !passes("GET", &["task", "7"], &[("page", "1")]));
        assert_eq!((granted.budget().requests, granted.budget().result_kib), (Some(5), Some(3)));
        let codes = |call: &Call| granted.unmet(call).iter().map(Unmet::code).collect::<Vec<_>>();
        let databases = |label: &str| Call { databases: Some(vec![label.to_owned()]), ..Call::default() };
        assert!(codes(&databases("b")).is_empty());
        assert_eq!((codes(&databases("a")), codes(&databases("c"))), (vec!["database"], vec!["database"]));
        let calls = |function: &str, arguments: serde_json::Value| Call {
            function: Some(function.to_owned()),
            arguments: Some(arguments),
            ..Call::default()
        };
        assert!(codes(&calls("partial", serde_json::json!({ "args": [], "kwargs": {} }))).is_empty());
        for half in [serde_json::json!({ "args": [] }), serde_json::json!({ "kwargs": {} })] {
            assert_eq!(codes(&calls("partial", half)), ["arguments"]);
        }
        assert_eq!(codes(&calls("median", serde_json::json!({}))), ["function"]);
        let json = serde_json::to_value(granted).unwrap();
        assert_eq!(json["callers"], serde_json::json!(["alice"]), "{json}");
    }
}
