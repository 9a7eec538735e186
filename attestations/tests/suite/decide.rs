//! `decide` with signed evidence: what is admitted, and each attack on it, named after `attacks`.

use crate::common::*;
use attestations::provenance::{RebuildOf, RebuildVerdict, ResourceDescriptor};
use attestations::review::{Person, Scope, Verdict};
use attestations::{Bundle, Call, Decision, Digest, Policy, Predicate, Statement, Subject, decide};

fn differs(subject: Digest) -> Option<RebuildOf> {
    Some(RebuildOf { subject, provenance: Digest::of(b"p"), verdict: RebuildVerdict::Differs })
}

#[test]
fn two_reviews_and_two_builds_are_admitted() {
    let world = World::new();
    let Decision::Admitted(admitted) = world.decide(&world.enough()) else {
        panic!("{:?}", world.unmet(&world.enough()))
    };
    assert_eq!(admitted.pinned().digest(), &image());
    assert_eq!(admitted.commit().as_str(), COMMIT);
    assert_eq!(admitted.config_digest(), &Digest::of(b"config"));
    assert_eq!(
        (admitted.reviews(), admitted.builds()),
        (&["alice".to_owned(), "bob".to_owned()][..], &["auditor".to_owned(), "ci".to_owned()][..])
    );
    let of = |name: &str| Call { function: Some(name.to_owned()), ..Call::default() };
    assert!(admitted.privileges().unmet(&of("partial")).is_empty());
    assert!(!admitted.privileges().unmet(&of("dump")).is_empty());
}

#[test]
fn the_order_of_the_evidence_changes_nothing() {
    let world = World::new();
    let mut evidence = world.enough();
    evidence.push(world.review(&world.mallory, "mallory", |it| it.value.verdict = Verdict::Rejected));
    evidence.push(world.build(&world.twin, "twin", |_| {}));
    let text = |evidence: &[_]| format!("{:?}", world.decide(evidence));
    let first = text(&evidence);
    for _ in 0..evidence.len() {
        evidence.rotate_left(1);
        assert_eq!(text(&evidence), first);
    }
}

#[test]
fn each_piece_alone_is_needed() {
    let world = World::new();
    for left_out in 0..4 {
        let mut evidence = world.enough();
        evidence.remove(left_out);
        assert_eq!(world.unmet(&evidence), [if left_out < 2 { "reviews" } else { "builds" }]);
    }
    assert_eq!(world.unmet(&[]), ["builds", "reviews"]);
}

#[test]
fn a_signature_of_another_predicate_type_counts_for_nothing() {
    let world = World::new();
    let mut evidence = world.enough();
    let other = Statement {
        subject: vec![Subject::image("average", &image())],
        predicate: Predicate::Other {
            predicate_type: "https://slsa.dev/provenance/v0.2".to_owned(),
            value: serde_json::json!({}),
        },
    };
    evidence[3] = crate::common::evidence("auditor", &world.auditor, other);
    assert_eq!(world.unmet(&evidence), ["builds"]);
    // A reviewer's key makes no build, and a builder's key no review.
    evidence[3] = world.build(&world.alice, "auditor", |_| {});
    assert_eq!(world.unmet(&evidence), ["builds"]);
}

#[test]
fn a_threshold_counts_people_and_operators_and_not_signatures() {
    let world = World::new();
    let [alice, bob, ci, auditor] = <[_; 4]>::try_from(world.enough()).unwrap();
    // The same key twice, with another text.
    let again = world.review(&world.alice, "alice", |it| it.value.note = Some("again".to_owned()));
    assert_eq!(world.unmet(&[alice.clone(), again, ci.clone(), auditor.clone()]), ["reviews"]);
    // One bundle repeated.
    assert_eq!(world.unmet(&[alice.clone(), alice.clone(), ci.clone(), auditor]), ["reviews"]);
    // One operator's two builders (a rebuild by the builder itself under another name).
    let twin = world.build(&world.twin, "twin", |_| {});
    assert_eq!(world.unmet(&[alice, bob, ci, twin]), ["builds"]);
}

