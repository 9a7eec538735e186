//! Finds secrets in byte streams of any length, with memory that depends on the secrets alone.

mod forms;
mod redact;

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use zeroize::Zeroizing;

pub use redact::Redactor;

/// The bytes of a form that are looked up first; no form is shorter.
const KEY: usize = 8;
/// The bits of a table that rules out most positions without a lookup.
const SIEVE: usize = 1 << 16;
/// The bytes of a stream that are read at once.
const BLOCK: usize = 1 << 16;

/// The patterns of a set of secrets.
#[derive(Default)]
pub struct SecretPatterns {
    forms: Vec<Form>,
    by_key: HashMap<u64, Vec<usize>>,
    sieve: Vec<u64>,
    longest: usize,
}

struct Form {
    id: Arc<str>,
    bytes: Zeroizing<Vec<u8>>,
}

/// An occurrence of a secret.
pub struct Hit<'a> {
    pub id: &'a str,
    pub start: usize,
    pub end: usize,
}

impl SecretPatterns {
    /// The patterns of these secrets, each with its id.
    pub fn of<'a>(secrets: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut all = Self::default();
        for (id, secret) in secrets {
            let id: Arc<str> = id.into();
            for bytes in forms::of(secret) {
                all.add(Form { id: id.clone(), bytes });
            }
        }
        all
    }

    fn add(&mut self, form: Form) {
        let Some(key) = form.bytes.first_chunk::<KEY>().map(|bytes| u64::from_be_bytes(*bytes)) else {
            return;
        };
        if self.sieve.is_empty() {
            self.sieve = vec![0; SIEVE / 64];
        }
        let bit = sieve_bit(key);
        self.sieve[bit / 64] |= 1 << (bit % 64);
        self.longest = self.longest.max(form.bytes.len());
        self.by_key.entry(key).or_default().push(self.forms.len());
        self.forms.push(form);
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// The id of a secret that `bytes` contain.
    pub fn find(&self, bytes: &[u8]) -> Option<&str> {
        self.first(bytes, 0).map(|hit| hit.id)
    }

    /// The first occurrence that begins at `from` or later; of several at one position, the longest.
    pub fn first(&self, bytes: &[u8], from: usize) -> Option<Hit<'_>> {
        if self.is_empty() {
            return None;
        }
        let mut window = 0_u64;
        for (at, byte) in bytes.iter().enumerate().skip(from) {
            window = window << 8 | u64::from(*byte);
            if at + 1 < from + KEY {
                continue;
            }
            let bit = sieve_bit(window);
            if self.sieve[bit / 64] >> (bit % 64) & 1 == 0 {
                continue;
            }
            let start = at + 1 - KEY;
            let here = self.by_key.get(&window).map(Vec::as_slice).unwrap_or_default();
            let fitting = here
                .iter()
                .map(|form| &self.forms[*form])
                .filter(|form| bytes[start..].starts_with(&form.bytes));
            if let Some(form) = fitting.max_by_key(|form| form.bytes.len()) {
                return Some(Hit { id: &form.id, start, end: start + form.bytes.len() });
            }
        }
        None
    }

    /// How many of the last bytes could be the beginning of an occurrence.
    pub fn beginning(&self, bytes: &[u8]) -> usize {
        let most = |form: &Form| {
            let longest = form.bytes.len().saturating_sub(1).min(bytes.len());
            (1..=longest)
                .rev()
                .find(|count| bytes[bytes.len() - count..] == form.bytes[..*count])
                .unwrap_or(0)
        };
        self.forms.iter().map(most).max().unwrap_or(0)
    }

    /// Whether `bytes` are a proper prefix of a form.
    pub fn goes_on(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| form.bytes.len() > bytes.len() && form.bytes.starts_with(bytes))
    }

    /// Reads to the end, and returns the id of a secret that the content contains.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find_in(self: &Arc<Self>, mut from: impl Read) -> io::Result<Option<String>> {
        let mut search = PatternSearch::new(self);
        let mut block = vec![0; BLOCK];
        loop {
            let count = match from.read(&mut block) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(id) = search.take(&block[..count]) {
                return Ok(Some(id));
            }
        }
    }
}

impl std::fmt::Debug for SecretPatterns {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SecretPatterns({})", self.forms.len())
    }
}

fn sieve_bit(key: u64) -> usize {
    // The multiplication spreads all bits of the key over the upper ones.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

/// A search in a stream that arrives in pieces. Occurrences across pieces are found too.
pub struct PatternSearch {
    needles: Arc<SecretPatterns>,
    /// The end of the stream so far, one byte shorter than the longest form.
    held: Vec<u8>,
}

impl PatternSearch {
    /// A search from the beginning of a stream.
    pub fn new(needles: &Arc<SecretPatterns>) -> Self {
        Self { needles: needles.clone(), held: Vec::new() }
    }

    /// Adds bytes; returns the id of a secret that the stream contains so far.
    pub fn take(&mut self, bytes: &[u8]) -> Option<String> {
        if self.needles.is_empty() {
            return None;
        }
        let keep = self.needles.longest - 1;
        // Only the bytes around the border are searched twice.
        let over = bytes.len().min(keep);
        let border = [self.held.as_slice(), &bytes[..over]].concat();
        let found = self.needles.find(&border).or_else(|| self.needles.find(bytes)).map(str::to_owned);
        self.held = match bytes.len() >= keep {
            true => bytes[bytes.len() - keep..].to_vec(),
            false => border[border.len().saturating_sub(keep)..].to_vec(),
        };
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn needles(secrets: &[(&str, &str)]) -> Arc<SecretPatterns> {
        Arc::new(SecretPatterns::of(secrets.iter().map(|(id, text)| (*id, text.as_bytes()))))
    }

    #[test]
    fn a_secret_is_found_wherever_the_pieces_end() {
        let needles = needles(&[("a", "hunter2-and-more"), ("b", "another one, with spaces\n")]);
        let text = [vec![b'x'; 3000], b"another one, with spaces".to_vec(), vec![b'y'; 3000]].concat();
        for size in [1, 2, 7, 8, 9, 23, 24, 25, 1000, 3010, 10_000] {
            let mut search = PatternSearch::new(&needles);
            let found = text.chunks(size).find_map(|piece| search.take(piece));
            assert_eq!(found.as_deref(), Some("b"), "{size}");
        }
        assert_eq!(needles.find_in(&text[..]).unwrap().as_deref(), Some("b"));
        let mut almost = text;
        almost[3010] ^= 1;
        assert_eq!(needles.find_in(&almost[..]).unwrap(), None);
        assert_eq!(needles.find(b"hunter2-and-mor"), None);
        assert_eq!(needles.find(b"hunter2-hunter2-and-more"), Some("a"));
        assert_eq!(needles.find(b"/x?token=aHVudGVyMi1hbmQtbW9yZQ=="), Some("a"));
        assert_eq!(needles.find(b"another%20one%2C%20with%20spaces"), Some("b"));
    }

    #[test]
    fn nothing_is_found_without_secrets() {
        let needles = Arc::new(SecretPatterns::default());
        assert_eq!((needles.find(b"12345678"), PatternSearch::new(&needles).take(b"12345678")), (None, None));
    }
}
