//! Removes secrets from text that people read.

use std::sync::Arc;

use super::SecretPatterns;

/// The replacement for a secret.
const INSTEAD: &[u8] = b"***";

/// A stream with secrets removed. Bytes that may begin a secret are held back until more follow.
pub struct Redactor {
    needles: Arc<SecretPatterns>,
    held: Vec<u8>,
}

/// Whether more may follow what is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    GoesOn,
    Ended,
}

impl Redactor {
    /// A redactor at the beginning of a stream.
    pub fn new(needles: &Arc<SecretPatterns>) -> Self {
        Self { needles: needles.clone(), held: Vec::new() }
    }

    /// Adds bytes, and returns those that can be shown.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let (mut shown, rest) = self.replaced(Stream::GoesOn);
        let unclear = self.needles.beginning(&self.held[rest..]);
        let clear = self.held.len() - unclear;
        shown.extend_from_slice(&self.held[rest..clear]);
        self.held.drain(..clear);
        shown
    }

    /// The bytes held back at the end of the stream.
    pub fn finish(self) -> Vec<u8> {
        let (mut shown, rest) = self.replaced(Stream::Ended);
        shown.extend_from_slice(&self.held[rest..]);
        shown
    }

    /// Everything up to the end of the last complete secret, redacted, and its length in the input. An incomplete one
    /// is left for later.
    fn replaced(&self, stream: Stream) -> (Vec<u8>, usize) {
        let (mut shown, mut at) = (Vec::new(), 0);
        while let Some(hit) = self.needles.first(&self.held, at) {
            shown.extend_from_slice(&self.held[at..hit.start]);
            if stream == Stream::GoesOn && self.needles.goes_on(&self.held[hit.start..]) {
                return (shown, hit.start);
            }
            shown.extend_from_slice(INSTEAD);
            at = hit.end;
        }
        (shown, at)
    }
}

impl SecretPatterns {
    /// A text with the secrets removed.
    pub fn redacted(self: &Arc<Self>, text: &str) -> String {
        if self.find(text.as_bytes()).is_none() {
            return text.to_owned();
        }
        let mut redactor = Redactor::new(self);
        let mut shown = redactor.take(text.as_bytes());
        shown.extend(redactor.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_wherever_the_pieces_end() {
        let secrets = [("a", &b"hunter2-and-more"[..]), ("b", b"line one\nline two\n")];
        let needles = Arc::new(SecretPatterns::of(secrets.into_iter()));
        let text = "hunter2-and-more, hunter2-and-mor, line one\nline two.\nhunter2-and-";
        for size in [1, 3, 8, 16, 100] {
            let mut redactor = Redactor::new(&needles);
            let mut shown: Vec<u8> =
                text.as_bytes().chunks(size).flat_map(|piece| redactor.take(piece)).collect();
            shown.extend(redactor.finish());
            let shown = String::from_utf8(shown).unwrap_or_default();
            assert_eq!(shown, "***, hunter2-and-mor, ***.\nhunter2-and-", "{size}");
        }
        let mut redactor = Redactor::new(&needles);
        assert_eq!(
            redactor.take(b"compiling x\n"),
            b"compiling x\n",
            "what begins no secret is shown at once"
        );
        assert_eq!(needles.redacted("say hunter2-and-more"), "say ***");
    }
}