#[test]
fn a_key_of_two_people_is_refused_with_the_policy() {
    let mut world = World::new();
    world.bob = Key::new();
    let text = world.policy_text();
    let (alice, bob) = (
        attestations::Signer::public_key(&world.alice).to_pem(),
        attestations::Signer::public_key(&world.bob).to_pem(),
    );
    assert!(Policy::parse(&text.replace(&bob, &alice)).is_err());
}

#[test]
fn what_is_revoked_is_denied() {
    let world = World::new();
    for revoked in [image(), base(), Digest::of(b"config")] {
        let policy = Policy::parse(
            &world.policy_text().replace("revoked = []", &format!("revoked = [\"{revoked}\"]")),
        )
        .unwrap();
        let found = codes(&decide(&policy, &question(), &world.enough(), now()));
        assert!(!found.is_empty(), "{revoked} is revoked");
    }
}

#[test]
fn a_review_of_one_commit_does_not_serve_the_build_of_another() {
    let world = World::new();
    let mut evidence = world.enough();
    evidence[1] = world.review(&world.bob, "bob", |it| {
        it.subject = vec![Subject::commit(SOURCE, &OTHER_COMMIT.parse().unwrap())]
    });
    assert_eq!(world.unmet(&evidence), ["reviews"]);
    // The same commit, but another tree than was built.
    evidence[1] = world.review(&world.bob, "bob", |it| it.value.tree = OTHER_COMMIT.parse().unwrap());
    assert_eq!(world.unmet(&evidence), ["reviews"]);
}

#[test]
fn nobody_reviews_what_they_wrote() {
    let world = World::new();
    let bob = || Person { name: "Robert".to_owned(), email: "BOB@x.example ".to_owned() };
    let mut evidence = world.enough();
    evidence[2] =
        world.build(&world.ci, "ci", |it| it.value.build_definition.internal_parameters.authors.push(bob()));
    assert_eq!(world.unmet(&evidence), ["reviews"], "the builder says that bob is an author");
    let mut evidence = world.enough();
    evidence[0] = world.review(&world.alice, "alice", |it| it.value.authors.push(bob()));
    assert_eq!(world.unmet(&evidence), ["reviews"], "another reviewer says so");
}

#[test]
fn a_review_of_changes_needs_the_commit_before_reviewed() {
    let world = World::new();
    let changes =
        || Scope::Changes { since: OTHER_COMMIT.parse().unwrap(), since_tree: TREE.parse().unwrap() };
    let before =
        |it: &mut Signed<_>| it.subject = vec![Subject::commit(SOURCE, &OTHER_COMMIT.parse().unwrap())];
    let mut evidence = world.enough();
    evidence[1] = world.review(&world.bob, "bob", |it| it.value.scope = changes());
    assert_eq!(world.unmet(&evidence), ["reviews"]);
    evidence.push(world.review(&world.bob, "bob", before));
    assert_eq!(world.unmet(&evidence), ["reviews"], "one review of it is not enough");
    evidence.push(world.review(&world.alice, "alice", before));
    assert!(world.unmet(&evidence).is_empty());
    evidence.push(world.review(&world.mallory, "mallory", |it| {
        before(it);
        it.value.verdict = Verdict::Rejected;
        it.value.tree = OTHER_COMMIT.parse().unwrap();
    }));
    assert_eq!(world.unmet(&evidence), ["reviews"], "it was rejected");
}

#[test]
fn reviews_of_changes_in_a_circle_prove_nothing() {
    let world = World::new();
    let (one, two) = (COMMIT, OTHER_COMMIT);
    let review = |key, who, commit: &str, since: &str| {
        world.review(key, who, |it| {
            it.subject = vec![Subject::commit(SOURCE, &commit.parse().unwrap())];
            it.value.scope =
                Scope::Changes { since: since.parse().unwrap(), since_tree: TREE.parse().unwrap() };
        })
    };
    let mut evidence = world.enough().split_off(2);
    for (key, who) in [(&world.alice, "alice"), (&world.bob, "bob")] {
        evidence.extend([review(key, who, one, two), review(key, who, two, one)]);
    }
    assert_eq!(world.unmet(&evidence), ["reviews"]);
}

