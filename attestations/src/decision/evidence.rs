//! Evidence by who signed it: the key that a bundle claims is tried first, and every other key of the policy after it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use super::cache::{Cache, CachedRead};
use super::remembered::{About, No};
use super::{Evidence, Reason};
use crate::bundle::{Bundle, BundleError, Payload, Verified, is_loosely_signed};
use crate::digest::Digest;
use crate::keys::KeyId;
use crate::policy::{HeldKey, Policy};
use crate::provenance::{Provenance, RebuildVerdict, Responses};
use crate::review::{Scope, Verdict};
use crate::statement::{Predicate, Statement, Subject};

/// One bundle, its signature checked: whose it is, and what it says. Neither depends on what is asked, so it is found out once.
pub(super) struct Checked<'a> {
    pub(super) origin: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) found: Result<Signed<'a>, Reason>,
}

/// What somebody of the policy signed.
pub(super) struct Signed<'a> {
    pub(super) holder: Holder<'a>,
    pub(super) key: &'a HeldKey,
    pub(super) read: Arc<Read>,
}

/// A signed bundle as far as it can be read.
pub(super) struct Read {
    /// None where it is of a form that is not read here.
    bundle: Option<Bundle>,
    /// What it says; where nobody here can read it, why not.
    pub(super) said: Result<Verified<Statement>, BundleError>,
    /// Found out where something depends on them.
    digests: OnceLock<(Digest, Digest)>,
}

impl Read {
    fn new(bundle: Option<Bundle>, said: Result<Verified<Statement>, BundleError>) -> Arc<Self> {
        Arc::new(Self { bundle, said, digests: OnceLock::new() })
    }

    /// The digests of the bundle and of the signed bytes; none for what cannot be read.
    pub(super) fn digests(&self) -> Option<(Digest, Digest)> {
        let bundle = self.bundle.as_ref()?;
        Some(*self.digests.get_or_init(|| (bundle.digest(), bundle.statement_digest())))
    }

    /// The digest of the signed bytes.
    pub(super) fn statement(&self) -> Option<Digest> {
        self.digests().map(|(_, statement)| statement)
    }
}

/// Checks each signature, and reads what was signed; what `cache` knows is not checked again.
pub(super) fn check<'a>(
    policy: &'a Policy,
    evidence: &'a [Evidence],
    cache: Option<&Cache>,
) -> Vec<Checked<'a>> {
    let holders = Holders::of(policy);
    let digest = policy.digest();
    let found = |one: &Evidence| {
        let (place, read) = match cache {
            Some(cache) => cache.get(digest, &one.bytes, || holders.read(&one.bytes)),
            None => holders.read(&one.bytes),
        }?;
        let (_, key, holder) = holders.0.get(place).ok_or(Reason::UnknownKey)?;
        Ok(Signed { holder: *holder, key, read })
    };
    evidence.iter().map(|one| Checked { origin: &one.origin, bytes: &one.bytes, found: found(one) }).collect()
}

/// Whether somebody of the policy signed this bundle: only then is it worth keeping.
pub fn is_signed(policy: &Policy, bundle: &[u8]) -> bool {
    Bundle::parse_evidence(bundle).is_ok_and(|bundle| Holders::of(policy).signed(&bundle).is_some())
}

impl<'a> Checked<'a> {
    fn said(&self) -> Option<(Holder<'a>, &Statement)> {
        let signed = self.found.as_ref().ok()?;
        Some((signed.holder, signed.read.said.as_ref().ok()?.value()))
    }

    /// All that a no would have to be about to bear on this.
    pub(super) fn about(&self) -> BTreeSet<About> {
        let Some((_, statement)) = self.said() else { return BTreeSet::new() };
        let named = self.found.as_ref().ok().filter(|_| stands_alone(statement));
        let own = named.and_then(|signed| signed.read.statement());
        match &statement.predicate {
            Predicate::Review(review) => {
                let commits = statement.subject.iter().filter_map(Subject::git_commit);
                let (since, since_tree) = match &review.scope {
                    Scope::Changes { since, since_tree } => (Some(since.clone()), Some(since_tree.clone())),
                    Scope::Tree => (None, None),
                };
                let commits = commits.chain(since).map(About::Commit);
                let trees = since_tree.into_iter().chain([review.tree.clone()]).map(About::Tree);
                commits.chain(trees).chain(own.map(About::Statement)).collect()
            }
            Predicate::Provenance(provenance) => {
                let commit = provenance.build_definition.external_parameters.commit.clone();
                let trees = provenance.build_definition.resolved_dependencies.iter();
                let trees = trees.filter_map(|it| it.digest.get("gitTree")?.parse().ok());
                let own = own.map(About::Statement);
                trees.map(About::Tree).chain([About::Commit(commit)]).chain(own).collect()
            }
            Predicate::Incomplete(_)
            | Predicate::Withdrawal(_)
            | Predicate::Run(_)
            | Predicate::PolicyRelease(_)
            | Predicate::Other { .. } => BTreeSet::new(),
        }
    }

