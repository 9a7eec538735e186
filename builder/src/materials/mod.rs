//! What entered a build over the network: kept by digest, replayed, and sent along with the image.
//!
//! A recording build writes every answer's body into a content-addressed store while it passes, and at its end one
//! [`Record`] that says which request got which answer, in which order. The record's digest stands in the signed
//! provenance. A replaying build reaches nothing but the store: a request that the record does not hold is answered
//! with an error, and fails the build.
//!
//! The format is written down in `docs/materials.md`.

pub(crate) mod archive;
mod keep;
pub(crate) mod record;
mod replay;
pub(crate) mod request;
pub(crate) mod travel;

pub(crate) use archive::import;
pub(crate) use keep::{Keeper, Sink};
pub(crate) use record::bytes_of;
pub(crate) use record::{Exchange, Failure, Record, Request, Response, Step};
pub(crate) use replay::{Answer, Miss, Replay};
pub(crate) use request::{Asked, listed, selecting};
pub(crate) use travel::{Materials, Place};