#[test]
fn a_stray_digest_in_a_list_of_subjects_admits_nothing() {
    let world = World::new();
    let mut evidence = world.enough();
    evidence[3] = world.build(&world.auditor, "auditor", |it| {
        it.subject.insert(0, Subject::image("other", &Digest::of(b"other")))
    });
    assert_eq!(world.unmet(&evidence), ["builds"]);
    evidence[3] = world.build(&world.auditor, "auditor", |it| {
        it.subject = vec![Subject::image("average", &Digest::of(b"other"))]
    });
    assert_eq!(world.unmet(&evidence), ["builds"]);
}

#[test]
fn builders_that_disagree_about_one_image_are_not_believed() {
    let world = World::new();
    let mut evidence = world.enough();
    let twin = world.build(&world.twin, "twin", |it| {
        it.value.build_definition.internal_parameters.config_digest = Digest::of(b"other config")
    });
    evidence.push(twin);
    assert_eq!(world.unmet(&evidence), ["disagreement"]);
    // A rebuild of other inputs that claims the same digest.
    evidence[4] = world.build(&world.twin, "twin", |it| {
        _ = it.value.build_definition.external_parameters.build_args.insert("A".to_owned(), "1".to_owned())
    });
    assert_eq!(world.unmet(&evidence), ["disagreement"]);
}

#[test]
fn a_veto_counts_whatever_else_is_wrong_with_it() {
    let world = World::new();
    let future = "2030-01-01T00:00:00Z".parse().unwrap();
    let stray = || Subject::image("stray", &Digest::of(b"stray"));
    let rebuilds = [
        world.build(&world.twin, "twin", |it| {
            it.value.build_definition.internal_parameters.rebuild_of = differs(image())
        }),
        world.build(&world.twin, "nobody", |it| {
            it.value.build_definition.internal_parameters.rebuild_of = differs(image());
            it.value.run_details.metadata.finished_on = future;
            it.subject = vec![stray(), stray()];
        }),
    ];
    for rebuild in rebuilds {
        let mut evidence = world.enough();
        evidence.push(rebuild);
        assert_eq!(world.unmet(&evidence), ["failed-rebuild"]);
        let ignoring = Policy::parse(&world.policy_text().replace("\"veto\"", "\"ignore\"")).unwrap();
        assert!(codes(&decide(&ignoring, &question(), &evidence, now())).is_empty());
    }
    let mut evidence = world.enough();
    // Mallory is in the policy, but no reviewer of this rule: their no counts, their yes does not.
    evidence.push(world.review(&world.mallory, "mallory", |it| {
        it.value.verdict = Verdict::Rejected;
        it.value.reviewed_on = future;
        it.subject.push(Subject::commit(SOURCE, &OTHER_COMMIT.parse().unwrap()));
    }));
    assert_eq!(world.unmet(&evidence), ["rejected"]);
    // The rejected tree under another commit's name is rejected, too.
    evidence[4] = world.review(&world.mallory, "mallory", |it| {
        it.value.verdict = Verdict::Rejected;
        it.subject = vec![Subject::commit(SOURCE, &OTHER_COMMIT.parse().unwrap())];
    });
    assert_eq!(world.unmet(&evidence), ["rejected"]);
    evidence[4] = world.review(&world.mallory, "mallory", |_| {});
    assert!(world.unmet(&evidence).is_empty());
    evidence.remove(0);
    assert_eq!(world.unmet(&evidence), ["reviews"]);
}

#[test]
fn provenance_that_names_no_source_tree_or_base_does_not_count() {
    let world = World::new();
    for kind in [ResourceDescriptor::SOURCE, ResourceDescriptor::SOURCE_TREE, ResourceDescriptor::BASE] {
        let mut evidence = world.enough();
        evidence[3] = world.build(&world.auditor, "auditor", |it| {
            it.value.build_definition.resolved_dependencies.retain(|one| !one.is(kind))
        });
        assert_eq!(world.unmet(&evidence), ["builds"], "without {kind}");
    }
}

