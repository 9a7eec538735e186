//! What the fuzz targets in `fuzz/` call: one function for each parser of foreign bytes. Each returns whether the bytes
//! were accepted, and panics when what was accepted does not hold together. Part of no public interface.

use std::sync::Arc;

use hickory_proto::op::Message;

use crate::serve::dns::Responder;
use crate::serve::names::{Block, NameTable};
use crate::step::StepRecorder;
use crate::{Record, StepId};

/// A datagram for the planted DNS responder: whatever it answers is well formed.
#[must_use]
pub fn dns(bytes: &[u8]) -> bool {
    let names = Arc::new(NameTable::new(Block::CAPTURE));
    let recorder = Arc::new(StepRecorder::new(&StepId::new("a step", 1), 10, &Arc::default()));
    let Some(answer) = (Responder { names, recorder }).answer(bytes) else { return false };
    let read = Message::from_vec(&answer);
    assert!(read.is_ok_and(|read| Some(&read.metadata.id.to_be_bytes()[..]) == bytes.get(..2)));
    true
}

/// The record of a build's network responses: the same when it is written and read again.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    let Ok(record) = Record::parse(bytes) else { return false };
    let again = record.to_bytes().and_then(|written| Record::parse(&written));
    assert!(again.is_ok_and(|again| again == record), "another record is written than was read");
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_are_read() {
        testing::files::run_seeds("dns", super::dns);
        testing::files::run_seeds("record", super::record);
    }
}
