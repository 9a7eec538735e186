//! Module keys.

pub mod cli;
