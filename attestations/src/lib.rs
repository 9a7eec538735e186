//! What both programs share: digests, references, keys, statements, envelopes, policy and decision.
//!
//! Pure: bytes in, values out. `now` is an argument; there are no files, sockets, clocks, randomness or async.

pub mod bundle;
pub mod call;
mod clock;
pub mod decision;
pub mod digest;
pub mod federation;
pub mod foreign;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod incomplete;
pub mod keys;
pub mod policy;
pub mod policy_release;
pub mod provenance;
pub mod purl;
pub mod reference;
pub mod review;
pub mod run;
pub mod sigstore;
pub mod statement;
pub mod summary;
mod through_text;
pub mod withdrawal;

pub use bundle::{BUNDLE_MEDIA_TYPE, Bundle, BundleError, SignedBundle, Unverified, Verified, sign};
pub use call::{Call, Caller};
pub use decision::count as reviews;
pub use decision::{
    About, Admitted, Asked, Cache, Case, Counted, Decision, Denial, Evidence, Gathered, GoneEvidence,
    Ignored, Level, No, Noticed, Older, Question, Reason, Remembered, Seen, Unmet, UnusedEvidence, Weighed,
    Weight, decide, noes,
};
pub use digest::{Commit, Digest, GitId, Tree};
pub use foreign::Foreign;
pub use keys::{Algorithm, KeyError, KeyId, PublicKey, SignError, Signer};
pub use policy::{AllowedRequests, Finding, Issuer, Policy, PolicyError, Privileges, Severity};
pub use policy_release::FederationName;
pub use reference::{Pinned, Reference, ReferenceError, Repository};
pub use statement::{Predicate, Statement, StatementError, Subject};
