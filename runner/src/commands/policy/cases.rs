//! `policy test`.

use std::path::{Path, PathBuf};

use admission::{Admission, Question, Sources};
use attestations::{Call, Caller, Decision, Foreign, Older};
use errors::{Form, files, output, plural};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::output::YES;
use crate::commands::runtime;
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    reference: String,
    #[serde(default)]
    evidence: Vec<PathBuf>,
    function: Option<String>,
    arguments: Option<Value>,
    databases: Option<Vec<String>>,
    user: Option<String>,
    at: Option<String>,
    expect: Expected,
}

/// `"admitted"`, or codes of what is not met.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`expect` is \"admitted\", or a list of codes")]
enum Expected {
    Word(String),
    Codes(Vec<String>),
}

pub(super) fn run(config: &Config, path: &Path, form: Form) -> Result<u8> {
    let text = files::read_text(path, config::MAX_FILE)?;
    let cases: Cases = toml::from_str(&text).map_err(|cause| {
        Error::new(Kind::Input, format!("{} holds no cases: {}", path.display(), cause.message()))
            .hint("write [[case]] with name, reference, evidence and expect; docs/policy.md has an example")
    })?;
    let memory = None;
    let registries = config.registries()?;
    let admission = Admission::new(admission::Config { policies: config.policies()?, registries, memory })?;
    let runtime = runtime()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut results = Vec::new();
    for case in &cases.case {
        let wrong = |cause: Error| {
            let told =
                Error::new(cause.kind(), format!("the case {} cannot be decided", Foreign::new(&case.name)));
            match cause.hint_text().map(str::to_owned) {
                Some(hint) => told.hint(hint).because(cause),
                None => told.because(cause),
            }
        };
        let expected = case.expect.codes().map_err(wrong)?;
        let decision = runtime.block_on(admission.decide(&case.question(folder).map_err(wrong)?, None));
        results.push((case, expected, codes(&decision.map_err(wrong)?)));
    }
    let failed = results.iter().filter(|(_, expected, found)| expected != found).count();
    let told: Vec<String> =
        results.iter().map(|(case, expected, found)| line(case, expected, found)).collect();
    let text = format!("{}\n{}, {failed} failed", told.join("\n"), plural(results.len(), "case"));
    let all: Vec<Value> = results
        .iter()
        .map(|(case, expected, found)| {
            json!({ "name": case.name, "passed": expected == found, "expected": expected, "found": found })
        })
        .collect();
    output::result(form, &text, &json!({ "cases": all, "failed": failed }))?;
    Ok(if failed == 0 { YES } else { Kind::Refused.exit_code() })
}

impl Case {
    fn question(&self, folder: &Path) -> Result<Question> {
        let unusable = |what: &str, why: String| Error::new(Kind::Input, format!("{what}: {why}"));
        let at = self.at.as_ref().map(|text| text.parse::<Timestamp>()).transpose();
        Ok(Question {
            reference: self
                .reference
                .parse()
                .map_err(|cause: attestations::ReferenceError| unusable("reference", cause.to_string()))?,
            call: Call {
                function: self.function.clone(),
                arguments: self.arguments.clone(),
                databases: self.databases.clone(),
                caller: self.user.clone().map(|user| Caller { user: Some(user), uid: None }),
            },
            evidence: self.evidence.iter().map(|path| folder.join(path)).collect(),
            sources: Sources::Offline,
            at: at.map_err(|cause| unusable("at", cause.to_string()))?,
            older: Older::Denied,
        })
    }
}

impl Expected {
    /// The codes, in order; none where it is to be admitted.
    fn codes(&self) -> Result<Vec<String>> {
        let refused = |why: &str| {
            Error::new(Kind::Input, format!("expect {why}"))
                .hint("write \"admitted\", or a list of codes such as [\"reviews\", \"builds\"]")
        };
        match self {
            Self::Word(word) if word == "admitted" => Ok(Vec::new()),
            Self::Word(_) => Err(refused("is neither \"admitted\" nor a list")),
            Self::Codes(codes) if codes.is_empty() => Err(refused("is an empty list")),
            Self::Codes(codes) => {
                let mut codes = codes.clone();
                codes.sort();
                codes.dedup();
                Ok(codes)
            }
        }
    }
}

/// The codes of what is not met, each once and in order.
pub(super) fn codes(decision: &Decision) -> Vec<String> {
    let Decision::Denied(denial) = decision else { return Vec::new() };
    let mut codes: Vec<String> = denial.unmet.iter().map(|unmet| unmet.code().to_owned()).collect();
    codes.sort();
    codes.dedup();
    codes
}

fn line(case: &Case, expected: &[String], found: &[String]) -> String {
    let word = |codes: &[String]| if codes.is_empty() { "admitted".to_owned() } else { codes.join(", ") };
    let name = Foreign::new(&case.name);
    match expected == found {
        true => format!("passed: {name}"),
        false => format!("FAILED: {name}\n  expected: {}\n  found:    {}", word(expected), word(found)),
    }
}
