//! A few of many findings, as they may be told to people.

use std::collections::BTreeSet;
use std::fmt;

use crate::foreign::Foreign;

/// The most that are told.
const MOST: usize = 8;

/// The first of what was found, and how many more there are. A build can name thousands of things, and strangers chose
/// their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few {
    first: Vec<Foreign>,
    more: usize,
}

impl Few {
    pub(crate) fn of(all: &BTreeSet<String>) -> Self {
        let first = all.iter().take(MOST).map(|text| Foreign::new(text)).collect();
        Self { first, more: all.len().saturating_sub(MOST) }
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.first.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            one.fmt(f)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