#[test]
fn sources_and_bases_off_the_list_are_named() {
    let world = World::new();
    let enough = world.enough();
    let evidence = [
        enough[0].clone(),
        enough[1].clone(),
        world.build(&world.ci, "ci", |it| {
            it.value.build_definition.external_parameters.source =
                "git+https://evil.example/average".to_owned()
        }),
        enough[3].clone(),
    ];
    let Decision::Denied(denial) = world.decide(&evidence) else { panic!("admitted") };
    assert_eq!(denial.unmet.iter().map(|it| it.code()).collect::<Vec<_>>(), ["source", "builds"]);
    assert!(
        denial.ignored.iter().any(|it| it.reason.to_string().contains("evil.example")),
        "{:?}",
        denial.ignored
    );
}

#[test]
fn what_comes_from_the_future_does_not_count() {
    let world = World::new();
    let future = "2026-06-01T12:06:00Z".parse().unwrap();
    let mut evidence = world.enough();
    evidence[0] = world.review(&world.alice, "alice", |it| it.value.reviewed_on = future);
    evidence[2] = world.build(&world.ci, "ci", |it| it.value.run_details.metadata.finished_on = future);
    assert_eq!(world.unmet(&evidence), ["builds", "reviews"]);
}

#[test]
fn too_much_evidence_denies_rather_than_leaving_some_out() {
    let world = World::new();
    let mut evidence = world.enough();
    let one = evidence[0].clone();
    evidence.resize(600, one);
    assert_eq!(world.unmet(&evidence), ["too-much-evidence"]);
}

#[test]
fn a_function_off_the_list_is_denied() {
    let world = World::new();
    let mut question = question();
    question.call.function = Some("dump".to_owned());
    assert_eq!(codes(&decide(&world.policy(), &question, &world.enough(), now())), ["function"]);
}

#[test]
fn one_changed_byte_of_a_bundle_never_verifies_to_another_statement() {
    let world = World::new();
    let bytes = world.review(&world.alice, "alice", |_| {}).bytes;
    let key = attestations::Signer::public_key(&world.alice);
    let read =
        |bytes: &[u8]| Some(Bundle::parse(bytes).ok()?.verify(key).ok()?.statement().unwrap().into_value());
    let honest = read(&bytes);
    assert!(honest.is_some());
    let mut still = 0;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let verified = read(&changed);
        if verified.is_none() {
            continue;
        }
        assert_eq!(verified, honest, "byte {at}");
        still += 1;
    }
    // The hint and the keyid drive nothing, so a change there is harmless; everything else is signed.
    assert!(still < bytes.len() / 4, "{still} of {}", bytes.len());
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let world = World::new();
    let bundle = Bundle::parse(&world.review(&world.alice, "alice", |_| {}).bytes).unwrap();
    let text = String::from_utf8(bundle.statement_unverified().unwrap().value().to_bytes().unwrap()).unwrap();
    assert!(Statement::from_bytes(text.as_bytes()).is_ok());
    let twice = text.replace("\"verdict\":\"approved\"", "\"verdict\":\"rejected\",\"verdict\":\"approved\"");
    assert_ne!(twice, text);
    assert!(Statement::from_bytes(twice.as_bytes()).is_err());
}

#[test]
fn a_set_of_digests_names_each_algorithm_once() {
    let world = World::new();
    let bundle = Bundle::parse(&world.build(&world.ci, "ci", |_| {}).bytes).unwrap();
    let text = String::from_utf8(bundle.statement_unverified().unwrap().value().to_bytes().unwrap()).unwrap();
    let own = format!("\"sha256\":\"{}\"", image().hex());
    let twice = text.replacen(&own, &format!("\"sha256\":\"{}\",{own}", base().hex()), 1);
    assert_ne!(twice, text);
    assert!(Statement::from_bytes(twice.as_bytes()).unwrap_err().to_string().contains("twice"));
}

