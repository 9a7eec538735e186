//! What both programs share: digests, references, keys, statements, envelopes, policy and decision.
//!
//! Pure: bytes in, values out. `now` is an argument; there are no files, sockets, clocks, randomness or async.

pub mod digest;
pub mod reference;

pub use digest::{Commit, Digest, GitId, Tree};
pub use reference::{Pinned, Reference, Repository};
