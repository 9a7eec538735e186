//! Repeating a build from its provenance, and comparing images.

pub mod cli;
pub mod diff;
mod evidence;
mod inputs;