#[test]
fn what_a_trusted_key_signed_and_nobody_can_read_denies() {
    let world = World::new();
    let later = |predicate_type: &str, value| Statement {
        subject: vec![Subject::image("average", &image())],
        predicate: Predicate::Other { predicate_type: predicate_type.to_owned(), value },
    };
    let verdict = serde_json::json!({"verdict": "withdrawn"});
    let build = serde_json::json!({"buildDefinition": {"buildType": "https://countersign.dev/build/v9"}});
    let statements = [
        later("https://countersign.dev/review/v9", verdict.clone()),
        later("https://countersign.dev/review/v1", verdict),
        later("https://slsa.dev/provenance/v1", build),
    ];
    for statement in statements {
        for key in [&world.mallory, &world.auditor] {
            let mut evidence = world.enough();
            evidence.push(crate::common::evidence("later", key, statement.clone()));
            assert_eq!(world.unmet(&evidence), ["unreadable"], "{statement:?}");
        }
        // A stranger's is no more than noise.
        let mut evidence = world.enough();
        evidence.push(crate::common::evidence("later", &crate::common::Key::new(), statement));
        assert!(world.unmet(&evidence).is_empty());
    }
}

#[test]
fn the_hint_of_a_bundle_decides_nothing() {
    let world = World::new();
    let hint = |key: &crate::common::Key| attestations::Signer::public_key(key).id().to_string();
    let mut evidence = world.enough();
    for one in &mut evidence {
        let text = String::from_utf8(one.bytes.clone()).unwrap();
        let wrong = [&world.alice, &world.bob, &world.ci, &world.auditor]
            .iter()
            .fold(text, |text, key| text.replace(&hint(key), &hint(&world.mallory)));
        assert!(wrong.contains(&hint(&world.mallory)));
        one.bytes = wrong.into_bytes();
    }
    assert!(world.unmet(&evidence).is_empty());
    // The right hint with another's signature.
    let stranger = crate::common::Key::new();
    let forged = String::from_utf8(world.review(&stranger, "alice", |_| {}).bytes).unwrap();
    let forged = forged.replace(&hint(&stranger), &hint(&world.alice)).into_bytes();
    evidence[0].bytes = forged;
    assert_eq!(world.unmet(&evidence), ["reviews"]);
}

#[test]
fn what_strangers_attach_is_one_short_printable_line_of_a_denial() {
    let world = World::new();
    let stranger = Key::new();
    let honest = String::from_utf8(world.review(&stranger, "x", |_| {}).bytes).unwrap();
    let payload_type = format!("\\u001b[2J\\u202eadmitted\\n{}", "x".repeat(1 << 20));
    let type_of = |text: &str| honest.replace("application/vnd.in-toto+json", text).into_bytes();
    let huge = type_of(&payload_type);
    assert!(huge.len() > 1 << 20 && huge != honest.as_bytes());
    let told = Bundle::parse(&huge).unwrap_err().to_string();
    assert!(told.contains(r"\u{1b}[2J\u{202e}admitted\nxxx") && told.contains("cut, 10485"), "{told}");
    let unknown_field = honest.replacen('{', &format!("{{\"\\u001b[2J{}\":1,", "y".repeat(1 << 20)), 1);
    let mut evidence: Vec<_> = [huge, b"\x1b[2J".to_vec(), unknown_field.into_bytes()]
        .into_iter()
        .map(|bytes| attestations::Evidence { origin: "a\u{1b}[2J\n.json".to_owned(), bytes })
        .collect();
    // Types that trusted people sign are their own texts, too.
    let other = |predicate_type: String| Statement {
        subject: vec![Subject::image("average", &image())],
        predicate: Predicate::Other { predicate_type, value: serde_json::json!({}) },
    };
    let long = format!("\u{1b}[2J{}", "z".repeat(1 << 20));
    evidence.push(crate::common::evidence("mallory", &world.mallory, other(long.clone())));
    let later = format!("https://countersign.dev/review/{long}");
    evidence.push(crate::common::evidence("mallory", &world.mallory, other(later)));
    let Decision::Denied(denial) = world.decide(&evidence) else { panic!("admitted") };
    assert_eq!(denial.ignored.len(), 5, "{denial}");
    for line in denial.to_string().lines() {
        assert!(!line.contains(|it: char| it.is_control() || it == '\u{202e}') && line.len() < 900, "{line}");
    }
    let json = serde_json::to_string(&denial).unwrap();
    assert!(!json.contains("\\u001b") && json.len() < 8192, "{json}");
}
