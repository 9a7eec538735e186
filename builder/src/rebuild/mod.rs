//! Repeating a build and comparing.

pub mod cli;
pub mod diff;
