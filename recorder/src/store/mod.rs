//! What entered a build over the network: kept by digest, replayed, and sent along with the image.
//!
//! A recording build writes every answer's body into a content-addressed store while it passes, and at its end one
//! [`Record`] that says which request got which answer, in which order. The record's digest stands in the signed
//! provenance. A replaying build reaches nothing but the store: a request that the record does not hold is answered
//! with an error, and fails the build.
//!
//! The format is written down in `docs/materials.md`.

pub mod archive;
mod record;
mod replay;
mod request;
mod responses;
mod writer;

pub use record::{Exchange, Failure, Record, Request, Response, StepExchanges, bytes_of};
pub use replay::Replay;
pub(crate) use replay::{Answer, Miss};
pub(crate) use request::{Asked, listed, selecting, without_credentials};
pub use request::{is_signed, is_withheld};
pub use responses::{KeptResponses, PrivateResponses, Remote, ResponseStore};
pub(crate) use writer::BodyWriter;
pub use writer::StoreWriter;
