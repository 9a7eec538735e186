//! What the fuzz targets in `fuzz/` call: one function for each parser of foreign bytes. Each returns whether the bytes
//! were accepted, and panics when what was accepted does not hold together. Part of no public interface.

use std::sync::OnceLock;

use jiff::Timestamp;

use crate::purl::{coordinates, pattern};
use crate::sigstore::{self, Artifact, Expected, Instance, TrustedRoot};
use crate::{Bundle, Digest, Policy, Predicate, Statement, StatementError};

/// A bundle, verified by its certificate if it has one, and the statement in it without its signature having been checked.
#[must_use]
pub fn bundle(bytes: &[u8]) -> bool {
    static ROOT: OnceLock<Option<TrustedRoot>> = OnceLock::new();
    if let Some(root) = ROOT.get_or_init(|| TrustedRoot::shipped(Instance::PublicGood).ok()) {
        let artifact = Artifact { digest: Digest::of(b""), bytes: Some(b"") };
        let nobody = Expected::Certificate { identity: "nobody", issuer: "nobody" };
        let found = sigstore::verify(bytes, &artifact, &nobody, root, Timestamp::MAX);
        assert!(found.is_err(), "nobody signed it");
    }
    let whole: usize = crate::bundle::split(bytes).iter().map(|part| part.len()).sum();
    assert!(whole <= bytes.len(), "no part of a file is read twice");
    let Ok(bundle) = Bundle::parse(bytes) else { return false };
    assert_eq!(bundle.to_bytes(), bytes, "what is hashed is what came");
    bundle.statement_unverified().is_ok()
}

/// A statement; one of a kind known here is the same when it is written and read again.
#[must_use]
pub fn statement(bytes: &[u8]) -> bool {
    let Ok(statement) = Statement::from_bytes(bytes) else { return false };
    let written = statement.to_bytes();
    let again = written.as_deref().ok().and_then(|written| Statement::from_bytes(written).ok());
    let is_rounded = matches!(written, Err(StatementError::Number(_)));
    if !is_rounded && !matches!(statement.predicate, Predicate::Other { .. }) {
        assert!(again.is_some_and(|again| again == statement), "{statement:?} is not read as it was written");
    }
    true
}

/// A node's policy.
#[must_use]
pub fn policy(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| Policy::parse(text).is_ok())
}

/// A package's name: what is canonical stays so.
#[must_use]
pub fn purl(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(coordinates) = coordinates(text) else { return false };
    let bare = coordinates.strip_suffix('@').unwrap_or(&coordinates);
    assert!(pattern(bare).is_ok_and(|same| same == bare), "{bare:?} was canonical and is no longer");
    true
}

#[cfg(test)]
mod tests {
    /// Every seed is run; one whose name begins with `valid` has to be accepted.
    #[expect(clippy::disallowed_methods, reason = "the seeds are files")]
    #[test]
    fn seeds_are_read() {
        type Target = (&'static str, fn(&[u8]) -> bool);
        let targets: [Target; 4] = [
            ("bundle", super::bundle),
            ("statement", super::statement),
            ("policy", super::policy),
            ("purl", super::purl),
        ];
        for (name, target) in targets {
            let folder = format!("{}/../fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut accepted = 0;
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                let is_accepted = target(&std::fs::read(&path).unwrap());
                let is_valid = path.file_name().unwrap().to_string_lossy().starts_with("valid");
                assert!(is_accepted || !is_valid, "{} is refused", path.display());
                accepted += usize::from(is_accepted);
            }
            assert!(accepted > 0, "no seed of {name} is accepted");
        }
    }
}
