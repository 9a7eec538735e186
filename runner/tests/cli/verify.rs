//! `verify`: what it asks, and what it says.

use std::process::Command;

use serde_json::Value;

use super::site::{NAME, Site, cannot_run};
use super::{output_of, text, verify};

#[test]
fn verify_says_yes_with_who_stands_for_it() {
    let site = Site::new();
    let yes = verify(&site, site.policy(), &["--function", "average"]);
    assert_eq!(yes.status.code(), Some(0), "{}", text(&yes));
    let wanted = format!(
        "admitted: {}\n  commit: {}\n  rule: {NAME}\n  reviewed by: alice\n  built by: ci\n",
        site.reference(),
        "1".repeat(40)
    );
    assert_eq!(text(&yes), wanted, "no colours where nobody sees them");
    let json: Value = serde_json::from_slice(&verify(&site, site.policy(), &["--json"]).stdout).unwrap();
    assert_eq!((&json["verdict"], &json["admitted"]["builds"][0]), (&"admitted".into(), &"ci".into()));
}

#[test]
fn verify_asks_about_the_call_that_it_is_given_and_about_nothing_else() {
    let site = Site::new();
    let text_of = std::fs::read_to_string(site.policy()).unwrap();
    let rule = "functions = { average = { arguments = { properties = { kwargs = { maxProperties = 0 } } } } }\n\
                databases = [\"default\"]\nusers = [\"root\", \"uid:4242\"]\n";
    let narrow = text_of.replacen("functions = [\"average\"]\ndatabases = \"any\"\n", rule, 1);
    assert_ne!(narrow, text_of);
    let policy = site.path("narrow.toml");
    std::fs::write(&policy, narrow).unwrap();
    let input = site.path("call.json");
    let input = input.to_str().unwrap();
    std::fs::write(input, r#"{"method":"average","kwargs":{"column":"age"}}"#).unwrap();
    for (asked, code) in [
        (&[][..], None),
        (&["--database", "default", "--user", "root"], None),
        (&["--user", "uid:4242"], None),
        (&["--function", "average"], None),
        (&["--database", "default", "--database", "genomes"], Some("database")),
        (&["--user", "nobody"], Some("caller")),
        (&["--input", input], Some("arguments")),
        (&["--function", "median"], Some("function")),
    ] {
        let answer = verify(&site, &policy, &[asked, &["--json"]].concat());
        let json: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(json["denial"]["unmet"][0]["code"].as_str(), code, "{asked:?}: {json}");
        assert_eq!(answer.status.code(), Some(i32::from(code.is_some())), "{asked:?}: {json}");
    }
    std::fs::write(input, r#"{"method":"average"}"#).unwrap();
    let answer = verify(&site, &policy, &["--input", input, "--database", "default", "--json"]);
    let json: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let granted = &json["admitted"]["privileges"];
    assert_eq!(
        (&granted["databases"], &granted["egress"]),
        (&serde_json::json!(["default"]), &serde_json::json!([]))
    );
    assert_eq!(
        granted["functions"]["average"]["arguments"]["properties"]["kwargs"]["maxProperties"], 0,
        "{json}"
    );
    let both = verify(&site, &policy, &["--input", input, "--function", "average"]);
    assert_eq!(both.status.code(), Some(2), "{}", text(&both));
}

#[test]
fn verify_needs_no_network_when_the_evidence_is_at_hand() {
    let site = Site::new();
    if cannot_run() {
        return;
    }
    let arguments = [
        "--policy".as_ref(),
        site.policy().as_os_str(),
        "verify".as_ref(),
        site.reference().as_ref(),
        "--offline".as_ref(),
        "--evidence".as_ref(),
        site.evidence().as_os_str(),
    ]
    .map(std::ffi::OsStr::to_owned);
    // A network namespace in which not even loopback is up.
    let mut command = Command::new("unshare");
    let output = output_of(command.args(["--net", env!("CARGO_BIN_EXE_countersign-runner")]).args(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn verify_names_each_unmet_condition_with_what_was_found_and_a_remedy() {
    let site = Site::new();
    std::fs::remove_file(site.evidence().join("review.json")).unwrap();
    let no = verify(&site, site.policy(), &["--function", "median"]);
    assert_eq!(no.status.code(), Some(1), "{}", text(&no));
    let told = text(&no);
    assert!(told.starts_with("denied: ") && told.contains("median") && told.contains("alice"), "{told}");
    for word in ["wanted: ", "found:  ", "remedy: "] {
        assert_eq!(told.matches(word).count(), 2, "{told}");
    }
    let no = verify(&site, site.policy(), &["--function", "median", "--json"]);
    let json: Value = serde_json::from_slice(&no.stdout).unwrap();
    assert_eq!((&json["verdict"], no.status.code()), (&"denied".into(), Some(1)));
    assert_eq!(json["denial"]["unmet"].as_array().unwrap().len(), 2, "{json}");
}

#[test]
fn verify_holds_the_builds_against_what_the_policy_asks_of_materials() {
    let site = Site::new();
    let rules = std::fs::read_to_string(site.policy()).unwrap();
    let policy = site.path("strict.toml");
    let ask = |materials: &str| {
        std::fs::write(&policy, format!("{rules}[algorithm.materials]\n{materials}")).unwrap();
        verify(&site, &policy, &["--json"])
    };
    let yes = ask("complete = true\nhosts = []\nforbid = [\"pkg:pypi/requests@*\"]");
    assert_eq!(yes.status.code(), Some(0), "{}", text(&yes));
    let no = ask("complete = true\nhosts = []\nrequire = [\"pkg:pypi/pandas@2.*\"]");
    assert_eq!(no.status.code(), Some(1), "{}", text(&no));
    let json: Value = serde_json::from_slice(&no.stdout).unwrap();
    let unmet = &json["denial"]["unmet"];
    assert_eq!((&unmet[0]["code"], &unmet[1]["code"]), (&"missing-packages".into(), &"builds".into()));
    assert_eq!(unmet[0]["found"], "nothing that matches pkg:pypi/pandas@2.*");
    let half = ask("complete = true");
    assert_eq!(half.status.code(), Some(3), "{}", text(&half));
}

#[test]
fn a_changed_byte_in_a_bundle_makes_it_nobodys() {
    let site = Site::new();
    let path = site.evidence().join("build.json");
    let mut bundle: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let signature = bundle.pointer_mut("/dsseEnvelope/signatures/0/sig").unwrap();
    let flipped: String = signature
        .as_str()
        .unwrap()
        .char_indices()
        .map(|(at, c)| if at == 9 { other(c) } else { c })
        .collect();
    *signature = flipped.into();
    std::fs::write(&path, bundle.to_string()).unwrap();
    let no = verify(&site, site.policy(), &[]);
    assert_eq!(no.status.code(), Some(1), "{}", text(&no));
    assert!(text(&no).contains("no key of this policy signed it"), "{}", text(&no));
}

fn other(c: char) -> char {
    if c == 'A' { 'B' } else { 'A' }
}
