//! A few of many findings, as they may be told to people.

use std::collections::BTreeSet;
use std::fmt;

/// The most that are told.
const MOST: usize = 8;
/// The most characters of each.
const LONGEST: usize = 240;

/// The first of what was found, and how many more there are. A build can name thousands of things, and strangers chose
/// their names: what cannot be printed is escaped, and what is long is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few {
    first: Vec<String>,
    more: usize,
}

impl Few {
    pub(super) fn of(all: &BTreeSet<String>) -> Self {
        let first = all.iter().take(MOST).map(|text| told(text)).collect();
        Self { first, more: all.len().saturating_sub(MOST) }
    }

    /// One finding, as it may be told.
    pub(super) fn one(text: &str) -> Self {
        Self { first: vec![told(text)], more: 0 }
    }
}

/// A text as it may stand on a terminal: whatever could move the cursor or turn the line round is escaped.
fn told(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST {
            out.push('…');
            break;
        }
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
