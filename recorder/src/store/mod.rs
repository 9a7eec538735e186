//! Recorded responses: stored by digest, replayed, and attached to the image.
//!
//! While a build is recorded, every response body is written into a content-addressed store. At its end one
//! [`Record`] lists which request got which response, in order. The signed provenance has the record's digest. A
//! replay reads only the store: a request that the record does not have is answered with an error, and the build
//! fails.
//!
//! The format is specified in `docs/materials.md`.

pub mod archive;
mod record;
mod replay;
mod request;
mod responses;
mod writer;

pub use record::{Exchange, Failure, Record, RecordedRequest, Response, StepExchanges, bytes_of};
pub use replay::Replay;
pub(crate) use replay::{Answer, Miss};
pub(crate) use request::{StepRequest, listed, selecting, without_credentials};
pub use request::{is_signed, is_withheld};
pub use responses::{KeptResponses, PrivateResponses, Remote, ResponseStore};
pub(crate) use writer::BodyWriter;
pub use writer::StoreWriter;
