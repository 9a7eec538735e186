//! Module review.

pub mod cli;
