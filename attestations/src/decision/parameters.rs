//! Whether somebody chose parameters that nobody reviewed.

use std::collections::BTreeSet;

use super::{Few, Unmet};
use crate::policy::{Allowed, Demands};
use crate::provenance::{BuildDefinition, ExternalParameters, Override, ResourceDescriptor as Resource};

/// The parameters of a build that neither its tree gives nor the rule allows.
pub(super) fn lacking(demands: &Demands, build: &BuildDefinition) -> Option<Unmet> {
    let given = &build.external_parameters;
    let is_refused = |one: &&Override| match one {
        // The rule says by digest which bases are allowed, wherever they were taken from.
        Override::Base(_) if demands.bases != Allowed::Any => false,
        _ => !demands.parameters.permit(one, given),
    };
    let mut found: BTreeSet<String> =
        given.overrides.iter().filter(is_refused).map(|one| with_value(one, given)).collect();
    found.extend(
        build.resolved_dependencies.iter().filter(|it| it.is(Resource::BASE)).filter_map(contradiction),
    );
    (!found.is_empty()).then(|| Unmet::Parameters { found: Few::of(&found) })
}

/// The parameter as it is told.
fn with_value(one: &Override, given: &ExternalParameters) -> String {
    let value = match one {
        Override::BuildArg(name) => given.build_args.get(name),
        Override::Label(key) => given.labels.get(key),
        Override::Target => given.target.as_ref(),
        Override::Dockerfile => Some(&given.dockerfile),
        Override::Context => Some(&given.context),
        Override::Platform => Some(&given.platform),
        Override::Secret(_) | Override::Port(_) | Override::Base(_) => None,
    };
    value.map_or_else(|| one.to_string(), |value| format!("{one}={value}"))
}

/// A base that the Dockerfile names by one digest, and that has another one. No rule allows that.
fn contradiction(base: &Resource) -> Option<String> {
    let name = base.text(Resource::BASE_NAME)?;
    let (_, pinned) = name.rsplit_once("@sha256:")?;
    let found = base.digest.get("sha256").map_or("none", String::as_str);
    let index = base.text(Resource::BASE_INDEX).and_then(|it| it.strip_prefix("sha256:"));
    (pinned != found && index != Some(pinned)).then(|| format!("the base {name} is sha256:{found}"))
}
