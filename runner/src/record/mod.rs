//! What is written down of what a node did: a report of each run for whoever asked for it, and an entry in a log that nobody
//! can quietly change for each denial, start, end, release and erasure. See `docs/log.md`.

mod book;
mod egress;
mod key;
mod output;
mod proof;
mod report;
mod witness;
mod witnesses;

pub use book::{Book, Entries, RecordedTask};
pub(crate) use book::{Over, Starting, image, named, new_salt, refuse_lost_memory, verifier};
pub(crate) use key::open as key;
pub use output::TaskOutput;
pub(crate) use proof::{Enclosed, proof};
pub use report::RunReport;
pub(crate) use report::{denied, verdict};
pub(crate) use witness::Cosigner;

pub use crate::engine::Ending;