    /// The no in it, if it is one; or the withdrawal of one.
    pub(super) fn no(&self) -> Option<No<'a>> {
        let (holder, statement) = self.said()?;
        let about = match (holder, &statement.predicate) {
            (Holder::Person(_), Predicate::Review(review)) if review.verdict == Verdict::Rejected => {
                self.about()
            }
            (Holder::Builder(_), Predicate::Provenance(it)) => {
                [About::Image(denied_image(it, statement)?)].into()
            }
            (_, Predicate::Withdrawal(_)) => withdrawn(statement).map(About::Statement).into_iter().collect(),
            _ => return None,
        };
        let statement = self.found.as_ref().ok()?.read.statement()?;
        let about = about.into_iter().filter(|it| *it != About::Statement(statement)).collect();
        Some(No { bundle: self.bytes, statement, about })
    }
}

/// Whether it is of a kind that is remembered by the digest of its statement.
fn stands_alone(statement: &Statement) -> bool {
    match &statement.predicate {
        Predicate::Review(review) => review.verdict == Verdict::Rejected,
        Predicate::Provenance(it) => denied_image(it, statement).is_some(),
        Predicate::Withdrawal(_) => true,
        Predicate::Incomplete(_)
        | Predicate::Run(_)
        | Predicate::PolicyRelease(_)
        | Predicate::Other { .. } => false,
    }
}

/// The image that this provenance speaks against, if it does.
pub(super) fn denied_image(provenance: &Provenance, statement: &Statement) -> Option<Digest> {
    let internal = &provenance.build_definition.internal_parameters;
    if let Some(of) = internal.rebuild_of.as_ref().filter(|of| of.verdict == RebuildVerdict::Differs) {
        return Some(of.subject);
    }
    match &internal.responses {
        Responses::Confirmed(found) if !found.differs.is_empty() => statement.subject.first()?.sha256(),
        _ => None,
    }
}

/// The statement that a withdrawal takes back.
pub(super) fn withdrawn(statement: &Statement) -> Option<Digest> {
    let [subject] = statement.subject.as_slice() else { return None };
    subject.sha256()
}

/// Whose key it is. The policy gives one key to one holder.
#[derive(Clone, Copy)]
pub(super) enum Holder<'a> {
    Person(&'a str),
    Builder(&'a str),
}

impl<'a> Holder<'a> {
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Person(name) | Self::Builder(name) => name,
        }
    }
}

impl Signed<'_> {
    /// Why this signer's yes of that time is not believed; nothing when it is. A no always is.
    pub(super) fn disbelieved(&self, policy: &Policy, time: Timestamp) -> Option<Reason> {
        if let Some(from) = policy.key_revoked(&self.key.key, time) {
            return Some(Reason::KeyRevoked { from: (from != Timestamp::MIN).then_some(from) });
        }
        if !self.key.valid.covers(time) {
            return Some(Reason::KeyNotValid { at: time });
        }
        if policy.revoked.is_empty() {
            return None;
        }
        let statement = self.read.statement().filter(|digest| policy.revoked.contains(digest));
        statement.map(|digest| Reason::StatementRevoked { digest })
    }
}

/// Every key of a policy with its holder.
struct Holders<'a>(Vec<(KeyId, &'a HeldKey, Holder<'a>)>);

impl<'a> Holders<'a> {
    fn of(policy: &'a Policy) -> Self {
        let people = policy.people.iter().map(|(name, it)| (Holder::Person(name), &it.keys));
        let builders = policy.builders.iter().map(|(name, it)| (Holder::Builder(name), &it.keys));
        let keys =
            people.chain(builders).flat_map(|(holder, keys)| keys.iter().map(move |key| (holder, key)));
        Self(keys.map(|(holder, key)| (key.key.id(), key, holder)).collect())
    }

    /// Whose key signed a bundle, by its place among these, and what it says.
    fn read(&self, bytes: &[u8]) -> CachedRead {
        match Bundle::parse_evidence(bytes) {
            Ok(bundle) => {
                let (place, payload) = self.signed(&bundle).ok_or(Reason::UnknownKey)?;
                match payload.statement() {
                    // Somebody else's kind of statement, in a form that is not known here: no word on what is decided.
                    Err(error) if !bundle.may_be_ours() => Err(error.into()),
                    said => Ok((place, Read::new(Some(bundle), said))),
                }
            }
            // It may be a no in a form that is not known here: that is never the same as silence.
            Err(error) => match self.loosely_signed(bytes) {
                Some(place) => Ok((place, Read::new(None, Err(error)))),
                None => Err(error.into()),
            },
        }
    }

    /// Who signed it. The bundle's hint says which key is tried first, and nothing else: every key is tried.
    fn signed<'b>(&self, bundle: &'b Bundle) -> Option<(usize, Verified<Payload<'b>>)> {
        let hinted =
            |(_, (id, ..)): &(usize, &(KeyId, &HeldKey, Holder<'_>))| bundle.hint() == Some(id.as_str());
        let (first, rest): (Vec<_>, Vec<_>) = self.0.iter().enumerate().partition(hinted);
        first
            .into_iter()
            .chain(rest)
            .find_map(|(place, (_, held, _))| Some((place, bundle.verify(&held.key).ok()?)))
    }

    /// Who signed a statement of ours in a bundle that is not of the form that is read here.
    fn loosely_signed(&self, bundle: &[u8]) -> Option<usize> {
        let keys: Vec<_> = self.0.iter().map(|(_, held, _)| &held.key).collect();
        is_loosely_signed(bundle, &keys)
    }
}
