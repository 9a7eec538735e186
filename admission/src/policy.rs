//! Loading the policy.

use std::path::Path;

use attestations::Policy;
use errors::{Error, Kind, Result, trusted};

/// The most bytes of a policy.
const MAX_POLICY: u64 = 16 << 20;

/// Reads a policy. It is read anew for each decision, so that a revocation counts at once.
///
/// # Errors
/// When it is missing, empty, half-written, or has a field that is not known, or others may change it. None of these
/// ever admits anything.
pub fn read(path: &Path) -> Result<Policy> {
    let text = trusted::read_text(path, MAX_POLICY).map_err(|cause| {
        let what = format!("there is no usable policy, so nothing is admitted: {}", path.display());
        let hint = match (cause.kind(), cause.hint_text()) {
            (Kind::Refused, Some(remedy)) => remedy.to_owned(),
            _ => "`countersign-runner init DIR` writes a commented example; name yours with --policy or in \
                  runner.toml"
                .to_owned(),
        };
        Error::new(cause.kind(), what).hint(hint).because(cause)
    })?;
    Policy::parse(&text).map_err(|cause| {
        Error::new(
            Kind::Input,
            format!("the policy {} is not usable, so nothing is admitted", path.display()),
        )
        .hint("mend the line it names; docs/policy.md describes every field")
        .because(cause)
    })
}
