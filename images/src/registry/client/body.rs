//! Request bodies.

use bytes::Bytes;
use futures_util::stream;

use super::traffic::{Observer, Traffic, saw};
use crate::descriptor::Descriptor;
use crate::error::Result;
use crate::store::Store;

const CHUNK: usize = 1 << 20;

/// The body of a request.
pub(in crate::registry) enum Body {
    None,
    Bytes(String, Vec<u8>),
    Blob(Store, Descriptor),
}

/// A blob of a store as a request body, verified while it is read, and reported to the observer.
pub(super) fn stream_of(
    store: &Store,
    blob: &Descriptor,
    observer: Option<Observer>,
) -> Result<reqwest::Body> {
    let reader = store.open_blob(blob)?;
    let chunks = stream::unfold(Some((reader, observer)), |open| async move {
        let (mut reader, observer) = open?;
        // Small enough to read synchronously: a mebibyte from the page cache or the disk.
        match read_chunk(&mut reader) {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => {
                saw(observer.as_ref(), Traffic::Moved(chunk.len() as u64));
                Some((Ok(Bytes::from(chunk)), Some((reader, observer))))
            }
            Err(cause) => Some((Err(cause), None)),
        }
    });
    Ok(reqwest::Body::wrap_stream(chunks))
}

fn read_chunk(reader: &mut impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK];
    let mut filled = 0;
    while filled < CHUNK {
        match reader.read(&mut chunk[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}
