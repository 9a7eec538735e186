//! `policy check`.

use std::path::Path;

use attestations::{Finding, Severity};
use errors::{Form, output, plural};
use jiff::Timestamp;
use serde_json::json;

use crate::commands::output::YES;
use crate::error::{Kind, Result};

pub(super) fn run(path: &Path, form: Form) -> Result<u8> {
    let policy = admission::read_policy(path)?;
    let findings = policy.findings(Timestamp::now());
    let is_sound = findings.iter().all(|one| one.severity != Severity::Error);
    let mut text = findings.iter().map(line).collect::<Vec<_>>().join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("{}: {}", path.display(), plural(findings.len(), "finding")));
    let value = json!({ "policy": path, "digest": policy.digest(), "sound": is_sound, "findings": findings });
    output::result(form, &text, &value)?;
    Ok(if is_sound { YES } else { Kind::Refused.exit_code() })
}

fn line(one: &Finding) -> String {
    format!("{}: {}: {}", one.severity, one.about, one.message)
}
