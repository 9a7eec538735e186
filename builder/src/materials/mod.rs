//! What entered a build over the network: kept by digest, replayed, and sent along with the image.
//!
//! A recording build writes every answer's body into a content-addressed store while it passes, and at its end one
//! [`Record`] that says which request got which answer, in which order. The record's digest stands in the signed
//! provenance. A replaying build reaches nothing but the store: a request that the record does not hold is answered
//! with an error, and fails the build.
//!
//! The format is written down in `docs/materials.md`.

mod archive;
pub mod cli;
mod confirm;
mod keep;
mod record;
mod replay;
mod request;
mod travel;

pub use archive::{export, import};
pub use keep::{Keeper, Sink};
pub(crate) use record::bytes_of;
pub use record::{Exchange, Failure, RECORD_MEDIA_TYPE, Record, Request, Response, Step};
pub use replay::{Answer, Miss, Replay};
pub use request::{Asked, listed, selecting};
pub use travel::{MATERIALS_TYPE, Materials, Place};
