//! The statements that a yes stands on, and whether the policy still lets it stand.

use jiff::Timestamp;
use serde::Serialize;

use super::Admitted;
use super::evidence::Checked;
use crate::digest::Digest;
use crate::keys::PublicKey;
use crate::policy::Policy;
use crate::statement::Predicate;

/// One statement that counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// The digest of its bundle.
    pub bundle: Digest,
    /// The digest of the signed bytes.
    pub statement: Digest,
    /// Who of the policy signed it.
    pub by: String,
    /// When it was made, by its own words.
    pub at: Timestamp,
    #[serde(skip)]
    key: PublicKey,
}

impl Counted {
    /// The statement in this bundle; nothing where it is none that can count.
    pub(super) fn of(one: &Checked<'_>) -> Option<Self> {
        let signed = one.found.as_ref().ok()?;
        let at = match &signed.read.said.as_ref().ok()?.value().predicate {
            Predicate::Review(review) => review.reviewed_on,
            Predicate::Provenance(provenance) => provenance.run_details.metadata.finished_on,
            _ => return None,
        };
        let (bundle, statement) = signed.read.digests()?;
        Some(Self { bundle, statement, by: signed.holder.name().to_owned(), at, key: signed.key.key.clone() })
    }
}

impl Policy {
    /// Why an image that was admitted must not run on, by what this policy revokes now; nothing while it may. Whether it would
    /// be admitted anew is another question, which is asked before the next start. Of an image that two policies admitted,
    /// each answers for its own yes.
    pub fn revokes(&self, admitted: &Admitted) -> Option<String> {
        let own = admitted.each().filter(|it| it.issuer().is_same_body(self.issuer()));
        own.into_iter().find_map(|it| self.revokes_own(it))
    }

    fn revokes_own(&self, admitted: &Admitted) -> Option<String> {
        let images = admitted.bases().iter().map(|base| base.digest);
        let images = images.chain([*admitted.pinned().digest(), *admitted.config_digest()]);
        if let Some(digest) = images.into_iter().find(|digest| self.revoked.contains(digest)) {
            return Some(format!("the policy revokes {digest}"));
        }
        let of_bases = admitted.bases().iter().flat_map(|base| &base.counted);
        admitted.counted().iter().chain(of_bases).find_map(|one| self.revokes_statement(one))
    }

    fn revokes_statement(&self, one: &Counted) -> Option<String> {
        let Counted { statement, by, at, key, .. } = one;
        if self.revoked.contains(statement) {
            return Some(format!("the policy revokes the statement {statement} of {by}"));
        }
        self.key_revoked(key, *at).map(|_| format!("the policy revokes the key by which {by} signed on {at}"))
    }
}
