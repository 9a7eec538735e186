//! A transparency log that one program appends to and everybody can check: entries in a Merkle tree (RFC 6962), kept as tiles
//! in files, with a signed checkpoint that covers them all.
//!
//! The formats are those of C2SP: `signed-note`, `tlog-checkpoint`, `tlog-tiles`, `tlog-proof`, `tlog-cosignature` (Ed25519
//! only), `tlog-witness` and `tlog-policy`. Everything but [`store`] is pure: bytes in, values out, and the time is an
//! argument. Deliberately absent: pruning, subtrees, ML-DSA.

pub mod checkpoint;
pub mod cosignature;
mod error;
pub mod layout;
pub mod merkle;
pub mod note;
pub mod policy;
pub mod proof;
pub mod store;
pub mod witness;

pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use error::{Error, Result};
pub use merkle::{Hash, MAX_SIZE, leaf_hash};
pub use note::{Note, Purpose, VerifierKey};
pub use policy::Policy;
pub use proof::Proof;
pub use store::{Appended, Log, Reader};
