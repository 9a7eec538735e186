//! `policy show`.

use admission::{Admission, read_policy};
use attestations::federation::Release;
use errors::{Form, output};
use serde_json::{Map, Value, json};

use crate::commands::output::YES;
use crate::config::Config;
use crate::error::Result;

pub(super) fn run(config: &Config, form: Form) -> Result<u8> {
    let memory = Some(config.memory()).filter(|path| path.exists());
    let remembers = memory.is_some();
    let (policies, registries) = (config.policies()?, config.registries()?);
    let admission = Admission::new(admission::Config { policies, registries, memory })?;
    let (mut lines, mut value) = (Vec::new(), Map::new());
    if let Some(path) = &config.policy {
        let policy = read_policy(path)?;
        lines.push(format!(
            "the node's own policy\n  file: {}\n  digest: {}",
            path.display(),
            policy.digest()
        ));
        value.insert("node".to_owned(), json!({ "file": path, "digest": policy.digest() }));
    }
    if let Some(release) = admission.release()? {
        lines.push(text(&release));
        let (federation, signers) = (release.federation(), release.signers());
        value.insert(
            "federation".to_owned(),
            json!({ "name": federation, "release": release.edition(), "signedBy": signers, "remembered": remembers }),
        );
        if !remembers {
            lines.push("this node remembers no earlier release yet: `run` and `serve` begin that".to_owned());
        }
        if config.policy.is_some() {
            lines.push("an image is admitted only if both admit it".to_owned());
        }
    }
    output::result(form, &lines.join("\n"), &Value::Object(value))?;
    Ok(YES)
}

fn text(release: &Release) -> String {
    let signers: Vec<&str> = release.signers().iter().map(String::as_str).collect();
    let edition = release.edition();
    format!(
        "the policy of {}\n  version: {}\n  expires: {}\n  signed by: {}\n  digest: {}",
        release.federation(),
        edition.version,
        edition.expires,
        signers.join(", "),
        edition.policy
    )
}
