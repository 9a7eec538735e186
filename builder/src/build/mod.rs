//! The build.

pub mod cli;
