//! A byte budget that several concurrent requests share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A limit for the total bytes of several requests.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    taken: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, taken: AtomicU64::new(0) }
    }

    /// Takes bytes from the budget.
    ///
    /// # Errors
    /// When fewer are left. They are taken nevertheless, so that [`Budget::exceeded`] includes them.
    pub fn take(&self, bytes: u64) -> Result<()> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        match before.saturating_add(bytes) > self.limit {
            true => Err(Error::TooLarge { what: "the sum of the evidence".to_owned(), limit: self.limit }),
            false => Ok(()),
        }
    }

    /// The least number of bytes needed, if that is more than the budget.
    pub fn exceeded(&self) -> Option<u64> {
        Some(self.taken.load(Ordering::Relaxed)).filter(|taken| *taken > self.limit)
    }

    /// The total of the budget.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sum_is_bounded_and_what_exceeds_it_is_counted() {
        let budget = Budget::new(10);
        budget.take(4).unwrap();
        budget.take(6).unwrap();
        assert_eq!(budget.exceeded(), None);
        let error = budget.take(5).unwrap_err();
        assert!(error.to_string().contains("10"), "{error}");
        assert_eq!(budget.exceeded(), Some(15));
        assert!(budget.take(0).is_err(), "it stays exceeded");
    }
}
